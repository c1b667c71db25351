"""Figures of probes on the page of a probe run: groups of choices and the panels that they change.

Every choice is drawn beforehand by :mod:`safekey_interp.reporting.figures`, so that the page computes nothing and shows
what Python would; parts that repeat between figures are embedded once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from safekey_interp.errors import RunError
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Spec, Table
from safekey_interp.reporting.labels import BUILT_IN_NAMES, METHODS, Names, known_first
from safekey_interp.reporting.probe_rows import estimator_in, probe_rows
from safekey_interp.runs.run_folder import sample_traces

SCATTER_BUDGET = 700_000
"""Characters of JSON that the scatter may take before it thins itself out."""
_POINT = 12


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One select box."""

    name: str
    """Key within its group."""
    label: str
    """What the reader sees before the box."""
    options: dict[str, str]
    """Value to text, in order."""
    default: str = ""
    """The value chosen at first; empty: the first."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot with its variants."""

    name: str
    """Unique in the page."""
    title: str
    """Heading above the plot."""
    uses: tuple[str, ...]
    """The choices that pick the variant, in the key's order."""
    variants: dict[str, Spec]
    """Figure JSON by the chosen values joined by ``|``."""
    reading: str = ""
    """What it says, in a sentence; empty where the caption alone stands below."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Choices, and the panels they drive."""

    name: str
    """Unique in the page."""
    choices: tuple[Choice, ...]
    """Select boxes, in order."""
    panels: tuple[Panel, ...]
    """Plots, in order."""
    note: str = ""
    """What was thinned out to fit, in words."""

    @property
    def defaults(self) -> dict[str, str]:
        """What each choice is at first."""
        return {choice.name: choice.default or next(iter(choice.options)) for choice in self.choices}

    def shown(self, panel: Panel) -> Spec | None:
        """What a panel shows at first; None where that was not measured."""
        return panel.variants.get("|".join(self.defaults[name] for name in panel.uses))


def separability_group(separability: Table, names: Names = BUILT_IN_NAMES) -> Group:
    """AUROC over positions and layers, and one position with its controls."""
    labels = {"label": "the file's labels", "aha": "the trace's own outcome"}
    choices = (
        Choice(name="labels", label="Labels", options=known(separability["label_by"], labels)),
        Choice(name="measure", label="Measure", options={"auroc": "AUROC", "tpr_at_1fpr": "TPR at 1 % FPR"}),
        Choice(
            name="position",
            label="Position (second plot)",
            options=known_first(separability["position"].dropna(), names.positions),
            default=names.main,
        ),
    )
    inner = separability[separability["method"] != "text_tfidf"]
    method = estimator_in(separability) if len(probe_rows(inner)) else str(inner["method"].iloc[0])
    overview = panel_of(
        "separability-map",
        f"All positions, {METHODS.get(method, method)}",
        choices[:2],
        lambda picked: figures.separability_map.spec(
            separability, method=method, measure=picked["measure"], label_by=picked["labels"], names=names
        ),  # type: ignore[arg-type]
    )
    curve = panel_of(
        "separability-curve",
        "One position with its controls",
        choices,
        lambda picked: figures.auroc_by_layer.spec(
            separability,
            position=picked["position"],
            measure=picked["measure"],
            label_by=picked["labels"],
            names=names,
        ),  # type: ignore[arg-type]
    )
    return Group(name="separability", choices=choices, panels=(overview, curve))


def transfer_group(transfer: Table, names: Names = BUILT_IN_NAMES) -> Group:
    """Probes fitted on one condition and tested on another: all pairs, and one with its controls."""
    fitted, tested = ({str(name): str(name) for name in transfer[side].unique()} for side in ("fitted_on", "tested_on"))
    positions = known_first(transfer["position"].dropna(), names.positions)
    conditions = list(fitted)
    choices = (
        Choice(
            name="position",
            label="Position",
            options=positions,
            default=names.main if names.main in positions else next(iter(positions)),
        ),
        Choice(name="fitted", label="Fitted on (second plot)", options=fitted),
        Choice(name="tested", label="Tested on (second plot)", options=tested, default=conditions[1 % len(conditions)]),
    )
    overview = panel_of(
        "transfer-map",
        "All pairs, fitted on → tested on",
        choices[:1],
        lambda picked: figures.transfer_map.spec(transfer, position=picked["position"], names=names),
    )
    curve = panel_of(
        "transfer-curve",
        "One pair with its controls",
        choices,
        lambda picked: figures.transfer_by_layer.spec(
            transfer,
            fitted_on=picked["fitted"],
            tested_on=picked["tested"],
            position=picked["position"],
            names=names,
        ),
    )
    return Group(name="transfer", choices=choices, panels=(overview, curve))


