"""Keys and values that a model computes for a span, at the places that they take in another sequence.

For resample ablation (:mod:`.resample_ablation`). A donor's trace is read with its positions shifted, so that each key
of its span carries the position of the token whose place it takes (once for each distance between the two, where a span
is in several pieces). Attention that knows distances alone (rotary positions) computes the same states at every shift,
which :func:`check_resampling` tries once for each model. Keys at another shift are then also those of the unshifted
trace, turned by the model's own rotary embedding. Where the dtype is precise enough, and that check finds the two
alike, a trace whose spans several others take is read once (:class:`KeptSpans`).
"""

from __future__ import annotations

import inspect
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.architecture import evaluating, find_layout, rope_kind
from safekey_interp.capture.attention_hook import Keys, observed_attention
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model

SpanKeys = dict[int, tuple[Float[Tensor, "kv_head key d_head"], Float[Tensor, "kv_head key d_head"]]]
"""Keys and values of a span, by layer."""
_LENGTH, _SHIFT = 12, 5
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_COARSE = 5e-2
_ALIKE = 1e-5
"""Largest difference of turned keys from read ones, as a share of the largest key, with which they are turned."""
_turns: WeakKeyDictionary[Model, bool] = WeakKeyDictionary()
"""Of models whose positions are relative: whether their keys can be turned."""


class KeptSpans:
    """What was read of donors' traces, those read last, for knockouts that take spans of the same traces."""

    def __init__(self, memory_gb: float = 0.5) -> None:
        """Keep nothing yet.

        Args:
            memory_gb: most memory, GB (10⁹ bytes).
        """
        self._most, self._n_bytes = memory_gb * 1e9, 0
        self._kept: OrderedDict[Any, tuple[dict[int, int], SpanKeys, int]] = OrderedDict()

    def matched(
        self,
        model: Model,
        ids: Int64[Tensor, " pos"],
        positions: Sequence[int],
        places: Sequence[int],
        *,
        wanted: Sequence[int],
    ) -> SpanKeys:
        """As :func:`read_matched`.

        Args:
            model: the model; where its weights have changed since, the trace is read anew.
            ids: the sequence.
            positions: ascending.
            places: ascending, as many.
            wanted: positions that this and later calls may ask for.
        """
        if not _turns.get(model, False):
            return read_matched(model, ids, positions, places)
        key = (id(model), _n_changes(model), ids.numpy().tobytes())
        if key not in self._kept:
            every = sorted({*wanted, *positions})
            span = read_span(model, ids, every)
            size = sum(part.nbytes for both in span.values() for part in both)
            self._kept[key] = {position: number for number, position in enumerate(every)}, span, size
            self._n_bytes += size
        self._kept.move_to_end(key)
        number_of, span, _ = self._kept[key]
        while self._n_bytes > self._most and self._kept:
            self._n_bytes -= self._kept.popitem(last=False)[1][2]
        at = [number_of[position] for position in positions]
        some = {layer: (keys[:, at], values[:, at]) for layer, (keys, values) in span.items()}
        return _turned(model, some, [place - position for position, place in zip(positions, places, strict=True)])


def _n_changes(model: Model) -> int:
    """How often weights were changed in place."""
    return sum(0 if weights.is_inference() else weights._version for weights in model.hf.parameters())


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


def _turned(model: Model, span: SpanKeys, by: Sequence[int]) -> SpanKeys:
    """Keys as they are so many positions later, by the model's own rotary embedding; values stay.

    Args:
        model: one whose keys can be turned.
        span: keys and values.
        by: positions, one a key; negative for earlier.
    """
    layout = find_layout(model.hf)
    rotary: Any = layout.decoder.rotary_emb
    kinds = getattr(rotary.config, "layer_types", None) if "layer_type" in _parameters(rotary.forward) else None
    shifts = torch.tensor([list(by)], device=model.device)
    turned = {}
    for layer, (keys, values) in span.items():
        cos, sin = rotary(keys[None], shifts, **({"layer_type": kinds[layer]} if kinds else {}))
        home = sys.modules[type(layout.layers[layer].self_attn).__module__]
        turned[layer] = home.apply_rotary_pos_emb(keys[None], keys[None], cos, sin)[1][0], values
    return turned


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def check_resampling(model: Model) -> None:
    """Read a dozen tokens at two shifts: attention that knows distances alone gives the same values; once a model.

    Raises:
        ModelError: the values differ, so that another trace's keys cannot take a position here.
    """
    if model in _turns:
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
    _turns[model] = model.dtype in _TOLERANCE and _can_turn(model, unshifted, shifted)


def _can_turn(model: Model, unshifted: SpanKeys, shifted: SpanKeys) -> bool:
    """Whether keys that are turned are those that the model computes there."""
    try:
        with torch.no_grad():
            turned = _turned(model, unshifted, [_SHIFT] * _LENGTH)
    except (AttributeError, TypeError, RuntimeError):  # no rotary embedding that is called so
        return False
    return all(
        float((turned[layer][0] - keys).abs().max()) <= _ALIKE * float(keys.abs().max())
        for layer, (keys, _) in shifted.items()
    )
