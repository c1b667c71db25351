"""Forest plots that sum up a run: key sentences by label, attention beside its baselines, effects beside controls.

Each draws a few numbers of one table with their intervals and the numbers that they must be compared with; the figures
by layer and by head say where they come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from safekey_interp.data.conditions import Conditions
from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.estimate_figures import TONES, estimates_as_forest
from safekey_interp.reporting.figures.figure_numbers import counts, sizes
from safekey_interp.reporting.figures.figure_parts import finish
from safekey_interp.reporting.figures.figure_style import PALETTE, Drawing, Spec, Table, escape
from safekey_interp.reporting.findings.finding import estimate, share
from safekey_interp.reporting.findings.intervention_terms import CONTROL
from safekey_interp.reporting.findings.phrases import and_list
from safekey_interp.reporting.labels import BUILT_IN_NAMES, VALUE, Names, title_of

_DECIDES = {"safe": "K turns safe", "unsafe": "K complies"}
_BESIDE = {
    "mass": "measured",
    "matched_mass": "distance-matched baseline",
    "uniform_mass": "uniform baseline",
}
_ALL: Mapping[str, str] = {"all": ""}
_COMPARED = ("attack_success", "suite_attack_success", "over_refusal", "refusal", "aha", "dormant_signal")


@Drawing
def aha_by_condition(traces: Table, *, conditions: Conditions) -> Spec:
    """How often the key sentence turns safe and how often it complies, by label and condition.

    Args:
        traces: the run's ``traces``; those whose K was not read (``aha`` is missing) are in no share.
        conditions: those that the run tells apart.

    Returns:
        A forest plot of shares with 95 % intervals over prompts.

    Raises:
        RunError: no trace with a key sentence that was read.
    """
    read = traces[traces["key_sentence"].notna() & (traces["status"] == "measured") & traces["aha"].notna()]
    rows = []
    for name, label in itertools.product(conditions.names or (None,), (*conditions.labels, None)):
        part = read[read["label"].isna() if label is None else read["label"] == label]
        part = part if name is None else part[part["condition"] == name]
        whose = ", ".join(filter(None, [name, "no label" if label is None else label]))
        for aha, series in _DECIDES.items() if len(part) else ():
            number = share(part["aha"] == aha, part["group"])
            rows.append({"place": f"{whose} (n\u00a0=\u00a0{len(part):,})", "series": series, **number._asdict()})
    if not rows:
        raise RunError("traces: no key sentence was read")
    caption = (
        f"Share of traces whose key sentence K turns safe, and of those where it complies; the others do neither "
        f"(n = {len(read):,} traces in {read['group'].nunique():,} groups). Lines: 95 % intervals over groups."
    )
    title, tones = "What K decides", ("prompt", "key_sentence")
    return estimates_as_forest.spec(
        pd.DataFrame(rows), title=title, x="share of traces", caption=caption, percent=True, tones=tones
    )


@Drawing
def attention_beside_baselines(
    by_layer: Table,
    *,
    queries: Sequence[str],
    keys: Sequence[str],
    subsets: Mapping[str, str] = _ALL,
    names: Names = BUILT_IN_NAMES,
) -> Spec:
    """Attention mass in the last measured layer, mean over heads, beside the two baselines, for each pair of spans.

    Args:
        by_layer: the run's ``attention_by_layer``.
        queries: spans that attend, in order.
        keys: spans that are attended to, in order.
        subsets: which traces, with what stands before their rows.
        names: words for spans.

    Returns:
        A forest plot: measured, distance-matched baseline, uniform baseline.

    Raises:
        RunError: none of the pairs has a number.
    """
    wanted = {"subset": list(subsets), "from_span": queries, "to_span": keys, "measure": list(_BESIDE)}
    rows = by_layer[by_layer[list(wanted)].isin(wanted).all(axis=1)].dropna(subset=["value"])
    if rows.empty:
        raise RunError("attention_by_layer: no number for any of the pairs of spans")
    last = int(rows.loc[rows["measure"] == "mass", "layer"].max())
    rows = rows[rows["layer"] == last]
    order = list(itertools.product(subsets, queries, keys, _BESIDE))
    at = [*zip(*(rows[column].astype(str) for column in wanted), strict=True)]
    table = rows.assign(
        place=[", ".join(filter(None, [subsets[subset], _pair(names, *pair)])) for subset, *pair, _ in at],
        series=[_BESIDE[measure] for *_, measure in at],
        order=list(map(order.index, at)),
    ).sort_values("order")
    caption = (
        f"Attention mass in layer {last}, the last that was measured, mean over heads, and what the span would get at "
        f"its distance and if attention were even. {sizes(rows)}; lines: 95 % intervals over groups."
    )
    spec = estimates_as_forest.spec(table, title="Attention beside its baselines", x="attention mass", caption=caption)
    spec["layout"]["xaxis"]["rangemode"] = "tozero"
    return spec


@Drawing
def effects_beside_controls(
    rows: Table, *, places: Sequence[str], controls: Mapping[str, Table], unit: str, whose: str
) -> Spec:
    """Effects of an intervention, each beside its controls.

    Args:
        rows: of its summary: value, low, high, n, n_groups.
        places: what each row is called.
        controls: each kind of control in words, with rows of the same places in the same order: control, control_low,
            control_high, n_groups, NaN where there is none.
        unit: of the values, in words.
        whose: which traces, in words.

    Returns:
        A forest plot: measured, and each control that has a number; no effect is a line at 0.

    Raises:
        RunError: no number in the rows.
    """
    drawn = {words: table for words, table in controls.items() if table["control"].notna().any()}
    series = [("measured", rows, VALUE), *((words, table, CONTROL) for words, table in drawn.items())]
    numbers = [
        {"place": place, "series": name, **dict(zip(VALUE, estimate(row, *bounds), strict=True))}
        for name, table, bounds in series
        for place, (_, row) in zip(places, table.iterrows(), strict=True)
    ]
    if not numbers:
        raise RunError("summary: no row with a number for the selection")
    beside = f", beside {and_list(list(drawn))}" if drawn else "; no control has a number there"
    caption = f"On {whose}{beside}. {sizes(rows)}. Lines: 95 % intervals over groups, each of one place."
    about = {"title": "Effect beside its controls", "x": unit, "caption": caption, "across_at": 0}
    return estimates_as_forest.spec(pd.DataFrame(numbers), **about)


@Drawing
def effect_by_trace(effects: Table, *, control: str, unit: str) -> Spec:
    """The effect of an intervention on each trace at one place, beside its control, in the order of their difference.

    Args:
        effects: trace_id, label, effect, control (NaN where there is none), excess.
        control: what the control is, in words.
        unit: of the values, in words.

    Returns:
        Points, a trace at each place of the axis; the traces that moved most lie at the ends.

    Raises:
        RunError: no trace has a number.
    """
    ordered = effects.sort_values("excess", kind="stable").dropna(subset=["effect"])
    if ordered.empty:
        raise RunError("effects: no trace has a number")
    data: list[Spec] = []
    for column, name, tone, symbol in (
        ("control", control, "control", "diamond-open"),
        ("effect", "measured", "prompt", "circle"),
    ):
        there = ordered[column].notna().to_numpy()
        ids, color = [str(value) for value in ordered["trace_id"][there]], PALETTE[tone].light
        data += [
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(name),
                "x": [at + 1 for at, is_there in enumerate(there) if is_there],
                "y": [round(float(value), 4) for value in ordered[column][there]],
                "customdata": ids,
                "text": [escape(value) for value in ids],
                "marker": {"size": 7, "color": color, "symbol": symbol, "line": {"width": 1.5, "color": color}},
                "hovertemplate": "%{text}<br>%{y:.3f}",
            }
        ] * bool(ids)
    top = ordered.loc[ordered["excess"].abs().idxmax()]
    beside = f", {control} {top['control']:+.3f}" if pd.notna(top["control"]) else ""
    caption = f"Trace {top['trace_id']} moved most: {top['effect']:+.3f}{beside}. n = {len(ordered):,} traces."
    order = "measured minus control" if ordered["control"].notna().any() else "effect"
    spec = finish(data, caption, table="points", title="Effect on each trace", x=f"traces, by {order}", y=unit)
    spec["layout"]["legend"] = {"traceorder": "reversed"}  # what was measured is drawn last, and told first
    line = {"color": PALETTE["muted"].light, "width": 1}
    spec["layout"]["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": line}]
    return spec


@Drawing
def differences_of_models(comparison: Table, *, names: Sequence[str], conditions: Conditions) -> Spec:
    """Differences of the other models from the first: shares of answers and key sentences, and AUROC.

    Args:
        comparison: the run's ``comparison``.
        names: the models, in their order; the first is subtracted.
        conditions: those that are told apart; their own rows stay in the table.

    Returns:
        A forest plot; no difference is a line at 0.

    Raises:
        RunError: no difference in the table.
    """
    rows = comparison[comparison["other"].notna() & (comparison["model"] == names[0])]
    shares = rows["measure"].isin(_COMPARED) & ~rows["subset"].isin(list(conditions.words()))
    rows = rows[(shares & (rows["subset"] != "unlabelled")) | (rows["measure"] == "auroc")]
    if rows.empty:
        raise RunError("comparison: no difference of two models")
    table = pd.DataFrame(
        [
            {"place": _compared(row, conditions), "series": f"{row['other']} minus {row['model']}"}
            | dict(zip(VALUE, estimate(row), strict=True))
            for _, row in rows.iterrows()
        ]
    )
    caption = (
        f"Differences on the same prompts (n = {counts(rows['n'])}): shares of traces, and AUROC as the median over "
        "layers. Lines: 95 % intervals over prompts; nothing is corrected for the number of rows."
    )
    tones = [tone for tone in TONES if tone != "control"]
    unit = difference_unit(table["series"])
    return estimates_as_forest.spec(table, title="What differs", x=unit, caption=caption, across_at=0, tones=tones)


def difference_unit(series: Iterable[str]) -> str:
    """What an axis of differences is called: the one series, which then needs no legend, or that they are several."""
    names = list(dict.fromkeys(series))
    return escape(names[0]) if len(names) == 1 else "difference"


def _compared(row: Mapping[str, object], conditions: Conditions) -> str:
    if row["measure"] == "auroc":
        return f"AUROC {BUILT_IN_NAMES.place(row)}"
    return title_of(str(row["measure"]), str(row["subset"]), conditions)


def _pair(names: Names, query: str, key: str) -> str:
    return f"{_short(names, query)} on {_short(names, key)}"


def _short(names: Names, span: str) -> str:
    """A span where there is little room: the letter before its words; one without words as it was typed."""
    return names.spans[span].partition(",")[0] if span in names.spans else span
