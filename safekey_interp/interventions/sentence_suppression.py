"""Sentence suppression (Thought Anchors: Bogdan et al. 2025, arXiv 2506.19143), and suppression of any other span.

No later token may see a sentence of the reasoning, in any layer or head; the effect on each later sentence is the
divergence of the next-token distributions,

    kl = mean over its tokens of KL(p as it is ‖ p suppressed)         nats per token

or, of any metric that is read out behind it, its value suppressed minus its value as it is
(:mod:`~safekey_interp.interventions.suppressed_metrics`). The control hides as many random earlier keys from the same
queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import reduce
from torch import Tensor

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.capture.capture_request import expressions
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.streaming import StreamSettings, on_threads, threads_for, token_budget
from safekey_interp.data.span_checks import with_known_spans
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import NOT_FINITE
from safekey_interp.interventions.effect_metrics import readout_of
from safekey_interp.interventions.effects import TESTED, about_first, summarise_effects, with_units
from safekey_interp.interventions.metric_registry import MetricLike
from safekey_interp.interventions.reasoning_sentences import reasoning_sentences
from safekey_interp.interventions.suppressed_metrics import RANDOM_KEYS, Source, SuppressedMetrics
from safekey_interp.interventions.suppression_record import INTERVENTION
from safekey_interp.measures.trace_tables import concatenate_tables
from safekey_interp.segmentation.named_spans import sentence_spans
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

_MOST_LOGITS = 2**26


def suppress(
    model: Model,
    traces: Iterable[Trace],
    *,
    most: int = 12,
    n_random: int = 5,
    hidden: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    bank: KeySentences | None = None,
    seed: int = 0, finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """What hiding each sentence does to each later one, or to a metric.

    Args:
        model: and ``metric``, ``bank``, ``seed`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: any number; those whose reasoning has fewer than two sentences are left out.
        most: first sentences of the reasoning that are taken.
        n_random: random sets of keys a sentence.
        hidden: what is hidden, one at a time: span expressions; each sentence when None.
        targets: whose prediction is compared: span expressions, of which those behind what is hidden count; each
            sentence when None. Not with a metric, which says itself what is read.
        metric: what is read out in place of the divergence, of which what lies behind the hidden span can move.

    Returns:
        One row per trace, suppressed sentence, draw and later sentence: trace_id, group, label, source and source_part,
        target and target_part (numbers; understanding, key_sentence or rest, or the expression), distance (target −
        source; 0 where one of them is no sentence), control
        (``none``; ``random_keys``), draw (-1 for the sentence itself), effect (the KL, nats per token; NaN for random
        keys where fewer lie before the queries than the sentence has), n_k (keys hidden), n_tokens (of the target).
        With a metric, one per trace, suppressed sentence, draw and metric: of these columns trace_id … source_part,
        control, draw and n_k, and metric, unit, baseline, value, effect = value − baseline (in that unit).

    Raises:
        InputError: no trace can be measured, a number out of range, an unknown metric, or targets beside one.
        ModelError: the model's attention cannot be reached.
    """
    INTERVENTION.check(most=most, n_random=n_random, seed=seed)
    if metric is not None and targets:
        raise InputError("targets: got them beside a metric, which says itself what is read; leave one of them out")
    readout = None if metric is None else readout_of(model, metric, bank)
    check_attention(model)
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    sources, read = expressions(hidden or (), "hidden"), expressions(targets or (), "targets")
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    metrics = (
        SuppressedMetrics(model=model, readout=readout, n_random=n_random, seed=seed, max_length=max_length)
        if readout
        else None
    )
    known = with_known_spans(traces, (*sources, *read, *(readout.expressions if readout else ())))
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for trace, segmentation in segmented(known, settings):
            try:
                if metrics is None:
                    wanted = (sources, read)
                    pieces = _pieces(model, trace, segmentation, wanted=wanted, most=most, max_length=max_length)
                    tables.append(_of_trace(model, trace, pieces, n_random=n_random, seed=seed))
                else:
                    tables.append(metrics.table(trace, segmentation, _sources(segmentation, sources, most)))
            except TraceError as error:
                left_out[trace.trace_id] = error.reason
            on_trace(1)
    is_of_sentences = not sources and not read and metrics is None
    why = "no trace has at least 2 sentences of reasoning" if is_of_sentences else "no trace has the spans"
    return concatenate_tables(tables, left_out, why)


def summarise_suppression(table: pd.DataFrame) -> pd.DataFrame:
    """Mean divergence by the parts that are hidden and hit, with intervals, beside random keys'.

    Args:
        table: from :func:`suppress`.

    Returns:
        source_part, target_part, or of metrics source_part, metric and unit, and the columns of
        :func:`~safekey_interp.interventions.effects.summarise_effects`. NaN where nothing is defined.
    """
    read = "metric" if "metric" in table.columns else "target_part"
    return with_units(summarise_effects(table, ["source_part", read], joint=[read]), table)


def _sources(segmentation: Segmentation, hidden: Sequence[str], most: int) -> list[Source]:
    """The spans to hide, or the first sentences of the reasoning."""
    if hidden:
        return [Source(number, each, each) for number, each in enumerate(hidden)]
    sentences = enumerate(islice(sentence_spans(segmentation), most))
    return [Source(number, part, f"sentence({number})") for number, (part, _) in sentences]


class _Piece(NamedTuple):
    """Some tokens that are hidden, or whose prediction is compared."""

    number: int
    """Of the sentence, or of the expression."""
    part: str
    """``understanding``, ``key_sentence`` or ``rest``; or the expression."""
    at: Sequence[int]
    """Its tokens, ascending."""
    is_sentence: bool
    """Whether it is one of the reasoning's."""


class _Pieces(NamedTuple):
    """What is taken of one trace."""

    ids: Tensor
    """Its tokens, up to the last that is compared."""
    sources: list[_Piece]
    """Hidden, one at a time; each has a target behind it."""
    targets: list[_Piece]
    """Compared; each has a source before it."""


def _pieces(
    model: Model,
    trace: Trace,
    segmentation: Segmentation,
    *,
    wanted: tuple[Sequence[str], Sequence[str]],
    most: int,
    max_length: int | None,
) -> _Pieces:
    """What is hidden and compared. Raises TraceError where there is no pair of these."""
    encoding = model.encode(trace, segmentation)
    sentences: list[_Piece] = []
    if not all(wanted):
        found = reasoning_sentences(trace, segmentation, encoding, most=most)
        sentences = [_Piece(each.number, each.part, each.tokens.positions, True) for each in found]
    sources, targets = (
        [_Piece(number, each, encoding.positions(each), False) for number, each in enumerate(of)] if of else sentences
        for of in wanted
    )
    sources, targets = ([piece for piece in pieces if len(piece.at)] for pieces in (sources, targets))
    kept = [source for source in sources if any(target.at[0] > source.at[-1] for target in targets)]
    behind = [target for target in targets if any(target.at[0] > source.at[-1] for source in sources)]
    if not kept:
        raise TraceError(trace.trace_id, "none of the spans that are compared lies behind one that is hidden")
    end = max(target.at[-1] for target in behind) + 1
    if max_length is not None and end > max_length:
        raise TraceError(trace.trace_id, f"{end} tokens, more than {max_length}")
    return _Pieces(encoding.input_ids[:end], kept, behind)


def _of_trace(model: Model, trace: Trace, pieces: _Pieces, *, n_random: int, seed: int) -> pd.DataFrame:
    """All rows of one trace. Raises TraceError where a number is not finite."""
    ids, end = pieces.ids, len(pieces.ids)
    layers = frozenset(range(model.n_layers))
    variants = [(source, draw) for source in pieces.sources for draw in range(-1, n_random)]
    cuts = [
        Cut(
            trace_id=trace.trace_id,
            queries=tuple(range(source.at[-1] + 1, end)),
            keys=tuple(source.at),
            layers=layers,
            draw=None if draw < 0 else draw,
        )
        for source, draw in variants
    ]
    # The state before a sentence's first token predicts it.
    first = min(target.at[0] for target in pieces.targets) - 1
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
        raise TraceError(trace.trace_id, NOT_FINITE)
    # Fewer earlier keys than the sentence has: no such control.
    kl[np.concatenate(is_short) & np.array([draw >= 0 for _, draw in variants])] = np.nan
    rows: list[dict[str, Any]] = []
    for row, (source, draw) in enumerate(variants):
        for target in (target for target in pieces.targets if target.at[0] > source.at[-1]):
            at = [position - 1 - first for position in target.at]
            of_sentences = source.is_sentence and target.is_sentence
            rows.append(
                {
                    "source": source.number,
                    "source_part": source.part,
                    "target": target.number,
                    "target_part": target.part,
                    "distance": target.number - source.number if of_sentences else 0,
                    "control": TESTED if draw < 0 else RANDOM_KEYS,
                    "draw": draw,
                    "effect": kl[row, at].mean(),
                    "n_k": int(hidden[row]),
                    "n_tokens": len(target.at),
                }
            )
    about = {"trace_id": trace.trace_id, "group": trace.group, "label": trace.label}
    return about_first(pd.DataFrame(rows), about)


def _logprobs(model: Model, ids: Tensor, first: int) -> Tensor:
    """(row, pos, vocabulary) from position ``first`` on."""
    logits = model.hf(input_ids=ids.to(model.device), use_cache=False).logits[:, first:]
    return logits.float().log_softmax(-1)
