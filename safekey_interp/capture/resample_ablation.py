"""Resample ablation of a span in attention: chosen queries see another trace's keys and values in a span's place.

Resample ablation (Chan et al. 2022, "Causal scrubbing") replaces the input of a component by its input on another
trace: values that the model computes, where a hidden span (:mod:`~safekey_interp.capture.attention_mask`) is a change
that it never met in training. In the chosen layers and heads, the queries of K see, in place of the span's own keys and
values, those that the same layer computes for the same span of another trace. All other queries see their own.

The donor's span is matched with the target's token by token from the end. The donor's whole trace is read with its
positions shifted, so that each of its keys carries the position of the token whose place it takes (once for each
distance between the two, where a span is in several pieces); attention that knows distances alone (rotary positions)
computes the same states at every shift, which is checked once for each model. Tokens
of the target's span that are left over where the donor's is shorter are hidden: nothing of the target's own span is
seen. In a windowed layer a donor's key is in sight where the key whose place it takes is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.architecture import evaluating, find_layout, rope_kind
from safekey_interp.capture.attention_hook import Keys, observed_attention
from safekey_interp.capture.attention_mask import causal_or, chosen_queries, without
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model

SpanKeys = dict[int, tuple[Float[Tensor, "kv_head key d_head"], Float[Tensor, "kv_head key d_head"]]]
"""Keys and values of a span, by layer."""
_LENGTH, _SHIFT = 12, 5
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_COARSE = 5e-2
_relative: WeakSet[Model] = WeakSet()


@dataclass(frozen=True, kw_only=True)
class Swap:
    """What one row of a batch sees in place of a span."""

    queries: tuple[int, ...]
    """Positions that see the other keys; an empty one changes nothing."""
    keys: tuple[int, ...]
    """Positions of the span, ascending."""
    given: SpanKeys
    """Keys and values in the place of its last tokens; the others are hidden."""
    layers: frozenset[int]
    """Layers in which it does."""
    heads: frozenset[int] | None = None
    """Heads in which it does; all when None."""

    @property
    def n_needed(self) -> int:
        """Tokens of the row that a pass has to have: its keys."""
        return self.keys[-1] + 1 if self.keys else 0

    @property
    def n_given(self) -> int:
        """Keys that take a place."""
        return next((key.shape[1] for key, _ in self.given.values()), 0)


class Resampling:
    """The swaps of a batch, one a row; gives each layer's queries the other keys."""

    def __init__(
        self,
        swaps: Sequence[Swap],
        *,
        n_heads: int,
        starts: Sequence[int] | None = None,
        depths: Int64[Tensor, "row pos"] | None = None,
    ) -> None:
        """Begin without having seen a layer.

        Args:
            swaps: one a row of the batch.
            n_heads: query heads of the model.
            starts: position of each row's first token, where rows are padded on the left.
            depths: of rows that are token trees (:mod:`.token_trees`), how far behind the beginning each token of a
                pass is; the span's keys then lie in the beginning.
        """
        self.swaps = tuple(swaps)
        """One a row of the batch."""
        self._n_heads, self._starts, self._depths = n_heads, list(starts or [0] * len(self.swaps)), depths

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """The layer's mask as it is; called by the attention hook."""
        return attention_mask

    def change_keys(self, module: Any, query: Tensor, keys: Keys) -> Keys:
        """The other keys behind the layer's own, each seen by the chosen queries alone."""
        layer = module.layer_idx
        rows = [row for row, swap in enumerate(self.swaps) if swap.queries and layer in swap.layers]
        if not rows:
            return keys
        n_queries, n_keys = query.shape[2], keys.key.shape[2]
        offset = n_keys - n_queries
        mask = causal_or(keys.mask, n_queries, n_keys, query.device)
        mask = mask.expand(len(self.swaps), mask.shape[1], n_queries, n_keys)
        width = max(self.swaps[row].n_given for row in rows)
        more = [own.new_zeros((*own.shape[:2], width, own.shape[3])) for own in (keys.key, keys.value)]
        columns = torch.zeros((len(self.swaps), width), dtype=torch.int64)
        replaced = torch.zeros((len(self.swaps), n_keys), dtype=torch.bool)
        is_given = torch.zeros((len(self.swaps), width), dtype=torch.bool)
        for row in rows:
            swap, n = self.swaps[row], self.swaps[row].n_given
            at = torch.tensor(swap.keys, dtype=torch.int64) + self._starts[row]
            replaced[row, at] = True
            columns[row, :n], is_given[row, :n] = at[len(at) - n :], True
            for part, given in zip(more, swap.given[layer], strict=True):
                part[row, :, :n] = given.to(part)
        of_rows = [swap.queries for swap in self.swaps]
        queries = chosen_queries(of_rows, self._starts, n_queries, offset, self._depths)
        chosen = rearrange(queries, "b q -> b 1 q 1") & self._heads_of(layer)
        chosen = chosen.to(mask.device)
        index = repeat(columns.to(mask.device), "b m -> b h q m", h=mask.shape[1], q=n_queries)
        other_mask = without(mask.gather(-1, index), ~(chosen & rearrange(is_given.to(mask.device), "b m -> b 1 1 m")))
        own_mask = without(mask, chosen & rearrange(replaced.to(mask.device), "b k -> b 1 1 k"))
        key, value = (torch.cat([own, part], dim=2) for own, part in zip(keys[:2], more, strict=True))
        heads = max(other_mask.shape[1], own_mask.shape[1])
        both = [part.expand(-1, heads, -1, -1) for part in (own_mask, other_mask)]
        return Keys(key, value, torch.cat(both, dim=-1))

    def _heads_of(self, layer: int) -> Tensor:
        """(batch, #head, 1, 1): in which heads of the layer each row sees other keys."""
        rows = [layer in swap.layers for swap in self.swaps]
        if all(swap.heads is None for swap in self.swaps):
            return rearrange(torch.tensor(rows), "b -> b 1 1 1")
        heads = [
            [row and (swap.heads is None or head in swap.heads) for head in range(self._n_heads)]
            for row, swap in zip(rows, self.swaps, strict=True)
        ]
        return rearrange(torch.tensor(heads), "b h -> b h 1 1")


