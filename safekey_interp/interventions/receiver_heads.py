"""Receiver heads (Thought Anchors: Bogdan et al. 2025, arXiv 2506.19143).

Heads in which later sentences attend to a few earlier ones: a sentence's score in a head is the mean attention that it
receives from the sentences at least ``nearest`` further on; a head whose scores are far from uniform, by their kurtosis
over sentences, is a receiver:

    kurtosis = mean((s − s̄)⁴) / mean((s − s̄)²)² − 3

A score sums over the sentence's tokens and long sentences receive more, so the scores are per token. The control cuts
the same tokens into the same lengths in a random order: where boundaries mean nothing, kurtosis stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from safekey_interp.capture.key_sets import words_of
from safekey_interp.capture.segment_attention import segment_attention
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.streaming import StreamSettings, on_threads, threads_for
from safekey_interp.data.trace import TokenSpan
from safekey_interp.errors import InputError
from safekey_interp.interventions.effects import TESTED, summarise_effects
from safekey_interp.interventions.reasoning_sentences import Reasoning, measure_reasonings

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


def find_receivers(
    model: Model,
    traces: Iterable[Trace],
    *,
    nearest: int = 4,
    most: int = 64,
    n_random: int = 20,
    seed: int = 0, finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """How unevenly each head's attention falls on earlier sentences.

    Args:
        model: and ``seed`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: any number; those with fewer than ``nearest`` + 4 sentences of reasoning are left out.
        nearest: sentences between a sentence and the first that counts as a later one.
        most: first sentences of the reasoning that are taken.
        n_random: random orders of the lengths.

    Returns:
        One row per trace, layer, head and draw: trace_id, group, label, layer, head, control (``none``;
        ``random_cuts``), draw (-1 for the sentences themselves), effect (the kurtosis; NaN on layers without a
        pattern), top (number of the sentence that receives most), top_part (understanding, key_sentence or rest),
        n_sentences.

    Raises:
        InputError: no trace can be measured, or a number out of range.
        ModelError: the model's attention cannot be reached.
    """
    for name, value, least in (("nearest", nearest, 1), ("most", most, nearest + 4), ("n_random", n_random, 0)):
        if value < least:
            raise InputError(f"{name}: got {value}, expected at least {least}")
    check_attention(model)
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    counts = {"most": most, "least": nearest + 4}
    of_trace = partial(_of_trace, model, nearest=nearest, n_random=n_random, seed=seed)
    with on_threads(threads_for(model)):
        return measure_reasonings(model, traces, of_trace, settings, on_trace=on_trace, **counts)


def summarise_receivers(table: pd.DataFrame) -> pd.DataFrame:
    """Mean kurtosis of each head with intervals, beside that of sentences cut at random.

    Args:
        table: from :func:`find_receivers`.

    Returns:
        layer, head and the columns of :func:`~safekey_interp.interventions.effects.summarise_effects`.
        NaN where nothing is defined.
    """
    return summarise_effects(table, ["layer", "head"], joint=())


def received(
    masses: Float[np.ndarray, "layer head sentence sentence"], lengths: Sequence[int], nearest: int
) -> Float[np.ndarray, "layer head received"]:
    """Mean attention a token that each sentence gets from those at least ``nearest`` further on; of the last ones,
    which have none, nothing."""
    m = masses.shape[-1]
    scores = [masses[..., k + nearest :, k].mean(-1) / lengths[k] for k in range(m - nearest)]
    return np.stack(scores, axis=-1)


def kurtosis(scores: Float[np.ndarray, "... n"]) -> Float[np.ndarray, ...]:
    """Excess kurtosis over the last axis; NaN where all are equal."""
    centred = scores.astype(np.float64) - scores.mean(-1, keepdims=True, dtype=np.float64)
    variance = (centred**2).mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (centred**4).mean(-1) / variance**2 - 3


def _of_trace(model: Model, reasoning: Reasoning, *, nearest: int, n_random: int, seed: int) -> list[pd.DataFrame]:
    """A table of the sentences themselves, and one of each draw."""
    spans = [sentence.tokens for sentence in reasoning.sentences]
    rng = np.random.default_rng([seed, *words_of(reasoning.trace.trace_id)])
    cuts = [spans, *(_reordered(spans, rng) for _ in range(n_random))]
    ids = reasoning.encoding.input_ids[: reasoning.end]
    masses = segment_attention(model, ids, [span for cut in cuts for span in cut])
    m, parts = len(spans), [sentence.part for sentence in reasoning.sentences]
    tables = []
    for draw, cut in enumerate(cuts, start=-1):
        at = slice((draw + 1) * m, (draw + 2) * m)
        scores = received(masses[..., at, at], [len(span) for span in cut], nearest)
        tables.append(_table(reasoning.about, scores, draw, parts))
    return tables


def _reordered(spans: Sequence[TokenSpan], rng: np.random.Generator) -> list[TokenSpan]:
    """The same stretch cut into the same lengths in another order; what lies between sentences goes with the one
    before."""
    edges = [span.start for span in spans] + [spans[-1].end]
    lengths = rng.permutation(np.diff(edges))
    starts = edges[0] + np.concatenate([[0], np.cumsum(lengths)])
    return [TokenSpan(int(a), int(b)) for a, b in pairwise(starts)]


def _table(about: dict[str, Any], scores: np.ndarray, draw: int, parts: Sequence[str]) -> pd.DataFrame:
    n_layers, n_heads, _ = scores.shape
    top = np.nan_to_num(scores, nan=-1.0).argmax(-1).ravel()
    columns = {
        "layer": np.repeat(np.arange(n_layers), n_heads),
        "head": np.tile(np.arange(n_heads), n_layers),
        "control": TESTED if draw < 0 else "random_cuts",
        "draw": draw,
        "effect": kurtosis(scores).ravel(),
        "top": top,
        "top_part": [parts[number] if draw < 0 else "" for number in top],
        "n_sentences": len(parts),
    }
    return pd.DataFrame(about | columns).astype({"label": object})
