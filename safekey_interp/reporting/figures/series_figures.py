"""Figures of checkpoints over training steps: lines with bands and their controls, or changes since the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from safekey_interp.data.conditions import NO_CONDITIONS
from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.estimate_figures import DOTTED, on_unit_axis
from safekey_interp.reporting.figures.figure_numbers import counts
from safekey_interp.reporting.figures.figure_parts import across, finish, line
from safekey_interp.reporting.figures.figure_style import Drawing, Spec, Table, escape
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.labels import POSITIONS_COMPARED, SPANS, VALUE, title_of

Shows = Literal["estimate", "change"]
"""The numbers with their controls, or their changes since the first step, on the same prompts."""
Scale = Literal["linear", "log"]
"""Of the steps; on a log scale step 0 stands half as far as the first step behind it."""
_VALUES = {"estimate": ("estimate", "low", "high"), "change": ("change", "change_low", "change_high")}
_MOST_TICKS = 8


class _Look(NamedTuple):
    """How a line is drawn."""

    tone: str
    dash: str = "solid"
    has_band: bool = True


_OTHER = _Look("key_sentence")
_LOOKS = {
    "harmful prompts": _Look("harmful"),
    "benign prompts": _Look("benign", "dash"),
    SPANS["understanding"]: _Look("understanding"),
    SPANS["prompt"]: _Look("prompt", "dash"),
    "median layer": _OTHER,
    "best layer": _Look("key_sentence", "dash", has_band=False),
    "words alone": _Look("understanding", "dashdot", has_band=False),
    "shuffled labels": _Look("control", "dot"),
}
_OF_PROBES = {"auroc": "median layer", "auroc_best": "best layer"}


@Drawing
def share_by_checkpoint(
    series: Table, *, measure: str, subset: str, shows: Shows = "estimate", scale: Scale = "linear"
) -> Spec:
    """A share of the traces against the step of training, beside its controls.

    Args:
        series: the comparison's ``series``.
        measure: which share.
        subset: of which traces.
        shows: numbers, or changes since the first step.
        scale: of the steps.

    Returns:
        Lines with bands, 95 % intervals over groups.

    Raises:
        RunError: no number for the selection.
    """
    rows = series[(series["measure"] == measure) & (series["subset"] == subset)]
    title = title_of(measure, subset, NO_CONDITIONS)
    own = subset.removesuffix(" prompts") + " prompts"
    lines = rows.assign(line=rows["control"].fillna(own))
    return _by_step(lines, title=title, y="share", shows=shows, scale=scale, percent=True)


@Drawing
def attention_by_checkpoint(
    series: Table, *, position: str, subset: str = "all", shows: Shows = "estimate", scale: Scale = "linear"
) -> Spec:
    """Attention on U and on X over the distance-matched baseline, all layers and heads, against the step of training.

    Args:
        series: the comparison's ``series``.
        position: whose row looks: ``decision`` or ``key_sentence``.
        subset: ``all``, ``harmful`` or ``benign``.
        shows: numbers, or changes since the first step.
        scale: of the steps.

    Returns:
        Lines with bands, 95 % intervals over groups; 1, a line, is the distance-matched baseline.

    Raises:
        RunError: no number for the selection.
    """
    rows = series[(series["measure"] == "lift_over_matched") & (series["subset"] == subset)]
    rows = rows[(rows["position"] == position).fillna(False) & rows["control"].isna()]
    about = {"title": f"Attention of {ROWS[position]}", "y": "× distance-matched baseline", "chance": 1.0}
    return _by_step(rows.assign(line=rows["to_span"].map(SPANS)), shows=shows, scale=scale, **about)


@Drawing
def auroc_by_checkpoint(series: Table, *, position: str, shows: Shows = "estimate", scale: Scale = "linear") -> Spec:
    """What the states tell against the step of training, beside the words of the same span and shuffled labels.

    Args:
        series: the comparison's ``series``.
        position: which states: ``understanding`` or ``decision``.
        shows: numbers, or changes since the first step.
        scale: of the steps.

    Returns:
        Lines with bands, 95 % intervals over groups; 0.5, a line, is a coin toss.

    Raises:
        RunError: no number for the selection.
    """
    rows = series[(series["position"] == position).fillna(False)]
    rows = rows[(rows["measure"] == "auroc") | ((rows["measure"] == "auroc_best") & rows["control"].isna())]
    lines = rows.assign(line=rows["control"].fillna(rows["measure"].map(_OF_PROBES)))
    title = f"AUROC {POSITIONS_COMPARED[position]}"
    return _by_step(lines, title=title, y="AUROC", shows=shows, scale=scale, chance=0.5)


def _by_step(
    rows: Table, *, title: str, y: str, shows: Shows, scale: Scale, percent: bool = False, chance: float | None = None
) -> Spec:
    """Lines over steps of rows of ``series``, each called by its ``line``."""
    columns = dict(zip(_VALUES[shows], VALUE, strict=True))
    table = rows[["step", "line", "n", *columns]].rename(columns=columns)
    table = table.dropna(subset=["value"]).astype(dict.fromkeys(VALUE, float) | {"step": int})
    if table.empty:
        raise RunError(f"series: no number of {title!r}")
    steps = sorted(set(rows["step"].astype(int)))
    places = _places(steps, scale)
    is_change = shows == "change"
    said = f"minus that at step {steps[0]:,}, on the same prompts" if is_change else "at each step"
    caption = (
        f"{title}, {said} (n = {counts(table['n'])} traces). Bands: 95 % intervals over groups, not corrected for the "
        "number of steps."
    )
    data: list[Spec] = []
    for name in dict.fromkeys(table["line"]):
        part, look = table[table["line"] == name].sort_values("step"), _LOOKS.get(name, _OTHER)
        part = part if look.has_band else part.assign(low=float("nan"), high=float("nan"))
        data += line(part, part["step"].map(places), name=name, tone=look.tone, dash=look.dash)
    y = f"{y}, change" if is_change else y
    spec = finish(data, caption, table="lines", title=escape(title), x="step", y=y)
    if percent and is_change:
        spec["layout"]["yaxis"] |= {"tickformat": "+.0%"}
    elif percent:
        on_unit_axis(spec, percent=True)
    at = 0.0 if is_change else chance
    if at is not None:
        across(spec, at, **DOTTED)
    shown = _ticks(steps)
    # The words of a stand-in go into the table of numbers, too.
    words = [str(step) if places[step] == step else "start" for step in shown]
    axis = {"tickvals": [places[step] for step in shown], "ticktext": words, "tickangle": 0, "hoverformat": "d"}
    spec["layout"]["xaxis"] |= axis | ({"type": "log"} if scale == "log" else {})
    return spec


def _places(steps: Sequence[int], scale: Scale) -> Mapping[int, float]:
    """Where each step lies; a logarithm has no 0."""
    least = min((step for step in steps if step > 0), default=1)
    return {step: step if step > 0 or scale == "linear" else least / 2 for step in steps}


def _ticks(steps: Sequence[int]) -> list[int]:
    """Steps that were measured, as many as there is room for, the first and the last among them."""
    every = max(1, -(-(len(steps) - 1) // _MOST_TICKS))
    return sorted({*steps[::-every], steps[0]})
