"""Swaps of activations between two traces.

Two traces differ in length, so their tokens are matched class by class (any span expression: prompt, template,
understanding) from the end: the last token of one with the last of the other, and so on for as many as the shorter has;
earlier tokens of the longer stay as they are. Ends carry most of what a span says to what follows it, and a chat
template's tokens behind the prompt are the same in both. A class's tokens are those of the row where they end first:
``decision`` is the last token that stands before every sentence that is read out (some tokenizers make the space before
a word a token of its own, and before another word not).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import Edit, edited
from safekey_interp.generation.continuation import Continuation
from safekey_interp.interventions.variant_scores import Branch, EditsOf

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class Match(NamedTuple):
    """Positions of two traces that stand for one another."""

    source: tuple[int, ...]
    """In the source."""
    target: tuple[int, ...]
    """In the target; as many."""


class Swap(NamedTuple):
    """Foreign activations at one place and class of positions."""

    place: Place
    """Layer and component."""
    position: str
    """The class."""
    where: tuple[int, ...]
    """Positions of the target."""
    states: Float[Tensor, "swapped width"]
    """What stands there instead."""


Change = Swap | list[Swap] | None
"""What a variant changes: the same in every row, or one swap a row; None for nothing."""


def match_positions(source: Sequence[Continuation], target: Sequence[Continuation], position: str) -> Match:
    """Tokens of a class in both traces, matched from the end; none where one of them lacks the class."""
    a, b = class_positions(source, position), class_positions(target, position)
    n = min(len(a), len(b))
    return Match(tuple(a[len(a) - n :]), tuple(b[len(b) - n :]))


def class_positions(rows: Sequence[Continuation], position: str) -> list[int]:
    """A class's tokens among the trace's own that all of its continuations have."""
    end = min(row.n_own for row in rows)
    found = [positions for positions in (row.positions(position) for row in rows) if len(positions)]
    return [at for at in min(found, key=lambda positions: positions[-1]) if at < end] if found else []


def read_states(
    model: Model, row: Continuation, places: Sequence[Place], *, backend: Backend = "hf"
) -> dict[Place, Float[Tensor, "pos width"]]:
    """The activations at each of the places, at every position that is the trace's own."""
    states: dict[Place, Tensor] = {}

    def reading(place: Place) -> Edit:
        def read(here: Tensor) -> None:
            states[place] = here[0].detach().clone()

        return read

    ids = row.ids[None, : row.n_own].to(model.device)
    with torch.no_grad(), edited(model, {place: reading(place) for place in places}, backend=backend):
        if backend == "bridge":
            model.bridge()(ids, return_type=None)
        else:
            model.hf.get_decoder()(input_ids=ids, use_cache=False)
    return states


def change_alike(changes: Sequence[Change]) -> bool:
    """Whether each change is the same in every row."""
    return not any(isinstance(change, list) for change in changes)


def swapping(changes: Sequence[Change]) -> EditsOf:
    """The edits of variants, each of which is one change."""

    def edits_of(batch: Sequence[Branch], positions: np.ndarray) -> Mapping[Place, Edit]:
        by_place: dict[Place, list[tuple[int, Swap]]] = {}
        for number, branch in enumerate(batch):
            change = changes[branch.variant]
            swap = change[branch.row] if isinstance(change, list) else change
            if swap is not None:
                by_place.setdefault(swap.place, []).append((number, swap))
        return {place: _edit(of_place, positions) for place, of_place in by_place.items()}

    return edits_of


def _edit(swaps: list[tuple[int, Swap]], positions: np.ndarray) -> Edit:
    def put(states: Tensor) -> Tensor:
        out = states.clone()
        for number, swap in swaps:
            inside = np.flatnonzero(np.isin(positions[number, : states.shape[1]], swap.where))
            if len(inside):
                order = {position: i for i, position in enumerate(swap.where)}
                given = [order[position] for position in positions[number, inside].tolist()]
                out[number, inside] = swap.states[given].to(states)
        return out

    return put
