"""Log-probability of sentences behind the same beginning of a trace.

    logprob(s) = 1/|s| · Σ_{t in s} log p(s_t | X, U, s_<t)          nats a token

The sentence takes the key sentence's place. All sentences of a trace have nearly the same tokens before them; these are
computed once (:mod:`safekey_interp.capture.prefix_cache`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.batches import plan_batches
from safekey_interp.capture.prefix_cache import PrefixCache, common_prefix, has_prefix_cache
from safekey_interp.capture.streaming import forward_cost, token_budget
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import TraceError
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmenter import Segmentation

_MOST_LOGITS = 2**27
"""Logits of a forward pass, about: half a gigabyte in float32."""
_MOST_ROWS = 256
NOT_FINITE = "the model's log-probabilities are not finite"
"""Why a trace is left out whose sentences have no number."""


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
    model: Model, trace: Trace, segmentation: Segmentation, sentence: str, *, mask_prompt: bool = False
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
    u, k = segmentation.understanding, segmentation.key_sentence
    if u is None:
        raise TraceError(trace.trace_id, f"no understanding: {segmentation.reason}")
    between = trace.response[u.end : k.start] if k is not None else ""
    before = trace.response[: u.end] + (between if between.isspace() else " ")
    response = before + sentence
    placed = replace(
        segmentation,
        response=response,
        reasoning=CharSpan(min(segmentation.reasoning.start, u.start), len(response)),
        key_sentence=CharSpan(len(before), len(response)),
    )
    encoding = model.encode(trace.with_(response=response, given={}), placed)
    return _continuation(trace, encoding, sentence, encoding.response_start if mask_prompt else 0)


def with_own_sentence(
    model: Model, trace: Trace, segmentation: Segmentation, *, max_length: int | None = None
) -> Continuation:
    """A trace up to the end of its own key sentence.

    Raises:
        TraceError: it has none, or the model does not read so far.
    """
    if segmentation.key_sentence is None:
        raise TraceError(trace.trace_id, f"no key sentence: {segmentation.reason}")
    encoding = model.encode(trace, segmentation, max_length=max_length)
    return _continuation(trace, encoding, segmentation.key_sentence.text(trace.response), 0)


def _continuation(trace: Trace, encoding: Encoding, sentence: str, begin: int) -> Continuation:
    where = encoding.positions("key_sentence")
    if not len(where) or where[0] <= begin:
        raise TraceError(trace.trace_id, f"no token of {sentence!r} has a token of the understanding before it")
    return Continuation(encoding.input_ids[begin : encoding.end], where[0] - begin, encoding)


class Batch(NamedTuple):
    """Rows of one forward pass."""

    rows: list[int]
    """Their numbers among all that are scored."""
    starts: list[int]
    """Position of each row's first token in the pass: what padding on the left shifts by."""


Around = Callable[[Batch], AbstractContextManager[object]]
"""What holds while a batch goes through the model."""


def score(
    model: Model,
    families: Sequence[Sequence[Continuation]],
    *,
    batch_size: int | None = None,
    around: Around = lambda _: nullcontext(),
) -> list[Float[Tensor, " row"]]:
    """Mean log-probability of each continuation's sentence.

    Args:
        model: the model.
        families: continuations by trace. What those of a trace have in common, at most up to the token before the one
            that predicts a sentence's first, is computed once, and outside ``around``.
        batch_size: rows a forward pass; as many as fit when None.
        around: entered around each forward pass of rows, which are numbered through all families.

    Returns:
        For each family, nats a token, float64.
    """
    shares = has_prefix_cache(model)
    n_before = [_n_before(family) if shares else 0 for family in families]
    firsts = [0, *accumulate(map(len, families))]
    rows = [row for family in families for row in family]
    scores = torch.zeros(len(rows), dtype=torch.float64)
    for chosen in plan_batches(n_before, max_tokens=token_budget(model), cost=forward_cost(model)):
        prefixes = PrefixCache(model, [families[number][0].ids[: n_before[number]] for number in chosen])
        placed = [(row, place) for place, f in enumerate(chosen) for row in range(firsts[f], firsts[f + 1])]
        widths = [len(rows[row].ids) - prefixes.lengths[place] for row, place in placed]
        placed = [placed[i] for i in sorted(range(len(placed)), key=lambda i: -widths[i])]
        width = max(widths, default=1)
        size = batch_size or rows_that_fit(model, width, prefixes.width)
        for begin in range(0, len(placed), size):
            numbers, of = map(list, zip(*placed[begin : begin + size], strict=True))
            with around(Batch(numbers, prefixes.starts(of))):
                before = [prefixes.lengths[place] for place in of]
                scores[numbers] = score_batch(partial(prefixes.logits, of=of), [rows[n] for n in numbers], before)
    return [scores[first:end] for first, end in pairwise(firsts)]


def _n_before(family: Sequence[Continuation]) -> int:
    return common_prefix([row.ids for row in family], min(row.start for row in family) - 1)


def rows_that_fit(model: Model, width: int, n_before: int) -> int:
    """Rows of a forward pass: of ``width`` tokens each, behind ``n_before`` that are computed already."""
    # A row's own copy of its past is read once for each row, so that it costs like a few tokens.
    by_tokens = token_budget(model) // (width + n_before // 16 + 1)
    return max(1, min(_MOST_ROWS, by_tokens, _MOST_LOGITS // (width * model.n_embeddings)))


def score_batch(
    logits_of: Callable[..., Tensor], continuations: Sequence[Continuation], before: Sequence[int]
) -> Float[Tensor, " row"]:
    """Mean log-probability of the sentences of one forward pass, nats a token, float64.

    Args:
        logits_of: (row, pos) token ids and ``first`` to the logits at positions from ``first`` on.
        continuations: one a row.
        before: how many of its tokens each row does not bring along.
    """
    tails = [row.ids[n:] for row, n in zip(continuations, before, strict=True)]
    ids = torch.zeros((len(tails), max(map(len, tails))), dtype=torch.int64)
    for row, tail in zip(ids, tails, strict=True):
        row[: len(tail)] = tail
    begins = [row.start - 1 - n for row, n in zip(continuations, before, strict=True)]
    first = min(begins)
    logits = logits_of(ids, first=first)
    # Of all rows at once: one token after another, and the padding counts nothing.
    targets = ids[:, first + 1 :].to(logits.device)
    logprobs = logits[:, :-1].float().log_softmax(-1).gather(-1, rearrange(targets, "row token -> row token 1"))[..., 0]
    counted = torch.zeros(targets.shape, dtype=torch.bool)
    for row, (continuation, begin) in enumerate(zip(continuations, begins, strict=True)):
        counted[row, begin - first : begin - first + continuation.n_tokens] = True
    kept = logprobs.double().where(counted.to(logits.device), 0.0).sum(-1).cpu()
    return kept / torch.tensor([row.n_tokens for row in continuations])
