"""Prefill depth: how many first tokens of a response it takes to undo a refusal.

The first d tokens of a response are given, exactly as they were, and the model continues from there. Qi et al. 2024
(arXiv 2406.05946) prefill the beginnings of harmful answers: alignment that is a few tokens deep is gone behind them.
In a reasoning model the key sentence decides (SafeKey, arXiv 2505.16186), so that a prefill that holds K gives the
decision away, and one that passes the reasoning gives the answer away. Depths therefore end before K:

    0 <= d <= D,    D = tokens of the response before K's first token: the mark of the reasoning, and U

Depths are numbers of tokens, or shares of D: by share, every trace is there at every depth. Models of one tokenizer
that are given the same responses are compared at equal depths. Controls (:func:`depth_requests`) give as many tokens of
another text behind the same prompt: the model's own response, the response of a benign trace of the nearest D
(:func:`same_length`), or a fixed opening.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.requests import Request
from safekey_interp.generation.sampling import stream_seed
from safekey_interp.models.chat_template import render
from safekey_interp.models.tokenisation import tokenise
from safekey_interp.segmentation.finder_registry import Finder
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Depths as shares of the tokens before K, from none to all."""


class Beginning(NamedTuple):
    """The tokens of a prompt and of the beginning of a response."""

    ids: tuple[int, ...]
    """All of them, the prompt's first."""
    ends: tuple[int, ...]
    """Characters of the response that are whole behind each token of the beginning; as many as it has tokens."""
    text: str
    """The beginning."""

    def request(self, trace: Trace, depth: int, *, share: float, condition: str) -> Request:
        """The request that gives the first ``depth`` tokens of the response behind the trace's prompt."""
        about: dict[str, Any] = {"trace": trace, "condition": condition, "depth": depth, "share": share}
        if depth == 0:
            return Request(**about)
        ids = self.ids[: len(self.ids) - len(self.ends) + depth]
        return Request(prefill=self.text[: self.ends[depth - 1]], input_ids=ids, **about)


def beginning(tokenizer: Any, trace: Trace, end: int) -> Beginning:
    """The tokens of a trace before a character of its response, from the tokens of the whole.

    Args:
        tokenizer: of the model that is to answer.
        trace: a prompt with a response.
        end: characters of the response; white space at their end belongs to the token behind it where they share one.

    Raises:
        TraceError: a token holds words from both sides of ``end``, or the chat template refuses the trace.
    """
    rendered = render(tokenizer, trace)
    ids, offsets = tokenise(tokenizer, rendered)
    text, first = rendered.text, rendered.response_start
    edge = first + end
    n_before = sum(stop <= first for _, stop in offsets)
    n = next(
        (i for i, (begin, stop) in enumerate(offsets) if stop > edge and text[max(begin, edge) : stop].strip()),
        len(ids),
    )
    if n < len(ids) and text[min(offsets[n][0], edge) : edge].strip():
        raise TraceError(trace.trace_id, "a token holds words of the key sentence and of what is before it")
    # A token may end within a character, which is not known then.
    ends = [min(offsets[i][1], *(begin for begin, _ in offsets[i + 1 : i + 2]), edge) for i in range(n_before, n)]
    return Beginning(tuple(ids[:n]), tuple(stop - first for stop in ends), trace.response[:end])


def before_key(tokenizer: Any, trace: Trace, segmentation: Segmentation) -> Beginning:
    """The tokens of a trace before K: none holds a character of K.

    Args:
        tokenizer: of the model that is to answer.
        trace: a prompt with a response.
        segmentation: where K lies in the response.

    Raises:
        TraceError: there is no K, or it shares a token with what is before it; or the chat template refuses the trace.
    """
    if segmentation.key_sentence is None:
        raise TraceError(trace.trace_id, f"no key sentence: {segmentation.reason}")
    return beginning(tokenizer, trace, segmentation.key_sentence.start)


