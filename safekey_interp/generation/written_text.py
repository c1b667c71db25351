"""Text of a response that is still being written, and the characters that each token adds to it."""

from __future__ import annotations

from typing import Any

from safekey_interp.generation.requests import Request
from safekey_interp.generation.tokens import PromptTokens, response_text

_CONTEXT, _PIECE = 8, 16
"""Tokens that are decoded with those behind them, since some tokenizers drop a space at the beginning of what they
decode; and tokens after which what is before them is not decoded again."""
_INCOMPLETE = "\ufffd"
"""What a tokenizer decodes the first bytes of a character to."""


class WrittenText:
    """One response while its tokens are written."""

    def __init__(self, tokenizer: Any, request: Request, prompt: PromptTokens) -> None:
        """Begin with the prefill.

        Args:
            tokenizer: the model's.
            request: what is asked.
            prompt: its tokens.
        """
        self.tokens: list[int] = []
        """New tokens."""
        self.text = request.prefill
        """Prefill and new tokens as text."""
        self.ends: list[int] = []
        """Characters of the response behind each new token, ascending; a token within a character ends before it."""
        self._tokenizer, self._request, self._prompt = tokenizer, request, prompt
        self._begin, self._known = 0, request.prefill
        self._before = ""

    def write(self, token: int) -> str:
        """What one more token adds: nothing within a character, all of it at its end."""
        before = self.ends[-1] if self.ends else len(self._request.prefill)
        self.tokens.append(token)
        self.text = self._read()
        self.ends.append(max(before, len(self.text.rstrip(_INCOMPLETE))))
        return self.text[before : self.ends[-1]]

    def _read(self) -> str:
        """The text, decoded from a token on before which it is known: as :func:`response_text` has it."""
        if not self._begin:
            text = response_text(self._tokenizer, self._request, self._prompt, self.tokens)
        else:
            context = self.tokens[self._begin - _CONTEXT : self._begin]
            text = self._known + self._decoded([*context, *self.tokens[self._begin :]]).removeprefix(self._before)
        if len(self.tokens) - self._begin >= _PIECE and not text.endswith(_INCOMPLETE):
            self._begin, self._known = len(self.tokens), text
            self._before = self._decoded(self.tokens[-_CONTEXT:])
        return text

    def _decoded(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
