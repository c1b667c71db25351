"""What is in the data, before any model runs over it?

One pass over the traces finds key sentences and what can be measured: which classes there are, whether any trace fits,
and which traces are shown in full, chosen for variety.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safekey_interp.capture.streaming import StreamSettings
from safekey_interp.data.conditions import ConditionCounter, Conditions
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one pass over the data found."""

    n: int
    """Traces."""
    n_with_key_sentence: int
    """Traces in which a key sentence was found."""
    n_with_response: int
    """Traces that have a response."""
    labels: Counter[str]
    """Traces of each label."""
    outcomes: Counter[str]
    """Traces of each outcome (aha)."""
    conditions: Conditions
    """Conditions that are told apart."""
    examples: tuple[str, ...]
    """Trace ids to show in full, chosen for variety."""

    @property
    def positions(self) -> tuple[str, ...]:
        """Where states are worth reading: without responses, in the prompt alone."""
        from safekey_interp.capture.capture_request import STATE_POSITIONS

        return STATE_POSITIONS if self.n_with_response else ("prompt", "prompt_end")

    def classes(self, label_by: str) -> Counter[str]:
        """Traces of each of the two classes."""
        from safekey_interp.measures.folds import CLASSES

        counts = self.labels if label_by == "label" else self.outcomes
        return Counter({name: counts[name] for name in CLASSES[label_by]})

    def in_words(self, label_by: str) -> str:
        """The classes' sizes, for a message."""
        return ", ".join(f"{n:,} {name}" for name, n in self.classes(label_by).items())


def survey(
    model: Model,
    traces: Iterable[Trace],
    settings: StreamSettings,
    *,
    by: str | None = None,
    n_examples: int,
    seed: int,
    on_trace: Callable[[int], None] = lambda n: None,
) -> Survey:
    """Read every trace once.

    Args:
        model: its tokenizer says whether a trace fits.
        traces: the data; errors in it come out here, before anything is written.
        settings: finder and largest length.
        by: the column that tells conditions apart; None when nothing is.
        n_examples: traces to show in full.
        seed: seed of their choice.
        on_trace: called with 1 after each trace.

    Raises:
        InputError: a row cannot be read, or no trace can be measured.
    """
    labels: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    strata: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    conditions = ConditionCounter(by)
    n = with_key = with_response = 0
    fits, refusal = False, None
    for trace, found in segmented(traces, finder=settings.finder, delimiters=settings.delimiters):
        n += 1
        with_response += bool(trace.response)
        with_key += found.key_sentence is not None
        labels[trace.label or ""] += 1
        condition = conditions.add(trace)
        if found.aha is not None:
            outcomes[found.aha] += 1
        if found.key_sentence is not None and n_examples:
            _note(strata[_stratum(trace, found, condition)], trace.trace_id, seed, n_examples)
        if not fits and (found.key_sentence is not None or not trace.response):
            try:
                model.encode(trace, found, max_length=settings.max_length)
                fits = True
            except TraceError as error:
                refusal = refusal or str(error)
        elif not fits:
            refusal = refusal or f"trace {trace.trace_id}: no key sentence: {found.reason}"
        on_trace(1)
    if not fits:
        raise InputError(f"no trace can be measured; {refusal or 'there are none'}")
    return Survey(
        n=n,
        n_with_key_sentence=with_key,
        n_with_response=with_response,
        labels=labels,
        outcomes=outcomes,
        conditions=conditions.conditions(),
        examples=_round_robin(strata, n_examples),
    )


def _stratum(trace: Trace, found: Segmentation, condition: str | None) -> tuple[str, ...]:
    return (trace.label or "", found.aha or "", str(found.hint), condition or trace.source or "")


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
