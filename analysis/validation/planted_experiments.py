"""Experiments on planted nulls and effects: the statement "more than chance" of each intervention and probe.

Each function makes one run: a different draw of traces, labels that are shuffled over their groups before anything is
measured (where the statement is about labels), then the public function, its summary and the rule that the pages use.
It returns, for each statement, whether it says "more than chance"; None where it says nothing, for want of an interval.

What does not depend on labels is measured once: states before K, what each trace's span does in each other's place
(from which the knockout's own choice of donors takes, by the shuffled labels), doses and suppressed sentences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from analysis.validation.planted_traces import (
    BANK,
    GIVEN,
    PER_CLASS,
    POSITION,
    SIZE,
    Held,
    copied,
    copying,
    key_sentence,
    pool,
    shipped,
    shuffled,
    states,
    toy,
    with_sentences,
)
from safekey_interp.capture.residual_edits import Place, edited
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.conditions import conditions_of
from safekey_interp.data.trace import Trace
from safekey_interp.interventions.activation_patching import patch, summarise_patching
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.cross_fitting import steer_held_out
from safekey_interp.interventions.directions import fit_directions
from safekey_interp.interventions.donors import RESAMPLING, SAME, Donor, donors_for, find_donors
from safekey_interp.interventions.effects import TESTED
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.interventions.knockout_plan import DOSE
from safekey_interp.interventions.knockout_summary import summarise_knockout
from safekey_interp.interventions.logit_lens_scores import logit_lens, summarise_lens
from safekey_interp.interventions.metric_trajectory import measure_trajectory
from safekey_interp.interventions.sentence_suppression import RANDOM_KEYS, summarise_suppression, suppress
from safekey_interp.interventions.steering import steer, summarise_steering
from safekey_interp.interventions.trace_pairs import TracePair, find_pairs
from safekey_interp.interventions.two_stages import in_two_stages
from safekey_interp.measures.control_directions import least_groups, units
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.separability import separability_table
from safekey_interp.measures.trajectory import summarise_trajectory
from safekey_interp.measures.transfer import transfer_table
from safekey_interp.models.model import Model
from safekey_interp.reporting.findings.intervention_findings import find_excess
from safekey_interp.reporting.findings.knockout_findings import find_contrast, find_doses
from safekey_interp.reporting.findings.probe_findings import probes
from safekey_interp.reporting.findings.score_findings import find_gaps
from safekey_interp.reporting.findings.transfer_findings import transfers

Verdicts = dict[str, bool | None]
"""Whether each statement says "more than chance"."""
N_POOL = 32
"""Groups of which every trace is put in every other's place."""
N_DONORS = 2
N_DRAWS = 19
"""So that p ≤ .05 means beyond all of them."""
ALONG = 1.0
"""The same of the direction that is steered along: as large as the states' own spread (norm of their deviations)."""
N_FOLDS = 5
PER_CLASS_OF_FOLDS = math.ceil(least_groups(N_DRAWS, N_FOLDS) / 2)
"""Groups of each shuffled label of cross-fitted directions. With fewer, the requests of a fit leave fewer orthogonal
directions of shuffled labels than draws, so that fewer are drawn and p cannot be .05."""
STEP = 0.1
"""Of a steering step, small enough for its effect to be linear."""
_LAYER = 2


class Experiment(NamedTuple):
    """How one kind of statement is measured."""

    run: Callable[[int, bool], Verdicts]
    """A run's number, and whether an effect is planted."""
    null: str
    """What is planted as a null."""
    effect: str
    """What is planted as an effect."""


def _is_harmful(traces: Sequence[Trace]) -> np.ndarray:
    return np.array([trace.label == "harmful" for trace in traces], float)


def _unit(run: int) -> np.ndarray:
    return units(np.random.default_rng([run, 17]).normal(size=(1, toy().d_model)))[0]


def _probed(run: int, planted: bool, sources: Sequence[str]) -> tuple[Held, list[Trace]]:
    traces = shuffled(run, sources=sources)
    held, row_of = states()
    added = np.outer(_is_harmful(traces), _unit(run)) if planted else None
    return held.of(np.array([row_of[trace.trace_id] for trace in traces]), added), traces


