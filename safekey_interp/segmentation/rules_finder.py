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
- Each sentence is read by the lexicon of its own language; where the next one is in a language that has none, there is
  no K, since nobody can say whether that sentence restates or decides.

The confidence says which rule decided, in the order in which the rules can be trusted; it is set by hand, not
calibrated: 0.97 after one sentence that restates in so many words, 0.85 after several or when an answer decides at
once, 0.6 where the first sentence is U, or nothing is, by position alone, 0 without a key sentence. Where no mark says
what is reasoning, it is multiplied by the measured share of texts that are read without their marks as with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.segmentation import speech_acts
from safekey_interp.segmentation.lexicon import UNREAD, Lexicon, lexicon_of
from safekey_interp.segmentation.lexicon_sections import Restatement
from safekey_interp.segmentation.reasoning_span import Region
from safekey_interp.segmentation.sentence_splitter import WINDOW, iterate_sentences
from safekey_interp.segmentation.span_finder import NO_KEY_SENTENCE, NO_TEXT, SpanFinder, Spans
from safekey_interp.segmentation.text_language import language_of
from safekey_interp.segmentation.unread_languages import not_read

WIDEST = 16 * WINDOW
"""Characters looked at when the first window holds no key sentence."""

_SURE, _LIKELY, _BY_POSITION = 0.97, 0.85, 0.6


class RulesFinder(SpanFinder):
    """The default finder."""

    name = "rules"

    def spans(self, trace: Trace, region: Region, language: str) -> Spans:
        """U and K by rule."""
        spans = _in_windows(trace, region, language)
        reason = "; ".join(filter(None, [spans.reason, region.caveat]))
        return spans._replace(confidence=spans.confidence * region.trust, reason=reason)


def _in_windows(trace: Trace, region: Region, language: str) -> Spans:
    """U and K, looked for in a second, wider window when the first is too small."""
    spans = _find(trace, region, language, WINDOW)
    if spans.key_sentence is not None or len(region.span) <= WINDOW:
        return spans
    spans = _find(trace, region, language, WIDEST)
    if spans.key_sentence is not None or len(region.span) <= WIDEST:
        return spans
    return spans._replace(reason=f"{spans.reason} ends within {WIDEST:,} characters")


def _find(trace: Trace, region: Region, language: str, limit: int) -> Spans:
    response, answer = trace.response, region.region == "answer"
    rest = _Reader(response, iterate_sentences(response, region.span.start, region.span.end, limit), language)
    first = rest.take()
    if first is None:
        return Spans(None, None, 0.0, NO_TEXT)
    if first.lexicon is UNREAD:
        return Spans(None, None, 0.0, not_read(first.language))
    if not speech_acts.opens_with_request(first.text, answer, first.forms):
        reason = "first sentence: nothing before it restates the request"
        return Spans(None, first.span, _LIKELY if answer else _BY_POSITION, reason)
    spoken_by = "answering" if answer else speech_acts.voice(first.text, first.forms)
    prompt = _Prompt(trace.prompt)
    end = first.span.end
    n = 1
    while (sentence := rest.take()) is not None:
        if _introduced(response, end, sentence, prompt) or _goes_on(sentence, spoken_by, prompt):
            end, n = sentence.span.end, n + 1
            spoken_by = speech_acts.continues(spoken_by, sentence.text, sentence.forms)
            continue
        following = rest.peek() if speech_acts.bridges(sentence.text, sentence.forms) else None
        if following is not None:
            announced = speech_acts.continues(spoken_by, sentence.text, sentence.forms)
            if _goes_on(following, announced, prompt):
                end, n, spoken_by = sentence.span.end, n + 1, announced
                continue
        if sentence.lexicon is UNREAD:
            return Spans(CharSpan(first.span.start, end), None, 0.0, not_read(sentence.language))
        return Spans(CharSpan(first.span.start, end), sentence.span, *_verdict(first, n))
    return Spans(CharSpan(first.span.start, end), None, 0.0, NO_KEY_SENTENCE)


