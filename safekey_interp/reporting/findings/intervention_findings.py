"""What came of an intervention, in a few sentences, each with its n, its interval and its control?

Three questions: what was changed (``changed``), what did that do (``did``), and is it more than the control does
(``chance``). A place that was picked because the effect is largest there is named so: its p-value is multiplied by the
number of places, and its interval widened to hold for all of them at once (Bonferroni). Every other number is one of
the summary's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from safekey_interp.data.conditions import FEW, TRACES_OF
from safekey_interp.interventions.attribution_patching import compare_attribution
from safekey_interp.interventions.effects import TESTED, control_kinds, tested_rows
from safekey_interp.interventions.intervention_registry import Name
from safekey_interp.measures.trajectory import trajectory_controls
from safekey_interp.reporting.findings.finding import Estimate, Finding, estimate
from safekey_interp.reporting.findings.intervention_terms import (
    FROM,
    METRICS,
    PARTS,
    READINGS,
    SHARED_DRAWS,
    Row,
    Table,
    control_name,
    main_metric,
    main_rows,
    main_subset,
    place_name,
    series_name,
)
from safekey_interp.reporting.findings.knockout_findings import (
    beside_zero,
    controls_in_words,
    find_contrast,
    find_doses,
    find_effects,
    find_pool,
    is_off_zero,
    picked_of,
)
from safekey_interp.reporting.findings.phrases import and_list, by_reason, capital

_EXCESS = ("excess", "excess_low", "excess_high")
_CONTROL = ("control", "control_low", "control_high")
_ZERO = Estimate(0.0, np.nan, np.nan)
_AT = -1
"""The offset of the token before K."""
LEVEL = 0.05
"""p at most, for an effect beyond the draws of its control."""
CLOSE = 0.8
"""|cosine| from which on a direction is close to a component."""


def find(
    name: Name, effects: Table, summary: Table, left_out: Mapping[str, str], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """What an intervention's tables say: ``headline``, ``findings``, ``left_out``.

    Args:
        name: the intervention.
        effects: its table.
        summary: its summary.
        left_out: why other traces are not in it.
        manifest: ``run.json``'s content.
    """
    n, n_groups = effects["trace_id"].nunique(), effects["group"].nunique()
    settings = manifest["settings"]
    if name == "trajectory":
        told = [*_scores(summary, settings), *find_gaps(summary)]
    elif name == "knockout":
        model = manifest["model"]
        told = [*find_effects(summary, model), *find_excess(name, summary, model)]
        told += [*find_contrast(summary, model, "harmful"), *find_doses(summary, model), *find_pool(summary)]
        told += find_contrast(summary, model, "benign")
    else:
        told = [*_effects(name, summary, manifest["model"]), *find_excess(name, summary, manifest["model"])]
    if name == "patch" and settings["method"] == "both":
        told += _attribution(effects)
    component = _component(summary) if name == "direction" else ""
    changed = Finding(
        question="changed",
        text=f"{_changed(name, effects, settings)}{component} {n:,} traces of {n_groups:,} prompts were measured.",
        n=n,
        control=_control_in_words(name, settings, effects),
    )
    headline = next((finding.short for finding in told if finding.short), "")
    return {
        "headline": headline,
        "findings": [asdict(finding) for finding in (changed, *told)],
        "left_out": by_reason(left_out),
    }


def _changed(name: Name, effects: Table, settings: Mapping[str, Any]) -> str:
    if name == "knockout":
        spans = and_list([series_name(name, span) for span in settings_list(settings["to_span"])])
        way = {"together": "in all chosen layers at once", "layer": "layer by layer", "head": "head by head"}
        return f"{capital(spans)} hidden from {FROM[settings['from_span']]}, {way[settings['by']]}."
    if name == "patch":
        positions = and_list([series_name(name, position) for position in settings["positions"]])
        other = {"refused": "complied", "complied": "refused"}[settings["source"]]
        return (
            f"States of a {settings['source']} trace put into the run of a {other} one of the same request, one layer "
            f"and one of {positions} at a time."
        )
    if name == "direction":
        way = "taken out of" if settings["mode"] == "ablate" else "added to"
        return f"{_directions(settings, 'directions')} {way} the residual stream, one at a time."
    if name == "suppress":
        return f"Each of the first {settings['most']} sentences of the reasoning hidden from all later tokens."
    if name == "lens":
        n = effects["layer"].nunique()
        return f"Nothing was changed: the stream after each of {n} layers was read as if no layer came after it."
    where = {"key_sentence": "K’s first token", "reasoning_end": "the end of the reasoning"}[settings["align"]]
    return f"Nothing was changed: every token’s state was scored, and traces laid over one another at {where}."


def _directions(settings: Mapping[str, Any], reads: str) -> str:
    if settings.get(reads):
        return "Given directions"
    classes = {"label": "harmful and benign prompts", "aha": "traces that go ahead and that turn safe"}
    return (
        f"Directions between the mean states of {classes[settings['label_by']]} (at “{settings['fit_position']}”, "
        "fitted on other requests than they were used on)"
    )


def settings_list(value: Any) -> list[Any]:
    """A setting that may be one or several."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _control_in_words(name: Name, settings: Mapping[str, Any], effects: Table) -> str:
    if name == "trajectory":
        kinds = and_list([control_name(kind) for kind in trajectory_controls(effects)])
        return f"{kinds}, {settings['n_random']} of each, on the same states" if kinds else "none"
    if name == "knockout":
        return controls_in_words(settings, effects)
    n = settings.get("n_random", settings.get("n_others"))
    whose = "a pair" if name == "patch" else "a trace"
    kinds = and_list([control_name(kind) for kind in control_kinds(effects)])
    return f"{kinds}, {n} of them {whose if name in ('patch', 'lens') else 'each'}" if kinds else "none"


