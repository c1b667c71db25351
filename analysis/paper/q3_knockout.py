"""Question 3, knockout: U and X replaced by another request's, or hidden from the key sentence.

On harmful prompts where K is an aha moment: the keys and values of U (or X) for K and the token before it are
replaced by those of another request, benign or harmful, or hidden
(:mod:`safekey_interp.interventions.attention_knockout`); the change of safe minus compliant key sentences, in nats per
token. Another harmful request is the control: a replacement without a change of label. Benign prompts in the other
direction, hidden parts of U (dose) and random keys outside both spans are in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.paper.export import Sheet
from analysis.paper.models import Bench, of_many_groups
from analysis.paper.sheets import Composition, Drawn, toy_in_words
from analysis.paper.verdicts import Measured, unmeasured
from safekey_interp.data.conditions import FEW
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.donors import OTHER, SAME, find_donors
from safekey_interp.interventions.effects import TESTED
from safekey_interp.interventions.knockout_plan import DOSE, OUTSIDE
from safekey_interp.interventions.knockout_summary import CONTRAST, EFFECT, summarise_knockout
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_grid import Panel

NAME = "fig_causes"
QUERIES = "decision+key_sentence"
SPANS = {"understanding": "U", "prompt": "X"}
CASES = {"aha": "harmful, K is an aha", "benign": "benign"}
KINDS = {
    TESTED: "{} hidden",
    SAME: "{} of another harmful request",
    OTHER: "{} of a benign request",
}
"""What is drawn by layer, of harmful prompts, from bottom to top."""


class Size(NamedTuple):
    """How much is asked of a model."""

    most: int
    """Traces of a case."""
    n_donors: int
    """Other requests of each label."""
    every_layer: int
    """One of so many layers is replaced alone, the last among them."""
    n_random: int
    """Random sets of keys outside both spans."""
    n_dose: int
    """Random parts of U of each share."""


TOY, LANGUAGE_MODEL = Size(32, 4, 1, 8, 4), Size(12, 2, 5, 4, 2)
"""Of four layers and 60 tokens; of thirty layers and 160 tokens, which take two cores some minutes a model."""


def draw(bench: Bench) -> tuple[Sheet | None, list[Measured]]:
    """The figure, None where no model has an aha moment, and what it says of claim 3c."""
    by_layer, together = {}, {}
    for name in bench.names:
        cases = _cases(bench, name)
        if "aha" not in cases:
            continue
        donors = find_donors(bench.model(name), [trace for traces in cases.values() for trace in traces])
        for case, traces in cases.items():
            try:
                together[name, case] = _table(bench, name, case, traces, donors, spans=("understanding",))
                if case == "aha":
                    one_by_one = _one_by_one(bench, name)
                    by_layer[name] = _table(bench, name, case, traces, donors, spans=tuple(SPANS), **one_by_one)
            except InputError:  # no trace of the case can be cut
                continue
    measured = [claim for name in bench.names for claim in _claims(bench, name, together.get((name, "aha")))]
    shown = [name for name in bench.names if name in by_layer]
    if not shown:
        return None, measured
    figure = Composition()
    for span, short in SPANS.items():
        words = f"{short} replaced or hidden, by layer"
        figure.add(
            [_panel(name, by_layer[name], span) for name in shown],
            caption=f"{CASES['aha']}: change of safe minus compliant when K and the token before it see the keys and "
            f"values of another request’s {short}, or none of it, by layer.",
            heading=f"{words[0].upper()}{words[1:]}",
            height=200,
        )
    sizes = ", ".join(f"{name} {by_layer[name]['trace_id'].nunique()}" for name in shown)
    caption = (
        f"{figure.words()} Other requests: those of each label that are best matched in length. n with an aha: {sizes}"
        f"{toy_in_words(bench)}. Bands: 95 % over prompts and, of other requests, over these too."
    )
    sheet = figure.sheet(
        name=NAME,
        title="What comes of what the key sentence looks at",
        caption=caption,
        seed=bench.seed,
        table=_in_words(together),
        table_caption="All layers at once: change of safe minus compliant (nats per token), 95 % over prompts",
        source=bench.source(),
    )
    return sheet, measured


def _table(
    bench: Bench,
    name: str,
    case: str,
    traces: Sequence[Trace],
    donors: Sequence[Any],
    *,
    spans: tuple[str, ...],
    **how: Any,
) -> pd.DataFrame:
    """Effects of one case, kept where they were measured before."""
    size = _size(bench, name)
    options: dict[str, Any] = {"n_random": size.n_random, "n_dose": size.n_dose, "n_donors": size.n_donors}
    options |= {"seed": bench.seed} | how
    ids = [trace.trace_id for trace in traces], [donor.trace_id for donor in donors]
    depends = [QUERIES, spans, sorted(options.items()), *ids]
    model = bench.model(name)
    return bench.kept(
        name,
        depends,
        lambda done: knockout(model, traces, QUERIES, spans, others=donors, on_trace=done, **options),
        stage=f"knockout, {CASES[case]}{', layer by layer' if how else ''}",
        total=len(traces),
    )


def _one_by_one(bench: Bench, name: str) -> dict[str, Any]:
    """Options of layers one after another."""
    layers = sorted(range(bench.model(name).n_layers - 1, -1, -_size(bench, name).every_layer))
    return {"by": "layer", "layers": layers, "controls": list(KINDS)[1:]}


def _size(bench: Bench, name: str) -> Size:
    return TOY if bench.is_toy(name) else LANGUAGE_MODEL


def _cases(bench: Bench, name: str) -> dict[str, list[Trace]]:
    if name not in bench.probes:
        return {}
    rows = bench.outcomes(name)
    wanted = {
        "aha": set(rows[(rows["label"] == "harmful").fillna(False) & (rows["aha"] == "safe").fillna(False)].index),
        "benign": set(rows[(rows["label"] == "benign").fillna(False) & (rows["aha"] != "safe").fillna(False)].index),
    }
    answers = bench.answers(name)
    most = _size(bench, name).most
    chosen = {case: of_many_groups([t for t in answers if t.trace_id in ids], most) for case, ids in wanted.items()}
    return {case: traces for case, traces in chosen.items() if len(traces) >= FEW}


def _rows(table: Any) -> Any:
    """The summary's rows of safe minus compliant, all traces together."""
    summary: Any = summarise_knockout(table)
    return summary[(summary["metric"] == "difference") & (summary["subset"] == "all") & (summary["dose"] == 1)]


