"""Attention knockout of spans (Geva et al. 2023, arXiv 2304.14767).

In some layers and heads the queries of a span, by default K, may not see another. What changes is a metric: by default,
how likely K is, and how likely safe and compliant key sentences are in its place; or any other
(:mod:`~safekey_interp.interventions.metric_registry`):

    effect = value knocked out − value as it is        nats per token, or the metric's unit

Below 0, the span made K, or a safe one, likelier. The controls:

- ``outside_spans``: as many random keys, from outside every tested span (what is hidden; of K's queries X and U, too)
  and the first token; where there are fewer than the span has, there is no such control
  (:mod:`safekey_interp.capture.attention_mask`).
- ``dose``: random quarters, halves and three quarters of the span. An effect of what the keys say rises with the dose;
  no random keys are needed for that.
- ``resample_same_label``, ``resample_other_label``: the same span of another request in place, keys and values
  (:mod:`safekey_interp.capture.resample_ablation`). Only what differs between requests can then move K: that a span
  says which kind of request it is rests on the other label's effect minus the same label's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.resample_ablation import check_resampling
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.streaming import StreamSettings, in_chunks, on_threads, threads_for
from safekey_interp.data.span_checks import with_known_spans
from safekey_interp.data.trace_list import as_traces
from safekey_interp.errors import InputError, ModelError, TraceError
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import NOT_FINITE
from safekey_interp.interventions.donors import RESAMPLING, Donor, find_donors
from safekey_interp.interventions.effect_metrics import Subject, readout_of
from safekey_interp.interventions.intervention_record import Prepared
from safekey_interp.interventions.knockout_passes import measure_cases
from safekey_interp.interventions.knockout_plan import CONTROLS, Case, Place, Plan
from safekey_interp.interventions.knockout_record import INTERVENTION
from safekey_interp.interventions.metric_registry import MetricLike
from safekey_interp.measures.trace_tables import concatenate_tables
from safekey_interp.segmentation.segmenter import segmented

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

By = Literal["together", "layer", "head"]
"""What is knocked out at once: all chosen layers, one after another, or one head after another."""
_CHUNK = 64
"""Traces whose passes are planned together."""


def knockout(
    model: Model,
    traces: Iterable[Trace],
    from_span: str = "key_sentence",
    to_span: str | Sequence[str] = ("prompt", "understanding"),
    *,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    by: By = "together",
    window: int = 1,
    bank: KeySentences | None = None,
    aha: bool = True,
    controls: Sequence[str] | None = None,
    n_random: int = 20,
    n_dose: int = 2,
    n_donors: int = 2,
    others: Sequence[Trace | Donor] | None = None,
    seed: int = 0, finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """How a metric, by default K's log-probability, changes when queries may not see a span, beside its controls.

    Args:
        model: and ``metric``, ``bank``, ``seed`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: any number; those without a span that is asked for are left out, of the default metrics those without U
            or K.
        from_span: the queries, a span expression such as ``key_sentence``, ``decision`` (the token before K, which
            predicts K's first), ``decision+key_sentence``, all that predict K, or ``reasoning``. A sentence or text
            that is read out in the place of a span is that span.
        to_span: what is hidden: one or several span expressions.
        layers: layers in which the span is hidden; all when None.
        heads: heads in which it is hidden; all when None.
        by: ``together`` hides in all these layers and heads at once, ``layer`` in one layer after another, ``head`` in
            one head of one layer after another.
        window: with ``by="layer"``, so many consecutive ones of the layers at once.
        aha: without ``metric``, measure the aha difference, too; costs a pass for each sentence of the bank.
        controls: some of ``outside_spans``, ``dose``, ``resample_same_label``, ``resample_other_label``; all that the
            model allows when None. Each place and span costs ``1 + n_random + 3 * n_dose + 2 * n_donors`` passes.
        n_random: random sets of keys outside the spans.
        n_dose: random parts of the span, of each share.
        n_donors: other traces of each label.
        others: traces that give their spans, of both labels; ``traces`` when None.

    Returns:
        One row per trace, place, span, control, dose, draw and metric: trace_id, group, label, from_span, to_span,
        layer (the first), n_layers, head (-1 for all), control (``none`` for the span hidden, else one of the kinds
        above), dose (share of the span that is hidden or replaced, 0.25 to 1), draw (-1 for the span itself), donor and
        donor_group (the other trace; empty for none), n_q, n_k (most keys in sight that were hidden in a layer, or that
        took another's place), n_pool (keys that random ones can be drawn from: fewest over the layers), metric
        (``key_sentence``, the trace's own K; with ``aha`` also ``difference``, ``safe``, ``go_ahead``), unit (where a
        ``metric`` was asked for), baseline, value, effect = value − baseline (nats per token, or that unit). Where a
        trace allows no control of a kind (a pool smaller than the span in some layer, a span of fewer than four keys,
        no labelled trace of another group), one row of that kind with NaN says so. Template and first token are the
        same in every request and are not resampled.

    Raises:
        InputError: an unknown span, metric, layer, head or control, no trace to measure, or a bank that the tokenizer
            cannot spell.
        ModelError: the model's attention cannot be reached, or resampling is asked for by name and its positions are
            not relative.
    """
    readout = readout_of(model, metric, bank, default=("aha", "key_sentence") if aha else ("key_sentence",))
    draws: dict[str, int] = {"n_random": n_random, "n_dose": n_dose, "n_donors": n_donors, "seed": seed}
    INTERVENTION.check(from_span=from_span, to_span=to_span, controls=controls, **draws)
    plan = Plan(
        from_span=from_span,
        to_spans=_unique(to_span),
        places=places_of(model, layers, heads, by=by, window=window),
        readout=readout,
        controls=_controls(model, controls),
        **draws,
    )
    check_attention(model)
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    donors: list[Donor] = []
    if set(RESAMPLING) & set(plan.controls):
        if others is None:
            others = traces = traces if isinstance(traces, list) else list(as_traces(traces))
        donors += [other for other in others if isinstance(other, Donor)]
        candidates = [other for other in others if not isinstance(other, Donor)]
        donors += find_donors(model, candidates, settings, spans=plan.to_spans)
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    known = with_known_spans(traces, (from_span, *plan.to_spans, *readout.expressions))
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for chunk in in_chunks(segmented(known, settings), _CHUNK):
            cases = []
            for trace, segmentation in chunk:
                try:
                    subject = Subject(trace, segmentation, readout.rows(model, trace, segmentation, max_length))
                    cases.append(Case.of(subject, plan, donors))
                except TraceError as error:
                    left_out[trace.trace_id] = error.reason
            records: list[dict[str, Any]] = []
            for case, measured in zip(cases, measure_cases(model, cases, plan), strict=True):
                if measured.is_finite:
                    records += case.records(measured, plan)
                else:
                    left_out[case.trace.trace_id] = NOT_FINITE
            if records:
                tables.append(readout.with_units(pd.DataFrame(records).astype({"label": object})))
            on_trace(len(chunk))
    why = "a key sentence and a span that could be hidden from it"
    return concatenate_tables(
        tables, left_out, f"no trace has {'what is read out and hidden' if readout.is_chosen else why}"
    )


def prepare_knockout(model: Model, traces: Sequence[Trace], options: Mapping[str, Any], **finding: Any) -> Prepared:
    """The traces of a run, and the donors among them where a control takes their spans."""
    kinds = RESAMPLING if options["controls"] is None else options["controls"]
    spans, settings = _unique(options["to_span"]), StreamSettings(**finding)
    donors = find_donors(model, traces, settings, spans=spans) if set(RESAMPLING) & set(kinds) else None
    return Prepared(list(traces), {} if donors is None else {"others": donors}, {})


def places_of(
    model: Model, layers: Sequence[int] | None, heads: Sequence[int] | None, *, by: By = "together", window: int = 1
) -> tuple[Place, ...]:
    """Where a span is hidden, one place after another.

    Raises:
        InputError: an unknown layer, head or way, or a window that is longer than the layers.
    """
    INTERVENTION.check(by=by)
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


def _controls(model: Model, controls: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds of control: those that are named, or all that the model allows."""
    if controls is not None:
        chosen = _unique(controls)
        if set(RESAMPLING) & set(chosen):
            check_resampling(model)
        return tuple(kind for kind in CONTROLS if kind in chosen)
    try:
        check_resampling(model)
    except ModelError:
        return tuple(kind for kind in CONTROLS if kind not in RESAMPLING)
    return CONTROLS


def _unique(values: str | Sequence[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(dict.fromkeys(values))