def _lines(name: Name, summary: Table) -> Iterator[tuple[str, Table]]:
    """The main rows, line by line, with the line's name."""
    rows = main_rows(name, summary)
    series = READINGS[name].series
    if not series:
        yield "", rows
        return
    for value, part in rows.groupby(series, sort=False, dropna=False):
        yield series_name(name, value), part


def _effects(name: Name, summary: Table, model: Mapping[str, Any]) -> Iterator[Finding]:
    """The largest effect of each line."""
    reading = READINGS[name]
    for line, rows in _lines(name, summary):
        row = _told_first(name, rows, "value")
        m = 1 if name == "lens" else len(rows)
        number = estimate(row).of_largest(m, row["n_groups"])
        where = place_name(name, row, model)
        picked = f" ({where}{picked_of(m)})"
        sign = "+.2f" if reading.value == "effect" else ".3f"
        unit = reading.unit
        what = METRICS[main_metric(name, summary)] if reading.metrics else ""
        if name == "lens":
            first = rows.loc[rows["layer"].idxmin()]
            text = (
                f"{capital(what)} has {number.text('.2f')} {unit} a token after {where}, "
                f"{estimate(first).text('.2f')} after layer {int(first['layer'])}"
            )
        elif name == "suppress":
            hidden = PARTS.get(row["source_part"], row["source_part"])
            text = f"Hiding {hidden} moves what is predicted in {line} by {number.text(sign)} {unit} (KL)"
            text += f", the most of {m} parts, with the interval of all {m} at once" * (m > 1)
        else:
            done = {"patch": f"States at {line}", "direction": f"A direction {line}"}
            verb = {"patch": "move", "direction": "moves"}[name]
            text = f"{done[name]} {verb} {what} by {number.text(sign)} {unit}{picked}"
        text = f"{text}, on {TRACES_OF[main_subset(summary)]}."
        yield Finding(question="did", text=text, n=int(row["n"]), control=_beside(row), short=text, **number.fields())


def _beside(row: Row) -> str:
    control = estimate(row, *_CONTROL)
    if row["control_kind"] == TESTED:
        return "none"
    return f"{control_name(row['control_kind'])}: {control.text('.2f')}"


def find_excess(name: Name, summary: Table, model: Mapping[str, Any]) -> Iterator[Finding]:
    """What the largest effect of each line has over its control, and in how many places there is such an excess."""
    for line, rows in _lines(name, summary):
        with_control = rows.dropna(subset=["excess"])
        if with_control.empty:
            continue
        row = _told_first(name, with_control, "excess")
        m = len(with_control)
        excess = _chosen(name, row, m)
        by_draws = name in SHARED_DRAWS
        verdict = _beside_draws(row) if by_draws else beside_zero(excess)
        where = place_name(name, row, model)
        subject = f"{capital(line)}: excess" if line else "Excess"
        text = f"{subject} over the control {excess.text('+.2f')} in {where}"
        text += f", the last of {m} places, {verdict}" if name == "lens" and m > 1 else f"{picked_of(m)}, {verdict}"
        if m > 1 and not by_draws:
            sides = [
                estimate(one, *_EXCESS).of_largest(m, one["n_groups"]).lies(_ZERO) for _, one in with_control.iterrows()
            ]
            text += f"; above 0 in {sides.count('above')}, below in {sides.count('below')}"
        control = control_name(row["control_kind"])
        if by_draws:
            control += _other_kinds(summary, row)
        elif np.isfinite(row.get("p_value", np.nan)):
            p = min(1.0, float(row["p_value"]) * m)
            control += f"; a mean as large either way has p = {p:.2g} over {int(row['n_controls'])} draws"
            control += f", for {m} places (Bonferroni)" * (m > 1)
        n = int(row.get("n_with_control", row["n"]))
        shown = is_beyond_draws(row) if by_draws else is_off_zero(excess)
        yield Finding(question="chance", text=f"{text}.", n=n, control=control, is_shown=shown, **excess.fields())


def _chosen(name: Name, row: Row, m: int) -> Estimate:
    """The excess of the place that is told, of m: picked as the largest, but for a lens, whose last layer is told."""
    return estimate(row, *_EXCESS).of_largest(1 if name == "lens" else m, row["n_groups"])


def is_beyond_draws(row: Row) -> bool:
    """Whether an effect is beyond what control directions do, the largest of all places reckoned with."""
    return bool(row["n_groups"] >= FEW and row["p_value_over_all"] <= LEVEL)


