"""Findings of an intervention: sentences about its effects, each with its n, its interval and its control.

They answer three questions: what was changed (``changed``), what that did (``did``), and whether it is more than the
control does, and enough to matter (``chance``). A place that was picked because the effect is largest is named so: its
p is corrected for all places (:mod:`safekey_interp.measures.step_down`), and its interval widened to hold for all of
them at once (Bonferroni). Every other number is one of the summary's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from safekey_interp.interventions.attribution_patching import compare_attribution
from safekey_interp.interventions.effects import TESTED, control_kinds, tested_rows
from safekey_interp.interventions.intervention_record import Control, Stages
from safekey_interp.interventions.two_stages import EXACT, STAGE, rank_agreement
from safekey_interp.measures.trajectory import trajectory_controls
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.beside_draws import beside_draws, is_beyond_draws, p_in_words
from safekey_interp.reporting.findings.effect_size import size_in_words, smallest_of, verdict_of
from safekey_interp.reporting.findings.finding import Estimate, Finding, estimate
from safekey_interp.reporting.findings.intervention_summary import (
    Told,
    effect_lines,
    finding_lines,
    headline_of,
    told_lines,
)
from safekey_interp.reporting.findings.intervention_terms import Row, Table
from safekey_interp.reporting.findings.knockout_findings import (
    find_contrast,
    find_doses,
    find_pool,
    in_place,
    is_off_zero,
    picked_of,
)
from safekey_interp.reporting.findings.phrases import by_reason, capital
from safekey_interp.reporting.findings.response_findings import EVERY, find_shares
from safekey_interp.reporting.findings.score_findings import find_gaps, find_scores
from safekey_interp.reporting.findings.summary_lines import Line, cut, cut_of, listed, trust

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention

_ZERO = Estimate(0.0, np.nan, np.nan)
CLOSE = 0.8
"""|cosine| from which on a direction is close to a component."""


def find(
    intervention: Intervention,
    effects: Table,
    summary: Table,
    left_out: Mapping[str, str],
    manifest: Mapping[str, Any],
) -> dict[str, Any]:
    """Findings of an intervention's tables: ``headline``, ``summary``, ``findings``, ``left_out``, ``notes``.

    Args:
        intervention: its record.
        effects: its table.
        summary: its summary.
        left_out: why other traces are not in it.
        manifest: ``run.json``'s content.
    """
    intervention = intervention.named(manifest["settings"])
    told: list[Told] = []
    n, n_groups = effects["trace_id"].nunique(), effects["group"].nunique()
    settings, model = manifest["settings"], manifest["model"]
    if intervention.form == "scores":
        kinds = trajectory_controls(effects)
        findings = [*find_scores(summary, settings), *find_gaps(summary)]
    elif intervention.form == "shares":
        kinds = control_kinds(effects, list(intervention.controls))
        whole = summary.loc[(summary["condition"] == EVERY) & (summary["scale"] != 0)]
        findings = [*find_shares(summary), *find_excess(intervention, whole, model)]
    else:
        kinds = control_kinds(effects, list(intervention.controls))
        findings = list(_of_metrics(intervention, effects, summary, model))
        told = told_lines(intervention, terms.by_metric(summary)[0], model)
    sentence = f"{intervention.changed(settings, effects)}{_component(summary)}"
    changed = Finding(
        question="changed",
        text=f"{sentence} {n:,} traces of {n_groups:,} prompts were measured.",
        n=n,
        control="; ".join(_control(intervention, kind, settings, effects) for kind in kinds) or "none",
    )
    counted = manifest.get("finder_trust")
    limit = cut([cut_of(counted)])
    read = "" if intervention.is_plain else trust(counted, settings.get("finder"), n)
    read = read or f"{n:,} traces of {n_groups:,} prompts measured, {len(left_out):,} left out."
    lines = effect_lines(told) if told else finding_lines(findings)
    return {
        "headline": headline_of(told) if told else next((finding.short for finding in findings if finding.short), ""),
        "summary": listed([Line("Read", read), Line("Cut", limit), *lines]),
        "findings": [asdict(finding) for finding in (changed, *findings)],
        "left_out": by_reason(left_out),
        "notes": [limit] if limit else [],
    }


def _control(intervention: Intervention, kind: str, settings: Mapping[str, Any], effects: Table) -> str:
    """A kind of control with its draws, of which there may be fewer than were asked for."""
    control = intervention.controls.get(kind, Control(terms.control_name(kind, intervention)))
    if intervention.shared_draws:
        settings = {**settings, "n_random": effects.loc[effects["control"] == kind, "draw"].nunique()}
    return f"{control.words} ({control.draws.format_map(settings)})" if control.draws else control.words


def _of_metrics(
    intervention: Intervention, effects: Table, summary: Table, model: Mapping[str, Any]
) -> Iterator[Finding]:
    """The findings of the first metric, then those of others that were asked for, which are no headlines."""
    first, *others = terms.by_metric(summary)
    yield from _of_effects(intervention, effects, first, model)
    for part in others:
        name = terms.main_metric(intervention, part)
        for finding in _of_effects(intervention, effects.loc[effects["metric"] == name], part, model):
            text = finding.text if name in finding.text else f"{name}: {finding.text}"
            yield replace(finding, text=text, short="")


def _of_effects(
    intervention: Intervention, effects: Table, summary: Table, model: Mapping[str, Any]
) -> Iterator[Finding]:
    yield from find_effects(intervention, summary, model)
    yield from find_excess(intervention, summary, model)
    if "n_pool" in summary.columns:
        first, *others = terms.labels_of(summary)
        yield from find_contrast(intervention, summary, model, first)
        yield from find_doses(intervention, summary, model)
        yield from find_pool(intervention, summary)
        for label in others:
            yield from find_contrast(intervention, summary, model, label)
    if "attribution" in effects.columns:
        yield from _attribution(effects)
    if STAGE in effects.columns and intervention.stages is not None:
        yield _stages(effects, intervention.stages)


def _lines(intervention: Intervention, summary: Table) -> Iterator[tuple[str, Table]]:
    """The main rows, line by line, with the line's name."""
    rows = terms.main_rows(intervention, summary)
    by = intervention.lines or rows["subset"]
    for _, part in rows.groupby(by, sort=False, dropna=False):
        yield terms.line_name(intervention, part.iloc[0]), part


