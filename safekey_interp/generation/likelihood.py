"""Log-probability of sentences behind the same beginning of a trace.

    logprob(s) = 1/|s| · Σ_{t in s} log p(s_t | X, U, s_<t)          nats a token

The sentence takes the key sentence's place, or stands behind any other position. All sentences of a trace have nearly
the same tokens before them; these are computed once (:mod:`safekey_interp.capture.prefix_cache`). A row may also be
read otherwise (:mod:`safekey_interp.generation.row_readings`), beside sentences in the same pass.
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
from safekey_interp.data.span_expressions import NumberedSpan, parse_span
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import TraceError
from safekey_interp.generation.row_readings import RowReader, Watch, watched_states
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmenter import Segmentation

_MOST_LOGITS = 2**27
"""Logits of a forward pass, about: half a gigabyte in float32."""
_MOST_ROWS = 256
NOT_FINITE = "the model's log-probabilities are not finite"
"""Why a trace is left out whose sentences have no number."""


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
        answer=None,
    )
    # What lay behind U is gone, and the spans that reach there with it.
    spans = {name: [span for span in of if span.end <= u.end] for name, of in trace.spans.items()}
    encoding = model.encode(trace.with_(response=response, given={}, spans=spans), placed)
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
    n_unchanged: Sequence[int] | None = None,
) -> list[Float[Tensor, " row"]]:
    """Mean log-probability of each continuation's sentence, or what else is read of it.

    Args:
        model: the model.
        families: continuations by trace. What those of a trace have in common, at most up to the token before the one
            that predicts a sentence's first, is computed once, and outside ``around``.
        batch_size: rows a forward pass; as many as fit when None.
        around: entered around each forward pass of rows, which are numbered through all families.
        n_unchanged: tokens that each family begins with and that ``around`` leaves as they are; all before what is read
            when None.

    Returns:
        For each family, nats a token, or the reader's unit, float64.
    """
    shares = has_prefix_cache(model)
    n_before = [_n_before(family) if shares else 0 for family in families]
    if n_unchanged is not None:
        n_before = list(map(min, n_before, n_unchanged))
    watch = partial(watched_states, model)
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
                logits = partial(prefixes.logits, of=of)
                scores[numbers] = score_batch(logits, [rows[n] for n in numbers], before, watch)
    return [scores[first:end] for first, end in pairwise(firsts)]


def _n_before(family: Sequence[Continuation]) -> int:
    return common_prefix([row.ids for row in family], min(row.start for row in family) - 1)


def rows_that_fit(model: Model, width: int, n_before: int) -> int:
    """Rows of a forward pass: of ``width`` tokens each, behind ``n_before`` that are computed already."""
    # A row's own copy of its past is read once for each row, so that it costs like a few tokens.
    by_tokens = token_budget(model) // (width + n_before // 16 + 1)
    return max(1, min(_MOST_ROWS, by_tokens, _MOST_LOGITS // (width * model.n_embeddings)))


def score_batch(
    logits_of: Callable[..., Tensor],
    continuations: Sequence[Continuation],
    before: Sequence[int],
    watch: Watch,
    *,
    with_last: bool = True,
) -> Float[Tensor, " row"]:
    """What is read of each row of one forward pass: of a sentence, its mean log-probability in nats a token; float64.

    Args:
        logits_of: (row, pos) token ids and ``first`` to the logits at positions from ``first`` on.
        continuations: one a row.
        before: how many of its tokens each row does not bring along.
        watch: how states are read; :func:`~safekey_interp.generation.row_readings.watched_states` of the model.
        with_last: let a sentence's last token, which predicts nothing of it, go through the model, too.
    """
    tails = [row.ids[n:] for row, n in zip(continuations, before, strict=True)]
    ids = torch.zeros((len(tails), max(map(len, tails))), dtype=torch.int64)
    for row, tail in zip(ids, tails, strict=True):
        row[: len(tail)] = tail
    begins = [row.first_logit - n for row, n in zip(continuations, before, strict=True)]
    first = min(begins)
    n_inputs = max(
        len(tail) - (row.reader is None and not with_last) for row, tail in zip(continuations, tails, strict=True)
    )
    places = dict.fromkeys(row.reader.place for row in continuations if row.reader and row.reader.place)
    with watch([place for place in places if place is not None]) as states:
        logits = logits_of(ids[:, :n_inputs], first=first)
    sentences = [number for number, row in enumerate(continuations) if row.reader is None]
    scores = torch.zeros(len(continuations), dtype=torch.float64)
    if len(sentences) == len(continuations):
        return _mean_logprobs(logits, ids[:, first + 1 :], [begin - first for begin in begins], continuations)
    if sentences:
        of_sentences = [begins[number] - first for number in sentences], [continuations[number] for number in sentences]
        scores[sentences] = _mean_logprobs(logits[sentences], ids[sentences, first + 1 :], *of_sentences)
    for number, (row, n) in enumerate(zip(continuations, before, strict=True)):
        reader = row.reader
        if reader is None:
            continue
        if reader.place is None:
            values = logits[number, begins[number] - first : len(row.ids) - n - first]
        else:
            values = states[reader.place][number, [position - n for position in reader.positions]]
        scores[number] = reader.read(values).cpu()
    return scores


def _mean_logprobs(
    logits: Tensor, targets: Int64[Tensor, "row pos"], begins: Sequence[int], sentences: Sequence[Continuation]
) -> Float[Tensor, " row"]:
    """Of the sentences of some rows.

    Args:
        logits: (row, pos, d_vocab) at the last positions of the rows.
        targets: the tokens behind these positions, padded on the right.
        begins: index into the logits' positions of what predicts each sentence's first token.
        sentences: one a row.
    """
    # Of all rows at once: one token after another, and the padding counts nothing.
    targets = targets.to(logits.device)
    next_ids = rearrange(targets, "row token -> row token 1")
    logprobs = logits[:, : targets.shape[1]].float().log_softmax(-1).gather(-1, next_ids)[..., 0]
    counted = torch.zeros(targets.shape, dtype=torch.bool)
    for row, (sentence, begin) in enumerate(zip(sentences, begins, strict=True)):
        counted[row, begin : begin + sentence.n_tokens] = True
    kept = logprobs.double().where(counted.to(logits.device), 0.0).sum(-1).cpu()
    return kept / torch.tensor([row.n_tokens for row in sentences])
