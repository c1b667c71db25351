"""Unknown tokens: the share of a text that a tokenizer's vocabulary lacks.

A tokenizer of words or word pieces writes one unknown token for all that it does not know, so that a model reads
another text than it was given. Byte-level tokenizers, and those that fall back on bytes, know every text.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError

MOST = 0.05
"""Largest share of unknown tokens in what a model is given."""


class UnknownTokens:
    """Counter of tokens, and of unknown ones, over the texts that a model is given."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._unknown = tokenizer.unk_token_id if _can_lack(tokenizer) else None
        self._n = self._n_unknown = 0

    def add(self, *texts: str) -> None:
        """Count the tokens of texts; nothing where none can be unknown."""
        if self._unknown is not None:
            for text in texts:
                self.add_ids(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def add_ids(self, ids: Iterable[int]) -> None:
        """Count tokens."""
        if self._unknown is not None:
            tokens = list(ids)
            self._n += len(tokens)
            self._n_unknown += tokens.count(self._unknown)

    def add_trace(self, trace: Trace, *, response: bool = True) -> None:
        """Count the tokens of a trace: its conversation, and its response where a model reads it."""
        self.add(*(turn.content for turn in trace.messages), trace.prompt, trace.response if response else "")

    @property
    def share(self) -> float:
        """Unknown tokens of all; 0 without any."""
        return self._n_unknown / self._n if self._n else 0.0

    def warn(self, model: str) -> None:
        """Warn where more than :data:`MOST` is unknown, of texts that a function measures without :meth:`check`."""
        if self.share > MOST:
            words = (
                "of the tokens of what it reads are unknown to its tokenizer, so that the numbers are of another text"
            )
            warnings.warn(f"model {model}: {self.share:.0%} {words}; load a model that reads it", stacklevel=2)

    def check(self, model: str, *, allowed: bool = False) -> None:
        """Refuse a set of texts of which more than :data:`MOST` is unknown, unless that is ``allowed``.

        Raises:
            InputError: with the model's name and what would help.
        """
        if self.share > MOST and not allowed:
            raise InputError(
                f"model {model}: {self.share:.0%} of the tokens of what it is given are unknown to its tokenizer, "
                f"expected at most {MOST:.0%}; name a model that reads this text with --model, or pass --allow-unknown"
            )


def check_known(
    tokenizer: Any, traces: Iterable[Trace], model: str, *, response: bool = True, allowed: bool = False
) -> None:
    """Refuse traces of which more than :data:`MOST` is unknown; errors as for :meth:`UnknownTokens.check`."""
    unknown = UnknownTokens(tokenizer)
    if not allowed:
        for trace in traces:
            unknown.add_trace(trace, response=response)
    unknown.check(model, allowed=allowed)


def _can_lack(tokenizer: Any) -> bool:
    """Whether there is a text that the tokenizer does not know."""
    kind = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if kind is None:
        return True
    return not getattr(kind, "byte_fallback", False) and getattr(kind, "unk_token", "") is not None
