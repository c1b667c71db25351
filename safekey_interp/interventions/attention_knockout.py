"""What happens to the key sentence when it may not look at the prompt, or at the understanding?

Attention knockout (Geva et al. 2023, arXiv 2304.14767): in some layers and heads the queries of K, or of the token
before it, may not see a span. What changes is how likely K is, and how likely safe key sentences are beside go-aheads
in its place (:mod:`~safekey_interp.interventions.readout`):

    effect = value knocked out − value as it is        nats a token

Below 0, the span had spoken for K, or for a safe one. The control hides as many random keys
(:mod:`safekey_interp.capture.knockout`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from safekey_interp.capture.check import check_attention
from safekey_interp.capture.context import evaluating
from safekey_interp.capture.knockout import Knockout, knocked_out
from safekey_interp.capture.stream import in_chunks, on_threads, threads_for
from safekey_interp.continuations import NOT_FINITE, Batch, Continuation, score, with_own_sentence, with_sentence
from safekey_interp.errors import InputError, TraceError
from safekey_interp.interventions.effects import joined, summarise_effects
from safekey_interp.interventions.knockout_rows import RANDOM, Case, FromSpan, Place, Plan
from safekey_interp.key_sentence_bank import KeySentences, bank_for, spelled
from safekey_interp.segmentation import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models import Model
    from safekey_interp.trace import Trace

CUT_SPANS = ("prompt", "understanding", "template", "first_token")
"""Spans that can be hidden."""
By = Literal["together", "layer", "head"]
"""What is knocked out at once: all chosen layers, one after another, or one head after another."""
_CHUNK = 64
"""Traces whose passes are planned together."""


def knockout(
    model: Model,
    traces: Iterable[Trace],
    from_span: FromSpan = "key_sentence",
    to_span: str | Sequence[str] = ("prompt", "understanding"),
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    by: By = "together",
    window: int = 1,
    bank: KeySentences | None = None,
    aha: bool = True,
    n_random: int = 20,
    seed: int = 0,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:
    """How K's log-probability changes when its queries may not see a span, beside random keys.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: any number; those without U or K are left out.
        from_span: the queries: ``key_sentence``, ``decision`` (the token before K, which predicts K's first), or
            ``decision+key_sentence``, all that predict K.
        to_span: one or several of ``prompt``, ``understanding``, ``template``, ``first_token``; or ``random``, random
            sets of as many keys as U has.
        layers: layers in which the span is hidden; all when None.
        heads: heads in which it is hidden; all when None.
        by: ``together`` hides in all these layers and heads at once, ``layer`` in one layer after another, ``head`` in
            one head of one layer after another.
        window: with ``by="layer"``, so many consecutive ones of the layers at once.
        bank: key sentences for the aha difference; ``bank_for`` the tokenizer when None.
        aha: measure the aha difference, too; costs a pass for each sentence of the bank.
        n_random: draws of each random set.
        seed: seed of the draws.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        max_length: most tokens up to the end of K.
        on_trace: is told how many traces were done since the last call.

    Returns:
        One row per trace, place, span, draw and metric: trace_id, group, label, from_span, to_span, layer (the first),
        n_layers, head (-1 for all), control (``none``; ``random_keys``, as many as the span has in sight), draw (-1
        for the span itself), n_q, n_k (most keys in sight that were hidden in a layer), metric (``key_sentence``, the
        trace's own K; with ``aha`` also ``difference``, ``safe``, ``go_ahead``), baseline, value, effect = value −
        baseline (nats a token). ``attrs["left_out"]`` maps the other traces to their reasons.

    Raises:
        InputError: an unknown span, layer or head, no trace to measure, or a bank that the tokenizer cannot spell.
        ModelError: the model's attention cannot be reached.
    """
    if aha:
        bank = bank_for(model.tokenizer) if bank is None else spelled(model.tokenizer, bank)
    plan = Plan(
        from_span=_one_of("from_span", from_span, get_args(FromSpan)),
        to_spans=_spans(to_span),
        places=places_of(model, layers, heads, by=by, window=window),
        n_random=_count("n_random", n_random, 1),
        seed=_count("seed", seed, 0),
        bank=bank if aha else None,
    )
    check_attention(model)
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for chunk in in_chunks(segmented(traces, finder=finder, delimiters=delimiters), _CHUNK):
            cases = []
            for trace, found in chunk:
                try:
                    case = Case.of(trace, _sentences(model, trace, found, plan, max_length), plan)
                except TraceError as error:
                    left_out[trace.trace_id] = error.reason
                    continue
                if case.conditions:
                    cases.append(case)
                else:
                    left_out[trace.trace_id] = "it has none of the spans"
            records: list[dict[str, Any]] = []
            for case, scores, n_keys in zip(cases, *_scored(model, cases, plan), strict=True):
                if np.isfinite(scores).all():
                    records += case.records(scores, n_keys, plan)
                else:
                    left_out[case.trace.trace_id] = NOT_FINITE
            if records:
                tables.append(pd.DataFrame(records).astype({"label": object}))
            on_trace(len(chunk))
    return joined(tables, left_out, "no trace has a key sentence and a span that could be hidden from it")


def summarise_knockout(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effects of :func:`knockout` with intervals, beside the random keys'.

    Args:
        table: from :func:`knockout`.

    Returns:
        from_span, to_span, layer, n_layers, head, metric and the columns of
        :func:`~safekey_interp.interventions.effects.summarise_effects`. NaN where nothing is defined.
    """
    by = ["from_span", "to_span", "layer", "n_layers", "head", "metric"]
    return summarise_effects(table, by)


def places_of(
    model: Model, layers: Sequence[int] | None, heads: Sequence[int] | None, *, by: By = "together", window: int = 1
) -> tuple[Place, ...]:
    """Where a span is hidden, one place after another.

    Raises:
        InputError: an unknown layer, head or way, or a window that is longer than the layers.
    """
    _one_of("by", by, get_args(By))
    numbers = model.layer_numbers(layers) or tuple(range(model.n_layers))
    chosen = None if heads is None else tuple(heads)
    for head in chosen or ():
        if not 0 <= head < model.n_heads:
            raise InputError(f"heads: got {head}, expected from 0 to {model.n_heads - 1}")
    if not 1 <= window <= len(numbers) or (window > 1 and by != "layer"):
        raise InputError(f"window: got {window}, expected from 1 to {len(numbers)}, and above 1 only with by='layer'")
    if by == "together":
        return (Place(numbers, chosen),)
    if by == "layer":
        return tuple(Place(numbers[i : i + window], chosen) for i in range(len(numbers) - window + 1))
    each = range(model.n_heads) if chosen is None else chosen
    return tuple(Place((layer,), (head,)) for layer in numbers for head in each)


def _sentences(
    model: Model, trace: Trace, found: Segmentation, plan: Plan, max_length: int | None
) -> tuple[Continuation, ...]:
    own = with_own_sentence(model, trace, found, max_length=max_length)
    bank = () if plan.bank is None else plan.bank.sentences
    return (*(with_sentence(model, trace, found, sentence) for sentence in bank), own)


def _scored(model: Model, cases: Sequence[Case], plan: Plan) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each case, the score of each row and the keys that were cut from it."""
    families = [case.rows for case in cases]
    cuts = [cut for case in cases for cut in case.cuts(plan)]
    n_keys = np.zeros(len(cuts), np.int64)

    @contextmanager
    def cutting(batch: Batch) -> Iterator[None]:
        mine = [cuts[number] for number in batch.rows]
        with knocked_out(model, Knockout(mine, n_heads=model.n_heads, starts=batch.starts, seed=plan.seed)) as cut:
            yield
        n_keys[batch.rows] = cut.n_keys

    scores = [one.numpy() for one in score(model, families, around=cutting)]
    ends = np.cumsum([len(family) for family in families])
    return scores, np.split(n_keys, ends[:-1]) if len(ends) else []


def _spans(to_span: str | Sequence[str]) -> tuple[str, ...]:
    spans = (to_span,) if isinstance(to_span, str) else tuple(dict.fromkeys(to_span))
    if not spans:
        raise InputError(f"to_span: got none, expected some of {', '.join((*CUT_SPANS, RANDOM))}")
    for span in spans:
        _one_of("to_span", span, (*CUT_SPANS, RANDOM))
    return spans


def _one_of(name: str, value: Any, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise InputError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
    return value


def _count(name: str, value: int, least: int) -> int:
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name}: got {value!r}, expected a whole number of at least {least}")
    return value
