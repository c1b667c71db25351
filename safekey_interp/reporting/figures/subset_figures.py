"""Figure of attention by kind of trace, each over its own control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from safekey_interp.reporting.figures.attention_figures import CHANCE, Against, from_to, on_log_axis, on_whole_layers
from safekey_interp.reporting.figures.figure_numbers import select, sizes
from safekey_interp.reporting.figures.figure_parts import finish, line
from safekey_interp.reporting.figures.figure_style import Drawing, Spec, Table, escape
from safekey_interp.reporting.labels import names_of

RATIOS: dict[Against, str] = {"uniform": "lift", "random": "lift_over_random", "matched": "lift_over_matched"}
"""The measure of ``attention_by_layer`` that divides mass by each control."""


class Kind(NamedTuple):
    """Some of the traces, and how their line looks."""

    subset: str
    """Its name in the tables."""
    name: str
    """Its name in words."""
    tone: str
    """One of the palette's tones."""
    dash: str
    """Plotly's name of the dashes."""


@Drawing
def lift_by_kind(
    by_layer: Table,
    *,
    kinds: Sequence[Kind],
    from_span: str = "key_sentence",
    to_span: str = "prompt",
    against: Against = "matched",
) -> Spec:
    """Mass over its control on the same traces, by layer, a line for each kind of traces.

    Args:
        by_layer: the run's ``attention_by_layer``.
        kinds: whose lines, in the legend's order.
        from_span, to_span: whose rows attend, and to what.
        against: the control that mass is divided by.

    Returns:
        Lines over layers on a log axis, 1 = no more than the control; bands are the table's intervals.

    Raises:
        RunError: no row for one of the kinds.
    """
    chance = CHANCE[against]
    data: list[Spec] = []
    remarks = []
    for kind in kinds:
        rows = select(by_layer, "attention_by_layer", from_span=from_span, to_span=to_span, subset=kind.subset)
        rows = select(rows, "attention_by_layer", measure=RATIOS[against]).sort_values("layer")
        data += line(rows, "layer", name=kind.name, tone=kind.tone, dash=kind.dash)
        above, below = int((rows["low"] > 1).sum()), int((rows["high"] < 1).sum())
        remarks.append(f"{kind.name}: above in {above} of {len(rows)} layers, below in {below} ({sizes(rows)})")
    caption = (
        f"{from_to(from_span, to_span)}, mean over heads, divided by the {chance} of the same traces; 1 is no "
        f"more. {'; '.join(remarks)}. Bands: 95 % intervals over groups."
    )
    title = f"Attention on {escape(names_of(from_span, to_span).span(to_span))} over the {chance}"
    spec = finish(data, caption, table="lines", title=title, x="layer", y=f"× {chance}")
    on_log_axis(spec)
    on_whole_layers(spec, by_layer["layer"])
    return spec
