"""Rule-based finder: offline, deterministic, thousands of traces a second.

The opening is split into sentences, one at a time, and each is asked what it does
(:mod:`~safekey_interp.segmentation.speech_acts`): sentences that restate the request make up U, and the first that does
not is K. Decisions that the definition leaves open:

- A sentence that restates *and* decides ("they ask for X, which is illegal") is K. The first sentence of a reasoning
  is U all the same, unless it settles the outcome ("the user asks for X, so I must refuse"): then it is K, and U is
  empty.
- An announcement ("let me read the request again") belongs to U only when more restating follows it.
- An interjection alone ("Hmm.") belongs to the sentence that it opens.
- A quotation, list or code block that a restating sentence introduces with a colon belongs to U.
- In an answer, U is there only if the answer restates ("you are asking …"); otherwise its first sentence is K.
- Text that is not English: the first sentence is U, the second K, by position, with low confidence.

The confidence says which rule decided, in the order in which the rules can be trusted; it is set by hand, not
calibrated: 0.97 after one sentence that restates in so many words, 0.85 after several or when an answer decides at
once, 0.6 where the first sentence is U, or nothing is, by position alone, 0.3 in other languages, 0 without a key
sentence. Where no mark says what is reasoning, it is multiplied by the measured share of texts that are read without
their marks as with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.segmentation import speech_acts
from safekey_interp.segmentation.reasoning_span import Region
from safekey_interp.segmentation.sentence_classes import is_english
from safekey_interp.segmentation.sentence_splitter import WINDOW, iterate_sentences
from safekey_interp.segmentation.span_finder import NO_KEY_SENTENCE, NO_TEXT, SpanFinder, Spans

WIDEST = 16 * WINDOW
"""Characters looked at when the first window holds no key sentence."""

_SURE, _LIKELY, _BY_POSITION, _OTHER_LANGUAGE = 0.97, 0.85, 0.6, 0.3


class RulesFinder(SpanFinder):
    """The default finder."""

    name = "rules"

    def spans(self, trace: Trace, region: Region) -> Spans:
        """U and K by rule."""
        spans = _in_windows(trace, region)
        reason = "; ".join(filter(None, [spans.reason, region.caveat]))
        return spans._replace(confidence=spans.confidence * region.trust, reason=reason)


def _in_windows(trace: Trace, region: Region) -> Spans:
    """U and K, looked for in a second, wider window when the first is too small."""
    spans = _find(trace, region, WINDOW)
    if spans.key_sentence is not None or len(region.span) <= WINDOW:
        return spans
    spans = _find(trace, region, WIDEST)
    if spans.key_sentence is not None or len(region.span) <= WIDEST:
        return spans
    return spans._replace(reason=f"{spans.reason} ends within {WIDEST:,} characters")


def _find(trace: Trace, region: Region, limit: int) -> Spans:
    response, answer = trace.response, region.region == "answer"
    rest = _Reader(response, iterate_sentences(response, region.span.start, region.span.end, limit))
    first = rest.take()
    if first is None:
        return Spans(None, None, 0.0, NO_TEXT)
    opening = first.text(response)
    if not is_english(response[region.span.start : region.span.start + 600]):
        second = rest.take()
        if second is None:
            return Spans(first, None, 0.0, NO_KEY_SENTENCE)
        return Spans(first, second, _OTHER_LANGUAGE, "second sentence: not English, found by position")
    if not speech_acts.opens_with_request(opening, answer):
        reason = "first sentence: nothing before it restates the request"
        return Spans(None, first, _LIKELY if answer else _BY_POSITION, reason)
    spoken_by = "answering" if answer else speech_acts.voice(opening)
    prompt = _Prompt(trace.prompt)
    end = first.end
    n = 1
    while (span := rest.take()) is not None:
        text = span.text(response)
        if _introduced(response, end, text, prompt) or _goes_on(text, spoken_by, prompt):
            end, n, spoken_by = span.end, n + 1, speech_acts.continues(spoken_by, text)
            continue
        following = rest.peek() if speech_acts.bridges(text) else None
        if following is not None:
            announced = speech_acts.continues(spoken_by, text)
            if _goes_on(following.text(response), announced, prompt):
                end, n, spoken_by = span.end, n + 1, announced
                continue
        return Spans(CharSpan(first.start, end), span, *_verdict(opening, n))
    return Spans(CharSpan(first.start, end), None, 0.0, NO_KEY_SENTENCE)


def _verdict(opening: str, n: int) -> tuple[float, str]:
    if n > 1:
        return _LIKELY, f"first sentence after {n} that restate the request"
    if speech_acts.restates(opening, "answering") or speech_acts.frames_task(opening):
        return _SURE, "first sentence after the one that restates the request"
    return _BY_POSITION, "second sentence: the first is taken for the understanding by position"


def _goes_on(text: str, spoken_by: speech_acts.Voice, prompt: _Prompt) -> bool:
    """Whether a sentence continues the restatement, by its form or by the prompt's own words."""
    if speech_acts.restates(text, spoken_by) or prompt.holds(text):
        return True
    return not speech_acts.thinks(text) and not speech_acts.decides(text, spoken_by) and prompt.is_repeated_in(text)