def scatter_group(
    coordinates: Table, texts: dict[str, str], separability: Table | None, names: Names = BUILT_IN_NAMES
) -> Group:
    """The LDA scatter of every position and layer, of a sample of traces that fits the page."""
    sites = coordinates[["layer", "site"]].drop_duplicates().sort_values(["layer", "site"], ascending=[True, False])
    layers = {
        f"{int(layer)},{site}": f"after the final norm ({int(layer)})" if site == "ln_final" else str(int(layer))
        for layer, site in zip(sites["layer"], sites["site"].astype(str), strict=True)
    }
    positions = known_first(coordinates["position"].dropna(), names.positions)
    traces = coordinates.drop_duplicates("trace_id")
    size = SCATTER_BUDGET // (_POINT * max(1, len(layers) * len(positions)))
    sample = sample_traces(traces["trace_id"].astype(str).tolist(), traces["label"].astype(str).tolist(), max(20, size))
    n, total = len(sample), coordinates.attrs.get("n_traces", len(traces))
    note = (
        f"To keep the page small, {n} of {total} traces are shown, in proportion to their classes; the others are in "
        "coordinates.parquet." * (n < total)
    )
    kept = coordinates[coordinates["trace_id"].isin(sample)]
    position = names.main if names.main in positions else next(iter(positions))
    choices = (
        Choice(name="position", label="Position", options=positions, default=position),
        Choice(name="layer", label="Layer", options=layers, default=_best_layer(separability, position, layers)),
    )
    tables = {key: part for key, part in kept.groupby(["position", "layer", "site"], observed=True)}

    def draw(picked: dict[str, str]) -> Spec:
        layer, site = picked["layer"].split(",")
        part = tables.get((picked["position"], int(layer), site), kept.head(0))
        about: dict[str, Any] = {"layer": int(layer), "site": site, "texts": texts, "names": names}
        return figures.lda_scatter.spec(part, position=picked["position"], **about)

    panel = panel_of("lda", "Each trace where the probe puts it", choices, draw)
    return Group(name="scatter", choices=choices, panels=(panel,), note=note)


def panel_of(name: str, title: str, choices: tuple[Choice, ...], draw: Callable[[dict[str, Any]], Spec]) -> Panel:
    """A plot, drawn for every combination of the choices that was measured."""
    names = tuple(choice.name for choice in choices)
    variants: dict[str, Spec] = {}
    for values in itertools.product(*(choice.options for choice in choices)):
        try:
            figure = draw(dict(zip(names, values, strict=True)))
        except RunError:
            continue  # this combination was not measured; the page says so when it is chosen
        figure["layout"].pop("title")  # the panel's own heading says it
        variants["|".join(values)] = figure
    return Panel(name=name, title=title, uses=names, variants=variants)


def that_fit(subsets: dict[str, str], size: int, budget: int, file: str) -> tuple[dict[str, str], str]:
    """The first subsets whose plots fit the page, at least one, and a sentence about the others."""
    kept = dict(list(subsets.items())[: max(1, budget // max(1, size))])
    gone = [words for name, words in subsets.items() if name not in kept]
    note = f"To keep the page small, some choices of traces are in {file} alone: {'; '.join(gone)}."
    return kept, note * bool(gone)


def known(values: Table, names: Mapping[str, str]) -> dict[str, str]:
    """The values that occur, those with a name first and in the names' order."""
    there = [str(value) for value in values.dropna().unique()]
    return {name: text for name, text in names.items() if name in there} or {name: name for name in sorted(there)}


def _best_layer(separability: Table | None, position: str, layers: dict[str, str]) -> str:
    middle = list(layers)[len(layers) // 2]
    if separability is None:
        return middle
    rows = probe_rows(separability[separability["position"] == position]).dropna(subset=["auroc"])
    if rows.empty:
        return middle
    best = rows.loc[rows["auroc"].idxmax()]
    key = f"{int(best['layer'])},{best['site']}"
    return key if key in layers else middle
