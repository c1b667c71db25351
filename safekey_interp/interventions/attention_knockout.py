"""What happens to the key sentence when it may not look at the prompt, or at the understanding?

Attention knockout (Geva et al. 2023, arXiv 2304.14767): in some layers and heads the queries of K, or of the token
before it, may not see a span. What changes is how likely K is, and how likely safe key sentences are beside go-aheads
in its place (:mod:`~safekey_interp.interventions.effect_metrics`):

    effect = value knocked out − value as it is        nats a token

Below 0, the span had spoken for K, or for a safe one. What stands beside it:

- ``outside_spans``: as many random keys, from outside every tested span (X, U, and what is hidden) and the first token;
  where there are fewer than the span has, there is no such control (:mod:`safekey_interp.capture.attention_mask`).
- ``dose``: random quarters, halves and three quarters of the span. An effect of what the keys say rises with the dose;
  no random keys are needed for that.
- ``resample_same_label``, ``resample_other_label``: the same span of another request in place, keys and values
  (:mod:`safekey_interp.capture.resample_ablation`). Only what differs between requests can then move K: that a span
  says which kind of request it is rests on the other label's effect minus the same label's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd
import torch

from safekey_interp.capture.recording import evaluating
from safekey_interp.capture.resample_ablation import check_resampling
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.streaming import in_chunks, on_threads, threads_for
from safekey_interp.errors import InputError, ModelError, TraceError
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for, spelled
from safekey_interp.generation.likelihood import NOT_FINITE, Continuation, with_own_sentence, with_sentence
from safekey_interp.interventions.donors import OTHER, SAME, Donor, find_donors
from safekey_interp.interventions.knockout_passes import measure_cases
from safekey_interp.interventions.knockout_plan import CONTROLS, Case, FromSpan, Place, Plan
from safekey_interp.measures.trace_tables import concatenate_tables
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

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
    controls: Sequence[str] | None = None,
    n_random: int = 20,
    n_dose: int = 4,
    n_donors: int = 2,
    others: Sequence[Trace | Donor] | None = None,
    seed: int = 0,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:
    """How K's log-probability changes when its queries may not see a span, beside its controls.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: any number; those without U or K are left out.
        from_span: the queries: ``key_sentence``, ``decision`` (the token before K, which predicts K's first), or
            ``decision+key_sentence``, all that predict K.
        to_span: one or several of ``prompt``, ``understanding``, ``template``, ``first_token``.
        layers: layers in which the span is hidden; all when None.
        heads: heads in which it is hidden; all when None.
        by: ``together`` hides in all these layers and heads at once, ``layer`` in one layer after another, ``head`` in
            one head of one layer after another.
        window: with ``by="layer"``, so many consecutive ones of the layers at once.
        bank: key sentences for the aha difference; ``bank_for`` the tokenizer when None.
        aha: measure the aha difference, too; costs a pass for each sentence of the bank.
        controls: some of ``outside_spans``, ``dose``, ``resample_same_label``, ``resample_other_label``; all that the
            model allows when None. Each place and span costs ``1 + n_random + 3 * n_dose + 2 * n_donors`` passes.
        n_random: random sets of keys outside the spans.
        n_dose: random parts of the span, of each share.
        n_donors: other traces of each label.
        others: traces that give their spans, of both labels; ``traces`` when None.
        seed: seed of the draws.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        max_length: most tokens up to the end of K.
        on_trace: is told how many traces were done since the last call.

    Returns:
        One row per trace, place, span, control, dose, draw and metric: trace_id, group, label, from_span, to_span,
        layer (the first), n_layers, head (-1 for all), control (``none`` for the span hidden, else one of the kinds
        above), dose (share of the span that is hidden or replaced, 0.25 to 1), draw (-1 for the span itself), donor
        and donor_group (the other trace; empty for none), n_q, n_k (most keys in sight that were hidden in a layer, or
        that took another's place), n_pool (keys that random ones can be drawn from: fewest over the layers), metric
        (``key_sentence``, the trace's own K; with ``aha`` also ``difference``, ``safe``, ``go_ahead``), baseline,
        value, effect = value − baseline (nats a token). Where a trace allows no control of a kind (a pool smaller than
        the span in some layer, a span of fewer than four keys, no labelled trace of another group), one row of that
        kind with NaN says so. Template and first token are the same in every request and are not resampled.
        ``attrs["left_out"]`` maps the other traces to their reasons.

    Raises:
        InputError: an unknown span, layer, head or control, no trace to measure, or a bank that the tokenizer cannot
            spell.
        ModelError: the model's attention cannot be reached, or resampling is asked for by name and its positions are
            not relative.
    """
    if aha:
        bank = bank_for(model.tokenizer) if bank is None else spelled(model.tokenizer, bank)
    plan = Plan(
        from_span=_one_of("from_span", from_span, get_args(FromSpan)),
        to_spans=_several("to_span", to_span, CUT_SPANS),
        places=places_of(model, layers, heads, by=by, window=window),
        n_random=_count("n_random", n_random, 1),
        n_dose=_count("n_dose", n_dose, 1),
        n_donors=_count("n_donors", n_donors, 1),
        seed=_count("seed", seed, 0),
        bank=bank if aha else None,
        controls=_controls(model, controls),
    )
    check_attention(model)
    finding: dict[str, Any] = {"finder": finder, "delimiters": delimiters}
    donors: list[Donor] = []
    if {SAME, OTHER} & set(plan.controls):
        if others is None:
            others = traces = list(traces)
        donors += [one for one in others if isinstance(one, Donor)]
        asked = [one for one in others if not isinstance(one, Donor)]
        donors += find_donors(model, asked, **finding, max_length=max_length)
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for chunk in in_chunks(segmented(traces, **finding), _CHUNK):
            cases = []
            for trace, found in chunk:
                try:
                    case = Case.of(trace, _sentences(model, trace, found, plan, max_length), plan, donors)
                except TraceError as error:
                    left_out[trace.trace_id] = error.reason
                    continue
                if case.conditions:
                    cases.append(case)
                else:
                    left_out[trace.trace_id] = "it has none of the spans"
            records: list[dict[str, Any]] = []
            for case, measured in zip(cases, measure_cases(model, cases, plan), strict=True):
                if measured.is_finite:
                    records += case.records(measured, plan)
                else:
                    left_out[case.trace.trace_id] = NOT_FINITE
            if records:
                tables.append(pd.DataFrame(records).astype({"label": object}))
            on_trace(len(chunk))
    return concatenate_tables(tables, left_out, "no trace has a key sentence and a span that could be hidden from it")


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


def _controls(model: Model, controls: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds of control: those that are named, or all that the model allows."""
    if controls is not None:
        chosen = _several("controls", controls, CONTROLS) if len(controls) else ()
        if {SAME, OTHER} & set(chosen):
            check_resampling(model)
        return tuple(kind for kind in CONTROLS if kind in chosen)
    try:
        check_resampling(model)
    except ModelError:
        return tuple(kind for kind in CONTROLS if kind not in (SAME, OTHER))
    return CONTROLS


def _several(name: str, value: str | Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    chosen = (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
    if not chosen:
        raise InputError(f"{name}: got none, expected some of {', '.join(choices)}")
    for one in chosen:
        _one_of(name, one, choices)
    return chosen


def _one_of(name: str, value: Any, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise InputError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
    return value


def _count(name: str, value: int, least: int) -> int:
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name}: got {value!r}, expected a whole number of at least {least}")
    return value
