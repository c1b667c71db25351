"""Figure of the score of a probe or a direction around the key sentence, by offset and label.

Scores are those of :mod:`safekey_interp.measures.trajectory`; the grey band is what control directions make of the
same states, their mean ± 1.96 standard deviations.
"""

from __future__ import annotations

from typing import Literal

from safekey_interp.measures.trajectory import trajectory_controls
from safekey_interp.reporting.figures.figure_numbers import counts, select, with_interval
from safekey_interp.reporting.figures.figure_parts import across, curve, finish, line
from safekey_interp.reporting.figures.figure_style import PALETTE, Drawing, Spec, Table
from safekey_interp.reporting.findings.intervention_terms import classes_in, control_name

Origin = Literal["key_sentence", "reasoning_end"]
_ORIGINS: dict[str, str] = {
    "key_sentence": "tokens from K’s first",
    "reasoning_end": "tokens from the end of the reasoning",
}
_LOOKS = (("harmful", "solid"), ("benign", "dash"))
"""Of the positive class and of the negative one."""
_SD = 1.96


@Drawing
def score_by_offset(
    summary: Table, *, reader: int = 0, align: Origin = "key_sentence", control: str | None = None
) -> Spec:
    """Mean score of each class by offset, beside one kind of control directions.

    Args:
        summary: of ``summarise_trajectory`` by label.
        reader: number of the probe or direction.
        align: where offset 0 lies.
        control: kind of control of the band; the first that the summary has when None.

    Returns:
        A line with its band for each class, the band of the controls, and a vertical line at 0.

    Raises:
        RunError: no such reader.
    """
    rows = select(summary, "summary", reader=reader).sort_values("offset")
    data, beside = [], ""
    kind = next(iter(trajectory_controls(rows)), None) if control is None else control
    if kind is not None:
        means = rows.groupby("offset")[[f"{kind}_mean", f"{kind}_sd"]].mean()
        middle, spread = means[f"{kind}_mean"], means[f"{kind}_sd"]
        bounds = (middle, middle - _SD * spread, middle + _SD * spread)
        name = control_name(kind)
        color = PALETTE["control"].light
        data += curve(means.index, *bounds, name=name, color=color, dash="dot", markers=False)
        beside = f", of {name} mean ± {_SD} sd"
    told, looks = [], dict(zip(classes_in(rows), _LOOKS, strict=True))
    for label, part in rows.groupby("label", sort=False):
        tone, dash = looks.get(str(label), ("control", "dashdot"))
        columns = ("score", "low", "high")
        data += line(part, "offset", columns, name=str(label), tone=tone, dash=dash, markers=False)
        before = part.loc[part["offset"] == -1]
        if len(before):
            row = before.iloc[0]
            told.append(f"{label} {with_interval(row['score'], row['low'], row['high'])} (n = {int(row['n']):,})")
    sizes = f"n = {counts(rows['n'])} traces a class and offset, in {counts(rows['n_groups'])} groups"
    before = f"At the token before 0: {'; '.join(told)}. " if told else ""
    caption = f"{before}{sizes}; bands: 95 % intervals over groups{beside}. Fewer traces reach far offsets."
    spec = finish(
        data,
        caption,
        table="lines",
        title="Score by token",
        x=_ORIGINS.get(align, f"tokens from the first of {align}"),
        y=str(rows["unit"].iloc[0]) if "unit" in rows.columns else "score",
        height=380,
    )
    zero = {"type": "line", "xref": "x", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    spec["layout"]["shapes"] = [zero | {"line": {"color": PALETTE["ink"].light, "width": 1, "dash": "dash"}}]
    across(spec, 0)
    return spec
