"""Pieces of an intervention, after each of which a killed run can resume.

A piece is some traces, and what their measurement needs of all the others: directions that were fitted without them, or
the traces that their controls are taken from. So the numbers of a trace do not depend on the pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from safekey_interp.capture.streaming import SMALL, StreamSettings, in_chunks
from safekey_interp.data.span_checks import PartOf, span_names_of
from safekey_interp.data.span_expressions import check_spans
from safekey_interp.errors import InputError, NothingMeasured
from safekey_interp.experiments.experiment_settings import InterventionSettings
from safekey_interp.interventions.cross_fitting import fit_folds
from safekey_interp.interventions.intervention_options import span_expressions, split_options
from safekey_interp.interventions.intervention_parts import STAGED
from safekey_interp.interventions.intervention_record import Intervention, Prepared, Stages, load_function
from safekey_interp.interventions.two_stages import ROUNDS, STAGE, n_confirmed, next_call
from safekey_interp.measures.direction_record import Direction

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.interventions.trace_pairs import TracePair
    from safekey_interp.models.model import Model


_OF_SMALL = 16
"""Traces of a piece of a small model, so that they share batches."""


class Piece(NamedTuple):
    """Traces that are measured together."""

    traces: Sequence[Trace | TracePair]
    """The traces, or pairs of them."""
    options: Mapping[str, Any]
    """Arguments of the function besides the options of the run."""
    columns: Mapping[str, Any]
    """Columns of the table besides those of the function."""
    call: Mapping[str, Any] = MappingProxyType({})
    """Further arguments of the function in one round."""


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
    first: Sequence[Piece] = ()
    """Pieces of a first round, whose table the others need."""
    stages: Stages | None = None
    """Of work of two stages, whose pieces are those of its first round."""
    n_confirmed: int = 0
    """Places that its second stage confirms."""

    @property
    def n_rounds(self) -> int:
        """Rounds in which every piece is measured."""
        return 1 if self.stages is None else len(ROUNDS)

    @property
    def whole_options(self) -> dict[str, Any]:
        """What the function is called with for the first piece."""
        return {**self.options, **(self.pieces[0].options if self.pieces else {})}

    def round(self, tables: Sequence[pd.DataFrame], seed: int) -> list[Piece]:
        """The pieces of the round behind some others.

        Args:
            tables: of those rounds, of all traces.
            seed: of places that are drawn.
        """
        if self.stages is None:
            return self.pieces
        call = next_call(tables, self.stages, self.n_confirmed, seed=seed)
        stage = {STAGE: ROUNDS[len(tables)]}
        return [piece._replace(columns={**piece.columns, **stage}, call=call) for piece in self.pieces]

    @property
    def n(self) -> int:
        """Traces, or pairs of them, in all."""
        return sum(len(piece.traces) for piece in self.pieces)


def plan_work(
    intervention: Intervention,
    model: Model,
    traces: Sequence[Trace],
    options: Mapping[str, Any],
    settings: InterventionSettings,
    *,
    n_confirmed: int | None = None,
) -> Work:
    """The pieces of an intervention.

    Args:
        intervention: its record.
        model: the model.
        traces: all of them.
        options: complete, from :func:`~safekey_interp.interventions.intervention_options.complete_options`.
        settings: how U and K are found, the seed of every draw, and the most traces of a piece.
        n_confirmed: places that are confirmed in a second stage; None for one stage.

    Raises:
        InputError: options that the function refuses, or traces without what it needs.
    """
    work = _one_stage(intervention, model, traces, options, settings)
    stages = intervention.stages
    if stages is None or n_confirmed is None:
        return work
    return work._replace(stages=stages, n_confirmed=n_confirmed)


def _one_stage(
    intervention: Intervention,
    model: Model,
    traces: Sequence[Trace],
    options: Mapping[str, Any],
    settings: InterventionSettings,
) -> Work:
    own, fitting = split_options(intervention, options)
    names = span_names_of(traces)
    check_spans(span_expressions(intervention, options), names)
    fits = intervention.fits
    if fitting:
        drawing = {"n_controls": own["n_random"], "seed": settings.seed}
        fitted = fit_folds(model, traces, StreamSettings(**settings.spans), **drawing, **fitting)
        own.pop(fits)
        _try(intervention, model, own | {fits: fitted.directions}, settings, names)
        pieces = [
            Piece(PartOf(some, names), {fits: fold.directions}, {"fold": number})
            for number, fold in enumerate(fitted.folds)
            for some in in_chunks(fold.traces, settings.chunk or piece_size(model))
        ]
        return Work(own, pieces, fitted.left_out, fitted.directions)
    _try(intervention, model, own, settings, names)
    prepared = Prepared(list(traces), {}, {})
    if intervention.prepare is not None:
        prepared = load_function(intervention.prepare)(model, traces, own, **settings.spans)
    size = settings.chunk or piece_size(model)
    pieces = [Piece(PartOf(some, names), prepared.options, {}) for some in in_chunks(prepared.items, size)]
    first = [Piece(PartOf(some, names), {}, {}) for some in in_chunks(prepared.first, size)]
    return Work(own, pieces, prepared.left_out, [], first)


def places_to_confirm(
    intervention: Intervention,
    model: Model,
    traces: Sequence[Trace],
    options: dict[str, Any],
    settings: InterventionSettings,
) -> int | None:
    """Places that a second stage confirms, None for one stage; the options that say it are taken out."""
    staged = {option.name: options.pop(option.name, None) for option in STAGED}
    intervention.check(confirm=staged["confirm"])
    if not staged["exact"]:
        spans = StreamSettings(**settings.spans)
        return n_confirmed(intervention, model, traces, options, spans, asked=staged["confirm"])
    if staged["confirm"] is not None:
        raise InputError("confirm: got it beside exact, with which every place is confirmed; leave one of them out")
    return None


def piece_size(model: Model) -> int:
    """Traces of a piece: of all but small models, one may take a minute."""
    return _OF_SMALL if model.d_model <= SMALL else 1


def _try(
    intervention: Intervention,
    model: Model,
    options: Mapping[str, Any],
    settings: InterventionSettings,
    span_names: Collection[str],
) -> None:
    """Have the function refuse options before anything is written: on no trace, sound ones measure nothing."""
    options = {**options, **settings.spans, "seed": settings.seed}
    with suppress(NothingMeasured):
        load_function(intervention.measure)(model, PartOf([], span_names), **options, on_trace=lambda n: None)
