"""Sentence suppression (Thought Anchors: Bogdan et al. 2025, arXiv 2506.19143).

No later token may see a sentence of the reasoning, in any layer or head; the effect on each later sentence is the
divergence of the next-token distributions,

    kl = mean over its tokens of KL(p as it is ‖ p suppressed)         nats a token

The control hides as many random earlier keys from the same queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from einops import reduce
from torch import Tensor

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.streaming import StreamSettings, on_threads, threads_for, token_budget
from safekey_interp.errors import TraceError
from safekey_interp.generation.likelihood import NOT_FINITE
from safekey_interp.interventions.effects import TESTED, about_first, summarise_effects
from safekey_interp.interventions.reasoning_sentences import Reasoning, Sentence, measure_reasonings
from safekey_interp.interventions.suppression_record import INTERVENTION

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

RANDOM_KEYS = "random_keys"
"""The kind of control: as many random earlier keys as the sentence has."""
_MOST_LOGITS = 2**26


def suppress(
    model: Model,
    traces: Iterable[Trace],
    *,
    most: int = 12,
    n_random: int = 5,
    seed: int = 0, finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """What hiding each sentence does to each later one.

    Args:
        model: and ``seed`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: any number; those whose reasoning has fewer than two sentences are left out.
        most: first sentences of the reasoning that are taken.
        n_random: random sets of keys a sentence.

    Returns:
        One row per trace, suppressed sentence, draw and later sentence: trace_id, group, label, source and source_part,
        target and target_part (numbers; understanding, key_sentence or rest), distance (target − source), control
        (``none``; ``random_keys``), draw (-1 for the sentence itself), effect (the KL, nats a token; NaN for random
        keys where fewer lie before the queries than the sentence has), n_k (keys hidden), n_tokens (of the target).

    Raises:
        InputError: no trace can be measured, or a number out of range.
        ModelError: the model's attention cannot be reached.
    """
    INTERVENTION.check(most=most, n_random=n_random, seed=seed)
    check_attention(model)
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    of_trace = partial(_of_trace, model, n_random=n_random, seed=seed)
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        return measure_reasonings(model, traces, of_trace, settings, most=most, on_trace=on_trace)


def summarise_suppression(table: pd.DataFrame) -> pd.DataFrame:
    """Mean divergence by the parts that are hidden and hit, with intervals, beside random keys'.

    Args:
        table: from :func:`suppress`.

    Returns:
        source_part, target_part and the columns of
        :func:`~safekey_interp.interventions.effects.summarise_effects`. NaN where nothing is defined.
    """
    return summarise_effects(table, ["source_part", "target_part"])


def _of_trace(model: Model, reasoning: Reasoning, *, n_random: int, seed: int) -> list[pd.DataFrame]:
    """All rows of one trace. Raises TraceError where a number is not finite."""
    sentences, end = reasoning.sentences, reasoning.end
    ids = reasoning.encoding.input_ids[:end]
    layers = frozenset(range(model.n_layers))
    variants: list[tuple[Sentence, int]] = [
        (sentence, draw) for sentence in sentences[:-1] for draw in range(-1, n_random)
    ]
    cuts = [
        Cut(
            trace_id=reasoning.trace.trace_id,
            queries=tuple(range(sentence.tokens.end, end)),
            keys=tuple(sentence.tokens.positions),
            layers=layers,
            draw=None if draw < 0 else draw,
        )
        for sentence, draw in variants
    ]
    # The state before a sentence's first token predicts it.
    first = sentences[1].tokens.start - 1
    plain = _logprobs(model, ids[None], first)
    size = max(1, min(token_budget(model) // end, _MOST_LOGITS // ((end - first) * model.n_embeddings)))
    divergences, n_keys, is_short = [], [], []
    for begin in range(0, len(cuts), size):
        cut = Knockout(cuts[begin : begin + size], n_heads=model.n_heads, seed=seed)
        with knocked_out(model, cut):
            other = _logprobs(model, ids.expand(len(cut.cuts), -1), first)
        by_token = reduce(plain.exp() * (plain - other), "row pos vocab -> row pos", "sum")
        divergences.append(by_token.clamp(min=0).double().cpu().numpy())
        n_keys.append(cut.n_keys)
        is_short.append(cut.is_short)
    kl, hidden = np.concatenate(divergences), np.concatenate(n_keys)
    if not np.isfinite(kl).all():
        raise TraceError(reasoning.trace.trace_id, NOT_FINITE)
    # Fewer earlier keys than the sentence has: no such control.
    kl[np.concatenate(is_short) & np.array([draw >= 0 for _, draw in variants])] = np.nan
    rows: list[dict[str, Any]] = []
    for row, (source, draw) in enumerate(variants):
        for target in sentences[source.number + 1 :]:
            at = slice(target.tokens.start - 1 - first, target.tokens.end - 1 - first)
            rows.append(
                {
                    "source": source.number,
                    "source_part": source.part,
                    "target": target.number,
                    "target_part": target.part,
                    "distance": target.number - source.number,
                    "control": TESTED if draw < 0 else RANDOM_KEYS,
                    "draw": draw,
                    "effect": kl[row, at].mean(),
                    "n_k": int(hidden[row]),
                    "n_tokens": len(target.tokens),
                }
            )
    return [about_first(pd.DataFrame(rows), reasoning.about)]


def _logprobs(model: Model, ids: Tensor, first: int) -> Tensor:
    """(row, pos, vocabulary) from position ``first`` on."""
    logits = model.hf(input_ids=ids.to(model.device), use_cache=False).logits[:, first:]
    return logits.float().log_softmax(-1)
