"""How likely is each of several sentences behind the same beginning of a trace?

    logprob(s) = 1/|s| · Σ_{t in s} log p(s_t | X, U, s_<t)          nats a token

The sentence takes the key sentence's place. Every sentence of a trace has nearly the same tokens before it; these are
computed once (:mod:`safekey_interp.capture.prefix`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.prefix import Beginning, common_beginning, keeps_a_past
from safekey_interp.capture.stream import token_budget
from safekey_interp.encoding import Encoding
from safekey_interp.errors import TraceError
from safekey_interp.segmentation import Segmentation
from safekey_interp.trace import CharSpan, Trace

if TYPE_CHECKING:
    from safekey_interp.models import Model

_MOST_LOGITS = 2**27
"""Logits of a forward pass, about: half a gigabyte in float32."""
_MOST_ROWS = 256


class Continuation(NamedTuple):
    """A trace up to the end of U with a sentence behind it."""

    ids: Int64[Tensor, " pos"]
    """Tokens up to the end of the sentence."""
    start: int
    """The sentence's first token; at least 1, so that something predicts it."""
    encoding: Encoding
    """Where the spans lie; its positions are those of ``ids`` unless the prompt was left out."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the sentence."""
        return len(self.ids) - self.start


def with_sentence(
    model: Model, trace: Trace, found: Segmentation, sentence: str, *, mask_prompt: bool = False
) -> Continuation:
    """A trace with a sentence in its key sentence's place, behind the white space that stood there, else one space.

    Args:
        model: the model that will read it.
        trace: the trace.
        found: its segmentation.
        sentence: what follows U.
        mask_prompt: leave everything before the response out.

    Raises:
        TraceError: the trace has no U, or the model does not read so far.
    """
    u, k = found.understanding, found.key_sentence
    if u is None:
        raise TraceError(trace.trace_id, f"no understanding: {found.reason}")
    between = trace.response[u.end : k.start] if k is not None else ""
    before = trace.response[: u.end] + (between if between.isspace() else " ")
    response = before + sentence
    placed = replace(
        found,
        response=response,
        reasoning=CharSpan(min(found.reasoning.start, u.start), len(response)),
        key_sentence=CharSpan(len(before), len(response)),
    )
    encoding = model.encode(trace.with_(response=response, given={}), placed)
    return _continuation(trace, encoding, sentence, encoding.response_start if mask_prompt else 0)


def with_own_sentence(
    model: Model, trace: Trace, found: Segmentation, *, max_length: int | None = None
) -> Continuation:
    """A trace up to the end of its own key sentence.

    Raises:
        TraceError: it has none, or the model does not read so far.
    """
    if found.key_sentence is None:
        raise TraceError(trace.trace_id, f"no key sentence: {found.reason}")
    encoding = model.encode(trace, found, max_length=max_length)
    return _continuation(trace, encoding, found.key_sentence.text(trace.response), 0)


def _continuation(trace: Trace, encoding: Encoding, sentence: str, begin: int) -> Continuation:
    where = encoding.positions("key_sentence")
    if not len(where) or where[0] <= begin:
        raise TraceError(trace.trace_id, f"no token of {sentence!r} has a token of the understanding before it")
    return Continuation(encoding.input_ids[begin : encoding.end], where[0] - begin, encoding)


Around = Callable[[Sequence[int]], AbstractContextManager[object]]
"""What holds while a batch goes through the model, given the numbers of its rows."""


def score(
    model: Model,
    continuations: Sequence[Continuation],
    *,
    batch_size: int | None = None,
    around: Around = lambda _: nullcontext(),
) -> Float[Tensor, " row"]:
    """Mean log-probability of each continuation's sentence.

    Args:
        model: the model.
        continuations: of one trace: what they have in common, at most up to the token before the one that predicts a
            sentence's first, is computed once and outside ``around``.
        batch_size: rows a forward pass; as many as fit when None.
        around: entered around each forward pass of the rows.

    Returns:
        Nats a token, float64.
    """
    rows = [one.ids for one in continuations]
    n = common_beginning(rows, min(one.start for one in continuations) - 1) if keeps_a_past(model) else 0
    beginning = Beginning(model, rows[0][:n])
    scores = torch.zeros(len(rows), dtype=torch.float64)
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    width = len(rows[order[0]]) - n
    # A row's own copy of the past is read once more for each row, so that it costs like a few tokens.
    fits = min(_MOST_ROWS, token_budget(model) // (width + n // 16 + 1), _MOST_LOGITS // (width * model.n_embeddings))
    size = batch_size or max(1, fits)
    for begin in range(0, len(order), size):
        batch = order[begin : begin + size]
        with around(batch):
            scores[batch] = _score_batch(beginning, [continuations[row] for row in batch])
    return scores


def _score_batch(beginning: Beginning, continuations: Sequence[Continuation]) -> Float[Tensor, " row"]:
    n = len(beginning.ids)
    width = max(len(one.ids) for one in continuations) - n
    ids = torch.zeros((len(continuations), width), dtype=torch.int64)
    for row, one in enumerate(continuations):
        ids[row, : len(one.ids) - n] = one.ids[n:]
    first = min(one.start for one in continuations) - 1 - n
    means = []
    for one, logits in zip(continuations, beginning.logits(ids, first), strict=True):
        begin = one.start - 1 - n - first
        predicting = logits[begin : begin + one.n_tokens].float().log_softmax(-1)
        targets = rearrange(one.ids[one.start :], "token -> token 1").to(logits.device)
        means.append(predicting.gather(-1, targets).double().mean())
    return torch.stack(means).cpu()
