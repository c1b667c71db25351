"""Token positions of prompt, prefill and a response that is still being written.

The encoding of the text so far (:mod:`safekey_interp.models.encoding`), over the very tokens that the model read and
wrote, never tokenised again: the characters of a written token are those that the response gains by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import and_, eq
from typing import Any

from safekey_interp.data.span_expressions import check_spans
from safekey_interp.errors import TraceError
from safekey_interp.generation.generation_edits import GENERATED, WRITTEN
from safekey_interp.generation.requests import Request
from safekey_interp.generation.tokens import PromptTokens
from safekey_interp.generation.written_text import WrittenText
from safekey_interp.models.chat_template import render
from safekey_interp.models.encoding import Encoding, encode_tokens
from safekey_interp.models.tokenisation import tokenise
from safekey_interp.segmentation.finder_registry import Finder
from safekey_interp.segmentation.segmenter import Segmentation, segment


class WrittenPositions:
    """Positions of one request's tokens while its response is written."""

    def __init__(self, tokenizer: Any, request: Request, prompt: PromptTokens, finder: Finder) -> None:
        """Encode prompt and prefill.

        Args:
            tokenizer: the model's.
            request: what is asked.
            prompt: its tokens.
            finder: finds U and K.

        Raises:
            TraceError: the tokens are given, and their text is another one, so that characters cannot be told.
        """
        self._tokenizer, self._request, self._prompt, self._finder = tokenizer, request, prompt, finder
        self._rendered = render(tokenizer, request.trace.with_(response=request.prefill, given={}))
        ids, offsets = tokenise(tokenizer, self._rendered)
        self._offsets = list(offsets) if list(ids) == prompt.ids else self._offsets_of_given()
        self._new: list[int] = []
        self._text = WrittenText(tokenizer, request, prompt)
        self.given = self._encoded(request.prefill)
        """The encoding of prompt and prefill."""
        self._now: Encoding | None = self.given

    def write(self, token: int) -> None:
        """The model has written a further token."""
        self._new.append(token)
        self._now = None

    def positions(self, name: str) -> Sequence[int]:
        """Tokens of a position in the text so far, ascending.

        Raises:
            InputError: an expression that cannot be parsed, or a name that is no span.
            TraceError: prompt and prefill do not hold it, and it cannot be found while the response is written.
        """
        first = len(self._prompt.ids)
        if name == GENERATED:
            return range(first, first + len(self._new))
        if name in WRITTEN:
            return self.encoding().positions(name)
        known = self.given.positions(name)
        if not known:
            check_spans([name], {*self._request.trace.span_names, GENERATED})
            raise TraceError(
                self._request.trace.trace_id,
                f"position {name!r}: not in prompt and prefill, and of a response only {GENERATED} and "
                f"{', '.join(WRITTEN)} are found while it is written; give a prefill that holds it",
            )
        return known

    def encoding(self) -> Encoding:
        """The encoding of all tokens so far."""
        if self._now is None:
            shift = self._rendered.response_start
            for token in self._new[len(self._text.tokens) :]:
                self._text.write(token)
                begin = max(shift + len(self._request.prefill), self._offsets[-1][1])
                self._offsets.append((begin, max(begin, shift + self._text.ends[-1])))
            self._now = self._encoded(self._text.text)
        return self._now

    def segmentation(self) -> Segmentation:
        """Where the finder sees understanding and key sentence in the response so far, in characters."""
        self.encoding()
        return self._segmentation

    def _offsets_of_given(self) -> list[tuple[int, int]]:
        """Characters of tokens that are given: what each of a prefill adds, up to those that are the text's own."""
        trace, n = self._request.trace.with_(response="", given={}), self._prompt.response_start
        bare = render(self._tokenizer, trace)
        ids, before = tokenise(self._tokenizer, bare)
        own, offsets = tokenise(self._tokenizer, self._rendered)
        given = self._prompt.ids[n:]
        n_same = sum(accumulate(map(eq, reversed(own), reversed(given)), and_))
        text = WrittenText(self._tokenizer, Request(trace=trace), PromptTokens(list(ids), 0))
        for token in given[: len(given) - n_same]:
            text.write(token)
        joint, n_own = len(bare.text) + len(text.text), len(own) - n_same
        is_own = bare.text + text.text == self._rendered.text[:joint]
        ends = [0, *(end for _, end in offsets)]
        if list(ids) != self._prompt.ids[:n] or not is_own or joint != ends[n_own]:
            raise TraceError(
                self._request.trace.trace_id,
                "its tokens are given, and are not those of its text, so that no position can be told",
            )
        shift = bare.response_start
        written = [(shift + begin, shift + end) for begin, end in pairwise([0, *text.ends])]
        return [*before, *written, *offsets[n_own:]]

    def _encoded(self, response: str) -> Encoding:
        trace = self._request.trace.with_(response=response, given={})
        text = self._rendered.text[: self._rendered.response_start] + response
        read = [*self._prompt.ids, *self._new], self._offsets
        self._segmentation = segment(trace, finder=self._finder)
        return encode_tokens(trace, self._segmentation, self._rendered._replace(text=text), read)
