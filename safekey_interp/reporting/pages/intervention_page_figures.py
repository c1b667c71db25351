"""Figures on the page of an intervention, drawn from its record."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safekey_interp.interventions.effects import TESTED, default_rows
from safekey_interp.interventions.intervention_record import Column
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Spec, Table
from safekey_interp.reporting.figures.intervention_figures import whole_effects
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.pages.probe_page_figures import Choice, Group, Panel, panel_of

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Figure, Intervention


def effect_group(intervention: Intervention, summary: Table) -> Group:
    """The figures of an intervention's effects.

    Args:
        intervention: its record.
        summary: its summary.
    """
    has = set(summary.columns)
    every = [
        figure._replace(choices=[name for name in figure.choices if name in has])
        for figure in intervention.figures
        if has.issuperset(figure.axes)
    ]
    drawn = [figure for figure in every if _is_drawable(intervention, figure, summary)] or every[:1]
    names = dict.fromkeys((*_shared(intervention), *(name for figure in drawn for name in figure.choices)))
    choices = {name: _choice(intervention, name, summary) for name in names}
    panels = tuple(_panel(intervention, figure, summary, choices) for figure in drawn)
    return Group(name="effect", choices=tuple(choices.values()), panels=panels)


def score_group(summary: Table, align: str) -> Group:
    """The curves of scores by offset, of one reader at a time."""
    readers = {str(number): name for number, name in sorted(terms.readers_in(summary).items())}
    choices = (Choice(name="reader", label="Score of", options=readers),)

    def draw(picked: Mapping[str, str]) -> Spec:
        return figures.score_by_offset.spec(summary, reader=int(picked["reader"]), align=align)  # type: ignore[arg-type]

    panel = panel_of("scores", "Token by token", choices, draw)
    return Group(name="score", choices=choices, panels=(panel,))


def _shared(intervention: Intervention) -> tuple[str, ...]:
    """Columns of which the reader chooses a value for every figure."""
    return ("metric", "subset") if intervention.metrics else ("subset",)


def _is_drawable(intervention: Intervention, figure: Figure, summary: Table) -> bool:
    """Whether choices and axes leave one row a place, and its axis more than one place."""
    separating = [*_shared(intervention), *figure.choices, *figure.axes, *(["layer"] if figure.kind == "map" else [])]
    rows = _rows_where(figure, whole_effects(summary, separating))
    rows = rows if "control_kind" in separating else default_rows(rows)
    varies = figure.kind == "points" or rows[figure.axes[0]].nunique(dropna=False) > 1
    return bool(varies and not rows.duplicated(separating).any())


def _rows_where(figure: Figure, summary: Table) -> Table:
    """The rows that a figure draws of."""
    for column, value in figure.where:
        summary = summary.loc[summary[column] == value]
    return summary


def _choice(intervention: Intervention, name: str, summary: Table) -> Choice:
    """A select box with the values that a column has, those in words first where these have an order."""
    column = _columns(intervention, summary)[name]
    rows = summary if name == "measure" else whole_effects(summary, ())
    values = list(rows.loc[rows["value"].notna() | (name == "control_kind"), name].unique())
    if isinstance(column.words, Mapping):
        values = _in_order(column, values)
    options = {str(value): column.name(value) for value in values}
    return Choice(
        name=name, label=column.label, options=options, default=column.first if column.first in options else ""
    )


def _columns(intervention: Intervention, summary: Table) -> Mapping[str, Column]:
    measured = [terms.main_metric(intervention, summary), *intervention.metrics, *summary.get("metric", ())]
    if intervention.is_plain:
        measured = [*summary.get("metric", ())]
    subsets = ("all", *terms.labels_of(summary))
    shared = {
        "metric": Column(label="Read out", words={name: terms.metric_name(intervention, name) for name in measured}),
        "subset": Column(label="Traces", words={name: terms.traces_of(name) for name in subsets}),
        "control_kind": Column(
            label="Beside",
            words=lambda kind: "no control" if kind == TESTED else terms.control_name(kind, intervention),
        ),
    }
    return shared | dict(intervention.columns)


def _panel(intervention: Intervention, figure: Figure, summary: Table, choices: Mapping[str, Choice]) -> Panel:
    values = {name: {str(value): value for value in summary[name].unique()} for name in choices}
    about = {"control": terms.default_control(intervention, summary), "value": intervention.value}
    if not figure.has_control:
        about["control"] = "no control"
    names = {axis: _names(intervention, axis, _rows_where(figure, summary)) for axis in figure.axes}

    def draw(picked: Mapping[str, str]) -> Spec:
        wanted: Any = dict(figure.where) | {name: values[name][value] for name, value in picked.items()}
        if "control_kind" in picked:
            wanted["control"] = terms.control_name(picked["control_kind"], intervention)
        wanted = about | {"unit": terms.unit_of(intervention, summary, picked.get("metric"))} | wanted
        if figure.kind == "map":
            [(axis, words)] = names.items()
            return figures.effect_map.spec(summary, rows_by=axis, names=words, **wanted)
        if figure.kind == "points":
            return figures.effect_by_place.spec(summary, places=_places(intervention, names), x=figure.label, **wanted)
        return figures.effect_by_layer.spec(summary, x=figure.axes[0], **wanted)  # type: ignore[arg-type]

    used = tuple(choices[name] for name in (*_shared(intervention), *figure.choices))
    return panel_of(figure.name, figure.title, used, draw)


def _names(intervention: Intervention, axis: str, summary: Table) -> dict[Any, str]:
    """The values that an axis has, with their words, in the words' order."""
    column, values = intervention.columns.get(axis), list(summary[axis].unique())
    if column is None or not isinstance(column.words, Mapping):
        return {value: terms.column_name(intervention, axis, value) for value in sorted(values)}
    values = _in_order(column, values)
    return {value: terms.column_name(intervention, axis, value) for value in values}


def _in_order(column: Column, values: Sequence[Any]) -> list[Any]:
    """The values that have words in their order, then the others where these are shown."""
    assert isinstance(column.words, Mapping)
    named = [value for value in column.words if value in values]
    return named + [value for value in values if value not in named] if column.is_open else named or list(values)


def _places(intervention: Intervention, names: Mapping[str, Mapping[Any, str]]) -> list[tuple[dict[str, Any], str]]:
    """Every combination of the axes' values, with what the axis calls it."""
    places = []
    for values in itertools.product(*names.values()):
        place = dict(zip(names, values, strict=True))
        short = {axis: intervention.columns[axis].short if axis in intervention.columns else {} for axis in place}
        places.append((place, " → ".join(short[axis].get(v, names[axis][v]) for axis, v in place.items())))
    return places
