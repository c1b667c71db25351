"""How likely does the model find a safe key sentence after this understanding, and how likely a go-ahead?

A trace is cut at the end of U, and each sentence s of a small bank takes K's place:

    logprob(s) = 1/|s| · Σ_{t in s} log p(s_t | X, U, s_<t)          nats a token

    difference = mean over the safe sentences − mean over the go-aheads

It needs no sampling and moves before greedy answers do. Its level depends on the bank's wording, which is the same for
every trace and model: compare labels, models and training steps, not the level with 0. To let safe sentences become
likely is what SafeKey trains for (Zhou et al. 2025, arXiv 2505.16186); the measure is ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor

from safekey_interp.capture.batches import plan_batches
from safekey_interp.capture.context import evaluating
from safekey_interp.capture.stream import BatchSize, forward_cost, in_chunks, on_threads, threads_for, token_budget
from safekey_interp.errors import InputError, TraceError
from safekey_interp.key_sentence_bank import KeySentences, bank_for, unspelled
from safekey_interp.segmentation import Segmentation, segment_all
from safekey_interp.stats import bootstrap_weights, ratio_of_means
from safekey_interp.trace import CharSpan, Trace

if TYPE_CHECKING:
    from safekey_interp.models import Model

_CHUNK = 64
"""Traces whose sentences are grouped by length together."""
_MOST_LOGITS = 2**27
"""Logits of a forward pass, about: half a gigabyte in float32."""


def measure_aha(
    model: Model,
    traces: Iterable[Trace],
    *,
    bank: KeySentences | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    batch_size: BatchSize = "auto",
    mask_prompt: bool = False,
) -> pd.DataFrame:
    """Log-probability of each sentence of a bank in the place of each trace's key sentence.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: any number; those without an understanding are left out.
        bank: the sentences; :func:`bank_for` the model's tokenizer when None. They follow U after the white space
            that stood between U and K, or after one space.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        batch_size: sequences a forward pass, or ``auto``.
        mask_prompt: leave everything before the response out of the sequence. On models whose positions are relative
            that is masking it: what U alone is worth.

    Returns:
        One row per trace and sentence, in their order: trace_id, group, label, kind (safe or go_ahead), sentence,
        logprob (nats, mean over the sentence's tokens), n_tokens. ``attrs["left_out"]`` maps the other traces to
        their reasons; a trace is measured with all sentences or not at all.

    Raises:
        InputError: no trace can be measured, or the tokenizer cannot spell the bank.
    """
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise InputError(f"batch_size: got {batch_size!r}, expected auto, or a whole number of at least 1")
    if bank is None:
        bank = bank_for(model.tokenizer)
    elif (sentence := unspelled(model.tokenizer, bank)) is not None:
        raise InputError(f"bank: the tokenizer has no tokens for {sentence!r}; give sentences that it can spell")
    sentences = (*bank.safe, *bank.go_ahead)
    kinds = ["safe"] * len(bank.safe) + ["go_ahead"] * len(bank.go_ahead)
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    for chunk in in_chunks(traces, _CHUNK):
        kept: list[Trace] = []
        rows: list[_Row] = []
        for trace, found in zip(chunk, segment_all(chunk, finder=finder, delimiters=delimiters), strict=True):
            try:
                rows += [_row(model, trace, found, sentence, mask_prompt=mask_prompt) for sentence in sentences]
                kept.append(trace)
            except TraceError as error:
                left_out[trace.trace_id] = str(error).removeprefix(f"trace {trace.trace_id}: ")
        scores = _scores(model, rows, batch_size).reshape(len(kept), len(sentences))
        for number, (trace, logprobs) in enumerate(zip(kept, scores, strict=True)):
            if not np.isfinite(logprobs).all():
                left_out[trace.trace_id] = "the model's log-probabilities are not finite"
                continue
            mine = rows[number * len(sentences) : (number + 1) * len(sentences)]
            about = {"trace_id": trace.trace_id, "group": trace.group, "label": trace.label}
            columns = {"kind": kinds, "sentence": sentences, "logprob": logprobs, "n_tokens": list(map(len, mine))}
            tables.append(pd.DataFrame(about | columns).astype({"label": object}))
    if not tables:
        example = next((f"trace {name}: {reason}" for name, reason in left_out.items()), "there are none")
        raise InputError(f"no trace has an understanding that a sentence could follow; {example}")
    table = pd.concat(tables, ignore_index=True)
    table.attrs["left_out"] = left_out
    return table


def summarise_aha(table: pd.DataFrame, seed: int = 0, *, n_draws: int = 1000) -> pd.DataFrame:
    """Means over traces of what :func:`measure_aha` returned, with 95 % bootstrap intervals over groups.

    Args:
        table: from :func:`measure_aha`.
        seed: seed of the draws.
        n_draws: bootstrap draws.

    Returns:
        subset (all, harmful, benign; those that have traces), measure (safe, go_ahead, difference = safe − go_ahead),
        value, low, high (nats a token), n (traces), n_groups. Sentences of a kind are averaged first.
    """
    each: Any = table.groupby(["trace_id", "group", "label", "kind"], dropna=False, sort=False)["logprob"].mean()
    means = each.unstack("kind").reset_index()
    means["difference"] = means["safe"] - means["go_ahead"]
    measures = ["safe", "go_ahead", "difference"]
    rows = []
    for subset in ("all", "harmful", "benign"):
        part = means if subset == "all" else means.loc[means["label"] == subset]
        if part.empty:
            continue
        values = part[measures].to_numpy(np.float64)
        groups = list(part["group"])
        ratio = ratio_of_means(values, np.ones_like(values), bootstrap_weights(groups, n_draws, seed))
        for i, measure in enumerate(measures):
            interval = {"value": ratio.value[i], "low": ratio.low[i], "high": ratio.high[i]}
            counts = {"n": int(ratio.n[i]), "n_groups": len(set(groups))}
            rows.append({"subset": subset, "measure": measure} | interval | counts)
    return pd.DataFrame(rows)


class _Row(NamedTuple):
    """One sequence: a trace up to the end of U, then a sentence."""

    ids: Int64[Tensor, " pos"]
    start: int
    """First token of the sentence, which ends the sequence."""

    def __len__(self) -> int:
        """Tokens of the sentence."""
        return self.ids.shape[0] - self.start


def _row(model: Model, trace: Trace, found: Segmentation, sentence: str, *, mask_prompt: bool) -> _Row:
    """Raises TraceError where the trace has no place for the sentence, or the model does not read so far."""
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
    begin = encoding.response_start if mask_prompt else 0
    where = encoding.positions("key_sentence")
    if not len(where) or where[0] <= begin:
        raise TraceError(trace.trace_id, f"no token of {sentence!r} has a token of the understanding before it")
    return _Row(encoding.input_ids[begin : encoding.end], where[0] - begin)


def _scores(model: Model, rows: Sequence[_Row], batch_size: BatchSize) -> np.ndarray:
    """Mean log-probability of each row's sentence, nats a token."""
    scores = np.full(len(rows), np.nan)
    longest = max(map(len, rows), default=1)
    plan = plan_batches(
        [row.ids.shape[0] for row in rows],
        batch_size=None if batch_size == "auto" else batch_size,
        max_tokens=token_budget(model),
        # Sentences of rows of like length end near one another: about twice the longest holds them all.
        max_rows=max(1, min(64, _MOST_LOGITS // (2 * longest * model.n_embeddings))),
        cost=forward_cost(model),
    )
    with torch.no_grad(), evaluating(model.hf), on_threads(threads_for(model)):
        for batch in plan:
            scores[batch] = _score_batch(model, [rows[i] for i in batch])
    return scores


def _score_batch(model: Model, rows: Sequence[_Row]) -> list[float]:
    width = max(row.ids.shape[0] for row in rows)
    # Padded on the right without an attention mask: causality hides the padding.
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : row.ids.shape[0]] = row.ids
    first = min(row.start for row in rows) - 1
    needed = torch.arange(first, width - 1)
    spares = "logits_to_keep" in inspect.signature(model.hf.forward).parameters
    keep = {"logits_to_keep": needed} if spares else {}
    logits = model.hf(input_ids=ids.to(model.device), use_cache=False, **keep).logits
    if not spares:
        logits = logits[:, first : width - 1]
    means = []
    for row, own in zip(rows, logits, strict=True):
        predicting = own[row.start - 1 - first : row.ids.shape[0] - 1 - first].float().log_softmax(-1)
        targets = row.ids[row.start :, None].to(own.device)
        means.append(predicting.gather(-1, targets).double().mean())
    return torch.stack(means).tolist()
