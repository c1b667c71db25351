"""Insertion of a text behind any position of a trace, to ask how likely it is there."""

from __future__ import annotations

import torch

from safekey_interp.data.span_expressions import parse_span
from safekey_interp.data.trace import Trace
from safekey_interp.errors import TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.models.chat_template import render
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.models.tokenisation import anchor_of, tokenise


def with_text(model: Model, trace: Trace, encoding: Encoding, at: str, text: str) -> Continuation:
    """A trace up to the last token of an expression with a text behind it: behind the white space that stands there,
    unless it begins with its own.

    Args:
        model: the model that will read it.
        trace: the trace.
        encoding: its tokens.
        at: the expression. Behind ``before(NAME)`` the text takes the place of the span ``NAME``.
        text: what follows.

    Raises:
        TraceError: the trace has no such token, or the tokenizer joins the text to it.
    """
    last = encoding.positions(at)[-1]
    cut = encoding.offsets[last][1]
    rest = encoding.text[cut:]
    own_space = "" if text[:1].isspace() else rest[: len(rest) - len(rest.lstrip())]
    placed = encoding.text[:cut] + own_space + text
    ids, offsets = tokenise(model.tokenizer, render(model.tokenizer, trace)._replace(text=placed))
    first = cut + len(own_space)
    anchors = (anchor_of(placed, *offset) for offset in offsets)
    start = next((i for i, anchor in enumerate(anchors) if i > last and anchor >= first), len(ids))
    if start == len(ids) or ids[: last + 1] != encoding.input_ids[: last + 1].tolist():
        raise TraceError(
            trace.trace_id, f"the tokenizer joins {text!r} to the token at {at}; begin it with white space"
        )
    expression = parse_span(at)
    replaced = expression.operands[0] if expression.operator == "before" else expression
    name = str(replaced.span) if expression.operator == "before" and replaced.operator == "span" else ""
    return Continuation(torch.tensor(ids, dtype=torch.int64), start, encoding, replaces=name)