def find_effects(intervention: Intervention, summary: Table, model: Mapping[str, Any]) -> Iterator[Finding]:
    """The largest effect of each line, or that of the last layer beside the first's."""
    metric = terms.metric_name(intervention, terms.main_metric(intervention, summary))
    unit = terms.unit_of(intervention, summary)
    form = "+.2f" if intervention.value == "effect" else ".3f"
    for line, rows in _lines(intervention, summary):
        row, m = reported(intervention, rows, "value"), terms.n_places(rows)
        place = terms.place_name(intervention, row, model)
        subject = capital(intervention.effect.format(line=line, place=place, metric=metric))
        number = _picked(intervention, estimate(row), m, row)
        details = [place] if place not in subject else []
        details += [intervention.value] if intervention.value not in (*subject.split(), "effect", "value") else []
        details += [picked_of(m).removeprefix(", ")] if intervention.reports == "largest" else []
        where = ", ".join(detail for detail in details if detail)
        text = f"{subject} {number.text(form)} {unit}{f' ({where})' if where else ''}"
        if intervention.reports == "last":
            first = rows.loc[rows["layer"].idxmin()]
            text += f", {estimate(first).text(form)} in {terms.place_name(intervention, first, model)}"
        text += f"{in_place(summary, row)}, on {terms.traces_of(terms.main_subset(summary))}."
        control = "none"
        if row["control_kind"] != TESTED:
            kind = terms.control_name(row["control_kind"], intervention)
            control = f"{kind}: {estimate(row, *terms.CONTROL).text(form)}"
        yield Finding(question="did", text=text, n=int(row["n"]), control=control, short=text, **number.fields())


