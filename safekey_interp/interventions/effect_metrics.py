"""What is read out of a changed model: how likely it finds safe key sentences, go-aheads, and the trace's own K.

    difference   = mean over the safe sentences − mean over the go-aheads     (as measure_aha says it)
    key_sentence = the trace's own K

each a mean log-probability in nats a token, in K's place, behind the trace's own U.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from einops import reduce
from jaxtyping import Float

from safekey_interp.data.trace import Trace
from safekey_interp.errors import NothingMeasured, TraceError
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import Continuation, with_own_sentence, with_sentence
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

METRICS = ("difference", "safe", "go_ahead", "key_sentence")
"""What is read out, in this order."""


class Subject(NamedTuple):
    """A trace that can be read out."""

    trace: Trace
    """The trace."""
    segmentation: Segmentation
    """Where its U and K lie."""
    rows: tuple[Continuation, ...]
    """The bank's sentences in K's place, then K itself."""

    @property
    def own(self) -> Continuation:
        """The trace up to the end of its own K."""
        return self.rows[-1]

    @property
    def about(self) -> dict[str, object]:
        """The columns that say which trace it is."""
        return {"trace_id": self.trace.trace_id, "group": self.trace.group, "label": self.trace.label}


def find_subjects(
    model: Model,
    traces: Iterable[Trace],
    bank: KeySentences,
    *,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    max_length: int | None = None,
) -> tuple[list[Subject], dict[str, str]]:
    """The traces that have U and K, and why the others are left out.

    Raises:
        NothingMeasured: none has.
    """
    subjects, left_out = [], {}
    for trace, found in segmented(traces, finder=finder, delimiters=delimiters):
        try:
            subjects.append(_subject(model, trace, found, bank, max_length))
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
    if not subjects:
        why = "no trace has a key sentence behind an understanding"
        raise NothingMeasured(why, left_out)
    return subjects, left_out


def _subject(model: Model, trace: Trace, found: Segmentation, bank: KeySentences, max_length: int | None) -> Subject:
    own = with_own_sentence(model, trace, found, max_length=max_length)
    return Subject(trace, found, (*(with_sentence(model, trace, found, text) for text in bank.sentences), own))


def read_metrics(logprobs: Float[np.ndarray, "arm row"], bank: KeySentences) -> Float[np.ndarray, "arm metric"]:
    """:data:`METRICS` from the log-probabilities of a subject's rows."""
    n = len(bank.safe)
    safe = reduce(logprobs[:, :n], "arm row -> arm", "mean")
    go_ahead = reduce(logprobs[:, n : n + len(bank.go_ahead)], "arm row -> arm", "mean")
    return np.stack([safe - go_ahead, safe, go_ahead, logprobs[:, -1]], axis=1)


class OwnTokens(NamedTuple):
    """Tokens that tell the kinds of a bank's sentences apart, as they stand behind a trace's U."""

    safe: tuple[int, ...]
    """Tokens that only safe sentences have there; may be none."""
    go_ahead: tuple[int, ...]
    """Tokens that only go-aheads have there; may be none."""


def own_tokens(subject: Subject, bank: KeySentences, *, first: bool) -> OwnTokens:
    """Tokens of one kind of sentence only, ascending.

    Args:
        subject: a trace with the bank's sentences in K's place.
        bank: the bank.
        first: only the tokens that sentences begin with.
    """
    n, end = len(bank.safe), len(bank.sentences)

    def tokens(rows: tuple[Continuation, ...]) -> set[int]:
        return {token for row in rows for token in row.ids[row.start : row.start + 1 if first else None].tolist()}

    safe, go_ahead = tokens(subject.rows[:n]), tokens(subject.rows[n:end])
    return OwnTokens(tuple(sorted(safe - go_ahead)), tuple(sorted(go_ahead - safe)))


def other_traces(subjects: Sequence[Subject], mine: Trace, seed: int) -> Iterator[Subject]:
    """The subjects of other groups than a trace's, in an order that depends on the seed and the trace."""
    others = [other for other in subjects if other.trace.group != mine.group]
    order = np.random.default_rng([seed, *mine.trace_id.encode()]).permutation(len(others))
    return (others[i] for i in order)
