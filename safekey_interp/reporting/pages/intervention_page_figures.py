"""Which figures does the page of an intervention hold? Those that its summary has the columns and the rows for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from safekey_interp.data.conditions import TRACES_OF
from safekey_interp.interventions.effects import TESTED
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Spec, Table
from safekey_interp.reporting.findings.intervention_terms import (
    METRICS,
    PARTS,
    POSITIONS,
    READINGS,
    Reading,
    control_name,
    default_control,
    series_name,
)
from safekey_interp.reporting.pages.probe_page_figures import Choice, Group, Panel, known, panel_of

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_registry import Name

_MEASURES = {"effect": "exact", "attribution": "attribution, first order"}
_SHORT = {"prompt": "X", "understanding": "U", "template": "template", "first_token": "first token"}


def effect_groups(name: Name, summary: Table) -> list[Group]:
    """The figures of an intervention's effects.

    Args:
        name: any intervention but a trajectory.
        summary: its summary.
    """
    reading = READINGS[name]
    shared = [*_of_metric(reading, summary), _choice("subset", "Traces", summary["subset"], TRACES_OF)]
    about = {"control": default_control(summary), "value": reading.value, "unit": reading.unit}
    panels: list[Panel]
    more: list[Choice] = []
    if name == "knockout":
        more, panels = _knockout(summary, shared, about)
    elif name == "patch":
        more, panels = _patch(summary, shared, about)
    elif name == "direction":
        more, panels = _direction(summary, shared, about)
    elif name == "suppress":
        panels = [_between_parts(summary, shared, about)]
    else:
        draw = _by_layer(summary, about)
        panels = [panel_of("effect-layers", "What each layer says, read out", tuple(shared), draw)]
    choices = (*shared, *more)
    return [Group(name="effect", choices=choices, panels=tuple(panels))]


def score_groups(summary: Table, align: str) -> list[Group]:
    """The curves of a trajectory, of one reader at a time."""
    readers = {str(int(number)): f"reader {int(number)}" for number in sorted(summary["reader"].unique())}
    choices = (Choice(name="reader", label="Score of", options=readers),)

    def draw(picked: Mapping[str, str]) -> Spec:
        return figures.score_by_offset.spec(summary, reader=int(picked["reader"]), align=align)  # type: ignore[arg-type]

    panel = panel_of("scores", "Token by token", choices, draw)
    return [Group(name="score", choices=choices, panels=(panel,))]


Drawn = tuple[list[Choice], list[Panel]]


def _knockout(summary: Table, shared: list[Choice], about: dict[str, str]) -> Drawn:
    spans = {str(span): series_name("knockout", span) for span in summary["to_span"].unique()}
    whole = summary.loc[(summary["measure"] == "effect") & (summary["dose"] == 1)]
    kinds = {str(kind): control_name(kind) for kind in whole["control_kind"].unique()}
    kinds = {kind: "no control" if kind == TESTED else words for kind, words in kinds.items()}
    shared = [*shared, Choice(name="control_kind", label="Beside", options=kinds)]
    span = Choice(name="to_span", label="Hidden", options=spans)
    beside = shared[-1:]
    if (summary["head"] >= 0).any():
        heads = {int(head): f"head {int(head)}" for head in sorted(summary["head"].unique())}
        draw = _map(summary, about, "head", heads)
        return [*beside, span], [panel_of("effect-heads", "By layer and head", (*shared, span), draw)]
    if summary["layer"].nunique() > 1:
        draw = _by_layer(summary, about)
        return [*beside, span], [panel_of("effect-layers", "By layer", (*shared, span), draw)]
    places = [({"to_span": span}, _SHORT.get(span, span)) for span in spans]
    panels = [panel_of("effect-spans", "By what is hidden", tuple(shared), _by_place(summary, about, places))]
    if summary["dose"].nunique() == 1:
        return beside, panels
    draw = _by_layer(summary, about | {"control": "no control"}, x="dose")
    panels.append(panel_of("effect-doses", "By the share that is hidden", (*shared[:-1], span), draw))
    return [*beside, span], panels


def _patch(summary: Table, shared: list[Choice], about: dict[str, str]) -> Drawn:
    positions = known(summary["position"], POSITIONS)
    position = Choice(
        name="position",
        label="States at (second plot)",
        options=positions,
        default="decision" if "decision" in positions else "",
    )
    filled = summary.loc[summary["value"].notna()]
    measure = _choice("measure", "Effects", filled["measure"], _MEASURES)
    both = (*shared, measure)
    overview = panel_of("effect-map", "All positions", both, _map(summary, about, "position", positions))
    curve = panel_of("effect-layers", "One position beside its control", (*both, position), _by_layer(summary, about))
    return [measure, position], [overview, curve]


def _direction(summary: Table, shared: list[Choice], about: dict[str, str]) -> Drawn:
    scales = {str(float(scale)): series_name("direction", float(scale)) for scale in summary["scale"].unique()}
    scale = Choice(name="scale", label="Direction", options=scales)
    panels = [panel_of("effect-layers", "By the direction’s layer", (*shared, scale), _by_layer(summary, about))]
    if len(scales) == 1:
        return [scale], panels
    directions = summary.drop_duplicates("direction")
    options = {
        str(int(row["direction"])): f"layer {int(row['layer'])}, number {int(row['direction'])}"
        for _, row in directions.iterrows()
    }
    which = Choice(name="direction", label="Of (second plot)", options=options)
    draw = _by_layer(summary, about, x="scale")
    return [scale, which], [*panels, panel_of("effect-scales", "By scale", (*shared, which), draw)]


def _between_parts(summary: Table, shared: list[Choice], about: dict[str, str]) -> Panel:
    places = [
        ({"source_part": source, "target_part": target}, f"{PARTS[source]} → {PARTS[target]}")
        for source in PARTS
        for target in PARTS
    ]
    draw = _by_place(summary, about, places, x="hidden → predicted")
    return panel_of("effect-parts", "From each part to each later one", tuple(shared), draw)


def _of_metric(reading: Reading, summary: Table) -> list[Choice]:
    if not reading.metrics:
        return []
    filled = summary.loc[summary["value"].notna(), "metric"]
    return [_choice("metric", "Read out", filled, {name: METRICS[name] for name in reading.metrics})]


def _choice(name: str, label: str, values: Table, names: dict[str, str]) -> Choice:
    return Choice(name=name, label=label, options=known(values, names))


def _wanted(picked: Mapping[str, str], x: str = "") -> dict[str, Any]:
    """What was chosen, as the table has it."""
    wanted: dict[str, Any] = {name: value for name, value in picked.items() if name != x}
    if "scale" in wanted:
        wanted["scale"] = float(wanted["scale"])
    if "direction" in wanted:
        wanted["direction"] = int(wanted["direction"])
    return wanted


def _by_layer(summary: Table, about: dict[str, str], x: Any = "layer") -> Callable[[dict[str, Any]], Spec]:
    return lambda picked: figures.effect_by_layer.spec(summary, x=x, **_about(about, picked), **_wanted(picked, x))


def _by_place(summary: Table, about: dict[str, str], places: Any, **more: str) -> Callable[[dict[str, Any]], Spec]:
    return lambda picked: figures.effect_by_place.spec(
        summary, places=places, **_about(about, picked), **more, **_wanted(picked)
    )


def _map(summary: Table, about: dict[str, str], by: str, names: Mapping[Any, str]) -> Callable[[dict[str, Any]], Spec]:
    return lambda picked: figures.effect_map.spec(
        summary, rows_by=by, names=names, **_about(about, picked), **_wanted(picked)
    )


def _about(about: dict[str, str], picked: Mapping[str, str]) -> dict[str, str]:
    """With the control that was chosen, where there is a choice."""
    return about | {"control": control_name(picked["control_kind"])} if "control_kind" in picked else about
