"""Log-probabilities of safe and compliant key sentences, and of the trace's own K, in a changed model.

    difference   = mean over the safe sentences − mean over the compliant ones     (as in measure_aha)
    key_sentence = the trace's own K

each a mean log-probability in nats a token, in K's place, behind the trace's own U.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from einops import reduce
from jaxtyping import Float

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.trace import Trace
from safekey_interp.errors import NothingMeasured, TraceError
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for, spelled
from safekey_interp.generation.likelihood import Continuation, with_own_sentence, with_sentence
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

METRICS = ("difference", "safe", "go_ahead", "key_sentence")
"""What is read out, in this order."""


def bank_or_default(model: Model, bank: KeySentences | None) -> KeySentences:
    """The bank as the model's tokenizer spells it; the tokenizer's own when None."""
    return bank_for(model.tokenizer) if bank is None else spelled(model.tokenizer, bank)


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
    settings: StreamSettings = StreamSettings(),
) -> tuple[list[Subject], dict[str, str]]:
    """The traces that have U and K, and why the others are left out.

    Raises:
        NothingMeasured: none has.
    """
    subjects, left_out = [], {}
    for trace, segmentation in segmented(traces, settings):
        try:
            own = with_own_sentence(model, trace, segmentation, max_length=settings.max_length)
            rows = (with_sentence(model, trace, segmentation, text) for text in bank.sentences)
            subjects.append(Subject(trace, segmentation, (*rows, own)))
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
    if not subjects:
        raise NothingMeasured("no trace has a key sentence behind an understanding", left_out)
    return subjects, left_out


def read_metrics(logprobs: Float[np.ndarray, "variant row"], bank: KeySentences) -> Float[np.ndarray, "variant metric"]:
    """:data:`METRICS` from the log-probabilities of a subject's rows."""
    n = len(bank.safe)
    safe = reduce(logprobs[:, :n], "variant row -> variant", "mean")
    go_ahead = reduce(logprobs[:, n : n + len(bank.go_ahead)], "variant row -> variant", "mean")
    return np.stack([safe - go_ahead, safe, go_ahead, logprobs[:, -1]], axis=1)


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

    def tokens(rows: tuple[Continuation, ...]) -> set[int]:
        return {token for row in rows for token in row.ids[row.start : row.start + 1 if first else None].tolist()}

    safe, go_ahead = tokens(subject.rows[:n]), tokens(subject.rows[n:end])
    return OwnTokens(tuple(sorted(safe - go_ahead)), tuple(sorted(go_ahead - safe)))


def other_traces(subjects: Sequence[Subject], own: Trace, seed: int) -> Iterator[Subject]:
    """The subjects of other groups than a trace's, in an order that depends on the seed and the trace."""
    others = [other for other in subjects if other.trace.group != own.group]
    order = np.random.default_rng([seed, *own.trace_id.encode()]).permutation(len(others))
    return (others[i] for i in order)