_LOOK_BACK = 400
_BLOCK = re.compile(r"\s*(?:[\"“'‘>`~]|[-*•+–]\s|\(?(?:\d{1,3}|[A-Za-z])[.)]\s)")


def _introduced(response: str, end: int, text: str, prompt: _Prompt) -> bool:
    """What a restating sentence that ended in a colon introduces: a quotation, code, list items, the prompt itself."""
    before = response[max(0, end - _LOOK_BACK) : end]
    last_line = before[before.rfind("\n") + 1 :]
    if before.endswith(":"):
        return bool(_BLOCK.match(text)) or prompt.is_repeated_in(text)
    return bool(_BLOCK.match(text) and _BLOCK.match(last_line)) and _is_item(text)


def _is_item(text: str) -> bool:
    return text[:1] not in "\"“'‘`~"


class _Reader:
    """Sentences with interjections joined to what they open, and one of them to look ahead at."""

    def __init__(self, response: str, spans: Iterator[CharSpan]) -> None:
        self._response, self._spans = response, spans
        self._ahead: CharSpan | None = None

    def take(self) -> CharSpan | None:
        span, self._ahead = self._ahead or next(self._spans, None), None
        if span is None or not speech_acts.interjects(span.text(self._response)):
            return span
        following = next(self._spans, None)
        return span if following is None else CharSpan(span.start, following.end)

    def peek(self) -> CharSpan | None:
        if self._ahead is None:
            self._ahead = self.take()
        return self._ahead


_WORDS = re.compile(r"[^\W\d_]{4,}")
_COMMON_WORDS = """
about after also another because been before being between both could does doing done each even ever every from give
given have here hers into just keep know like made make many more most much must need only other over same should some
such sure than that their them then there these they thing things think this those through time under until upon user
very want wants well were what when where which while will with within without would your yours
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_READ_OF_PROMPT = 3_000
_REPEATED = 0.6
_SHORTEST_QUOTE = 12
_FEWEST_WORDS = 3


class _Prompt:
    """The content words of a prompt, by their first letters; read only when a sentence has no form that decides."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._stems: frozenset[str] | None = None

    def holds(self, sentence: str) -> bool:
        """Whether ``sentence`` is the prompt's, word by word."""
        quoted = sentence.strip(" \"'“”‘’")
        return len(quoted) >= _SHORTEST_QUOTE and quoted in self._text[:_READ_OF_PROMPT]

    def is_repeated_in(self, sentence: str) -> bool:
        """Whether most content words of ``sentence`` are the prompt's."""
        if self._stems is None:
            self._stems = _stems(self._text[:_READ_OF_PROMPT])
        words = _stems(sentence[:_READ_OF_PROMPT])
        return len(words) >= _FEWEST_WORDS and len(words & self._stems) >= _REPEATED * len(words)


def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:5] for word in _WORDS.findall(text.lower()) if word not in _COMMON)
