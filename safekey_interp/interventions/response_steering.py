"""Responses under a direction: how often the model refuses, complies or breaks down, by scale ("waking the signal").

The model answers each prompt as it is, and again with a direction added to its residual stream or ablated from it
(:mod:`~safekey_interp.generation.generation_edits`), at several scales; a judge says of every answer whether it
refuses. A direction that wakes a dormant signal has harmful prompts refused and benign ones answered: what it does to
harmful prompts says nothing without over-refusal and malformed answers beside it, and without control directions of the
same norms at the same scales (:mod:`safekey_interp.measures.control_directions`). Other prompts are answered than the
direction was fitted on (:mod:`~safekey_interp.interventions.cross_fitting`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import pandas as pd

from safekey_interp.data.conditions import LABELS, SUBSETS
from safekey_interp.errors import TraceError
from safekey_interp.generation.generation_edits import Ablate, GenerationEdit, Mode, Steer, check_direction, check_edits
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.requests import Request
from safekey_interp.generation.sampling_settings import Sampling
from safekey_interp.generation.tokens import check_room, prompt_tokens
from safekey_interp.interventions.effects import TESTED, about_first, summarise_effects, tested_rows
from safekey_interp.interventions.response_steering_record import INTERVENTION, METRICS
from safekey_interp.interventions.steering import COMPONENTS, component_columns
from safekey_interp.measures.control_directions import DEFAULT_CONTROLS, ControlKind, check_controls, control_draws
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.trace_tables import concatenate_tables

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

EVERY = "all"
"""The condition of all prompts."""
USUAL_TOKENS = 512
"""Most new tokens by default, and half of what the model reads at most: the same for every prompt."""
_PLACE = ("direction", "layer", "site", "position", "mode", "scale", "condition", "metric")


class JudgedAnswer(NamedTuple):
    """What one response does: 1 where it does, else 0."""

    refused: float
    """It declines what was asked for, in full or in part."""
    complied: float
    """It does what was asked for."""
    malformed: float
    """It is no answer that can be read as one."""


AnswerJudge = Callable[["Trace", str], JudgedAnswer]
"""Takes a prompt's trace, and a response to it in place of the trace's own."""


def steer_responses(
    model: Model,
    traces: Iterable[Trace],
    directions: Direction | Sequence[Direction],
    *,
    judge: AnswerJudge,
    mode: Mode = "add",
    scales: float | Sequence[float] = (0.0, 0.25, 0.5, 1.0),
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    controls: Sequence[ControlKind] = DEFAULT_CONTROLS,
    n_random: int = 20,
    max_new_tokens: int | None = None, temperature: float = 0.0, top_p: float = 1.0, batch_size: int = 64,
    seed: int = 0, finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """What a model answers under each direction, beside control directions of its norm, as a judge reads it.

    Args:
        model: and ``seed``, ``finder``, ``delimiters``, ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: whose prompts and earlier turns are asked; not those that the directions were fitted on.
        directions: records of the model's width.
        judge: reads every response.
        mode: ``add`` or ``ablate``.
        scales: of ``add``, in units of each direction's norm; below 0 towards the other class. 0 is the model as it is.
        layers: after which layers; when None, of ``ablate`` everywhere, of ``add`` the direction's own.
        positions: where in the sequence, as ``ski.Steer`` has them; everywhere when None.
        controls: kinds of control.
        n_random: control directions of each kind a direction.
        max_new_tokens: most tokens of a response; when None 512, or half of what the model reads.
        temperature: 0 for the likeliest token each time.
        top_p: draw from the likeliest tokens of this much probability.
        batch_size: responses decoded at once.
        max_length: most tokens of a prompt; longer ones are left out.

    Returns:
        One row per trace, direction, scale, draw and metric: trace_id, group, label, condition (the trace's source),
        direction (its number), layer, site, position, method, mode, scale (NaN for ``ablate``), control (``none`` or a
        kind of control), draw (-1 for the direction itself), metric (refused, complied, malformed), baseline (0 or 1,
        as the model is), value (0 or 1), effect = value − baseline, response, pc1_cosine to pc3_share as
        :func:`~safekey_interp.interventions.steering.steer` has them.

    Raises:
        InputError: no trace can be asked, or a direction, layer, position, scale or kind of control does not fit.
    """
    kinds = check_controls(controls, n_random)
    INTERVENTION.check(mode=mode, seed=seed)
    records = [directions] if isinstance(directions, Direction) else list(directions)
    numbers = [float("nan")] if mode == "ablate" else np.atleast_1d(np.asarray(scales, np.float64)).tolist()
    where = {"layers": layers, "positions": positions}
    variants = _variants(model, records, mode, numbers, where, kinds=kinds, n_random=n_random, seed=seed)
    most = max_new_tokens or min(USUAL_TOKENS, (model.max_positions or 2 * USUAL_TOKENS) // 2)
    sampling = Sampling(max_new_tokens=most, temperature=temperature, top_p=top_p, seed=seed)
    engine = LocalEngine(model, batch_size=batch_size, finder=finder, delimiters=delimiters)
    asked, left_out = [], {}
    for trace in traces:
        try:
            _check_prompt(model, Request(trace=trace), most, max_length)
            asked.append(trace)
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
    tables = {}
    for number, responses in _answered(engine, asked, variants, sampling):
        tables[number] = _table(asked[number], variants, responses, judge)
        on_trace(1)
    return concatenate_tables([tables[number] for number in sorted(tables)], left_out, "no trace can be asked")


def summarise_responses(table: pd.DataFrame) -> pd.DataFrame:
    """How often the answers of :func:`steer_responses` refuse, comply and are malformed, beside control directions'.

    Args:
        table: from :func:`steer_responses`.

    Returns:
        direction, layer, site, position, mode, scale, condition (``all``, and each source where there are several),
        metric, the columns of :func:`~safekey_interp.interventions.effects.summarise_effects` (``value`` a share of
        prompts in [0, 1], with intervals of shares), ``unedited`` (the same share of the model as it is), pc1_cosine to
        pc3_share. ``p_value_over_all`` is of the best of all layers, at one scale.
    """
    conditions = [str(name) for name in table["condition"].unique()]
    whole = table.assign(condition=EVERY)
    apart = [table] if len(conditions) > 1 else []
    both = pd.concat([whole, *apart], ignore_index=True)
    joint = ("mode", "scale", "condition", "metric")
    options: dict[str, Any] = {"kinds": get_args(ControlKind), "joint": joint, "shares": True}
    summary = summarise_effects(both, _PLACE, value="value", **options)
    tested: Any = tested_rows(both)
    before = [
        (tested if subset == SUBSETS[0] else tested[tested["label"] == subset])
        .groupby(["condition", "metric"])["baseline"]
        .mean()
        .rename("unedited")
        .reset_index()
        .assign(subset=subset)
        for subset in SUBSETS
        if subset not in LABELS or (tested["label"] == subset).any()
    ]
    summary = summary.merge(pd.concat(before), on=["condition", "metric", "subset"], how="left")
    components: Any = tested.groupby("direction")[list(COMPONENTS)].mean()
    return summary.merge(components, on="direction", how="left")


def cost_in_words(options: Mapping[str, Any], n_traces: int) -> str:
    """How many responses a run writes."""
    n_scales = 1 if options["mode"] == "ablate" else len({scale for scale in np.atleast_1d(options["scales"]) if scale})
    n_vectors = 1 + len(check_controls(options["controls"], options["n_random"])) * options["n_random"]
    directions = options["directions"]
    n_directions = len(directions) if isinstance(directions, list | tuple) else 1
    n = n_traces * (1 + n_scales * n_vectors * n_directions)
    return (
        f"{n:,} responses are written: to {n_traces:,} prompts as the model is, and at {n_scales} scale(s) under "
        f"{n_directions} direction(s), each with {n_vectors - 1} controls"
    )


class _Variant(NamedTuple):
    """One way to change the model."""

    edits: tuple[GenerationEdit, ...]
    """None where nothing is changed."""
    about: Mapping[str, Any]
    """Its columns; empty for the baseline."""


def _variants(
    model: Model,
    directions: Sequence[Direction],
    mode: Mode,
    scales: Sequence[float],
    where: Mapping[str, Any],
    *,
    kinds: Sequence[ControlKind],
    n_random: int,
    seed: int,
) -> list[_Variant]:
    """The baseline first."""
    variants = [_Variant((), {})]
    for number, direction in enumerate(directions):
        what = f"direction {number}"
        check_direction(model, direction, what)
        vectors = [(TESTED, -1, direction.vector)]
        for kind in kinds:
            drawing: dict[str, Any] = {"d_model": model.d_model, "seed": (seed, number), "what": what}
            drawn = control_draws(direction.controls, kind, n_random, **drawing)
            vectors += [(kind, draw, vector) for draw, vector in enumerate(drawn)]
        place = {name: getattr(direction, name) for name in ("layer", "site", "position", "method")}
        for scale in scales:
            for kind, draw, vector in vectors:
                one = replace(direction, vector=vector)
                edit = Ablate(one, **where) if mode == "ablate" else Steer(one, scale=scale, **where)
                check_edits(model, [edit])
                about = {"direction": number} | place | {"mode": mode, "scale": scale, "control": kind, "draw": draw}
                variants.append(_Variant((edit,) if scale else (), about | component_columns(direction)))
    return variants


def _check_prompt(model: Model, request: Request, most: int, max_length: int | None) -> None:
    n = len(prompt_tokens(model.tokenizer, request).ids)
    check_room(request, n, most, model.max_positions)
    if max_length is not None and n > max_length:
        raise TraceError(request.trace.trace_id, f"its prompt has {n} tokens, past {max_length}; raise --max-length")


def _answered(
    engine: LocalEngine, traces: Sequence[Trace], variants: Sequence[_Variant], sampling: Sampling
) -> Iterator[tuple[int, list[str]]]:
    """The number of a trace, and its response under each variant, once it has all; without edits it answers once."""
    edited = [number for number, variant in enumerate(variants) if variant.edits or number == 0]
    wanted = [(trace, number) for trace in range(len(traces)) for number in edited]
    requests = [Request(trace=traces[trace], edits=variants[number].edits) for trace, number in wanted]
    found: list[dict[int, str]] = [{} for _ in traces]
    for rows, answers in engine.batches(requests, sampling) if requests else ():
        for row, answer in zip(rows, answers, strict=True):
            trace, number = wanted[row]
            found[trace][number] = answer.response
            if len(found[trace]) == len(edited):
                yield trace, [found[trace].get(each, found[trace][0]) for each in range(len(variants))]


def _table(trace: Trace, variants: Sequence[_Variant], responses: Sequence[str], judge: AnswerJudge) -> pd.DataFrame:
    known = {response: judge(trace, response) for response in dict.fromkeys(responses)}
    baseline = known[responses[0]]
    rows = [
        dict(variant.about)
        | {"metric": metric, "baseline": getattr(baseline, metric), "value": getattr(known[response], metric)}
        | {"response": response}
        for variant, response in zip(variants[1:], responses[1:], strict=True)
        for metric in METRICS
    ]
    table = pd.DataFrame(rows)
    about = {"trace_id": trace.trace_id, "group": trace.group, "label": trace.label, "condition": trace.source or EVERY}
    return about_first(table.assign(effect=table["value"] - table["baseline"]), about)
