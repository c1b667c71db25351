"""Survey of a probe's data before the model runs over it: one pass that segments every trace.

It counts classes and conditions, checks that at least one trace fits the model, and chooses the traces that are shown
in full, for variety. The segmentations wait in a temporary file until the traces are measured.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.capture_request import RECIPE, CaptureRequest
from safekey_interp.capture.feature_maps import FeatureMap
from safekey_interp.capture.measured_spans import BUILT_IN, MeasuredSpans
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.streaming import Entry, StreamSettings, encoded
from safekey_interp.data.class_labels import OUTCOME, LabelBy, class_pair, label_of
from safekey_interp.data.conditions import ConditionCounter, Conditions
from safekey_interp.data.record_spool import RecordSpool
from safekey_interp.data.span_expressions import SPAN_NAMES, check_spans, span_references
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError, RunError
from safekey_interp.measures.folds import MIN_GROUPS
from safekey_interp.models.unknown_tokens import UnknownTokens
from safekey_interp.segmentation.finder_trust import FinderTrust
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


_SAMPLE = 64
"""Traces that are drawn for an estimate of the cost."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Result of one pass over the data."""

    n: int
    """Traces."""
    n_with_key_sentence: int
    """Traces in which a key sentence was found."""
    n_with_response: int
    """Traces that have a response."""
    classes: Counter[str]
    """Traces of each of the two classes, the positive one first."""
    has_groups: bool
    """Whether each class has as many groups as probes need."""
    conditions: Conditions
    """Conditions that are told apart."""
    examples: tuple[str, ...]
    """Trace ids to show in full, chosen for variety."""
    first: Entry
    """The first trace that fits the model, encoded."""
    spans: MeasuredSpans
    """What was asked for."""
    trust: dict[str, Any]
    """How far the finder can be trusted on these data."""
    sample: tuple[tuple[Entry, int], ...]
    """Some of the traces, drawn by the seed, each with its length: characters up to the end of what is read."""
    mean_length: float
    """The mean of these lengths, over all traces."""
    records: RecordSpool
    """The segmentation of each trace, and the reason why it does not fit, where that is known."""

    def entries(self, traces: Iterable[Trace]) -> Iterator[Entry]:
        """The same traces again with their segmentations, to be encoded."""
        for trace, (segmentation, left_out) in zip(traces, self.records, strict=True):
            if trace.trace_id == self.first.trace.trace_id:
                yield self.first
            else:
                yield Entry(trace=trace, segmentation=_segmentation_of(trace, segmentation), left_out=left_out)

    @property
    def positions(self) -> tuple[str, ...]:
        """Where states are worth reading: of the recipe without responses, in the prompt alone."""
        no_response = self.spans.is_recipe and not self.n_with_response
        return ("prompt", "prompt_end") if no_response else self.spans.positions

    @property
    def has_attention(self) -> bool:
        """Whether attention is measured: of the recipe, from key sentences alone."""
        return self.n_with_key_sentence > 0 if self.spans.is_recipe else self.spans.pairs is not None

    @property
    def in_words(self) -> str:
        """The classes' sizes, for a message."""
        return ", ".join(f"{n:,} {name}" for name, n in self.classes.items() if name)


def survey(
    model: Model,
    traces: Iterable[Trace],
    settings: StreamSettings,
    *,
    spans: MeasuredSpans = BUILT_IN,
    label_by: LabelBy = "label",
    by: str | None = None,
    n_examples: int,
    seed: int,
    allow_unknown: bool = False,
    on_trace: Callable[[int], None] = lambda n: None,
) -> Survey:
    """Segment every trace.

    Args:
        model: its tokenizer says whether a trace fits.
        traces: the data.
        settings: finder and largest length.
        spans: what is measured.
        label_by: the column of the two classes.
        by: the column that tells conditions apart; None when nothing is.
        n_examples: traces to show in full.
        seed: seed of their choice.
        allow_unknown: accept text that the model's tokenizer does not know.
        on_trace: called with 1 after each trace.

    Raises:
        InputError: the tokenizer does not know the text, a row cannot be read, no trace has a span that is named, or
            no trace can be measured.
        RunError: there is no room for temporary files.
    """
    classes: Counter[str | None] = Counter()
    groups: dict[str | None, set[str]] = defaultdict(set)
    strata: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    conditions = ConditionCounter(by, "label" if label_by == OUTCOME else label_by)
    n = with_key = with_response = 0
    records, first, refusal, trust = RecordSpool(), None, None, FinderTrust()
    own: set[str] = set()
    drawn, length, unknown = Draw(seed), 0, UnknownTokens(model.tokenizer)
    for trace, segmentation in segmented(traces, settings):
        n += 1
        trust.add(trace, segmentation)
        with_response += bool(trace.response)
        with_key += segmentation.key_sentence is not None
        its_class = segmentation.aha if label_by == OUTCOME else label_of(trace, label_by)
        classes[its_class] += 1
        if len(groups[its_class]) < MIN_GROUPS:
            groups[its_class].add(trace.group)
        condition = conditions.add(trace)
        own.update(trace.span_names)
        if not allow_unknown:
            unknown.add_trace(trace)
        if n_examples and _may_be_shown(spans, trace, segmentation):
            _note(strata[_stratum(trace, segmentation, condition)], trace.trace_id, seed, n_examples)
        entry = Entry(trace=trace, segmentation=segmentation)
        length += (its_length := _length(entry, spans))
        drawn.add((entry, its_length), trace.trace_id)
        if first is None:
            entry = encoded(model, entry, settings, spans.request)
            first = entry if entry.encoding is not None else None
            refusal = refusal or f"trace {trace.trace_id}: {entry.left_out}"
        if not records.append(_record_of(entry)):
            raise RunError(f"temporary files, {gettempdir()}: no room; make some, or name another folder with TMPDIR")
        on_trace(1)
    check_spans(spans.expressions, own)
    unknown.check(model.name, allowed=allow_unknown)
    if first is None:
        raise InputError(f"no trace can be measured; {refusal or 'there are none'}")
    pair = class_pair(classes.elements(), label_by)
    return Survey(
        n=n,
        n_with_key_sentence=with_key,
        n_with_response=with_response,
        classes=Counter({name: classes[name] for name in pair}),
        has_groups=all(len(groups[name]) == MIN_GROUPS for name in pair),
        conditions=conditions.conditions(),
        examples=_round_robin(strata, n_examples),
        first=first,
        spans=spans,
        trust=trust.record(),
        sample=tuple(drawn.items),
        mean_length=length / n,
        records=records,
    )


