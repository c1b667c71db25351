"""Conditions of a knockout for one trace, and the rows of its scores.

What is read out of a trace (by default its own key sentence and each sentence of the bank) goes through the model once
as it is, and once for each place, span and condition: the span hidden, random keys elsewhere hidden, random parts of
the span hidden, and another trace's span in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from safekey_interp.capture.attention_mask import Cut
from safekey_interp.data.span_expressions import parse_span
from safekey_interp.errors import TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.interventions.donors import OTHER, SAME, Donor, donors_for, is_resampled
from safekey_interp.interventions.effect_metrics import Readout, Subject
from safekey_interp.interventions.effects import TESTED

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace

QUERIES_OF_K = ("key_sentence", "decision", "decision+key_sentence")
"""Queries that predict K, or are it: K's own tokens, the token before K, or both."""
OUTSIDE, DOSE = "outside_spans", "dose"
"""Kinds of control: random keys outside every tested span, and random parts of the span."""
CONTROLS = (OUTSIDE, DOSE, SAME, OTHER)
"""Kinds of control, the default first."""
DOSES = (0.25, 0.5, 0.75)
"""Shares of the span that are hidden; the whole of it is 1."""
TESTED_SPANS = ("prompt", "understanding")
"""Spans that no random key is drawn from where K's queries are cut, whichever span is hidden: K rests on them."""
_FEWEST = 4
"""Keys of a span that can be hidden by quarters."""