def separability(run: int, planted: bool) -> Verdicts:
    """Whether a probe before K tells the classes, at its best layer."""
    held, traces = _probed(run, planted, ("",))
    labels, groups = [trace.label for trace in traces], [trace.group for trace in traces]
    findings = probes(separability_table(held, labels, groups, {}, seed=run, n_workers=1).table)
    return {"separability: a probe tells the classes": bool(findings[0].short) if findings else None}


def transfer(run: int, planted: bool) -> Verdicts:
    """Whether a probe carries over between plain and wrapped prompts, either way."""
    held, traces = _probed(run, planted, ("plain", "wrapped"))
    labels, groups = [trace.label for trace in traces], [trace.group for trace in traces]
    conditions = conditions_of(traces, "source")
    condition = [trace.source for trace in traces]
    result = transfer_table(held, labels, groups, condition, {}, conditions=conditions, seed=run, n_workers=1)
    findings = transfers(result.table, conditions)
    return {
        "transfer: a probe tells the classes of the other condition": (
            any(finding.short for finding in findings) if findings else None
        )
    }


def direction(run: int, planted: bool) -> Verdicts:
    """Whether a direction's effect is beyond the draws of the default control.

    Of ``PER_CLASS_OF_FOLDS`` groups of each label as a null, so that no fit has fewer orthogonal directions of shuffled
    labels than the draws that p = .05 takes.
    """
    name = "direction: an effect is beyond directions fitted to shuffled labels"
    options: dict[str, Any] = {"controls": "shuffled_labels", "n_random": N_DRAWS, "bank": BANK, "seed": run, **GIVEN}
    if planted:
        traces = shuffled(run, of=_plain_benign(), per_class=31)
        held, row_of = states()
        part = held.of(np.array([row_of[trace.trace_id] for trace in traces])).matrix(_LAYER, POSITION)
        added = ALONG * np.linalg.norm(part.std(0)) * np.outer(_is_harmful(traces), _reads())
        groups = [trace.group for trace in traces]
        about: dict[str, Any] = {"layer": _LAYER, "site": "resid_post", "position": POSITION}
        labels = [trace.label for trace in traces]
        fit = Direction.fit(part + added, labels, groups, n_controls=N_DRAWS, seed=run, **about)
        others = [trace for trace in _plain_benign() if trace.group not in set(groups)]
        chosen = list({trace.group: trace for trace in others}.values())
        table = steer(toy(), chosen, fit, mode="add", scales=STEP, **options)
    else:
        traces = shuffled(run, per_class=PER_CLASS_OF_FOLDS)
        table = steer_held_out(toy(), traces, fit_layers=[1, _LAYER], n_folds=N_FOLDS, **options)
    return {name: _shown(find_excess(find_intervention("direction"), summarise_steering(table), {}))}


def direction_in_stages(run: int, planted: bool) -> Verdicts:
    """The same of the first of several layers, which estimates choose: p is that of the largest of all layers."""
    name = "direction, two stages: an effect is beyond directions fitted to shuffled labels"
    options: dict[str, Any] = {"controls": "shuffled_labels", "n_random": N_DRAWS, "bank": BANK, "seed": run, **GIVEN}
    if planted:
        traces = shuffled(run, of=_plain_benign(), per_class=31)
        held, row_of = states()
        rows = held.of(np.array([row_of[trace.trace_id] for trace in traces]))
        groups, labels = [trace.group for trace in traces], [trace.label for trace in traces]
        fits = []
        for layer in range(toy().n_layers):
            part = rows.matrix(layer, POSITION)
            added = ALONG * np.linalg.norm(part.std(0)) * np.outer(_is_harmful(traces), _reads())
            about: dict[str, Any] = {"layer": layer, "site": "resid_post", "position": POSITION}
            matrix = part + added * (layer == _LAYER)
            fits.append(Direction.fit(matrix, labels, groups, n_controls=N_DRAWS, seed=run, **about))
        others = [trace for trace in _plain_benign() if trace.group not in set(groups)]
        chosen = list({trace.group: trace for trace in others}.values())
        measure = partial(steer, toy(), chosen, fits, mode="add", scales=STEP, **options)
    else:
        traces = shuffled(run, per_class=PER_CLASS_OF_FOLDS)
        measure = partial(steer_held_out, toy(), traces, n_folds=N_FOLDS, **options)
    intervention = find_intervention("direction")
    assert intervention.stages is not None
    table = in_two_stages(measure, intervention.stages, 1, seed=run)
    return {name: _shown(find_excess(intervention, summarise_steering(table), {}))}


