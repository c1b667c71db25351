"""KL divergence of two models at each token of a response.

    KL_d = Σ_v p(v | x, y_<d) · log [ p(v | x, y_<d) / q(v | x, y_<d) ]        nats

p is the first model, q the second, d = 0 the response's first token. Both read the same token ids, made once: by the
first model's tokenizer from a trace, or kept from generation. Qi et al. 2024 (arXiv 2406.05946) found an aligned model
far from its base model in the first few tokens of harmful answers alone; of a reasoning, these are its template, and
:mod:`~safekey_interp.generation.kl_by_part` sets K's first token against the others instead. Logits exist for a few
positions at a time: the sequence is read in pieces, with the cache between them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.architecture import evaluating
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, ModelError
from safekey_interp.generation.kl_by_part import parts_of
from safekey_interp.generation.requests import Generated, Request
from safekey_interp.generation.tokens import PromptTokens, response_text
from safekey_interp.measures.intervals import ratio_of_means
from safekey_interp.measures.trace_tables import concatenate_tables
from safekey_interp.models.chat_template import render
from safekey_interp.models.model import Model
from safekey_interp.models.tokenisation import tokenise
from safekey_interp.segmentation.finder_registry import Finder
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import segmented

EDGES = (0, 1, 2, 3, 5, 10, 20, 40, 80, 160, 320, 640)
"""First depth of each bin, fine where little depth is much; the last bin has no end."""
_PIECE = 64
"""Positions whose logits exist at once."""


class TokenSequence(NamedTuple):
    """A prompt and a response as token ids."""

    trace_id: str
    """The trace."""
    group: str
    """Its group."""
    ids: tuple[int, ...]
    """All tokens."""
    start: int
    """First token of the response."""
    ends: tuple[int, ...]
    """Characters of the response behind each of its tokens, ascending."""

    @classmethod
    def of(cls, response: Trace | Generated, tokenizer: Any) -> TokenSequence:
        """The tokens of a trace, made once from its whole text; those of a generated response as they were.

        Raises:
            TraceError: the chat template refuses the trace.
        """
        if isinstance(response, Generated) and response.input_ids is not None and response.new_ids is not None:
            ids = (*response.input_ids, *response.new_ids)
            start = response.response_start or len(response.input_ids)
            return cls(response.trace_id, response.request.trace.group, ids, start, ends_of(tokenizer, ids, start))
        trace = _trace(response)
        rendered = render(tokenizer, trace)
        ids, offsets = tokenise(tokenizer, rendered)
        start = len(ids) - sum(end > rendered.response_start for _, end in offsets)
        ends = tuple(end - rendered.response_start for _, end in offsets[start:])
        return cls(trace.trace_id, trace.group, tuple(ids), start, ends)


def measure_kl(
    first: Model,
    second: Model,
    responses: Iterable[Trace | Generated],
    *,
    finder: str | Finder = "rules",
    delimiters: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """KL from the first model's distribution to the second's, before each token of each response.

    Args:
        first: p.
        second: q; of the same vocabulary.
        responses: traces with responses, or generated ones.
        finder: finds U and K, which tell the parts of a response.
        delimiters: marks of the reasoning; the known families' when None.

    Returns:
        One row per token of a response: trace_id, group, depth (from 0), token (its id), part (of
        :data:`~safekey_interp.generation.kl_by_part.PARTS`; ``decision`` is K's first token), starts_sentence, kl
        (nats, at least 0 up to rounding). ``attrs["left_out"]`` maps traces without a token to measure, or too long for
        one of the models, to the reason.

    Raises:
        InputError: no response can be measured.
        ModelError: the vocabularies differ.
        TraceError: the chat template refuses a trace.
    """
    check_same_vocabulary(first, second)
    limits = [model.max_positions for model in (first, second) if model.max_positions is not None]
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    responses, to_segment = tee(responses)
    settings = SegmentationSettings(finder=finder, delimiters=delimiters)
    segmentations = segmented((_trace(response) for response in to_segment), settings)
    with torch.no_grad(), evaluating(first.hf), evaluating(second.hf):
        for response, (_, segmentation) in zip(responses, segmentations, strict=True):
            tokens = TokenSequence.of(response, first.tokenizer)
            n = len(tokens.ids)
            if tokens.start < 1 or tokens.start >= n:
                left_out[tokens.trace_id] = "no token of a response with one before it"
            elif limits and n > min(limits):
                left_out[tokens.trace_id] = f"{n} tokens, past the {min(limits)} that both models read"
            else:
                kl = _kl(first, second, tokens)
                about = {"trace_id": tokens.trace_id, "group": tokens.group, "depth": np.arange(len(kl))}
                about |= {"token": list(tokens.ids[tokens.start :]), **parts_of(tokens.ends, segmentation)._asdict()}
                tables.append(pd.DataFrame(about | {"kl": kl}))
    return concatenate_tables(tables, left_out, "no response can be measured")


def summarise_kl(table: pd.DataFrame, *, edges: Sequence[int] = EDGES) -> pd.DataFrame:
    """Mean KL by depth.

    Args:
        table: from :func:`measure_kl`.
        edges: first depth of each bin, ascending; the last bin has no end.

    Returns:
        One row per bin that has tokens: depth (its first), last (the deepest token in it), value (mean over tokens,
        nats), low, high (95 %, over groups; NaN below ten groups), n (tokens), n_traces, n_groups.
    """
    if list(edges) != sorted(set(edges)) or not edges or edges[0] < 0:
        raise InputError(f"edges: got {list(edges)}, expected depths from 0 on, ascending")
    number = np.searchsorted(np.asarray(edges), table["depth"].to_numpy(), side="right") - 1
    rows = []
    for bin_number, part in table.assign(bin=number).query("bin >= 0").groupby("bin"):
        each = part.groupby(["trace_id", "group"], sort=False)["kl"].agg(["sum", "count"]).reset_index()
        groups = list(each["group"])
        sums, counts = each[["sum"]].to_numpy(float), each[["count"]].to_numpy(float)
        mean = ratio_of_means(sums, counts, groups)
        where = {"depth": edges[int(bin_number)], "last": int(part["depth"].max())}  # type: ignore[call-overload]
        rows.append(where | mean.estimate() | {"n": len(part), "n_traces": len(each), "n_groups": len(set(groups))})
    return pd.DataFrame(rows)


def check_same_vocabulary(first: Model, second: Model) -> None:
    """Refuse two models whose ids mean different tokens.

    Raises:
        ModelError: with a token that differs.
    """
    ids, other_ids = first.tokenizer.get_vocab(), second.tokenizer.get_vocab()
    tokens = sorted({*ids, *other_ids})
    different = next((token for token in tokens if ids.get(token) != other_ids.get(token)), None)
    if different is not None:
        raise ModelError(
            f"models {first.name} and {second.name}: their vocabularies differ ({different!r} is {ids.get(different)} "
            f"in one and {other_ids.get(different)} in the other), so that KL is not defined; compare models of one "
            "family"
        )


def ends_of(tokenizer: Any, ids: Sequence[int], start: int) -> tuple[int, ...]:
    """Characters of the text of ``ids[start:]`` behind each token, ascending: of texts whose tokens were generated."""
    request, prompt = Request(trace=Trace(trace_id="", prompt="", response="")), PromptTokens(list(ids[:start]), 0)
    ends: list[int] = []
    for n in range(1, len(ids) - start + 1):
        end = len(response_text(tokenizer, request, prompt, ids[start : start + n]))
        ends.append(max(end, ends[-1] if ends else 0))
    return tuple(ends)


def _trace(response: Trace | Generated) -> Trace:
    return response.trace() if isinstance(response, Generated) else response


def _kl(first: Model, second: Model, tokens: TokenSequence) -> np.ndarray:
    """KL before each token of the response, nats."""
    ids = torch.tensor([tokens.ids], dtype=torch.int64)
    pieces = []
    for p, q in zip(_logits(first, ids, tokens.start), _logits(second, ids, tokens.start), strict=True):
        width = min(p.shape[-1], q.shape[-1])  # embeddings may be padded past the vocabulary
        log_p = p[:, :width].log_softmax(-1)
        log_q = q[:, :width].to(log_p.device).log_softmax(-1)
        chance = log_p.exp()
        pieces.append(torch.where(chance > 0, chance * (log_p - log_q), 0.0).sum(-1).cpu())
    return torch.cat(pieces).numpy()


def _logits(model: Model, ids: Int64[Tensor, "1 pos"], start: int) -> Iterator[Float[Tensor, "piece vocabulary"]]:
    """Logits, piece by piece, of the positions that predict the response's tokens."""
    spares = "logits_to_keep" in inspect.signature(model.hf.forward).parameters
    cache: Any = None
    ends = [*range(start - 1, ids.shape[1] - 1, _PIECE), ids.shape[1] - 1]
    begin = 0
    for end in ends[1:] if start == 1 else ends:
        piece = ids[:, begin:end].to(model.device)
        wanted = end > start - 1
        keep = {"logits_to_keep": 0 if wanted else 1} if spares else {}
        output = model.hf(input_ids=piece, past_key_values=cache, use_cache=True, **keep)
        cache, begin = output.past_key_values, end
        if wanted:
            # MPS has no float64.
            logits = output.logits[0].cpu() if output.logits.device.type == "mps" else output.logits[0]
            yield logits.double()
