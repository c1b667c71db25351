"""Conditions of a knockout for one trace, and the rows of its scores.

A trace's own key sentence and each sentence of the bank go through the model once as they are, and once for each place,
span and condition: the span hidden, random keys elsewhere hidden, random parts of the span hidden, and another trace's
span in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from safekey_interp.capture.attention_mask import Cut
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import Continuation
from safekey_interp.interventions.donors import OTHER, RESAMPLED, SAME, Donor, donors_for
from safekey_interp.interventions.effect_metrics import METRICS, read_metrics
from safekey_interp.interventions.effects import TESTED

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace

FromSpan = Literal["key_sentence", "decision", "decision+key_sentence"]
"""Queries: K's own tokens, the token before K, or both."""
OUTSIDE, DOSE = "outside_spans", "dose"
"""Kinds of control: random keys outside every tested span, and random parts of the span."""
CONTROLS = (OUTSIDE, DOSE, SAME, OTHER)
"""Kinds of control, the default first."""
DOSES = (0.25, 0.5, 0.75)
"""Shares of the span that are hidden; the whole of it is 1."""
TESTED_SPANS = ("prompt", "understanding")
"""Spans that no random key is drawn from, whichever is hidden."""
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

    from_span: FromSpan
    """The queries."""
    to_spans: tuple[str, ...]
    """Spans that are hidden, one at a time."""
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
    bank: KeySentences | None
    """Sentences of the aha difference; None without it."""

    @property
    def avoided(self) -> tuple[str, ...]:
        """Every tested span: no random key is drawn from them."""
        return tuple(dict.fromkeys((*TESTED_SPANS, *self.to_spans)))


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
    """Keys that were hidden from the trace's own K, or took another's place."""
    n_pool: Int64[np.ndarray, " condition"]
    """Keys that random ones could be drawn from."""

    @property
    def is_finite(self) -> bool:
        """Whether every number is that could be measured."""
        return bool(np.isfinite(self.baseline).all() and np.isfinite(self.scores[self.exists]).all())


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one trace needs."""

    trace: Trace
    """The trace."""
    sentences: tuple[Continuation, ...]
    """The bank's, then its own key sentence."""
    conditions: tuple[Condition, ...]
    """Each with all sentences."""

    @classmethod
    def of(cls, trace: Trace, sentences: tuple[Continuation, ...], plan: Plan, donors: Sequence[Donor]) -> Case:
        """A trace with the conditions that it allows: spans that it lacks have none."""
        conditions: list[Condition] = []
        for span in plan.to_spans:
            n_keys = len(sentences[-1].encoding.positions(span))
            if n_keys:
                controls = list(_controls(trace, span, n_keys, plan, donors))
                conditions += [control._replace(place=place) for place in plan.places for control in controls]
        order = {place: number for number, place in enumerate(plan.places)}
        conditions.sort(key=lambda condition: order[condition.place])
        return cls(trace=trace, sentences=sentences, conditions=tuple(conditions))

    def cut(self, condition: Condition, number: int, plan: Plan) -> Cut:
        """What the sentence of that number may not see."""
        sentence = self.sentences[number]
        own = condition.control == TESTED
        return Cut(
            trace_id=self.trace.trace_id,
            queries=tuple(queries_of(sentence, plan.from_span)),
            keys=tuple(sentence.encoding.positions(condition.span)),
            layers=frozenset(condition.place.layers),
            heads=condition.place.chosen_heads,
            draw=None if own else condition.draw,
            dose=condition.dose if condition.control == DOSE else None,
            avoid=tuple(at for span in plan.avoided for at in sentence.encoding.positions(span)),
        )

    def untouched(self) -> Cut:
        """Hides nothing."""
        return Cut(trace_id=self.trace.trace_id, queries=(), keys=(), layers=frozenset())

    def records(self, measured: Measured, plan: Plan) -> Iterator[dict[str, Any]]:
        """A row of the table for each condition and metric; of a control that does not exist, one of its draws."""
        scores = np.vstack([measured.baseline, measured.scores])
        names, metrics = ("key_sentence",), scores[:, -1:]
        if plan.bank is not None:
            names, metrics = METRICS, read_metrics(scores, plan.bank)
        baselines, *values = metrics.tolist()
        n_queries = len(queries_of(self.sentences[-1], plan.from_span))
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
        if kind in plan.controls and span in RESAMPLED:
            chosen = donors_for(donors, trace, span, n_keys, kind, n=plan.n_donors, seed=plan.seed)
            for draw, donor in enumerate(chosen or [None]):
                yield tested._replace(control=kind, draw=draw, donor=donor, exists=donor is not None)


def queries_of(sentence: Continuation, from_span: FromSpan) -> range:
    """Positions of the queries; K's last token is one of them, although it predicts nothing of K."""
    first = sentence.start - (from_span != "key_sentence")
    return range(first, sentence.start if from_span == "decision" else len(sentence.ids))
