"""Text of a response that is still being written, and the characters that each token adds to it."""

from __future__ import annotations

from typing import Any

from safekey_interp.generation.requests import Request
from safekey_interp.generation.tokens import PromptTokens, response_text

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
        self._of = tokenizer, request, prompt

    def write(self, token: int) -> str:
        """What one more token adds: nothing within a character, all of it at its end."""
        self.tokens.append(token)
        self.text = response_text(*self._of, self.tokens)
        before = self.ends[-1] if self.ends else len(self._of[1].prefill)
        self.ends.append(max(before, len(self.text.rstrip(_INCOMPLETE))))
        return self.text[before : self.ends[-1]]
