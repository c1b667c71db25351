"""Readout of a changed model: the rows of each trace that go through it, and the metrics of what is read of them.

By default those are, with each a mean log-probability in nats per token, in K's place, behind the trace's own U,

    difference   = mean over the safe sentences − mean over the compliant ones     (as in measure_aha)
    key_sentence = the trace's own K

and both means of the difference. Others: :mod:`safekey_interp.interventions.metric_registry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.span_checks import with_known_spans
from safekey_interp.data.trace import Trace
from safekey_interp.errors import NothingMeasured, TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for, spelled
from safekey_interp.generation.likelihood import with_sentence
from safekey_interp.interventions.metric_kinds import Aha, Metric, OwnKeySentence
from safekey_interp.interventions.metric_registry import MetricLike, parse_metrics
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

METRICS = ("difference", "safe", "go_ahead", "key_sentence")
"""What is read out by default, in this order."""


def bank_or_default(model: Model, bank: KeySentences | None) -> KeySentences:
    """The bank as the model's tokenizer spells it; the tokenizer's own when None."""
    return bank_for(model.tokenizer) if bank is None else spelled(model.tokenizer, bank)


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Metrics of one model."""

    metrics: tuple[Metric, ...]
    """Bound to the model."""
    is_chosen: bool
    """Whether they were asked for: tables then have the column ``unit``."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of every number, as in the column ``metric``."""
        return tuple(name for metric in self.metrics for name in metric.names)

    @property
    def expressions(self) -> tuple[str, ...]:
        """Where they are read."""
        return tuple(dict.fromkeys(metric.at for metric in self.metrics))

    @property
    def has_key_sentence(self) -> bool:
        """Whether the trace's own K is read, as the last row."""
        return isinstance(self.metrics[-1], OwnKeySentence)

    def rows(
        self, model: Model, trace: Trace, segmentation: Segmentation, max_length: int | None
    ) -> tuple[tuple[Continuation, ...], ...]:
        """Those of each metric. Raises TraceError where one of them cannot be read."""
        # The last first: a trace without K says so before it says that it has no U.
        parts = [metric.rows(model, trace, segmentation, max_length) for metric in reversed(self.metrics)]
        return tuple(reversed(parts))

    def rows_for(self, model: Model, subject: Subject, other: Subject) -> tuple[Continuation, ...]:
        """A subject's rows, with the other's K in the place of its own: what the other reads out, in this one."""
        its_k = other.segmentation.key_sentence
        rows: list[Continuation] = []
        for metric, part in zip(self.metrics, subject.parts, strict=True):
            if isinstance(metric, OwnKeySentence) and its_k is not None:
                text = its_k.text(other.trace.response)
                rows.append(with_sentence(model, subject.trace, subject.segmentation, text))
            else:
                rows += part
        return tuple(rows)

    def values(
        self, by_row: Float[np.ndarray, "variant row"], parts: Sequence[Sequence[Continuation]]
    ) -> Float[np.ndarray, "variant metric"]:
        """The numbers of :attr:`names` from those of the rows of ``parts``, one after another."""
        edges = np.cumsum([0, *map(len, parts)]).tolist()
        return np.concatenate(
            [metric.values(by_row[:, a:b]) for metric, (a, b) in zip(self.metrics, pairwise(edges), strict=True)],
            axis=1,
        )

    def weights(self, parts: Sequence[Sequence[Continuation]]) -> Float[np.ndarray, "row metric"]:
        """What each row counts in each number, which is linear in them."""
        return self.values(np.eye(sum(map(len, parts))), parts)

    def with_units(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with the unit of each row's metric behind it, where metrics were asked for."""
        if self.is_chosen:
            units = {name: metric.unit for metric in self.metrics for name in metric.names}
            at = list(table.columns).index("metric") + 1
            table.insert(
                at, "unit", pd.Series([units[name] for name in table["metric"]], index=table.index, dtype=object)
            )
        return table


def readout_of(
    model: Model,
    metric: MetricLike | Sequence[MetricLike] | None,
    bank: KeySentences | None = None,
    *,
    default: Sequence[MetricLike] = ("aha", "key_sentence"),
) -> Readout:
    """The metrics that are asked for, of one model.

    Args:
        model: the model.
        metric: one or several (:mod:`safekey_interp.interventions.metric_registry`); ``default`` when None.
        bank: sentences of ``aha``; those of the tokenizer when None.
        default: what None stands for.

    Raises:
        InputError: a metric that cannot be parsed, or does not fit the model.
    """
    metrics = parse_metrics(list(default) if metric is None else metric)
    return Readout(metrics=tuple(each.bind(model, bank) for each in metrics), is_chosen=metric is not None)


class Subject(NamedTuple):
    """A trace that can be read out."""

    trace: Trace
    """The trace."""
    segmentation: Segmentation
    """Where its U and K lie."""
    parts: tuple[tuple[Continuation, ...], ...]
    """The rows of each metric: by default the bank's sentences in K's place, then K itself."""

    @property
    def rows(self) -> tuple[Continuation, ...]:
        """All of them."""
        return tuple(row for part in self.parts for row in part)

    @property
    def own(self) -> Continuation:
        """The last row: by default, the trace up to the end of its own K."""
        return self.parts[-1][-1]

    @property
    def about(self) -> dict[str, object]:
        """The columns that say which trace it is."""
        return {"trace_id": self.trace.trace_id, "group": self.trace.group, "label": self.trace.label}


def find_subjects(
    model: Model,
    traces: Iterable[Trace],
    readout: Readout | KeySentences,
    settings: StreamSettings = StreamSettings(),
    *,
    spans: Sequence[str] = (),
) -> tuple[list[Subject], dict[str, str]]:
    """The traces that can be read out, and why the others are left out.

    Args:
        model: the model.
        traces: any number.
        readout: the metrics; a bank stands for the default ones.
        settings: how U and K are found, and the longest trace.
        spans: further expressions that are asked for.

    Raises:
        InputError: an expression names a span that no trace has.
        NothingMeasured: no trace can be read out.
    """
    if isinstance(readout, KeySentences):
        readout = readout_of(model, None, readout)
    subjects, left_out = [], {}
    known = with_known_spans(traces, (*spans, *readout.expressions))
    for trace, segmentation in segmented(known, settings):
        try:
            parts = readout.rows(model, trace, segmentation, settings.max_length)
            subjects.append(Subject(trace, segmentation, parts))
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
    if not subjects:
        why = "no trace can be read out" if readout.is_chosen else "no trace has a key sentence behind an understanding"
        raise NothingMeasured(why, left_out)
    return subjects, left_out


def read_metrics(logprobs: Float[np.ndarray, "variant row"], bank: KeySentences) -> Float[np.ndarray, "variant metric"]:
    """:data:`METRICS` from the log-probabilities of a bank's sentences and of K, in this order."""
    return np.concatenate([Aha(bank=bank).values(logprobs), logprobs[:, -1:]], axis=1)


class OwnTokens(NamedTuple):
    """Tokens that tell the kinds of a bank's sentences apart, as they stand behind a trace's U."""

    safe: tuple[int, ...]
    """Tokens that only safe sentences have there; may be none."""
    go_ahead: tuple[int, ...]
    """Tokens that only compliant sentences have there; may be none."""


def own_tokens(subject: Subject, bank: KeySentences, *, first: bool) -> OwnTokens:
    """Tokens of one kind of sentence only, ascending.

    Args:
        subject: a trace with the bank's sentences in K's place.
        bank: the bank.
        first: only the tokens that sentences begin with.
    """
    n, end = len(bank.safe), len(bank.sentences)

    def tokens(rows: Sequence[Continuation]) -> set[int]:
        return {token for row in rows for token in row.ids[row.start : row.start + 1 if first else None].tolist()}

    safe, go_ahead = tokens(subject.rows[:n]), tokens(subject.rows[n:end])
    return OwnTokens(tuple(sorted(safe - go_ahead)), tuple(sorted(go_ahead - safe)))


def bank_tokens(tokenizer: Any, bank: KeySentences, *, first: bool) -> OwnTokens:
    """As :func:`own_tokens`, of the sentences as they stand behind any other sentence."""
    before = len(tokenizer(".", add_special_tokens=False)["input_ids"])

    def tokens(sentences: Sequence[str]) -> set[int]:
        read = [tokenizer(f". {sentence}", add_special_tokens=False)["input_ids"][before:] for sentence in sentences]
        return {token for ids in read for token in ids[: 1 if first else None]}

    safe, go_ahead = tokens(bank.safe), tokens(bank.go_ahead)
    return OwnTokens(tuple(sorted(safe - go_ahead)), tuple(sorted(go_ahead - safe)))


def other_traces(subjects: Sequence[Subject], own: Trace, seed: int) -> Iterator[Subject]:
    """The subjects of other groups than a trace's, in an order that depends on the seed and the trace."""
    others = [other for other in subjects if other.trace.group != own.group]
    order = np.random.default_rng([seed, *own.trace_id.encode()]).permutation(len(others))
    return (others[i] for i in order)
