"""Figures of a comparison: shares, attention, AUROC and benchmarks, a bar or a line for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.attention_figures import on_log_axis, on_whole_layers
from safekey_interp.reporting.figures.estimate_figures import DOTTED, bar_figure, look_of, on_unit_axis
from safekey_interp.reporting.figures.figure_numbers import counts, named, select
from safekey_interp.reporting.figures.figure_parts import LayerAxis, across, finish, line
from safekey_interp.reporting.figures.figure_style import Drawing, Spec, Table, escape
from safekey_interp.reporting.findings.finding import AUROC
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.labels import MEASURES, POSITIONS, SPANS
from safekey_interp.reporting.probe_rows import estimator_in, probe_words

_MOST_OF_NAME = 20


@Drawing
def share_by_model(comparison: Table, *, measure: str, subsets: Mapping[str, str], names: Sequence[str]) -> Spec:
    """A share of the traces, a bar for each model, by subset.

    Args:
        comparison: the run's ``comparison``.
        measure: which share.
        subsets: those to show, in order, with their words.
        names: the models, in their order.

    Returns:
        Bars with 95 % intervals.

    Raises:
        RunError: no row for the selection.
    """
    rows = select(comparison[comparison["other"].isna()], "comparison", measure=measure)
    there = {name: words for name, words in subsets.items() if name in set(rows["subset"])}
    places = {(name, measure): words for name, words in there.items()}
    sizes = "; ".join(f"{words}: n = {counts(rows.loc[rows['subset'] == name, 'n'])}" for name, words in there.items())
    title = MEASURES[measure]
    caption = f"{title}, share of traces ({sizes}). Lines: 95 % intervals over prompts."
    columns = ("subset", "measure")
    spec = bar_figure(rows, places, columns, names, caption=caption, title=title, x="prompts", y="share")
    on_unit_axis(spec, percent=True)
    return spec


@Drawing
def lift_by_model(comparison: Table, *, position: str, subset: str, names: Sequence[str]) -> Spec:
    """Attention on U and on X over the distance-matched baseline, all layers and heads together, a bar for each model.

    Args:
        comparison: the run's ``comparison``.
        position: whose row looks: ``decision`` or ``key_sentence``.
        subset: ``all``, ``harmful`` or ``benign``.
        names: the models, in their order.

    Returns:
        Bars with 95 % intervals; 1, a line, is the distance-matched baseline.

    Raises:
        RunError: no row for the selection.
    """
    rows = comparison[comparison["other"].isna()]
    rows = select(rows, "comparison", measure="lift_over_matched", subset=subset, position=position)
    spans = set(rows["to_span"])
    places = {(span, position): SPANS[span] for span in ("understanding", "prompt") if span in spans}
    caption = (
        f"Attention of {ROWS[position]}, ratio of sums over all layers and heads to the distance-matched baseline "
        f"(n = {counts(rows['n'])} traces); 1, the line, is no more than that. Lines on bars: 95 % intervals over "
        "groups."
    )
    about = {"title": f"Attention of {ROWS[position]}", "x": "on", "y": "× distance-matched baseline"}
    spec = bar_figure(rows, places, ("to_span", "position"), names, caption=caption, **about)
    across(spec, 1, **DOTTED)
    return spec


@Drawing
def auroc_by_model(comparison: Table, *, names: Sequence[str]) -> Spec:
    """What the states tell, median over layers, beside the words of the same span, a bar for each model.

    Args:
        comparison: the run's ``comparison``.
        names: the models, in their order.

    Returns:
        Bars with 95 % intervals; 0.5, a line, is a coin toss.

    Raises:
        RunError: no AUROC in the table.
    """
    rows = comparison[comparison["other"].isna() & comparison["measure"].isin(["auroc", "auroc_words"])]
    words = {
        ("understanding", "auroc"): "over U",
        ("understanding", "auroc_words"): "words of U",
        ("decision", "auroc"): "before K",
        ("decision", "auroc_words"): "words before K",
    }
    there = set(zip(rows["position"], rows["measure"], strict=True))
    places = {key: name for key, name in words.items() if key in there}
    caption = (
        f"AUROC of a probe of the states, median over layers, and of the words alone (n = {counts(rows['n'])} traces). "
        "Scores out of fold, along the probe’s LDA axis. The line is a coin toss; lines on bars: 95 % intervals over "
        "groups."
    )
    about = {"title": "What the states tell", "x": "where", "y": "AUROC"}
    spec = bar_figure(rows, places, ("position", "measure"), names, caption=caption, **about)
    on_unit_axis(spec)
    across(spec, 0.5, **DOTTED)
    return spec


@Drawing
def lift_layers_by_model(
    by_layer: Table, *, from_span: str, to_span: str, names: Sequence[str], subset: str = "all"
) -> Spec:
    """Attention over the distance-matched baseline by layer, a line for each model.

    Args:
        by_layer: the comparison's ``attention_by_layer``, with ``model``.
        from_span, to_span: whose rows attend, and to what.
        names: the models, in their order.
        subset: which traces.

    Returns:
        Lines over layers on a log axis, 1 = no more than the distance-matched baseline.

    Raises:
        RunError: no row for the selection.
    """
    rows = select(by_layer, "attention_by_layer", from_span=from_span, to_span=to_span, subset=subset)
    rows = select(rows, "attention_by_layer", measure="lift_over_matched")
    data: list[Spec] = []
    for place, name in enumerate(names):
        of_model = rows[rows["model"] == name].sort_values("layer")
        data += line(of_model, "layer", name=name, **look_of(place))
    caption = (
        f"Attention of {ROWS[from_span]} on {SPANS[to_span]}, mean over heads, over the distance-matched "
        f"baseline; 1 is no more (n = {counts(rows['n'])} traces). Bands: 95 % intervals over groups."
    )
    title = f"Attention on {named(SPANS, to_span)} by layer"
    spec = finish(data, caption, table="lines", title=title, x="layer", y="× distance-matched baseline")
    on_log_axis(spec)
    on_whole_layers(spec, rows["layer"])
    return spec


@Drawing
def auroc_layers_by_model(separability: Table, *, position: str, names: Sequence[str]) -> Spec:
    """AUROC of the probe by layer, a line for each model.

    Args:
        separability: the comparison's ``separability``, with ``model``.
        position: which states.
        names: the models, in their order.

    Returns:
        Lines over layers; the last place is the final norm of the deepest model.

    Raises:
        RunError: no row for the selection.
    """
    method = estimator_in(separability)
    rows = select(separability, "separability", position=position, method=method).dropna(subset=["auroc"])
    data: list[Spec] = []
    axis = LayerAxis(rows)
    for place, name in enumerate(names):
        of_model = rows[rows["model"] == name]
        # A final norm stands one place after the last layer of its own model.
        of_model = of_model.assign(x=LayerAxis(of_model).of).sort_values("x")
        data += line(of_model, "x", AUROC, name=name, **look_of(place))
    if not data:
        raise RunError(f"separability: no AUROC at {position!r}")
    probe = escape(probe_words(separability).name)
    caption = (
        f"AUROC of the {probe} at the position “{POSITIONS.get(position, position)}” (n = {counts(rows['n'])} "
        "traces). Bands: 95 % intervals over groups. The line is a coin toss."
    )
    title = f"AUROC by layer, {named(POSITIONS, position)}"
    spec = finish(data, caption, table="lines", title=title, x="layer", y="AUROC")
    spec["layout"]["xaxis"] |= {"tickvals": axis.ticks, "ticktext": axis.texts}
    across(spec, 0.5, **DOTTED)
    return spec


@Drawing
def score_by_benchmark(benchmarks: Table, *, names: Sequence[str]) -> Spec:
    """The number that stands for each benchmark, a bar for each model.

    Args:
        benchmarks: the run's ``benchmarks``.
        names: the models, in their order.

    Returns:
        Bars with 95 % intervals where the harness gives a standard error.

    Raises:
        RunError: no number in the table.
    """
    rows = benchmarks[benchmarks["is_main"]]
    metrics = rows.drop_duplicates("benchmark").set_index("benchmark")["metric"]
    places = {(str(name), str(metric)): _short(str(name)) for name, metric in metrics.items()}
    sizes = rows.assign(n=rows["n"].astype(float)).groupby("benchmark", sort=False)["n"]
    said = "; ".join(f"{name}: {metrics[name]}, n = {counts(n) if n.notna().all() else 'unknown'}" for name, n in sizes)
    caption = f"What each harness counts ({said}). Lines: 95 % intervals from the harness’s standard error over tasks."
    about = {"title": "Benchmarks", "x": "benchmark", "y": "score"}
    spec = bar_figure(rows, places, ("benchmark", "metric"), names, caption=caption, **about)
    spec["layout"]["xaxis"]["autotickangles"] = [0, 90]  # slanted names hide one another on a small screen
    if rows["value"].between(0, 1).all():
        on_unit_axis(spec)
    return spec


def _short(name: str) -> str:
    """A benchmark's name where there is little room; a task's path by its end."""
    end = name.rsplit("/", 1)[-1].removeprefix("lm-eval:").removeprefix("inspect:")
    return end if len(end) <= _MOST_OF_NAME else f"{end[:_MOST_OF_NAME]}…"