def _panel(name: str, table: Any, span: str) -> Drawn:
    short, rows = SPANS[span], []
    summary_rows = _rows(table)
    summary_rows = summary_rows[(summary_rows["to_span"] == span) & (summary_rows["measure"] == EFFECT)]
    for kind, words in KINDS.items():
        there = summary_rows if kind == TESTED else summary_rows[summary_rows["control_kind"] == kind]
        what = "value" if kind == TESTED else "control"
        bounds = ("low", "high") if kind == TESTED else ("control_low", "control_high")
        for _, row in there.drop_duplicates("layer").dropna(subset=[what]).iterrows():
            numbers = {key: row[column] for key, column in zip(("value", "low", "high"), (what, *bounds), strict=True)}
            about = {"x": int(row["layer"]), "series": words.format(short)}
            rows.append(about | numbers | {"n": int(row["n"]), "n_groups": int(row["n_groups"])})
    drawn = pd.DataFrame(rows)
    spec = figures.estimates_as_lines.spec(
        drawn, title=name, x="layer", y="nats per token", caption=f"{short} replaced by layer, {name}", across_at=0.0
    )
    return Panel(title=name, spec=spec), drawn.assign(model=name)


def _claims(bench: Bench, name: str, table: Any | None) -> list[Measured]:
    about: dict[str, Any] = {"claim": "3c", "model": name, "toy": bench.is_toy(name)}
    if table is None:
        return [unmeasured(why="too few traces whose K is an aha", evidence="resampled U", **about)]
    rows = _rows(table)
    note = f"all layers at once; U hidden by share: {_dose_in_words(table)}"
    means = {kind: row["control"] for kind, row in rows.set_index("control_kind").iterrows() if kind in (SAME, OTHER)}
    contrast, outside = rows[rows["measure"] == CONTRAST], rows[rows["control_kind"] == OUTSIDE]
    claims = []
    for evidence, candidates, column, why in (
        ("resampled U", contrast, "value", "no other request of each label to take U from"),
        ("hidden U", outside, "excess", "fewer keys outside X and U than U has"),
    ):
        part = candidates.dropna(subset=[column])
        if part.empty:
            claims.append(unmeasured(why=why, evidence=evidence, **about))
            continue
        row = part.iloc[0]
        words = f"benign U {means[OTHER]:+.2f}, other harmful U {means[SAME]:+.2f}" if evidence == "resampled U" else ""
        low, high = ("low", "high") if column == "value" else (f"{column}_low", f"{column}_high")
        numbers: dict[str, Any] = {"value": float(row[column]), "low": float(row[low]), "high": float(row[high])}
        numbers |= {"n": int(row["n"]), "n_groups": int(row["n_groups"])}
        words = words or f"U hidden {row['value']:+.2f}, keys outside {row['control']:+.2f}"
        claims.append(Measured(evidence=evidence, control_value=words, note=note, **about, **numbers))
    return claims


def _dose_in_words(table: Any) -> str:
    rows = table[(table["metric"] == "difference") & table["control"].isin([TESTED, DOSE])]
    means = rows.groupby("dose")["effect"].mean().dropna()
    return ", ".join(f"{dose:g} {value:+.2f}" for dose, value in means.items())


def _in_words(together: dict[tuple[str, str], Any]) -> pd.DataFrame:
    shown = []
    for (name, case), table in together.items():
        rows = _rows(table)
        effect = rows[rows["measure"] == EFFECT]
        row: dict[str, Any] = {"model": name, "traces": CASES[case], "U hidden": _sure(effect, "value")}
        row["U of the other label"] = _sure(effect[effect["control_kind"] == OTHER], "control")
        row["U of the same label"] = _sure(effect[effect["control_kind"] == SAME], "control")
        row["other minus same"] = _sure(rows[rows["measure"] == CONTRAST], "value")
        row["random keys outside X and U"] = _sure(effect[effect["control_kind"] == OUTSIDE], "control")
        shown.append(row | {"U hidden by share": _dose_in_words(table), "n": str(table["trace_id"].nunique())})
    return pd.DataFrame(shown)


def _sure(rows: Any, name: str) -> str:
    """The first row's number with its interval."""
    rows = rows.dropna(subset=[name])
    if rows.empty:
        return "n/a"
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    row = rows.iloc[0]
    sure = f" [{row[low]:+.2f}, {row[high]:+.2f}]" if np.isfinite(row[low]) else ""
    return f"{row[name]:+.2f}{sure}"
