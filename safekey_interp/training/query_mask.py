"""Layouts of query-mask modelling: the one that masks the prompt exactly on a model.

``short`` and ``packed`` leave the prompt out of the sequence instead of masking it. That is the same thing only where
positions are relative: then a document that starts at 0 gives the logits that it gives further on. Learned positions
are not relative, and rotary ones that change with the length (dynamic, longrope) are not across their change. And
``packed`` needs a model whose masks keep documents apart. So the model is asked, once, and the next way that is exact
for it is taken:

    packed -> short -> masked
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from safekey_interp.capture.architecture import evaluating, rope_kind
from safekey_interp.errors import InputError
from safekey_interp.training.batch import QueryMask

_LENGTH = 10
_SHIFT = 7
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_COARSE = 5e-2
_answers: WeakKeyDictionary[nn.Module, dict[Callable[[Any], str], str]] = WeakKeyDictionary()


class Way(NamedTuple):
    """How K is predicted with the prompt masked."""

    layout: QueryMask
    """The layout that is exact."""
    why: str
    """Why it is not the one that was asked for; empty when it is."""


def exact_way(hf: Any, asked: QueryMask, *, shows_other: bool = False) -> Way:
    """The way that was asked for where it is exact for the model, else the next that is.

    Args:
        hf: a causal model of transformers.
        asked: the way that is wanted.
        shows_other: whether another prompt stands in the place of the masked one. Then nothing is left out, and a pass
            of its own is exact for every model.
    """
    if shows_other and asked != "packed":
        return Way("short", "")
    if asked == "masked":
        return Way("masked", "")
    why = _answer(hf, _not_relative)
    if why and not shows_other:
        return Way("masked", f"query_mask {asked}: {why}; the prompt is masked in a full pass instead")
    if asked == "packed" and (why := why or _answer(hf, _not_apart)):
        return Way("short", f"query_mask packed: {why}; a pass of its own is taken instead")
    return Way(asked, "")


def check_packing(hf: Any) -> None:
    """Refuse several traces in one row where the model would let them see one another.

    Raises:
        InputError: with the remedy.
    """
    if why := _answer(hf, _not_apart):
        raise InputError(f"packing: {why}; take packing=false")


def _answer(hf: Any, ask: Callable[[Any], str]) -> str:
    """What a model answers to a question, which it is asked once."""
    known = _answers.setdefault(hf, {})
    if ask not in known:
        known[ask] = ask(hf)
    return known[ask]


def _not_relative(hf: Any) -> str:
    """Why leaving the prompt out is not masking it; empty when it is."""
    name = type(hf).__name__
    kind = rope_kind(hf.config.get_text_config(decoder=True))
    if kind in ("dynamic", "longrope"):
        return f"{name}'s {kind} positions change with the length of the sequence"
    ids = _sample(hf)
    here = torch.arange(_LENGTH, device=ids.device)[None]
    first, shifted = (_states(hf, ids, position_ids=here + shift) for shift in (0, _SHIFT))
    return "" if _alike(first, shifted, hf.dtype) else f"{name}'s positions are not relative"


def _not_apart(hf: Any) -> str:
    """Why documents in one row are not apart; empty when they are."""
    first, other, second = _sample(hf), _sample(hf, seed=1), _sample(hf, seed=2)
    positions = torch.arange(_LENGTH, device=first.device).repeat(2)[None]
    alone = _states(hf, second)
    for before in (first, other):
        both = _states(hf, torch.cat([before, second], dim=1), position_ids=positions)
        if not _alike(both[:, _LENGTH:], alone, hf.dtype):
            return f"{type(hf).__name__} does not keep documents in one row apart"
    return ""


def _sample(hf: Any, seed: int = 0) -> Tensor:
    n = hf.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, n, (1, _LENGTH), generator=torch.Generator().manual_seed(seed))
    return ids.to(hf.get_input_embeddings().weight.device)


def _states(hf: Any, ids: Tensor, **options: Any) -> Tensor:
    with torch.no_grad(), evaluating(hf):
        return hf.get_decoder()(input_ids=ids, use_cache=False, **options).last_hidden_state.float()


def _alike(states: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """To what rounding in the model's own arithmetic may do."""
    tolerance = _TOLERANCE.get(dtype, _COARSE)
    return bool((states - other).norm() <= tolerance * other.norm())
