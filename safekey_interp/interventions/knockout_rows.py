"""Which forward passes does a knockout need of one trace, and what do their scores say?

A trace's own key sentence and each sentence of the bank go through the model once as they are, and once for each place,
span and set of keys: the span itself, and each draw of its control.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from safekey_interp.capture.knockout import Cut
from safekey_interp.continuations import Continuation
from safekey_interp.interventions.effects import TESTED
from safekey_interp.interventions.readout import METRICS, read_metrics
from safekey_interp.key_sentence_bank import KeySentences

if TYPE_CHECKING:
    from safekey_interp.trace import Trace

FromSpan = Literal["key_sentence", "decision", "decision+key_sentence"]
"""Queries: K's own tokens, the token before K, or both."""
RANDOM = "random"
"""The span that stands for random keys alone."""
RANDOM_KEYS = "random_keys"
"""The kind of control: as many random keys as the span has."""


class Place(NamedTuple):
    """Layers and heads in which a span is hidden."""

    layers: tuple[int, ...]
    """Layers."""
    heads: tuple[int, ...] | None
    """Heads; all when None."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of each trace."""

    from_span: FromSpan
    """The queries."""
    to_spans: tuple[str, ...]
    """Spans that are hidden, one at a time; ``random`` for random keys alone."""
    places: tuple[Place, ...]
    """Where they are hidden, one place at a time."""
    n_random: int
    """Draws of each control."""
    seed: int
    """Seed of the draws."""
    bank: KeySentences | None
    """Sentences of the aha difference; None without it."""

    @property
    def draws(self) -> tuple[int | None, ...]:
        """None is the span itself, a number one of its random sets."""
        return (None, *range(self.n_random))


class Condition(NamedTuple):
    """A place, a span, and which set of keys stands for it."""

    place: Place
    """Where it is hidden."""
    span: str
    """The span, or ``random``."""
    draw: int | None
    """A random set's number; None for the span itself."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one trace needs."""

    trace: Trace
    """The trace."""
    sentences: tuple[Continuation, ...]
    """The bank's, then its own key sentence."""
    conditions: tuple[Condition, ...]
    """Each with all sentences; before them all stands the model as it is."""

    @classmethod
    def of(cls, trace: Trace, sentences: tuple[Continuation, ...], plan: Plan) -> Case:
        """A trace with the conditions that it allows: spans that it lacks have none."""
        own = sentences[-1].encoding
        conditions = tuple(
            Condition(place, span, draw)
            for place in plan.places
            for span in plan.to_spans
            if len(own.positions(matched_to(span)))
            for draw in plan.draws
            if span != RANDOM or draw is not None
        )
        return cls(trace=trace, sentences=sentences, conditions=conditions)

    @property
    def rows(self) -> tuple[Continuation, ...]:
        """The sentence of each row that goes through the model."""
        return self.sentences * (1 + len(self.conditions))

    def cuts(self, plan: Plan) -> list[Cut]:
        """What each row may not see."""
        nothing = Cut(trace_id=self.trace.trace_id, queries=(), keys=(), layers=frozenset())
        cuts = [nothing] * len(self.sentences)
        where = [
            {span: tuple(one.encoding.positions(matched_to(span))) for span in plan.to_spans} for one in self.sentences
        ]
        queries = [tuple(queries_of(one, plan.from_span)) for one in self.sentences]
        for place, span, draw in self.conditions:
            layers, heads = frozenset(place.layers), None if place.heads is None else frozenset(place.heads)
            cuts += [
                Cut(
                    trace_id=self.trace.trace_id,
                    queries=mine,
                    keys=keys[span],
                    layers=layers,
                    heads=heads,
                    draw=draw,
                )
                for mine, keys in zip(queries, where, strict=True)
            ]
        return cuts

    def records(self, scores: np.ndarray, n_keys: np.ndarray, plan: Plan) -> Iterator[dict[str, Any]]:
        """A row of the table for each condition and metric.

        Args:
            scores: nats a token, of each of :attr:`rows`.
            n_keys: keys that were cut, of each of :attr:`rows`.
            plan: what was measured.
        """
        shape = (1 + len(self.conditions), len(self.sentences))
        scores, cut = scores.reshape(shape), n_keys.reshape(shape)[1:, -1].tolist()
        names, metrics = ("key_sentence",), scores
        if plan.bank is not None:
            names, metrics = METRICS, read_metrics(scores, plan.bank)
        baselines, *values = metrics.tolist()
        n_queries = len(queries_of(self.sentences[-1], plan.from_span))
        for (place, span, draw), n, of_condition in zip(self.conditions, cut, values, strict=True):
            for name, baseline, value in zip(names, baselines, of_condition, strict=True):
                yield {
                    "trace_id": self.trace.trace_id,
                    "group": self.trace.group,
                    "label": self.trace.label,
                    "from_span": plan.from_span,
                    "to_span": span,
                    "layer": place.layers[0],
                    "n_layers": len(place.layers),
                    "head": -1 if place.heads is None or len(place.heads) != 1 else place.heads[0],
                    "control": TESTED if draw is None or span == RANDOM else RANDOM_KEYS,
                    "draw": -1 if draw is None else draw,
                    "n_q": n_queries,
                    "n_k": n,
                    "metric": name,
                    "baseline": baseline,
                    "value": value,
                    "effect": value - baseline,
                }


def queries_of(sentence: Continuation, from_span: FromSpan) -> range:
    """Positions of the queries; K's last token is one of them, although it predicts nothing of K."""
    first = sentence.start - (from_span != "key_sentence")
    return range(first, sentence.start if from_span == "decision" else len(sentence.ids))


def matched_to(span: str) -> str:
    """The span whose keys a control is as many as; random keys alone are as many as U's."""
    return "understanding" if span == RANDOM else span
