"""Aha score: log-probability of safe and of compliant key sentences after a trace's own understanding.

A trace is cut at the end of U, and each sentence s of a small bank takes K's place:

    logprob(s) = 1/|s| · Σ_{t in s} log p(s_t | X, U, s_<t)          nats per token

    difference = mean over the safe sentences − mean over the compliant ones

It needs no sampling and moves before greedy answers do. Its level depends on the bank's wording, which is the same for
every trace and model: compare labels, models and training steps, not the level with 0. To let safe sentences become
likely is what SafeKey trains for (Zhou et al. 2025, arXiv 2505.16186); the measure is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.streaming import BatchSize, fixed_size, in_chunks, on_threads, threads_for
from safekey_interp.data.conditions import subsets_by_label
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, NothingMeasured, TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for, spelled
from safekey_interp.generation.likelihood import NOT_FINITE, score, with_sentence
from safekey_interp.measures.intervals import mean_interval
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented

_COLUMNS = ("trace_id", "group", "label", "kind", "sentence", "logprob", "n_tokens")
_CHUNK = 64
"""Traces whose sentences go through the model together."""


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
    bank = bank_for(model.tokenizer) if bank is None else spelled(model.tokenizer, bank)
    pairs = segmented(traces, SegmentationSettings(finder=finder, delimiters=delimiters))
    placed = place_sentences(model, pairs, bank, mask_prompt=mask_prompt)
    return score_sentences(model, placed, bank, batch_size=batch_size)


class Placed(NamedTuple):
    """Traces that are scored together."""

    rows: list[tuple[Trace, list[Continuation]]]
    """Each with the sentences of a bank in its key sentence's place, in the bank's order."""
    left_out: dict[str, str]
    """Why not, for the others."""


def place_sentences(
    model: Model,
    pairs: Iterable[tuple[Trace, Segmentation]],
    bank: KeySentences,
    *,
    mask_prompt: bool = False,
) -> Iterator[Placed]:
    """Encode each sentence of a bank in place of each trace's key sentence; arguments as for :func:`measure_aha`."""
    for chunk in in_chunks(pairs, _CHUNK):
        placed = Placed([], {})
        for trace, segmentation in chunk:
            try:
                rows = [with_sentence(model, trace, segmentation, s, mask_prompt=mask_prompt) for s in bank.sentences]
                placed.rows.append((trace, rows))
            except TraceError as error:
                placed.left_out[trace.trace_id] = error.reason
        yield placed


def score_sentences(
    model: Model, placed: Iterable[Placed], bank: KeySentences, *, batch_size: BatchSize = "auto"
) -> pd.DataFrame:
    """Score what :func:`place_sentences` returned; result and errors as for :func:`measure_aha`."""
    kinds = ["safe"] * len(bank.safe) + ["go_ahead"] * len(bank.go_ahead)
    table_rows: list[tuple[Any, ...]] = []
    left_out: dict[str, str] = {}
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for rows, reasons in placed:
            left_out |= reasons
            scores = score(model, [sentences for _, sentences in rows], batch_size=fixed_size(batch_size))
            for (trace, sentences), logprobs in zip(rows, scores, strict=True):
                if not bool(logprobs.isfinite().all()):
                    left_out[trace.trace_id] = NOT_FINITE
                    continue
                about = (trace.trace_id, trace.group, trace.label)
                values = zip(kinds, bank.sentences, logprobs.tolist(), [s.n_tokens for s in sentences], strict=True)
                table_rows += [(*about, *row) for row in values]
    if not table_rows:
        raise NothingMeasured("no trace has an understanding that a sentence could follow", left_out)
    table = pd.DataFrame(table_rows, columns=list(_COLUMNS)).astype({"label": object})
    table.attrs["left_out"] = left_out
    return table


def summarise_aha(table: pd.DataFrame) -> pd.DataFrame:
    """Means over traces of what :func:`measure_aha` returned, with 95 % intervals over groups.

    Args:
        table: from :func:`measure_aha`.

    Returns:
        subset (all, and each label where they are at most two; those that have traces), measure (safe, go_ahead,
        difference = safe − go_ahead), value, low, high (nats per token), n (traces), n_groups. Sentences of a kind are
        averaged first.
    """
    each: Any = table.groupby(["trace_id", "group", "label", "kind"], dropna=False, sort=False)["logprob"].mean()
    means = each.unstack("kind").reset_index()
    means["difference"] = means["safe"] - means["go_ahead"]
    measures = ["safe", "go_ahead", "difference"]
    rows = []
    for subset in subsets_by_label(means["label"]):
        part = means if subset == "all" else means.loc[means["label"] == subset]
        if part.empty:
            continue
        groups = list(part["group"])
        means_of = mean_interval(part[measures].to_numpy(np.float64), groups)
        for i, measure in enumerate(measures):
            counts = {"n": int(means_of.n[i]), "n_groups": len(set(groups))}
            rows.append({"subset": subset, "measure": measure} | means_of.estimate(i) | counts)
    return pd.DataFrame(rows)