def _beside_draws(row: Row) -> str:
    """Whether an effect is beyond what control directions do, the largest of all places reckoned with."""
    p, n = float(row["p_value_over_all"]), int(row["n_controls"])
    if row["n_groups"] < FEW:
        return f"on fewer than {FEW} prompts, which says nothing about others"
    if not np.isfinite(p):
        return "without enough draws for a p"
    said = "beyond" if is_beyond_draws(row) else "not told apart from"
    return f"{said} the {n} draws (p = {p:.2g}, of the largest over all layers)"


def _other_kinds(summary: Table, row: Row) -> str:
    """What the other kinds of control say at the same place."""
    same = summary.loc[summary["control_kind"] != row["control_kind"]]
    for column in ("direction", "scale", "metric", "subset"):
        mine = row[column]
        same = same.loc[same[column].isna() if pd.isna(mine) else same[column] == mine]
    told = [
        f"; {control_name(other['control_kind'])}: {estimate(other, *_CONTROL).text('.2f')}, "
        f"p = {other['p_value_over_all']:.2g}"
        for _, other in same.iterrows()
    ]
    return "".join(told)


def _component(summary: Table) -> str:
    """How close the directions are to the first principal component of the states that they were fitted on."""
    ones = summary.drop_duplicates("direction").dropna(subset=["pc1_cosine"])
    if ones.empty:
        return ""
    cosines, shares = (_range(ones[f"pc1_{what}"]) for what in ("cosine", "share"))
    many = len(ones) > 1
    subject = "The directions are" if many else "The direction is"
    if ones["pc1_cosine"].min() < CLOSE:
        subject += " not all" if many and ones["pc1_cosine"].max() >= CLOSE else " not"
    return (
        f" {subject} close to the first principal component of the states (|cosine| {cosines}), which holds {shares} "
        "of their variance."
    )


def _range(values: Table) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"


def _told_first(name: Name, rows: Table, column: str) -> Row:
    """The row with the largest number; of a lens the last layer's, which is the model's own output."""
    return rows.loc[rows["layer"].idxmax() if name == "lens" else rows[column].abs().idxmax()]


def _attribution(effects: Table) -> Iterator[Finding]:
    """How well the first-order estimate tells the exact effects."""
    tested = tested_rows(effects)
    row = compare_attribution(tested.loc[tested["metric"] == "difference"]).iloc[0]
    number = Estimate(*(float(row[name]) for name in ("pearson", "low", "high")))
    text = f"Attribution patching, one backward pass, agrees with the exact effects at r = {number.text('.2f')}."
    yield Finding(question="chance", text=text, n=int(row["n"]), control="the exact effects", **number.fields())


def _scores(summary: Table, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Each class at the token before the point of alignment."""
    where = {"key_sentence": "before K", "reasoning_end": "before the reasoning’s end"}[settings["align"]]
    there = summary.loc[summary["offset"] == _AT]
    for reader, rows in there.groupby("reader"):
        parts = [(str(row["label"]), estimate(row, "score"), row) for _, row in rows.iterrows()]
        told = and_list([f"{label} {number.text('.2f')} (n = {int(row['n']):,})" for label, number, row in parts])
        _, number, row = next((one for one in parts if one[0] == "harmful"), parts[0])
        which = f"Reader {int(reader)}: a" if summary["reader"].nunique() > 1 else "A"
        text = f"{which}t the token {where} the mean score is {told}."
        kinds = ((kind, row[f"{kind}_mean"], 1.96 * row[f"{kind}_sd"]) for kind in trajectory_controls(summary))
        control = (
            "; ".join(f"{control_name(kind)}: {mean:.2f} ± {spread:.2f}" for kind, mean, spread in kinds) or "none"
        )
        yield Finding(question="did", text=text, n=int(row["n"]), control=control, short=text, **number.fields())


def find_gaps(summary: Table) -> Iterator[Finding]:
    """At how many offsets the classes part, and whether they do at the token before the point of alignment."""
    for reader, rows in summary.groupby("reader"):
        classes = {label: part.set_index("offset") for label, part in rows.groupby("label")}
        if not {"harmful", "benign"} <= set(classes):
            continue
        harmful, benign = classes["harmful"], classes["benign"]
        shared = sorted(set(harmful.index) & set(benign.index))
        sides = {at: estimate(harmful.loc[at], "score").lies(estimate(benign.loc[at], "score")) for at in shared}
        every, before = list(sides.values()), [side for at, side in sides.items() if at < 0]
        which = f" of reader {int(reader)}" if summary["reader"].nunique() > 1 else ""
        text = (
            f"Harmful traces’ scores{which} lie above benign ones’ at {every.count('above')} of {len(every)} offsets, "
            f"below at {every.count('below')}; before offset 0, above at {before.count('above')} of {len(before)}; at "
            f"offset {_AT}, {sides.get(_AT) or 'not told apart'}."
        )
        control = "intervals that do not touch; offsets of one trace are not independent"
        shown = bool(sides[_AT]) if _AT in sides else None
        yield Finding(question="chance", text=text, n=int(rows["n"].max()), control=control, is_shown=shown)
