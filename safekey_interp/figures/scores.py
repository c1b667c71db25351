"""How does what a probe or a direction reads rise and fall around the key sentence? By offset and label.

Scores are those of :mod:`safekey_interp.trajectory`; the grey band is what random vectors of equal norm make of the
same states, 0 ± 1.96 standard deviations.
"""

from __future__ import annotations

from typing import Literal

from safekey_interp.figures.drawing import (
    PALETTE,
    Drawing,
    Spec,
    Table,
    counts,
    curve,
    finish,
    select,
    with_interval,
)
from safekey_interp.figures.training import across

Origin = Literal["key_sentence", "reasoning_end"]
_ORIGINS: dict[str, str] = {
    "key_sentence": "tokens from K’s first",
    "reasoning_end": "tokens from the end of the reasoning",
}
_LOOKS = {"harmful": ("harmful", "solid"), "benign": ("benign", "dash")}
_SD = 1.96


@Drawing
def score_by_offset(summary: Table, *, reader: int = 0, align: Origin = "key_sentence") -> Spec:
    """Mean score of each class by offset, beside random vectors of equal norm.

    Args:
        summary: of ``summarise_trajectory`` by label.
        reader: number of the probe or direction.
        align: where offset 0 lies.

    Returns:
        A line with its band for each class, the band of random vectors, and a vertical line at 0.

    Raises:
        RunError: no such reader.
    """
    rows = select(summary, "summary", reader=reader).sort_values("offset")
    spread = rows.groupby("offset")["random_sd"].mean()
    nothing = [0.0] * len(spread)
    data = curve(
        spread.index,
        nothing,
        -_SD * spread,
        _SD * spread,
        name="random vectors of equal norm",
        color=PALETTE["control"].light,
        dash="dot",
        markers=False,
    )
    told = []
    for label, part in rows.groupby("label", sort=False):
        tone, dash = _LOOKS.get(str(label), ("control", "dashdot"))
        bounds = (part[name] for name in ("score", "low", "high"))
        color = PALETTE[tone].light
        data += curve(part["offset"], *bounds, name=str(label), color=color, dash=dash, markers=False)
        before = part.loc[part["offset"] == -1]
        if len(before):
            row = before.iloc[0]
            told.append(f"{label} {with_interval(row['score'], row['low'], row['high'])} (n = {int(row['n']):,})")
    sizes = f"n = {counts(rows['n'])} traces a class and offset, in {counts(rows['n_groups'])} groups"
    before = f"At the token before 0: {'; '.join(told)}. " if told else ""
    caption = (
        f"{before}{sizes}; bands: 95 % intervals over groups, of random vectors 0 ± {_SD} sd. Fewer traces reach far "
        "offsets."
    )
    spec = finish(data, caption, table="lines", title="Score by token", x=_ORIGINS[align], y="score", height=380)
    line = {"type": "line", "xref": "x", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    spec["layout"]["shapes"] = [line | {"line": {"color": PALETTE["ink"].light, "width": 1, "dash": "dash"}}]
    across(spec, 0)
    return spec
