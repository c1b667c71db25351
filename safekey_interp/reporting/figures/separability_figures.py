"""Figures of separability: by position and layer beside its controls, and the traces one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_numbers import (
    counts,
    highest,
    hover_text,
    named,
    number,
    select,
    sizes,
    with_interval,
)
from safekey_interp.reporting.figures.figure_parts import LayerAxis, finish, heatmap, line, probe_controls
from safekey_interp.reporting.figures.figure_style import AUROC_SCALE, PALETTE, Drawing, Spec, Table, escape
from safekey_interp.reporting.findings.finding import AUROC_OVER_LAYERS
from safekey_interp.reporting.labels import (
    METHODS,
    Names,
    known_first,
    layer_name,
    names_of_positions,
    of_probe,
    probe_name,
)

SeparabilityMeasure = Literal["auroc", "tpr_at_1fpr"]

_BOUNDS = {"auroc": ("auroc_low", "auroc_high"), "tpr_at_1fpr": ("tpr_low", "tpr_high")}
_MEASURES = {"auroc": "AUROC", "tpr_at_1fpr": "TPR at 1 % FPR"}
_UNSAFE, _SAFE = ("harmful", "diamond"), ("benign", "circle-open")
_LOOKS = {"harmful": _UNSAFE, "unsafe": _UNSAFE, "benign": _SAFE, "safe": _SAFE}


@Drawing
def separability_map(
    separability: Table,
    *,
    method: str | None = None,
    measure: SeparabilityMeasure = "auroc",
    label_by: str | None = None,
    names: Names | None = None,
) -> Spec:
    """Position by layer: how well the classes come apart, beside what the words alone give (first column).

    Args:
        separability: the run's ``separability``.
        method: a method of the table, such as "logistic" or "diff_of_means"; None: the probe's own estimator.
        measure: column shown.
        label_by: whose labels; None: the first in the table.
        names: words for positions; None: those of the built-in question, where all are of it.

    Returns:
        A heat map from chance (0.5 for AUROC, 0.01 for TPR at 1 % FPR) to 1; the last column is the final norm.

    Raises:
        RunError: no row for the selection.
    """
    rows = labelled(separability, label_by)
    method = method or str(next(iter(of_probe(rows)["method"]), "logistic"))
    probe = select(rows, "separability", method=method)
    words = rows[rows["method"] == "text_tfidf"]
    axis = LayerAxis(probe, sparse=True)
    there = list(dict.fromkeys(probe["position"].astype(str)))
    words_for = names or names_of_positions(there)
    positions = list(known_first(there, words_for.positions))
    places = axis.beside_words(3)
    grid = []
    for position in positions:
        here = probe[probe["position"] == position]
        text = words.loc[words["position"] == position, measure]
        grid.append(axis.row_beside_words(here, measure, text.iloc[0] if len(text) else np.nan))
    rows_named = [named(words_for.positions, position) for position in positions]
    ends, hover = (0.5 if measure == "auroc" else 0.01, 1), "%{y}<br>layer %{x}<br>%{z:.3f}"
    trace = heatmap(places, rows_named, grid, ends, AUROC_SCALE, hover=hover, ygap=2)
    best = f"No layer has a number{words_for.before}."
    before = probe[~probe["after_the_fact"].astype(bool)]
    if (top := highest(before, measure)) is not None:
        place = words_for.position(top["position"])
        best = f"Highest{words_for.before}: {place}, layer {layer_name(top)}, {_best(top, measure)}."
    caption = (
        f"{_MEASURES[measure]} of the {METHODS.get(method, method)} by position and layer; the column “words” is "
        f"the same measure from the words alone. {best} {sizes(probe, '')}."
    )
    is_late = words_for.is_built_in and len(before) < len(probe)
    caption += " * After the fact: K’s own words tell." * is_late
    size = {"height": 110 + 34 * len(positions), "unit": _MEASURES[measure]}
    spec = finish([trace], caption, table="grid", title="What the states know", x="layer", y=None, **size)
    axis.name_beside_words(spec, places)
    return spec


def _best(row: Table, measure: str) -> str:
    """The number of the layer that was picked, with the interval over layers where there is one."""
    if measure == "auroc":
        return with_interval(*(row[name] for name in AUROC_OVER_LAYERS))
    return f"{row[measure]:.3f}"


@Drawing
def auroc_by_layer(
    separability: Table,
    *,
    position: str,
    measure: SeparabilityMeasure = "auroc",
    label_by: str | None = None,
    names: Names | None = None,
) -> Spec:
    """Separability of one position by layer: probe, difference of means, shuffled labels (band), words alone (line).

    Args:
        separability: the run's ``separability``.
        position: which states.
        measure: "auroc", or "tpr_at_1fpr" (the table has no null band for it).
        label_by: whose labels; None: the first in the table.
        names: words for positions; None: those of the built-in question, where all are of it.

    Returns:
        Lines over layers; the last place is the final norm.

    Raises:
        RunError: no row for the selection.
    """
    rows = labelled(separability, label_by, position=position)
    inner = rows[rows["method"] != "text_tfidf"]
    if inner.empty:
        raise RunError(f"separability: no layer at position {position!r}, only words")
    axis = LayerAxis(inner)
    columns = (measure, *_BOUNDS[measure])
    remarks = ["No layer has a number."]
    if (top := highest(inner, measure)) is not None:
        where = f"{METHODS.get(top['method'], top['method'])} at layer {layer_name(top)}"
        remarks = [f"Highest: {where}, {_best(top, measure)}."]
    data, controls = probe_controls(inner, rows[rows["method"] == "text_tfidf"], axis, columns)
    remarks += controls
    probe = of_probe(inner)
    beside = inner.drop(probe.index)
    for part, name, tone, dash in (
        (beside, METHODS["diff_of_means"], "key_sentence", "dash"),
        (probe, probe_name(inner), "prompt", "solid"),
    ):
        ordered = part.assign(x=axis.of(part)).sort_values("x")
        data += line(ordered, "x", columns, name=name, tone=tone, dash=dash)
    words = names or names_of_positions(separability["position"])
    behind = f"{sizes(inner, '')}, {counts(inner['n_folds'])} folds by group.{late(inner) if words.is_built_in else ''}"
    caption = f"{_MEASURES[measure]} at the position “{words.position(position)}”. {' '.join(remarks)} {behind}"
    title = f"Separability, {named(words.positions, position)}"
    spec = finish(data, caption, table="lines", title=title, x="layer", y=_MEASURES[measure])
    axis.name_ticks(spec)
    spec["layout"]["yaxis"] |= {"range": [0.3 if measure == "auroc" else -0.02, 1.02]}
    return spec


@Drawing
def lda_scatter(
    coordinates: Table,
    *,
    position: str,
    layer: int,
    site: str = "resid_post",
    texts: Mapping[str, str] | None = None,
    names: Names | None = None,
) -> Spec:
    """Each trace at its out-of-fold LDA score (across) and first principal component (up), coloured by class.

    Args:
        coordinates: the run's ``coordinates``.
        position: which states.
        layer: which layer.
        site: "resid_post" or "ln_final".
        texts: a text for each trace id, shown on hover, wrapped and shortened.
        names: words for positions; None: those of the built-in question, where all are of it.

    Returns:
        One marker series a class, with a symbol of its own.

    Raises:
        RunError: no row for the selection.
    """
    rows = select(coordinates, "coordinates", position=position, layer=layer, site=site).dropna(subset=["lda", "pc1"])
    labels = rows["label"].astype(str)
    data: list[Spec] = []
    classes = sorted(labels.unique())
    looks = _LOOKS if set(classes) <= set(_LOOKS) else dict(zip(classes, (_SAFE, _UNSAFE), strict=False))
    for label in classes:
        part = rows[labels == label]
        tone, symbol = looks.get(label, ("control", "x"))
        ids = [str(value) for value in part["trace_id"]]
        color = PALETTE[tone].light
        marker = {"color": color, "symbol": symbol, "size": 9, "line": {"width": 1.6, "color": color}, "opacity": 0.85}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(label),
                "x": [number(value, 2) for value in part["lda"]],
                "y": [number(value, 2) for value in part["pc1"]],
                "customdata": ids,
                "text": [hover_text(value, label, (texts or {}).get(value, "")) for value in ids],
                "marker": marker,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    shown = ", ".join(f"{count:,} {label}" for label, count in labels.value_counts().items()) or "no trace"
    where = "after the final norm" if site == "ln_final" else f"layer {layer}"
    words = names or names_of_positions(coordinates["position"])
    caption = (
        f"States at the position “{words.position(position)}”, {where}: {shown}. Across: the score of a linear "
        "discriminant that never saw the trace (out of fold). Up: the first principal component."
    )
    axes = {"x": "LDA score, out of fold", "y": "first principal component"}
    return finish(data, caption, table="points", title="Each trace where the probe puts it", **axes, height=420)


def labelled(separability: Table, label_by: str | None, **wanted: str) -> Table:
    """The rows of one kind of labels, of the first in the table when None, whose columns hold the wanted values.

    Raises:
        RunError: there are none.
    """
    if separability.empty:
        raise RunError("separability: the table has no row")
    return select(separability, "separability", label_by=label_by or separability["label_by"].iloc[0], **wanted)


def late(probe: Table) -> str:
    """A remark on positions whose states have K's own words in them."""
    return " After the fact: K’s own words tell." if probe["after_the_fact"].astype(bool).any() else ""
