"""Log-probability of sentences behind the same beginning of a trace.

    logprob(s) = 1/|s| · Σ_{t in s} log p(s_t | X, U, s_<t)          nats per token

The sentence takes the key sentence's place, or stands behind any other position. All sentences of a trace have nearly
the same tokens before them; these are computed once (:mod:`safekey_interp.capture.prefix_cache`), and with them the
probability of a sentence's first token. Its last token predicts nothing of it and is not computed. A row may also be
read otherwise (:mod:`safekey_interp.generation.row_readings`), beside sentences in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.batches import plan_batches
from safekey_interp.capture.prefix_cache import KeptPrefix, PrefixCache, common_prefix, has_prefix_cache
from safekey_interp.capture.streaming import forward_cost, token_budget
from safekey_interp.capture.token_trees import TokenTree, TreeBatch, packs, seeing_trees
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import TraceError
from safekey_interp.generation.batch_readings import packed, score_batch
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.row_readings import watched_states
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmenter import Segmentation

_MOST_LOGITS = 2**27
"""Logits of a forward pass, about: half a gigabyte in float32."""
_MOST_ROWS = 256
NOT_FINITE = "the model's log-probabilities are not finite"
"""Why a trace is left out whose sentences have no number."""


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

    alike: list[list[int]]
    """Of each row, the numbers of the continuations that it has, among all that are scored."""
    starts: list[int]
    """Position of each row's first token in the pass: what padding on the left shifts by."""
    depths: Int64[Tensor, "row pos"]
    """How far behind the beginning each token of the pass is."""

    @property
    def rows(self) -> list[int]:
        """The first continuation of each row."""
        return [numbers[0] for numbers in self.alike]


Around = Callable[[Batch], AbstractContextManager[object]]
"""What holds while a batch goes through the model."""


def score(
    model: Model,
    families: Sequence[Sequence[Continuation]],
    *,
    batch_size: int | None = None,
    around: Around | None = None,
    alike: Sequence[Sequence[Sequence[int]]] | None = None,
    n_unchanged: Sequence[int] | None = None,
    n_needed: Sequence[int] | None = None,
    prefix: KeptPrefix | None = None,
) -> list[Float[Tensor, " row"]]:
    """Mean log-probability of each continuation's sentence, or what else is read of it.

    Args:
        model: the model.
        families: continuations by trace. What those of a trace have in common, at most up to the token that predicts a
            sentence's first, is computed once, and outside ``around``.
        batch_size: rows a forward pass; as many as fit when None.
        around: entered around each forward pass of continuations, which are numbered through all families.
        alike: of each family, the places in it of continuations that ``around`` changes alike at each position, so that
            they may share a row; when None, all without ``around``, and none with it.
        n_unchanged: tokens that each family begins with and that ``around`` leaves as they are; all before what is read
            when None.
        n_needed: tokens of each continuation that go through the model for ``around``, even where they predict nothing
            that is read, as a sentence's last; none when None.
        prefix: what was computed of the beginnings in an earlier call, and is kept for the next.

    Returns:
        For each family, nats per token, or the reader's unit, float64.
    """
    shares, packing = has_prefix_cache(model), packs(model)
    n_before = [_n_before(family) if shares else 0 for family in families]
    if n_unchanged is not None:
        n_before = list(map(min, n_before, n_unchanged))
    if alike is None:
        alike = [[range(len(f))] if around is None else [[number] for number in range(len(f))] for f in families]
    watch, prefix = partial(watched_states, model), prefix or KeptPrefix(model)
    firsts = [0, *accumulate(map(len, families))]
    rows = [row for family in families for row in family]
    n_inputs = [row.n_inputs for row in rows]
    if n_needed is not None:
        n_inputs = list(map(max, n_inputs, n_needed))
    scores = torch.zeros(len(rows), dtype=torch.float64)
    for chosen in plan_batches(n_before, max_tokens=token_budget(model), cost=forward_cost(model)):
        prefixes = prefix.of([families[number][0].ids[: n_before[number]] for number in chosen])
        placed: list[tuple[TokenTree, list[int], int]] = []
        for place, f in enumerate(chosen):
            for group in alike[f]:
                numbers = [firsts[f] + number for number in group]
                of_group, ends = [rows[number] for number in numbers], [n_inputs[number] for number in numbers]
                trees = packed(of_group, n_before[f], ends, together=packing and n_before[f] > 0)
                placed += [(tree, [numbers[i] for i in some], place) for tree, some in trees]
        order = sorted(range(len(placed)), key=lambda i: -len(placed[i][0].ids))
        for size in _sizes(model, [len(placed[i][0].ids) for i in order], prefixes.width, batch_size):
            trees, numbers, of = map(list, zip(*(placed[i] for i in order[:size]), strict=True))
            order = order[size:]
            batch = TreeBatch.of(trees)
            with seeing_trees(model, batch), (around or _nothing)(Batch(numbers, prefixes.starts(of), batch.depths)):
                before = [prefixes.lengths[place] for place in of]
                of_rows = [[rows[number] for number in some] for some in numbers]
                known = _first_logprobs(prefixes, of, of_rows)
                read = score_batch(partial(logits_behind, prefixes, of), batch, of_rows, before, watch, known=known)
            scores[[number for some in numbers for number in some]] = read
    return [scores[first:end] for first, end in pairwise(firsts)]


def _nothing(_: Batch) -> AbstractContextManager[None]:
    return nullcontext()


def logits_behind(prefixes: PrefixCache, of: Sequence[int], trees: TreeBatch, first: int) -> Tensor:
    """Logits of trees behind the beginnings of some numbers."""
    return prefixes.logits(trees.ids, of, first, trees.depths)


def _sizes(model: Model, widths: Sequence[int], n_before: int, batch_size: int | None) -> Iterator[int]:
    """Rows of each forward pass, of widths that descend: a pass ends where padding costs as much as a further pass."""
    begin, cost = 0, forward_cost(model)
    while begin < len(widths):
        width = widths[begin]
        some = widths[begin : begin + (batch_size or rows_that_fit(model, max(1, width), n_before))]
        padding = accumulate(width - own for own in some)
        size = len(some) if batch_size else sum(padded < cost for padded in padding)
        yield size
        begin += size


def _n_before(family: Sequence[Continuation]) -> int:
    # What predicts a sentence's first token may be the beginning's last; a reader reads the row itself.
    return common_prefix([row.ids for row in family], min(row.start - (row.reader is not None) for row in family))


def _first_logprobs(
    prefixes: PrefixCache, of: Sequence[int], rows: Sequence[Sequence[Continuation]]
) -> Float[Tensor, " continuation"]:
    """Log-probability of each sentence's first token where the beginning ends before it, else 0; float64."""
    every = [(place, one) for place, of_row in zip(of, rows, strict=True) for one in of_row]
    found = torch.zeros(len(every), dtype=torch.float64)
    at = [i for i, (place, one) in enumerate(every) if one.reader is None and prefixes.lengths[place] == one.start]
    if at:
        next_ids = [int(every[i][1].ids[every[i][1].start]) for i in at]
        found[at] = prefixes.next_logprobs([every[i][0] for i in at], next_ids)
    return found


def rows_that_fit(model: Model, width: int, n_before: int) -> int:
    """Rows of a forward pass: of ``width`` tokens each, behind ``n_before`` that are computed already."""
    # A row's own copy of its past is read once for each row, so that it costs like a few tokens.
    by_tokens = token_budget(model) // (width + n_before // 16 + 1)
    return max(1, min(_MOST_ROWS, by_tokens, _MOST_LOGITS // (width * model.n_embeddings)))
