"""Continuation: the beginning of a trace with a sentence behind it, or with what else is read of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Int64
from torch import Tensor

from safekey_interp.data.span_expressions import NumberedSpan, parse_span
from safekey_interp.generation.row_readings import RowReader
from safekey_interp.models.encoding import Encoding


class Continuation(NamedTuple):
    """The beginning of a trace with a sentence behind it, or with what else is read of it."""

    ids: Int64[Tensor, " pos"]
    """Tokens up to the end of the sentence."""
    start: int
    """The sentence's first token; at least 1, so that something predicts it. Without a sentence, the token behind the
    first that the reader needs."""
    encoding: Encoding
    """Where the spans lie; its positions are those of ``ids`` unless the prompt was left out."""
    reader: RowReader | None = None
    """What is read; None for the sentence's log-probability."""
    replaces: str | None = None
    """Of an encoding of the trace as it is: the span whose place the sentence takes, empty for none. None where the
    encoding has the sentence."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the sentence."""
        return len(self.ids) - self.start

    @property
    def n_own(self) -> int:
        """Tokens that are the trace's own: those before a sentence, else all."""
        return self.start if self.reader is None else len(self.ids)

    @property
    def n_inputs(self) -> int:
        """Tokens that something is read of: all but a sentence's last."""
        return len(self.ids) - (self.reader is None)

    @property
    def first_logit(self) -> int:
        """Position from which on its logits are needed."""
        return self.start - 1 if self.reader is None else self.reader.first_logit

    def positions(self, expression: str) -> Sequence[int]:
        """Positions of a span expression among its tokens, ascending; errors as for :meth:`Encoding.positions`."""
        n, encoding = len(self.ids), self.encoding
        if self.replaces is None:
            found = encoding.positions(expression)
            return [at for at in found if at < n] if len(found) and found[-1] >= n else found

        def tokens_of(span: str | NumberedSpan) -> Sequence[int]:
            if str(span) == self.replaces:
                return range(self.start, n)
            if isinstance(span, NumberedSpan) and span.kind == "token":
                return range(n)[span.number :][:1] if -n <= span.number < n else ()
            return [at for at in encoding.positions(str(span)) if at < self.start]

        return parse_span(expression).positions(tokens_of, n)
