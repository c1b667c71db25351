"""Draws of the key sentence from the model, token by token, and their kinds.

Every draw has a stream of its own (:mod:`~safekey_interp.generation.sampling`), and a finder reads it as it would read
the trace: the kind is the aha's. A draw in which the finder sees another U, or no whole sentence behind it, has no K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.generation.prefill_depth import Beginning
from safekey_interp.generation.requests import Engine, Generated, Request, samples
from safekey_interp.generation.sampling import Sampling
from safekey_interp.generation.tokens import PromptTokens, response_text
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented
from safekey_interp.segmentation.sentence_splitter import iterate_sentences

KINDS = {"safe": "safe", "unsafe": "go_ahead", "neutral": "neutral"}
"""Condition of each aha."""
CONDITIONS = tuple(KINDS.values())
"""Kinds of K, in the order of the rows."""


class TokenEngine(Engine, Protocol):
    """An engine whose tokens are known here: a local model's, or vLLM's."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        ...

    @property
    def max_positions(self) -> int | None:
        """How far the model reads; None where it is not known."""
        ...


class Drawn(NamedTuple):
    """A draw that has a key sentence."""

    number: int
    """From 1."""
    generated: Generated
    """What was written behind U."""
    key: CharSpan
    """K in the response."""


@dataclass
class TraceDraws:
    """Draws behind one trace's U."""

    trace: Trace
    """The trace."""
    segmentation: Segmentation
    """Its own U and K."""
    beginning: Beginning
    """Its tokens before K."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CONDITIONS, 0))
    """Draws of each kind."""
    kept: dict[str, list[Drawn]] = field(default_factory=dict)
    """The first of each kind, in their order."""

    def request(self) -> Request:
        """What is drawn from."""
        return self.beginning.request(self.trace, len(self.beginning.ends), share=1.0, condition="resampled")


def draw(
    engine: TokenEngine,
    draws: Mapping[str, TraceDraws],
    sampling: Sampling,
    settings: SegmentationSettings,
    *,
    n_tries: int,
    per_kind: int,
    key_tokens: int,
) -> None:
    """Draw key sentences behind each trace's U, count them, and keep the first of each kind.

    Args:
        engine: which answers.
        draws: by trace id; filled here.
        sampling: temperature, top_p and seed.
        settings: finder that reads the draws.
        n_tries: draws for each trace.
        per_kind: draws of each kind that are kept.
        key_tokens: tokens of a draw at most.
    """
    # With few tokens first: a draw that is made again with more resumes the same stream, so that it is the same.
    pending = list(samples((of_trace.request() for of_trace in draws.values()), n_tries))
    for limit in sorted({-(-key_tokens // 3), key_tokens}):
        answers = list(engine.generate(pending, replace(sampling, n=1, max_new_tokens=limit))) if pending else []
        pending = []
        segmentations = segmented((answer.trace() for answer in answers), settings)
        for answer, (_, segmentation) in zip(answers, segmentations, strict=True):
            if answer.cut and limit < key_tokens and not _is_settled(segmentation):
                pending.append(answer.request)
                continue
            of_trace = draws[answer.trace_id]
            key = segmentation.key_sentence
            condition = None if key is None else _kind(of_trace.segmentation, segmentation, key, cut=answer.cut)
            if key is not None and condition is not None:
                of_trace.counts[condition] += 1
                kept = [*of_trace.kept.get(condition, []), Drawn(answer.sample + 1, answer, key)]
                of_trace.kept[condition] = sorted(kept, key=lambda drawn: drawn.number)[:per_kind]


def _is_settled(segmentation: Segmentation) -> bool:
    """Whether no more text can change where K lies: a whole sentence follows it, or the reasoning has ended."""
    response, end = segmentation.response, segmentation.reasoning.end
    if segmentation.region == "reasoning" and response[end:].strip():
        return True
    if segmentation.key_sentence is None:
        return False
    return len(list(islice(iterate_sentences(response, segmentation.key_sentence.end, end), 2))) == 2


def _kind(original: Segmentation, drawn: Segmentation, key: CharSpan, *, cut: bool) -> str | None:
    """The condition of a draw; None where it is no K behind the same U, or has no end."""
    if drawn.region != original.region or drawn.understanding != original.understanding or drawn.aha is None:
        return None
    is_whole = not cut or bool(drawn.response[key.end :].strip())
    return KINDS[drawn.aha] if is_whole else None


def behind(tokenizer: Any, drawn: Drawn, condition: str, sample: int) -> Request:
    """The request that continues a drawn K, from the very tokens that were drawn."""
    answer = drawn.generated
    assert answer.input_ids is not None
    assert answer.new_ids is not None
    n_prefill = len(answer.input_ids) - (answer.response_start or 0)
    prompt, begins = PromptTokens(list(answer.input_ids), n_prefill), answer.response[: drawn.key.end]
    for n in range(1, len(answer.new_ids) + 1):
        text = response_text(tokenizer, answer.request, prompt, answer.new_ids[:n])
        if text.startswith(begins):
            break
    else:
        n, text = len(answer.new_ids), answer.response
    ids = (*answer.input_ids, *answer.new_ids[:n])
    return replace(answer.request, prefill=text, input_ids=ids, condition=condition, depth=n_prefill + n, sample=sample)