@lru_cache
def _plain_benign() -> tuple[Trace, ...]:
    """Benign plain requests, among which no label means anything."""
    return tuple(trace for trace in shipped() if trace.source == "plain" and trace.label == "benign")


@lru_cache
def _reads() -> np.ndarray:
    """Along what the decision reads, as a step along each axis tells."""
    axes = [Direction(vector=axis, norm=1.0, layer=_LAYER, site="resid_post") for axis in np.eye(toy().d_model)]
    table = steer(toy(), _plain_benign()[:1], axes, mode="add", n_random=0, bank=BANK, **GIVEN)
    moved = table.loc[table["metric"] == "difference"].sort_values("direction")["effect"]
    return units(moved.to_numpy(float)[None])[0]


def knockout_together(run: int, planted: bool) -> Verdicts:
    """Whether it matters whose span stands in place, all layers at once."""
    return _contrasts(run, planted, "together", ("prompt", "understanding"))


def knockout_by_layer(run: int, planted: bool) -> Verdicts:
    """The same in the layer where it matters most."""
    return _contrasts(run, planted, "layer", ("understanding",))


def _contrasts(run: int, planted: bool, by: Any, spans: tuple[str, ...]) -> Verdicts:
    if planted:
        options: dict[str, Any] = {"bank": BANK, "n_donors": N_DONORS, "seed": run, **GIVEN}
        traces = copied(shuffled(run), run)
        table = knockout(copying(), traces, to_span=spans, by=by, controls=RESAMPLING, **options)
    else:
        table = relabelled(shuffled(run, of=pool(N_POOL)), pool(N_POOL), by, spans, run)
    summary = summarise_knockout(table.loc[table["metric"] == "difference"])  # the one that the page tells first
    way = "all layers at once" if by == "together" else "the largest of all layers"
    return {
        f"knockout: {span}, the other label's minus the same label's, {way}, {subset} prompts": _shown(
            find_contrast(find_intervention("knockout"), summary.loc[summary["to_span"] == span], {}, subset)
        )
        for span in spans
        if not planted or span == "understanding"
        for subset in ("harmful", "benign")
    }


@lru_cache
def _every_donor(among: tuple[Trace, ...], by: Any, spans: tuple[str, ...]) -> tuple[pd.DataFrame, list[Donor]]:
    """What every trace does in every other's place: measured once, since labels only choose among these."""
    options: dict[str, Any] = {"bank": BANK, "n_donors": len(among), **GIVEN}
    table = knockout(toy(), among, to_span=spans, by=by, controls=[SAME], **options)
    return table, find_donors(toy(), among, StreamSettings(**GIVEN))


def relabelled(
    traces: Sequence[Trace], among: tuple[Trace, ...], by: Any, spans: tuple[str, ...], run: int
) -> pd.DataFrame:
    """The table that ``knockout`` gives of these traces and labels, with the donors that it chooses.

    Args:
        traces: with their shuffled labels.
        among: the same traces and others, all of one label.
        by: of ``knockout``.
        spans: of ``knockout``.
        run: its seed.
    """
    table, donors = _every_donor(among, by, spans)
    label_of = {trace.trace_id: trace.label for trace in traces}
    of_id = {donor.trace_id: donor._replace(label=label_of.get(donor.trace_id)) for donor in donors}
    ordered = [of_id[trace.trace_id] for trace in traces]  # in their order, as the knockout has them
    chosen = [
        {"trace_id": trace.trace_id, "to_span": span, "donor": donor.trace_id, "control": kind, "draw": draw}
        for trace in traces
        for span in spans
        for kind in RESAMPLING
        for draw, donor in enumerate(
            donors_for(ordered, trace, span, len(of_id[trace.trace_id].spans[span]), kind, n=N_DONORS, seed=run)
        )
    ]
    resampled = table.loc[table["control"] == SAME].drop(columns=["control", "draw"])
    parts = [
        table.loc[(table["control"] == TESTED) & table["trace_id"].isin(list(label_of))],
        resampled.merge(pd.DataFrame(chosen), on=["trace_id", "to_span", "donor"]),
    ]
    effects = pd.concat(parts, ignore_index=True)
    return effects.assign(label=effects["trace_id"].map(label_of.get).astype(object))


