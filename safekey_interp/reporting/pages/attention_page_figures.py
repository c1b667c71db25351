"""Figures of attention on the page of a probe run: lift by head, and mass by layer, from each query to each key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from safekey_interp.capture.measured_spans import MeasuredSpans
from safekey_interp.data.conditions import TRACES_OF, Conditions
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.attention_figures import Against, largest_lift
from safekey_interp.reporting.figures.figure_style import Spec, Table
from safekey_interp.reporting.labels import BUILT_IN_NAMES, Names
from safekey_interp.reporting.pages.probe_page_figures import Choice, Group, known, panel_of, that_fit

_OUTCOMES = {
    "aha:safe": "K is a safe aha moment",
    "aha:unsafe": "K is a compliant key sentence",
}
ROWS = {
    "key_sentence": "K, the key sentence",
    "decision": "the decision row, just before K",
    "understanding": "U, the understanding",
}
# Characters of JSON that one group may take before it thins itself out.
HEAT_BUDGET, MASS_BUDGET = 800_000, 900_000
_CELL, _MASS = 20, 25
_AGAINST: tuple[Against, ...] = ("matched", "uniform", "random")


def subset_names(conditions: Conditions, names: Names = BUILT_IN_NAMES) -> dict[str, str]:
    """The subsets of the summaries in words, in the order in which they are offered."""
    labels = {label: TRACES_OF.get(label, label) for label in ("all", *conditions.labels)}
    return labels | conditions.words() | (_OUTCOMES if names.is_built_in else {})


class SpanChoices(NamedTuple):
    """The spans that figures of attention offer."""

    rows: Mapping[str, str]
    """Spans that attend, with their words; as they are where there is none."""
    keys: Mapping[str, str]
    """Spans that are attended to, each a panel, with the end of its name in the page."""
    names: Names
    """What they are called."""

    def among(self, table: Table) -> dict[str, str]:
        """The spans that attend in a table, in words."""
        return known(table["from_span"], self.rows)


LOOKS = SpanChoices(
    {name: ROWS[name] for name in ("key_sentence", "decision")}, {"understanding": "understanding", "prompt": "prompt"},
    BUILT_IN_NAMES,
)  # fmt: skip
"""Those of the built-in question."""


def span_choices(names: Names, spans: MeasuredSpans) -> SpanChoices:
    """The spans that a run's figures offer; all of a user's own."""
    if names.is_built_in or spans.pairs is None:
        return LOOKS
    keys = {key: str(number) for number, key in enumerate(spans.pairs.keys)}
    return SpanChoices({query: query for query in spans.pairs.queries}, keys, names)


def lift_group(by_head: Table, words: dict[str, str], looks: SpanChoices = LOOKS) -> Group:
    """Heat maps layer x head of lift on each key; ``words`` from :func:`subset_names`."""
    rows = looks.among(by_head)
    cells = by_head["layer"].nunique() * by_head["head"].nunique()
    there = known(by_head["subset"], words)
    size = cells * len(_AGAINST) * len(looks.keys) * len(rows) * _CELL
    subsets, note = that_fit(there, size, HEAT_BUDGET, "attention_by_head.parquet")
    against = {"matched": "distance-matched baseline", "uniform": "uniform baseline", "random": "random key sets"}
    choices = (
        Choice(name="from", label="Rows of", options=rows),
        Choice(name="against", label="Compared with", options=against),
        Choice(name="subset", label="Traces", options=subsets),
    )
    tables = dict(iter(by_head.groupby("subset", observed=True)))
    limits = {name: largest_lift(by_head[by_head["subset"].isin(subsets)], against=name) for name in _AGAINST}
    panels = [
        panel_of(
            f"lift-{end}",
            f"Lift on {looks.names.span(to_span)}",
            choices,
            lambda picked, to=to_span: figures.lift_heatmap.spec(
                tables[picked["subset"]], from_span=picked["from"], to_span=to, subset=picked["subset"],
                against=picked["against"],
                limit=limits[picked["against"]], names=looks.names,
            ),
        )
        for to_span, end in looks.keys.items()
    ]  # fmt: skip
    return Group(name="lift", choices=choices, panels=tuple(panels), note=note)


def mass_group(by_layer: Table, words: dict[str, str], looks: SpanChoices = LOOKS) -> Group:
    """Attention mass by layer on each key beside its controls; all panels share their scale."""
    from_spans = known(by_layer["from_span"], ROWS) if looks == LOOKS else looks.among(by_layer)
    cost = by_layer["layer"].nunique() * len(from_spans) * len(looks.keys) * 7 * _MASS
    subsets, note = that_fit(known(by_layer["subset"], words), cost, MASS_BUDGET, "attention_by_layer.parquet")
    measures = {"mass": "mass, with its controls", "mass_rest": "mass without the first token", "lift": "lift"}
    choices = (
        Choice(name="from", label="Rows of", options=from_spans),
        Choice(name="measure", label="Show", options=known(by_layer["measure"], measures)),
        Choice(name="subset", label="Traces", options=subsets),
    )

    tables = dict(iter(by_layer.groupby("subset", observed=True)))

    def draw(picked: dict[str, Any], to_span: str) -> Spec:
        return figures.mass_by_layer.spec(
            tables[picked["subset"]],
            from_span=picked["from"],
            to_span=to_span,
            subset=picked["subset"],
            measure=picked["measure"],
            names=looks.names,
        )  # type: ignore[arg-type]

    panels = [
        panel_of(f"mass-{end}", f"Attention on {looks.names.span(to)}", choices, lambda picked, to=to: draw(picked, to))
        for to, end in looks.keys.items()
    ]
    for key in set.intersection(*(set(panel.variants) for panel in panels)):
        alike = [panel.variants[key] for panel in panels]
        if alike[0]["layout"]["yaxis"].get("type") != "log":
            top = max(
                (value for figure in alike for trace in figure["data"] for value in trace.get("y") or [] if value),
                default=1.0,
            )
            for figure in alike:
                figure["layout"]["yaxis"] |= {"range": [0, min(1.02, top * 1.06)], "autorange": False}
    return Group(name="mass", choices=choices, panels=tuple(panels), note=note)
