"""Effect, control and verdict of an intervention in a line each, all three at the same place.

Of each line of the summary (one hidden span, one patched position …) the place is that of the largest excess over the
control. Where no trace has the control by random keys, another request's span in place stands for it, and is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.beside_draws import beside_draws, p_in_words
from safekey_interp.reporting.findings.effect_size import size_in_words, smallest_of, verdict_of
from safekey_interp.reporting.findings.finding import Estimate, Finding, estimate
from safekey_interp.reporting.findings.intervention_terms import Row, Table
from safekey_interp.reporting.findings.knockout_findings import find_contrast
from safekey_interp.reporting.findings.phrases import and_list, capital
from safekey_interp.reporting.findings.summary_lines import Line

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention

_MOST = 2
"""Lines of a summary that are told, those of the largest excess; the page has all."""


class Told(NamedTuple):
    """One line of an intervention's summary, at one place."""

    effect: str
    """What was measured, with its interval and n."""
    control: str
    """What it is held against, in words."""
    beside: str
    """What that gives there, with its interval; empty where the verdict has the number alone."""
    verdict: str
    """Their difference, and whether it is more than chance and enough to matter."""
    size: float = -1.0
    """How large that is, to choose among lines; below 0 without a control."""


def told_lines(intervention: Intervention, summary: Table, model: Mapping[str, Any]) -> list[Told]:
    """Each line of a summary of effects, at the place of its largest excess.

    Args:
        intervention: its record.
        summary: its summary.
        model: ``run.json``'s record of the model.
    """
    rows = terms.main_rows(intervention, summary)
    by = intervention.lines or rows["subset"]
    lines = [part for _, part in rows.groupby(by, sort=False, dropna=False)]
    # Where lines are chosen among, an interval holds for the places of all of them.
    n_chosen = 0 if len(lines) <= _MOST else len(rows)
    told = [_told(intervention, summary, part, model, n_chosen) for part in lines]
    largest = sorted(told, key=lambda one: -one.size)[:_MOST]
    shown = [one for one in told if one in largest]
    if len(told) > len(shown):
        more = f" {len(told) - len(shown)} more, of a smaller excess or without a control, are on the page."
        shown[-1] = shown[-1]._replace(effect=shown[-1].effect + more)
    return shown


def headline_of(told: Sequence[Told]) -> str:
    """Effect, control and verdict of each line, in sentences."""
    return " ".join(f"{one.effect} {_controls([one])} {one.verdict}" for one in told)


def effect_lines(told: Sequence[Told]) -> list[Line]:
    """The three lines of a run's summary."""
    return [
        Line("Effect", " ".join(one.effect for one in told)),
        Line("Control", _controls(told)),
        Line("Verdict", " ".join(one.verdict for one in told)),
    ]


def finding_lines(findings: Sequence[Finding]) -> list[Line]:
    """The same of a run whose findings are no effects: the first that say what it did, and whether it is chance."""
    did = [finding for finding in findings if finding.question == "did"][:_MOST]
    chance = [finding for finding in findings if finding.question == "chance"][:_MOST]
    return [
        Line("Effect", " ".join(finding.text for finding in did)),
        Line("Control", " ".join(dict.fromkeys(f"{capital(finding.control)}." for finding in did))),
        Line("Verdict", " ".join(f"{finding.text} (n = {finding.n:,})" for finding in chance)),
    ]


def _controls(told: Sequence[Told]) -> str:
    """Each control once, with what it gives for each line."""
    names = dict.fromkeys(one.control for one in told)
    beside = {name: [one.beside for one in told if one.control == name and one.beside] for name in names}
    return " ".join(f"{name}{f': {and_list(numbers)}' if numbers else ''}." for name, numbers in beside.items())


def _told(intervention: Intervention, summary: Table, rows: Table, model: Mapping[str, Any], n_chosen: int) -> Told:
    with_control, last = rows.dropna(subset=["excess"]), intervention.reports == "last"
    part, column = (rows, "value") if with_control.empty else (with_control, "excess")
    row, m = part.loc[part["layer"].idxmax() if last else part[column].abs().idxmax()], len(part)
    n_picked = max(1 if last else m, n_chosen)
    unit, form = terms.unit_of(intervention, summary), "+.2f" if intervention.value == "effect" else ".2f"
    place = terms.place_name(intervention, row, model)
    metric = terms.metric_name(intervention, terms.main_metric(intervention, summary))
    line = terms.line_name(intervention, row)
    subject = capital(intervention.effect.format(line=line, place=place, metric=metric))
    about = [place] if place not in subject and m > 1 else []
    about += [f"the largest {'effect' if column == 'value' else column} of {m}"] if m > 1 and not last else []
    about += [f"n = {int(row['n']):,}", terms.traces_of(terms.main_subset(summary))]
    effect = f"{subject} {estimate(row).of_largest(n_picked, row['n_groups']).text(form)} {unit} ({', '.join(about)})."
    if with_control.empty:
        return Told(effect, *_without_control(intervention, summary, row, model))
    excess = estimate(row, *terms.EXCESS).of_largest(n_picked, row["n_groups"])
    n_draws, n, n_with = int(row["n_controls"]), int(row["n"]), int(row.get("n_with_control", row["n"]))
    beside = estimate(row, *terms.CONTROL).text(form) + f" (n = {n_with:,})" * (n_with != n)
    return Told(
        effect=effect,
        control=capital(terms.control_name(row["control_kind"], intervention)) + f" ({n_draws} draws)" * (n_draws > 1),
        beside=f"{line} {beside}" if line else beside,
        verdict=f"{_start(intervention, row)} minus control {excess.text('+.2f')} {unit}: "
        f"{_verdict(intervention, row, excess, unit, m)}.",
        size=abs(excess.value),
    )


def _verdict(intervention: Intervention, row: Row, excess: Estimate, unit: str, n_places: int) -> str:
    size = size_in_words(excess, unit)
    if intervention.shared_draws:
        is_small = verdict_of(excess, smallest_of(unit)) == "too small"
        return beside_draws(row, n_places) + f", but {size}" * is_small
    p = f"; {p_in_words(row, n_places)}" if np.isfinite(row.get("p_value_over_all", np.nan)) else ""
    return f"{size}{p}"


def _start(intervention: Intervention, row: Row) -> str:
    return terms.line_start(intervention, row) or "Measured"


def _without_control(
    intervention: Intervention, summary: Table, row: Row, model: Mapping[str, Any]
) -> tuple[str, str, str]:
    """Control, what it gives, and verdict of a line that has no control of its own kind."""
    start = _start(intervention, row)
    if "n_pool" in summary.columns:
        mine = summary.loc[summary[intervention.lines] == row[intervention.lines]]
        # Over both labels the other label's spans have opposite effects, which add up to nothing.
        label = terms.main_subset(summary)
        label = terms.labels_of(summary)[0] if terms.is_mixed(summary, label) else label
        for finding in find_contrast(intervention, mine, model, label):
            parts = (finding.value, finding.low, finding.high)
            number = Estimate(*(np.nan if part is None else part for part in parts))
            size = size_in_words(number, terms.unit_of(intervention, summary))
            return (
                "Too few keys lie outside every tested span for random ones; instead, the span of another request in "
                "its place, of the other label minus of the same label",
                "",
                f"{start}, other minus same {number.text('+.2f')} (n = {finding.n:,}): {size}.",
            )
    return "No control was measured", "", f"{start}: open, as nothing says what any such change would do."