def doses(run: int, planted: bool) -> Verdicts:
    """Whether an effect rises with the share of the span that is hidden, in the layer where it is largest."""
    if planted:
        table = _doses_of(copying(), tuple(copied(shuffled(run), run)))
    else:
        table = _of(_doses_of(toy(), pool(3 * N_POOL)), run)
        groups = sorted(set(table["group"]))
        signs = dict(zip(groups, np.random.default_rng([run, 19]).choice([-1, 1], len(groups)), strict=True))
        table = table.assign(effect=table["effect"] * table["group"].map(signs.get))
    return {
        "knockout: dose slope of understanding, the largest of all layers": _shown(
            find_doses(
                find_intervention("knockout"), summarise_knockout(table.loc[table["metric"] == "difference"]), {}
            )
        )
    }


@lru_cache(maxsize=2)
def _doses_of(model: Model, traces: tuple[Trace, ...]) -> pd.DataFrame:
    options: dict[str, Any] = {"bank": BANK, **GIVEN}
    return knockout(model, traces, to_span="understanding", by="layer", controls=[DOSE], **options)


def _of(table: pd.DataFrame, run: int) -> pd.DataFrame:
    """The rows of some groups drawn at random, with labels drawn at random."""
    names = np.random.default_rng([run, 13]).permutation(sorted(set(table["group"])))[: 2 * PER_CLASS]
    labels = {name: "harmful" if at < PER_CLASS else "benign" for at, name in enumerate(names.tolist())}
    rows = table.loc[table["group"].isin(list(labels))]
    return rows.assign(label=rows["group"].map(labels).astype(object))


def patching(run: int, planted: bool) -> Verdicts:
    """Whether states of the paired trace move more than another request's, in the layer where they do most."""
    rng = np.random.default_rng([run, 23])
    pairs = [_pairs()[at] for at in rng.permutation(len(_pairs())).tolist()]
    pairs = list({pair.target.group: pair for pair in pairs}.values())[: 2 * PER_CLASS]
    if not planted:
        targets = [pair.target for pair in pairs]
        pairs = [TracePair(source, target) for source, target in zip([*targets[1:], targets[0]], targets, strict=True)]
    positions = ("understanding", "decision")
    options: dict[str, Any] = {"layers": [0, _LAYER], "method": "exact", "bank": BANK, "seed": run, **GIVEN}
    table = patch(toy(), pairs, positions=positions, **options)
    summary = summarise_patching(table)
    return {
        f"patch: excess at {position}, the largest of two layers": _shown(
            find_excess(find_intervention("patch"), summary.loc[summary["position"] == position], {})
        )
        for position in positions
    }


@lru_cache
def _pairs() -> tuple[TracePair, ...]:
    """A refused plain prompt and each jailbreak of the same request that was complied with."""
    return tuple(
        find_pairs([trace for trace in shipped() if trace.label == "harmful"], StreamSettings(finder="given"))[0]
    )


def suppression(run: int, planted: bool) -> Verdicts:
    """Whether hiding U moves K more than as many random keys do."""
    table = _of(_suppressed(), run)
    if not planted:
        rows = table.loc[table["control"] == RANDOM_KEYS]
        names = sorted(set(rows["trace_id"]))
        drawn = np.random.default_rng([run, 31]).integers(rows["draw"].max() + 1, size=len(names))
        is_tested = rows["draw"] == rows["trace_id"].map(dict(zip(names, drawn.tolist(), strict=True)))
        table = rows.assign(control=np.where(is_tested, TESTED, RANDOM_KEYS))
    return {
        "suppress: excess over random keys": _shown(
            find_excess(find_intervention("suppress"), summarise_suppression(table), {})
        )
    }