def request_of(
    model: Model, overview: Survey, options: dict[str, Any], seed: int, features: FeatureMap | None = None
) -> CaptureRequest:
    """What is to be measured; raises InputError when that is nothing, ModelError when the model does not show it."""
    has_classes = bool(overview.positions) and min(overview.classes.values()) > 0
    request = CaptureRequest(
        attention=overview.has_attention,
        states=has_classes or (bool(overview.positions) and options["states"]),
        features=features if has_classes else None,
        layers=options["layers"],
        positions=overview.positions,
        spans=overview.spans.pairs or RECIPE,
        n_random=options["n_random"],
        seed=seed,
    )
    if not request.attention and not request.states:
        none = "no trace has a key sentence" if overview.spans.is_recipe else "no query is named"
        raise InputError(
            f"nothing to measure: {none}, where attention is measured, and separability needs two "
            f"classes by {options['label_by']}, got {overview.in_words}; add responses or labels"
        )
    if request.attention:
        check_attention(model)
    if options["backend"] == "bridge":
        model.bridge()
    return request


def _length(entry: Entry, spans: MeasuredSpans) -> int:
    """Characters up to the end of what is read; of the recipe none where a response has no key sentence."""
    trace, key_sentence = entry.trace, entry.segmentation.key_sentence
    if not spans.is_recipe:
        return len(trace.prompt) + len(trace.response)
    if trace.response and key_sentence is None:
        return 0
    return len(trace.prompt) + (key_sentence.end if key_sentence else 0)


class Draw:
    """A draw of some of a stream's items, which depends on their names and the seed alone."""

    def __init__(self, seed: int, n: int = _SAMPLE) -> None:
        self._seed, self._n = seed, n
        self._kept: list[tuple[str, str, Any]] = []

    def add(self, item: Any, name: str) -> None:
        """Keep an item as long as it is among the first in the order of the draw."""
        self._kept.append((hashlib.sha256(f"{self._seed} {name}".encode()).hexdigest(), name, item))
        if len(self._kept) > 2 * self._n:
            self._cut()

    @property
    def items(self) -> list[Any]:
        """Those that are drawn."""
        self._cut()
        return [item for _, _, item in self._kept]

    def _cut(self) -> None:
        self._kept = sorted(self._kept, key=lambda kept: kept[:2])[: self._n]


def _may_be_shown(spans: MeasuredSpans, trace: Trace, segmentation: Segmentation) -> bool:
    """Whether a trace may have attention to show: of the recipe, with a key sentence; else with a query."""
    if spans.is_recipe:
        return segmentation.key_sentence is not None
    there = {*SPAN_NAMES, *trace.span_names}
    return any(
        all(not isinstance(name, str) or name in there for name in span_references([query]))
        for query in spans.maps.values()
    )


def _record_of(entry: Entry) -> bytes:
    """A segmentation as JSON, without the text, and the reason why its trace was left out."""
    names = [field.name for field in fields(Segmentation) if field.name not in ("trace_id", "response")]
    values = {name: getattr(entry.segmentation, name) for name in names}
    spans = {name: [value.start, value.end] for name, value in values.items() if isinstance(value, CharSpan)}
    # A finder of the user's own may hand out numpy's numbers.
    return json.dumps([values | spans, entry.left_out], default=lambda number: number.item()).encode()


def _segmentation_of(trace: Trace, record: dict[str, Any]) -> Segmentation:
    spans: dict[str, Any] = {name: CharSpan(*value) for name, value in record.items() if isinstance(value, list)}
    return Segmentation(**(record | spans), trace_id=trace.trace_id, response=trace.response)


def _stratum(trace: Trace, segmentation: Segmentation, condition: str | None) -> tuple[str, ...]:
    return (trace.label or "", segmentation.aha or "", str(segmentation.hint), condition or trace.source or "")


def _note(stratum: list[tuple[str, str]], trace_id: str, seed: int, n: int) -> None:
    """Keep the ``n`` traces of a stratum that come first in an order given by the seed."""
    stratum.append((hashlib.sha256(f"{seed} {trace_id}".encode()).hexdigest(), trace_id))
    if len(stratum) > 2 * n:
        stratum.sort()
        del stratum[n:]


def _round_robin(strata: dict[tuple[str, ...], list[tuple[str, str]]], n: int) -> tuple[str, ...]:
    queues = [sorted(strata[name]) for name in sorted(strata)]
    chosen: list[str] = []
    while len(chosen) < n and any(queues):
        for queue in queues:
            if queue and len(chosen) < n:
                chosen.append(queue.pop(0)[1])
    return tuple(chosen)
