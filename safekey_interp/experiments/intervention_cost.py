"""Cost of an intervention, estimated by a trial: the work itself on traces of the usual length.

    cost ≈ cost of the trial's traces · (length of all traces / length of the trial's)

Where traces take too long for a trial, they are measured at few and, as far as there is time, more of their places
(layers or directions) instead, and the rest follows from the difference. Length is that of the text up to the end of K,
or of all where no K is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from safekey_interp.capture.pass_cost import NOTHING, TOO_LONG, Cost, timed, trial
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.span_checks import PartOf
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, NothingMeasured
from safekey_interp.experiments.experiment_settings import InterventionSettings
from safekey_interp.experiments.intervene_pieces import Piece, Work
from safekey_interp.interventions.intervention_record import Intervention, load_function
from safekey_interp.segmentation.segmenter import segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_MOST_READ = 256
"""Traces whose lengths are read."""
_FEW_TAKE = 2 * TOO_LONG
"""Seconds after which work at few places is given up."""
_LONG = 3600.0
"""Seconds above which cheaper options are tried."""

Measure = Callable[..., None]
"""Traces and changed options to nothing: what is measured is thrown away."""


class _Candidate(NamedTuple):
    """An item that may be tried."""

    item: Any
    piece: Piece
    length: int


def intervention_cost(
    intervention: Intervention,
    model: Model,
    work: Work,
    settings: InterventionSettings,
    pieces: Sequence[Piece],
    *,
    n_processes: int = 1,
) -> Cost:
    """What it costs to measure pieces.

    Args:
        intervention: its record.
        model: the model.
        work: on all traces.
        settings: how U and K are found.
        pieces: those that are not done yet.
        n_processes: processes that share them.
    """
    n = sum(len(piece.traces) for piece in pieces)
    read = _lengths(pieces, settings)
    mean = sum(one.length for one in read) / len(read) if read else 0.0
    if not mean:
        return NOTHING
    usual = sorted(read, key=lambda one: abs(one.length - mean))
    piece = usual[0].piece
    same = [one for one in usual if one.piece.options is piece.options]
    least = 1
    if intervention.first_round is not None:  # a trace is measured by what is known of other requests
        other = next((one for one in same if one.item.group != same[0].item.group), same[-1])
        same, least = [same[0], other, *(one for one in same[1:] if one is not other)], 2
    measure = _measure_of(intervention, model, work, settings, piece)
    tried, cost = trial(model, same, lambda some: measure([one.item for one in some]), least=least)
    few = tried[:least]
    measure_few = partial(measure, [one.item for one in few])
    if cost.at_least and intervention.grows_with is not None and work.stages is None:
        places = _places_of(intervention.grows_with[0], model, {**work.options, **piece.options})
        with suppress(InputError):  # the cost is then known to be more than the trial's
            cost, tried = _by_places(model, intervention.grows_with[0], places, measure_few), few
    share = n * mean / sum(one.length for one in tried)
    whole = cost.times(share, at_once=n_processes)
    if whole.seconds < _LONG:
        return whole

    def seconds_of(changes: dict[str, Any]) -> float:
        try:
            cost = timed(model, lambda: measure_few(**changes))
        except InputError:  # another option asks for more than this leaves
            return math.inf
        return math.inf if cost.at_least else cost.seconds * n * mean / sum(one.length for one in few) / n_processes

    fewer = max(1, int(n * _LONG / whole.seconds))
    ways = _cheaper(intervention, model, {**work.options, **piece.options}, seconds_of)
    return replace(whole, cheaper=((f"--limit {fewer}", whole.seconds * fewer / n), *ways))


def _measure_of(
    intervention: Intervention, model: Model, work: Work, settings: InterventionSettings, piece: Piece
) -> Measure:
    options = {**work.options, **piece.options, **settings.spans, "seed": settings.seed}
    function = load_function(intervention.measure)

    def measure(items: Sequence[Any], **changes: Any) -> None:
        some = PartOf(items, piece.traces.span_names) if isinstance(piece.traces, PartOf) else list(items)
        given = options | changes
        with suppress(NothingMeasured):
            if intervention.first_round is not None:
                first = {name: value for name, value in given.items() if name not in piece.options}
                given["others"] = load_function(intervention.first_round)(model, some, **first, on_trace=_ignore)
            tables: list[pd.DataFrame] = []
            for _ in range(work.n_rounds):
                [of_round] = work._replace(pieces=[piece]).round(tables, settings.seed)
                tables.append(function(model, some, **{**given, **of_round.call}, on_trace=_ignore))

    return measure


def _ignore(n: int) -> None:
    """Nobody hears how far a trial is."""


def _places_of(name: str, model: Model, options: Mapping[str, Any]) -> list[Any]:
    """The values of the option that passes grow with: all layers where it has none."""
    return list(options[name] or range(model.n_layers))


def _by_places(model: Model, name: str, places: Sequence[Any], measure: Callable[..., None]) -> Cost:
    """The cost of work whose trial was given up, from that at few of its places and at more.

    Raises:
        InputError: another option asks for more places than half of them.
    """

    def at(k: int) -> Cost:
        return timed(model, lambda: measure(**{name: places[:k]}), at_most=_FEW_TAKE)

    few = 1
    while True:
        try:
            first = at(few)
            break
        except InputError:  # before any pass
            few *= 2
            if few > len(places) / 2:
                raise
    k = min(few + 1, len(places))
    more = at(k)
    each = max(0.0, more.seconds - first.seconds)
    many = min(len(places), few + int((TOO_LONG / 2 - first.seconds) / max(each, 1e-3)))
    if many > k and not (of_many := at(many)).at_least:
        more, k = of_many, many
    rest = (len(places) - few) / max(1, k - few)
    whole = {
        number: getattr(first, number) + rest * max(0.0, getattr(more, number) - getattr(first, number))
        for number in ("passes", "tokens", "seconds")
    }
    return replace(more, **whole, at_least=first.at_least or more.at_least)


def _cheaper(
    intervention: Intervention, model: Model, options: Mapping[str, Any], seconds_of: Callable[[dict[str, Any]], float]
) -> tuple[tuple[str, float], ...]:
    """Options that a command has, each with the seconds that the work then takes."""
    ways = [(words, dict(changes)) for words, changes in intervention.cheaper]
    if intervention.grows_with is not None:
        name, switch = intervention.grows_with
        some = _places_of(name, model, options)
        ways.append((f"{switch} with one of {len(some)}", {name: some[:1]}))
    changed = [way for way in ways if any(options.get(name) != value for name, value in way[1].items())]
    return tuple((words, seconds_of(changes)) for words, changes in changed)


def _lengths(pieces: Sequence[Piece], settings: InterventionSettings) -> list[_Candidate]:
    """Items evenly from all pieces, with the length of what is read of each."""
    every = [(item, piece) for piece in pieces for item in piece.traces]
    step = max(1, len(every) // _MOST_READ)
    chosen = every[::step]
    # Of a pair, the run that is changed.
    traces = [item if isinstance(item, Trace) else item[-1] for item, _ in chosen]
    read = segmented(traces, StreamSettings(**settings.spans))
    ends = [
        len(trace.prompt) + (len(trace.response) if found.key_sentence is None else found.key_sentence.end)
        for trace, found in read
    ]
    return [_Candidate(item, piece, end) for (item, piece), end in zip(chosen, ends, strict=True)]