@lru_cache
def _suppressed() -> pd.DataFrame:
    return suppress(toy(), pool(3 * N_POOL), n_random=4, **GIVEN)


def lens(run: int, planted: bool) -> Verdicts:
    """Whether the last layer says K rather than other requests' key sentences."""
    traces = shuffled(run)
    if not planted:
        traces = with_sentences(traces, [key_sentence(trace) for trace in [*traces[1:], traces[0]]])
    table = logit_lens(toy(), traces, bank=BANK, seed=run, **GIVEN)
    return {
        "lens: K beyond other requests' key sentences, last layer": _shown(
            find_excess(find_intervention("lens"), summarise_lens(table), {})
        )
    }


def trajectory(run: int, planted: bool) -> Verdicts:
    """Whether the intervals of the two classes' scores do not touch at the token before K."""
    traces = shuffled(run, per_class=2 * PER_CLASS)
    halves = [[trace for trace in traces if trace.label == label] for label in ("harmful", "benign")]
    fitted = [trace for half in halves for trace in half[:PER_CLASS]]
    scored = [[trace for trace in half[PER_CLASS:]] for half in halves]
    options: dict[str, Any] = {"controls": "shuffled_labels", "n_random": 2, **GIVEN}
    if not planted:
        readers = fit_directions(toy(), fitted, layers=[_LAYER], positions=[POSITION], n_controls=2, **GIVEN)
        table = measure_trajectory(toy(), [*scored[0], *scored[1]], readers, **options)
    else:
        held, row_of = states()
        part = held.of(np.array([row_of[trace.trace_id] for trace in fitted])).matrix(_LAYER, POSITION)
        step = SIZE * np.linalg.norm(part.std(0)) * _unit(run)
        labels, groups = [trace.label for trace in fitted], [trace.group for trace in fitted]
        about: dict[str, Any] = {"layer": _LAYER, "site": "resid_post", "position": POSITION}
        matrix = part + np.outer(_is_harmful(fitted), step)
        readers = [Direction.fit(matrix, labels, groups, n_controls=2, **about)]
        vector = torch.as_tensor(step, dtype=torch.float32)
        with edited(toy(), {Place(_LAYER, "resid_post"): lambda now: now + vector}):
            first = measure_trajectory(toy(), scored[0], readers, **options)
        table = pd.concat([first, measure_trajectory(toy(), scored[1], readers, **options)], ignore_index=True)
    return {
        "trajectory: harmful apart from benign at the token before K": _shown(find_gaps(summarise_trajectory(table)))
    }


def _shown(findings: Any) -> bool | None:
    """What the first of the findings says; None where there is none, or its number has no interval."""
    finding = next(iter(findings), None)
    if finding is None or (finding.low is not None and not np.isfinite(finding.low)):
        return None
    return finding.is_shown


_LABELS = "labels shuffled over groups"
_ADDED = "a direction added to the states of shuffled-harmful traces"
_COPIES = "a model whose K copies U, U by shuffled label"
EXPERIMENTS = {
    "separability": Experiment(separability, _LABELS, _ADDED),
    "transfer": Experiment(transfer, _LABELS, _ADDED),
    "direction": Experiment(direction, _LABELS, f"{_ADDED}, along what the decision reads"),
    "direction-stages": Experiment(direction_in_stages, _LABELS, f"{_ADDED} in one layer"),
    "knockout": Experiment(knockout_together, _LABELS, _COPIES),
    "knockout-layers": Experiment(knockout_by_layer, _LABELS, _COPIES),
    "doses": Experiment(doses, "signs of a group's effects flipped by a coin", _COPIES),
    "patch": Experiment(
        patching,
        "states of another complied request in place of the paired one",
        "the pair itself: a refused plain prompt into its jailbreak",
    ),
    "suppress": Experiment(suppression, "a random set of keys in place of U", "U itself (trained in)"),
    "lens": Experiment(lens, "K shuffled over traces", "K itself (trained in)"),
    "trajectory": Experiment(trajectory, _LABELS, f"{_ADDED}, of every token"),
}
"""By name."""