class _SpanReader:
    """Keeps the keys and values of some positions."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.span: SpanKeys = {}
        self._positions = list(positions)

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        return attention_mask

    def change_keys(self, module: Any, query: Tensor, keys: Keys) -> Keys:
        key, value = (states[0, :, self._positions].clone() for states in keys[:2])
        self.span[module.layer_idx] = key, value
        return keys


def read_span(model: Model, ids: Int64[Tensor, " pos"], positions: Sequence[int], *, shift: int = 0) -> SpanKeys:
    """Keys and values of some positions of a sequence, as they are where the sequence begins at position ``shift``.

    Args:
        model: the model.
        ids: the sequence.
        positions: ascending; later tokens are not computed.
        shift: position of its first token; may be negative.
    """
    ids = ids[None, : positions[-1] + 1].to(model.device)
    places = torch.arange(ids.shape[1], device=ids.device)[None] + shift
    with torch.no_grad(), observed_attention(model.hf, _SpanReader(positions)) as reader:
        find_layout(model.hf).decoder(input_ids=ids, position_ids=places, use_cache=False)
    return reader.span


def read_matched(model: Model, ids: Int64[Tensor, " pos"], positions: Sequence[int], places: Sequence[int]) -> SpanKeys:
    """Keys and values of some positions of a sequence, each as it is at the place that it takes in another.

    Args:
        model: the model.
        ids: the sequence.
        positions: ascending.
        places: ascending, as many.
    """
    by_shift: dict[int, list[int]] = {}
    for number, (position, place) in enumerate(zip(positions, places, strict=True)):
        by_shift.setdefault(place - position, []).append(number)
    parts = [
        (numbers, read_span(model, ids, [positions[number] for number in numbers], shift=shift))
        for shift, numbers in by_shift.items()
    ]
    if len(parts) == 1:
        return parts[0][1]
    order = torch.tensor([number for numbers, _ in parts for number in numbers]).argsort()

    def joined(layer: int, which: int) -> Tensor:
        return torch.cat([span[layer][which] for _, span in parts], dim=1)[:, order]

    return {layer: (joined(layer, 0), joined(layer, 1)) for layer in parts[0][1]}


def resampled(model: Model, resampling: Resampling) -> AbstractContextManager[Resampling]:
    """A block in which every forward of ``model.hf`` sees the other keys; raises ModelError as
    :func:`~safekey_interp.capture.attention_hook.observed_attention` does.

    A capture in the same pass reads the attention to the trace's own keys.
    """
    return observed_attention(model.hf, resampling)


def check_resampling(model: Model) -> None:
    """Read a dozen tokens at two shifts: attention that knows distances alone gives the same values; once a model.

    Raises:
        ModelError: the values differ, so that another trace's keys cannot take a position here.
    """
    if model in _relative:
        return
    why = (
        f"model {model.spec}: its states change when all positions are shifted, so that keys of another trace cannot "
        "take a place in this one; leave out the controls resample_same_label and resample_other_label"
    )
    if rope_kind(model.config) in ("dynamic", "longrope"):
        raise ModelError(why)
    ids = torch.randint(0, min(model.config.vocab_size, 10_000), (_LENGTH,), generator=torch.Generator().manual_seed(0))
    try:
        with evaluating(model.hf):
            unshifted, shifted = (read_span(model, ids, range(_LENGTH), shift=shift) for shift in (0, _SHIFT))
    except TypeError as error:  # a decoder without position_ids
        raise ModelError(why) from error
    for layer, (_, values) in unshifted.items():
        away = (values.float() - shifted[layer][1].float()).abs().max()
        if not float(away) <= _TOLERANCE.get(model.dtype, _COARSE) * float(values.float().abs().max()):
            raise ModelError(why)
    _relative.add(model)