def depths(
    tokenizer: Any, trace: Trace, numbers: Iterable[int], segmentation: Segmentation, *, shares: Iterable[float] = ()
) -> list[Request]:
    """A trace asked again with the first d tokens of its response given, exactly, and never K.

    Args:
        tokenizer: of the model that is to answer.
        trace: a trace with its response; harmful ones for Qi et al.'s experiment.
        numbers: depths in tokens, 0 for nothing; one that reaches into K is left out.
        segmentation: where K lies in the response.
        shares: depths as shares of the tokens before K, in [0, 1], rounded up to whole tokens.

    Returns:
        Requests of the condition ``depth``, by depth and each depth once, with ``depth`` (tokens given) and ``share``
        (the requested share, else depth / D).

    Raises:
        InputError: a number below 0, or a share outside [0, 1].
        TraceError: there is no K, or it shares a token with what is before it; or the chat template refuses the trace.
    """
    numbers, shares = sorted(set(numbers)), sorted(set(shares))
    for number in numbers:
        if number < 0:
            raise InputError(f"depth: got {number}, expected a number of tokens, 0 or more")
    for share in shares:
        if not 0 <= share <= 1:
            raise InputError(f"shares: got {share}, expected shares of the tokens before K, in [0, 1]")
    before_k = before_key(tokenizer, trace, segmentation)
    most = len(before_k.ends)
    wanted = {number: number / most if most else 0.0 for number in numbers if number <= most}
    for share in reversed(shares):
        wanted[-int(-share * most // 1)] = float(share)
    return [before_k.request(trace, depth, share=wanted[depth], condition="depth") for depth in sorted(wanted)]


class DepthRequests(NamedTuple):
    """Requests of an experiment by depth."""

    requests: list[Request]
    """Of the condition ``depth`` and of each control."""
    left_out: dict[str, str]
    """Why traces are not asked, by trace id."""


def depth_requests(
    tokenizer: Any,
    traces: Iterable[Trace],
    *,
    numbers: Iterable[int] = (),
    shares: Iterable[float] = SHARES,
    controls: Mapping[str, Mapping[str, Trace]] | None = None,
    openings: Mapping[str, str] | None = None,
    finder: str | Finder = "rules",
    delimiters: tuple[str, str] | None = None,
) -> DepthRequests:
    """Requests by depth for many traces, and at the same depths behind the same prompts those of controls.

    Args:
        tokenizer: of the model that is to answer.
        traces: with the responses whose beginnings are given, such as a base model's answers to harmful prompts.
        numbers: depths in tokens; those that reach into K are left out.
        shares: depths as shares of the tokens before K, in [0, 1].
        controls: by name, for each trace id a trace whose response is given instead, also up to its own K: such as
            ``{"own": the model's own answers, "benign": same_length(…)}``.
        openings: by name, a fixed text that is given instead, such as an agreement to help. What it decides is decided
            by its words: it is an attack to compare with, not a beginning without K.
        finder: finds K.
        delimiters: marks of the reasoning; the known families' when None.

    Returns:
        Requests of the condition ``depth`` and, at each of their depths above 0 that the other text reaches, one of
        each control: of the same trace, depth and share. Traces without K are left out.

    Raises:
        InputError: no depth, a number below 0, a share outside [0, 1], or a control named ``depth``.
    """
    others = {name: dict(by_id) for name, by_id in (controls or {}).items()}
    fixed = dict(openings or {})
    names = [*others, *fixed]
    if "depth" in names or len(set(names)) < len(names):
        raise InputError(
            f"controls: got {', '.join(names)}, expected names that differ from one another and from 'depth'"
        )
    numbers, shares = list(numbers), list(shares)
    if not numbers and not shares:
        raise InputError("depths: got none, expected numbers of tokens or shares of the tokens before K")
    requests: list[Request] = []
    left_out: dict[str, str] = {}
    settings = SegmentationSettings(finder=finder, delimiters=delimiters)
    texts_of = {name: _ends_before_key(by_id, settings) for name, by_id in others.items()}
    for trace, segmentation in segmented(traces, settings):
        try:
            own = depths(tokenizer, trace, numbers, segmentation, shares=shares)
            given = {name: _behind(tokenizer, trace, texts.get(trace.trace_id)) for name, texts in texts_of.items()}
            given |= {name: _behind(tokenizer, trace, (text, len(text))) for name, text in fixed.items()}
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
            continue
        requests += own
        for name, other in given.items():
            requests += [
                other.request(trace, request.depth, share=request.share or 0.0, condition=name)
                for request in own
                if other is not None and request.depth and request.depth <= len(other.ends)
            ]
    return DepthRequests(requests, left_out)


def same_length(
    tokenizer: Any,
    traces: Iterable[Trace],
    donors: Iterable[Trace],
    *,
    finder: str | Finder = "rules",
    delimiters: tuple[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Trace]:
    """For each trace, another one whose response has the nearest number of tokens before K: a control of equal length.

    Args:
        tokenizer: of the model that is to answer.
        traces: those that want one.
        donors: traces to choose from, such as benign ones; one of the trace's own group is never chosen, and one with
            fewer tokens before K only where none has as many.
        finder: finds K.
        delimiters: marks of the reasoning; the known families' when None.
        seed: of the choice among equals, which depends on the trace's id.

    Returns:
        Donors by trace id; traces without K, or without a donor, are not there.
    """
    settings = SegmentationSettings(finder=finder, delimiters=delimiters)
    lengths = [(donor, n) for donor, n in _lengths(tokenizer, donors, settings)]
    chosen = {}
    for trace, n in _lengths(tokenizer, traces, settings):
        far = [(m < n, abs(m - n)) if donor.group != trace.group else None for donor, m in lengths]
        best = min((distance for distance in far if distance is not None), default=None)
        if best is not None:
            equal = [donor for (donor, _), distance in zip(lengths, far, strict=True) if distance == best]
            chosen[trace.trace_id] = equal[stream_seed(seed, trace.trace_id, 0) % len(equal)]
    return chosen


def _lengths(tokenizer: Any, traces: Iterable[Trace], settings: SegmentationSettings) -> Iterable[tuple[Trace, int]]:
    for trace, segmentation in segmented(traces, settings):
        try:
            yield trace, len(before_key(tokenizer, trace, segmentation).ends)
        except TraceError:
            continue


def _ends_before_key(by_id: Mapping[str, Trace], settings: SegmentationSettings) -> dict[str, tuple[str, int]]:
    """Of each trace id, the response to give and the characters of it before K."""
    segmented_traces = zip(by_id, segmented(by_id.values(), settings), strict=True)
    return {
        name: (trace.response, segmentation.key_sentence.start)
        for name, (trace, segmentation) in segmented_traces
        if segmentation.key_sentence is not None
    }


def _behind(tokenizer: Any, trace: Trace, text: tuple[str, int] | None) -> Beginning | None:
    return None if text is None else beginning(tokenizer, trace.with_(response=text[0], given={}), text[1])