def find_excess(intervention: Intervention, summary: Table, model: Mapping[str, Any]) -> Iterator[Finding]:
    """The largest effect minus its control of each line, and in how many places there is such an excess."""
    by_draws, unit = intervention.shared_draws, terms.unit_of(intervention, summary)
    for line, rows in _lines(intervention, summary):
        with_control = rows.dropna(subset=["excess"])
        if with_control.empty:
            continue
        row, m = reported(intervention, with_control, "excess"), terms.n_places(with_control)
        excess = _picked(intervention, estimate(row, *terms.EXCESS), m, row)
        verdict, size = verdict_of(excess, smallest_of(unit)), size_in_words(excess, unit)
        words = size
        if by_draws:
            words = beside_draws(row, m) + f", but {size}" * (verdict == "too small")
        subject = f"{terms.line_start(intervention, row)}: excess" if line else "Excess"
        picked = picked_of(m) if intervention.reports == "largest" else f", the last of {m} places" * (m > 1)
        where = terms.place_name(intervention, row, model)
        text = f"{subject} over the control {excess.text('+.2f')} in {where}{picked}, {words}"
        if m > 1 and not by_draws:
            numbers = [(estimate(other, *terms.EXCESS), other["n_groups"]) for _, other in with_control.iterrows()]
            sides = [number.of_largest(m, n_groups).lies(_ZERO) for number, n_groups in numbers]
            text += f"; above 0 in {sides.count('above')}, below in {sides.count('below')}"
        control = terms.control_name(row["control_kind"], intervention)
        if by_draws:
            control += _other_kinds(summary, row)
        elif np.isfinite(row.get("p_value_over_all", np.nan)):
            control += f"; among {int(row['n_controls'])} draws {p_in_words(row, m)}"
        about: dict[str, Any] = {"n": int(row.get("n_with_control", row["n"])), "control": control, "verdict": verdict}
        about |= {"is_shown": is_beyond_draws(row) if by_draws else is_off_zero(excess)}
        yield Finding(question="chance", text=f"{text}.", **about, **excess.fields())


def reported(intervention: Intervention, rows: Table, column: str) -> Row:
    """The row with the largest number, or the last layer's, which is the model's own output."""
    return rows.loc[rows["layer"].idxmax() if intervention.reports == "last" else rows[column].abs().idxmax()]


def _picked(intervention: Intervention, number: Estimate, m: int, row: Row) -> Estimate:
    """The number of the reported place; of m places, its interval holds for all where it was picked as the largest."""
    return number.of_largest(1 if intervention.reports == "last" else m, row["n_groups"])


def _other_kinds(summary: Table, row: Row) -> str:
    """The other kinds of control at the same place."""
    same = summary.loc[summary["control_kind"] != row["control_kind"]]
    columns = list(summary.columns)
    for column in columns[: columns.index("subset") + 1]:
        value = row[column]
        same = same.loc[same[column].isna() if pd.isna(value) else same[column] == value]
    return "".join(
        f"; {terms.control_name(other['control_kind'])}: {estimate(other, *terms.CONTROL).text('.2f')}, "
        f"p = {other['p_value_over_all']:.2g}"
        for _, other in same.iterrows()
    )


def _component(summary: Table) -> str:
    """How close directions are to the first principal component of the states that they were fitted on."""
    if "pc1_cosine" not in summary.columns:
        return ""
    directions = summary.drop_duplicates("direction").dropna(subset=["pc1_cosine"])
    if directions.empty:
        return ""
    cosines, shares = (_range(directions[f"pc1_{column}"]) for column in ("cosine", "share"))
    several = len(directions) > 1
    subject = "The directions are" if several else "The direction is"
    if directions["pc1_cosine"].min() < CLOSE:
        subject += " not all" if several and directions["pc1_cosine"].max() >= CLOSE else " not"
    return (
        f" {subject} close to the first principal component of the states (|cosine| {cosines}), which holds {shares} "
        "of their variance."
    )


def _range(values: Table) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"


def _stages(effects: Table, stages: Stages) -> Finding:
    """Which places were measured exactly, and how well the estimates rank them."""
    tested = tested_rows(effects)
    columns = stages.place(effects.columns)
    controls = effects.loc[(effects[STAGE] == EXACT) & (effects["control"] != TESTED)]
    exact = tested.loc[tested[STAGE] == EXACT]
    n_all, n_exact, n_controlled = (len(part.drop_duplicates(columns)) for part in (tested, exact, controls))
    agreement = rank_agreement(effects, stages)
    text = (
        f"First-order estimates of {n_all:,} places, exact effects of {n_exact:,}, of {n_controlled:,} beside all "
        f"controls. The two rank these {agreement.n:,} places alike at ρ = {agreement.correlation:.2f}."
    )
    return Finding(question="chance", text=text, n=agreement.n, control="the exact effects")


def _attribution(effects: Table) -> Iterator[Finding]:
    """How well the first-order estimate agrees with the exact effects."""
    tested = tested_rows(effects)
    both = tested.loc[tested["metric"] == "difference"].dropna(subset=["effect", "attribution"])
    if both.empty:
        return
    row = compare_attribution(both).iloc[0]
    number = Estimate(*(float(row[name]) for name in ("pearson", "low", "high")))
    text = f"Attribution patching, one backward pass, agrees with the exact effects at r = {number.text('.2f')}."
    yield Finding(question="chance", text=text, n=int(row["n"]), control="the exact effects", **number.fields())