class Place(NamedTuple):
    """Layers and heads in which a span is hidden."""

    layers: tuple[int, ...]
    """Layers."""
    heads: tuple[int, ...] | None
    """Heads; all when None."""

    @property
    def chosen_heads(self) -> frozenset[int] | None:
        """The heads as a set; all when None."""
        return None if self.heads is None else frozenset(self.heads)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of each trace."""

    from_span: str
    """The queries: a span expression."""
    to_spans: tuple[str, ...]
    """Spans that are hidden, one at a time: span expressions."""
    places: tuple[Place, ...]
    """Where they are hidden, one place at a time."""
    controls: tuple[str, ...]
    """Which of :data:`CONTROLS`."""
    n_random: int
    """Random sets of keys outside the spans."""
    n_dose: int
    """Random parts of the span, of each share."""
    n_donors: int
    """Other traces of each label."""
    seed: int
    """Seed of the draws."""
    readout: Readout
    """What is read out."""

    @property
    def avoided(self) -> tuple[str, ...]:
        """Every tested span: no random key is drawn from them."""
        is_of_k = parse_span(self.from_span) in map(parse_span, QUERIES_OF_K)
        return tuple(dict.fromkeys((*(TESTED_SPANS if is_of_k else ()), *self.to_spans)))


class Condition(NamedTuple):
    """What is done to one span at one place."""

    place: Place
    """Where."""
    span: str
    """The span."""
    control: str = TESTED
    """``none`` where the span is hidden, else the kind of control."""
    dose: float = 1.0
    """Share of the span."""
    draw: int = -1
    """Number of a random set or donor."""
    donor: Donor | None = None
    """Whose span takes the place."""
    exists: bool = True
    """False where the trace allows no such control: fewer keys than quarters, or no donor."""


class Measured(NamedTuple):
    """Scores of a case's conditions; NaN and 0 where one was not measured."""

    baseline: Float[np.ndarray, " sentence"]
    """Nats a token, of each sentence, with nothing changed."""
    scores: Float[np.ndarray, "condition sentence"]
    """The same under each condition."""
    exists: Bool[np.ndarray, " condition"]
    """Whether the trace allows it."""
    n_keys: Int64[np.ndarray, " condition"]
    """Keys that were hidden from the counted row, or took another's place."""
    n_pool: Int64[np.ndarray, " condition"]
    """Keys that random ones could be drawn from."""

    @property
    def is_finite(self) -> bool:
        """Whether every number is that could be measured."""
        return bool(np.isfinite(self.baseline).all() and np.isfinite(self.scores[self.exists]).all())


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one trace needs."""

    subject: Subject
    """The trace, and what is read out of it."""
    conditions: tuple[Condition, ...]
    """Each with all rows."""
    counted: int
    """The row whose queries and keys the table counts: the last that has queries."""
    n_unchanged: int
    """Tokens before the first query of any row: no condition changes them."""

    @classmethod
    def of(cls, subject: Subject, plan: Plan, donors: Sequence[Donor]) -> Case:
        """A trace with the conditions that it allows: spans that it lacks, or that no query could see, have none.

        Raises:
            TraceError: no query, or no such span.
        """
        trace, conditions = subject.trace, []
        queries = [queries_of(row, plan.from_span) for row in subject.rows]
        with_queries = [number for number, of_row in enumerate(queries) if len(of_row)]
        if not with_queries:
            raise TraceError(trace.trace_id, f"no token of {plan.from_span} lies before what is read out")
        row, last = subject.rows[with_queries[-1]], queries[with_queries[-1]][-1]
        for span in plan.to_spans:
            n_keys = sum(at <= last for at in row.positions(span))
            if n_keys:
                controls = list(_controls(trace, span, n_keys, plan, donors))
                conditions += [control._replace(place=place) for place in plan.places for control in controls]
        if not conditions:
            is_there = any(len(row.positions(span)) for span in plan.to_spans)
            behind = f"no token of {plan.from_span} could see {' or '.join(plan.to_spans)}"
            raise TraceError(trace.trace_id, behind if is_there else "it has none of the spans")
        order = {place: number for number, place in enumerate(plan.places)}
        conditions.sort(key=lambda condition: order[condition.place])
        first = min(queries[number][0] for number in with_queries)
        counted = with_queries[-1]
        return cls(subject=subject, conditions=tuple(conditions), counted=counted, n_unchanged=first)

    @property
    def trace(self) -> Trace:
        """The trace."""
        return self.subject.trace

    @cached_property
    def sentences(self) -> tuple[Continuation, ...]:
        """All rows: by default the bank's sentences in K's place, then K itself."""
        return self.subject.rows

    def cut(self, condition: Condition, number: int, plan: Plan) -> Cut:
        """What the row of that number may not see."""
        sentence = self.sentences[number]
        own = condition.control == TESTED
        return Cut(
            trace_id=self.trace.trace_id,
            queries=tuple(queries_of(sentence, plan.from_span)),
            keys=tuple(sentence.positions(condition.span)),
            layers=frozenset(condition.place.layers),
            heads=condition.place.chosen_heads,
            draw=None if own else condition.draw,
            dose=condition.dose if condition.control == DOSE else None,
            avoid=tuple(at for span in plan.avoided for at in sentence.positions(span)),
        )

    def untouched(self) -> Cut:
        """Hides nothing."""
        return Cut(trace_id=self.trace.trace_id, queries=(), keys=(), layers=frozenset())

    def records(self, measured: Measured, plan: Plan) -> Iterator[dict[str, Any]]:
        """A row of the table for each condition and metric; of a control that does not exist, one of its draws."""
        scores = np.vstack([measured.baseline, measured.scores])
        names, metrics = plan.readout.names, plan.readout.values(scores, self.subject.parts)
        baselines, *values = metrics.tolist()
        n_queries = len(queries_of(self.sentences[self.counted], plan.from_span))
        for number, (condition, of_condition) in enumerate(zip(self.conditions, values, strict=True)):
            place, donor = condition.place, condition.donor
            if condition.draw > 0 and not measured.exists[number]:
                continue
            for name, baseline, value in zip(names, baselines, of_condition, strict=True):
                yield {
                    "trace_id": self.trace.trace_id,
                    "group": self.trace.group,
                    "label": self.trace.label,
                    "from_span": plan.from_span,
                    "to_span": condition.span,
                    "layer": place.layers[0],
                    "n_layers": len(place.layers),
                    "head": -1 if place.heads is None or len(place.heads) != 1 else place.heads[0],
                    "control": condition.control,
                    "dose": condition.dose,
                    "draw": condition.draw,
                    "donor": "" if donor is None else donor.trace_id,
                    "donor_group": "" if donor is None else donor.group,
                    "n_q": n_queries,
                    "n_k": int(measured.n_keys[number]),
                    "n_pool": int(measured.n_pool[number]),
                    "metric": name,
                    "baseline": baseline,
                    "value": value,
                    "effect": value - baseline,
                }


def _controls(trace: Trace, span: str, n_keys: int, plan: Plan, donors: Sequence[Donor]) -> Iterator[Condition]:
    """A span hidden, then its controls, at any place."""
    tested = Condition(plan.places[0], span)
    yield tested
    if OUTSIDE in plan.controls:
        for draw in range(plan.n_random):
            yield tested._replace(control=OUTSIDE, draw=draw)
    if DOSE in plan.controls:
        quarters = n_keys >= _FEWEST
        for dose in DOSES:
            for draw in range(plan.n_dose if quarters else 1):
                yield tested._replace(control=DOSE, dose=dose, draw=draw, exists=quarters)
    for kind in (SAME, OTHER):
        if kind in plan.controls and is_resampled(span):
            chosen = donors_for(donors, trace, span, n_keys, kind, n=plan.n_donors, seed=plan.seed)
            for draw, donor in enumerate(chosen or [None]):
                yield tested._replace(control=kind, draw=draw, donor=donor, exists=donor is not None)


def queries_of(row: Continuation, from_span: str) -> Sequence[int]:
    """Positions of the queries in a row; K's last token is one of them, although it predicts nothing of K."""
    return row.positions(from_span)
