"""Pieces of an intervention, after each of which a killed run can resume.

A piece is some traces, and what their measurement needs of all the others: directions that were fitted without them, or
the traces that their controls are taken from. So the numbers of a trace do not depend on the pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from safekey_interp.capture.streaming import in_chunks
from safekey_interp.errors import NothingMeasured
from safekey_interp.generation.key_sentence_bank import bank_for
from safekey_interp.interventions.cross_fitting import fit_held_out
from safekey_interp.interventions.donors import RESAMPLING, find_donors
from safekey_interp.interventions.effect_metrics import find_subjects
from safekey_interp.interventions.intervention_registry import KINDS, Name, apart
from safekey_interp.interventions.trace_pairs import TracePair, find_pairs
from safekey_interp.measures.direction_record import Direction

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


class Piece(NamedTuple):
    """Traces that are measured together."""

    traces: Sequence[Trace | TracePair]
    """The traces, or pairs of them."""
    options: Mapping[str, Any]
    """Arguments of the function besides the options of the run."""
    columns: Mapping[str, Any]
    """Columns of the table besides those of the function."""


class Work(NamedTuple):
    """An intervention on all traces."""

    options: dict[str, Any]
    """Of the function, for every piece."""
    pieces: list[Piece]
    """In order; the same for the same traces and options."""
    left_out: dict[str, str]
    """Traces that are in no piece, and why."""
    directions: list[Direction]
    """Fitted on all traces, where directions are fitted."""

    @property
    def n(self) -> int:
        """Traces, or pairs of them, in all."""
        return sum(len(piece.traces) for piece in self.pieces)


def plan_work(
    name: Name,
    model: Model,
    traces: Sequence[Trace],
    options: Mapping[str, Any],
    finding: Mapping[str, Any],
    *,
    chunk: int,
) -> Work:
    """The pieces of an intervention.

    Args:
        name: the intervention.
        model: the model.
        traces: all of them.
        options: complete, from :func:`~safekey_interp.interventions.intervention_registry.complete_options`.
        finding: ``finder``, ``delimiters``, ``max_length``, ``seed``: how U and K are found, and every draw.
        chunk: traces of a piece at most.

    Raises:
        InputError: options that the function refuses, or traces without what it needs.
    """
    own, fitting = apart(options)
    if fitting:
        held_out = fit_held_out(model, traces, n_controls=own["n_random"], **fitting, **finding)
        reads = KINDS[name].reads
        own.pop(reads)
        _try(name, model, own | {reads: held_out.directions}, finding)
        pieces = [
            Piece(some, {reads: fold.directions}, {"fold": number})
            for number, fold in enumerate(held_out.folds)
            for some in in_chunks(fold.traces, chunk)
        ]
        return Work(own, pieces, held_out.left_out, held_out.directions)
    _try(name, model, own, finding)
    more: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    items: list[Any] = list(traces)
    segmented = {option: value for option, value in finding.items() if option != "seed"}
    if name == "patch":
        spans = {option: segmented[option] for option in ("finder", "delimiters")}
        items, left_out = find_pairs(items, source=own["source"], **spans)
        if not items:
            why = "no pair of traces of one request and different outcomes"
            raise NothingMeasured(why, left_out)
    if name == "knockout" and any(kind in RESAMPLING for kind in own["controls"] or RESAMPLING):
        more = {"others": find_donors(model, traces, **segmented)}
    if name in ("patch", "lens"):
        pool = {one.trace_id: one for one in (getattr(item, "target", item) for item in items)}
        bank = own["bank"] or bank_for(model.tokenizer)
        more = {"others": find_subjects(model, pool.values(), bank, **segmented)[0]}
    return Work(own, [Piece(some, more, {}) for some in in_chunks(items, chunk)], left_out, [])


def _try(name: Name, model: Model, options: Mapping[str, Any], finding: Mapping[str, Any]) -> None:
    """Have the function refuse options before anything is written: on no trace, sound ones measure nothing."""
    with suppress(NothingMeasured):
        KINDS[name].measure(model, [], **options, **finding)