class _Sentence(NamedTuple):
    """One sentence of a trace, and the lexicon of its language."""

    span: CharSpan
    text: str
    language: str
    lexicon: Lexicon

    @property
    def forms(self) -> Restatement:
        return self.lexicon.restatement


def _verdict(opening: _Sentence, n: int) -> tuple[float, str]:
    if n > 1:
        return _LIKELY, f"first sentence after {n} that restate the request"
    text, forms = opening.text, opening.forms
    if speech_acts.restates(text, "answering", forms) or speech_acts.frames_task(text, forms):
        return _SURE, "first sentence after the one that restates the request"
    return _BY_POSITION, "second sentence: the first is taken for the understanding by position"


def _goes_on(sentence: _Sentence, spoken_by: speech_acts.Voice, prompt: _Prompt) -> bool:
    """Whether a sentence continues the restatement, by its form or by the prompt's own words."""
    text, forms = sentence.text, sentence.forms
    if speech_acts.restates(text, spoken_by, forms) or prompt.holds(text):
        return True
    if speech_acts.thinks(text, forms) or speech_acts.decides(text, spoken_by, forms):
        return False
    return prompt.is_repeated_in(sentence)


_LOOK_BACK = 400
_BLOCK = re.compile(r"\s*(?:[\"“'‘>`~]|[-*•+–]\s|\(?(?:\d{1,3}|[A-Za-z])[.)]\s)")


def _introduced(response: str, end: int, sentence: _Sentence, prompt: _Prompt) -> bool:
    """What a restating sentence that ended in a colon introduces: a quotation, code, list items, the prompt itself."""
    before = response[max(0, end - _LOOK_BACK) : end]
    last_line = before[before.rfind("\n") + 1 :]
    if before.endswith((":", "：")):
        return bool(_BLOCK.match(sentence.text)) or prompt.is_repeated_in(sentence)
    return bool(_BLOCK.match(sentence.text) and _BLOCK.match(last_line)) and _is_item(sentence.text)


def _is_item(text: str) -> bool:
    return text[:1] not in "\"“'‘`~"


class _Reader:
    """Sentences with interjections joined to what they open, and one of them to look ahead at."""

    def __init__(self, response: str, spans: Iterator[CharSpan], around: str) -> None:
        self._response, self._spans, self._around = response, spans, around
        self._ahead: _Sentence | None = None

    def take(self) -> _Sentence | None:
        sentence, self._ahead = self._ahead or self._next(), None
        if sentence is None or not speech_acts.interjects(sentence.text, sentence.forms):
            return sentence
        following = next(self._spans, None)
        return sentence if following is None else self._read(CharSpan(sentence.span.start, following.end))

    def peek(self) -> _Sentence | None:
        if self._ahead is None:
            self._ahead = self.take()
        return self._ahead

    def _next(self) -> _Sentence | None:
        span = next(self._spans, None)
        return None if span is None else self._read(span)

    def _read(self, span: CharSpan) -> _Sentence:
        text = span.text(self._response)
        language = language_of(text, self._around)
        return _Sentence(span, text, language, lexicon_of(language))


_READ_OF_PROMPT = 3_000
_REPEATED = 0.6
_SHORTEST_QUOTE = 12
_FEWEST_WORDS = 3


class _Prompt:
    """The content words of a prompt; read only when a sentence has no form that decides."""

    def __init__(self, text: str) -> None:
        self._text = text[:_READ_OF_PROMPT]
        self._content: dict[str, frozenset[str]] = {}

    def holds(self, sentence: str) -> bool:
        """Whether ``sentence`` is the prompt's, word by word."""
        quoted = sentence.strip(" \"'“”‘’")
        return len(quoted) >= _SHORTEST_QUOTE and quoted in self._text

    def is_repeated_in(self, sentence: _Sentence) -> bool:
        """Whether most content words of ``sentence`` are the prompt's, as the sentence's language tells them."""
        lexicon = sentence.lexicon
        if lexicon.language not in self._content:
            self._content[lexicon.language] = lexicon.content(self._text)
        words = lexicon.content(sentence.text[:_READ_OF_PROMPT])
        return len(words) >= _FEWEST_WORDS and len(words & self._content[lexicon.language]) >= _REPEATED * len(words)
