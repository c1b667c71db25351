"""Question 3, attention of the key sentence on prompt and understanding, with controls.

SafeKey (Zhou et al. 2025, arXiv 2505.16186) compares the mass of K on X and on U in the last layer, mean over heads,
and finds more on X. That number is here too, beside a uniform baseline, random keys and a distance-matched baseline, by
layer and by head, for K and for the position ``decision`` (the last before K).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.paper import attention_claims, q3_knockout
from analysis.paper.export import Answer, Sheet
from analysis.paper.model_pairs import sheets_of
from analysis.paper.models import Bench
from analysis.paper.sheets import Composition, Drawn, Table, kinds_of, model_in_words, with_something
from analysis.results import provenance
from safekey_interp.errors import RunError
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.attention_figures import CHANCE, largest_lift
from safekey_interp.reporting.figures.figure_grid import Panel
from safekey_interp.reporting.figures.figure_numbers import counts
from safekey_interp.reporting.figures.subset_figures import RATIOS, Kind
from safekey_interp.reporting.findings.finding import estimate
from safekey_interp.runs.run_folder import Run

NAME = "fig_attention"
VIEWS = {
    ("key_sentence", "prompt"): "K on X",
    ("key_sentence", "understanding"): "K on U",
    ("decision", "prompt"): "decision on X",
    ("decision", "understanding"): "decision on U",
}
"""Whose attention on what, from left to right."""
MEASURED = {"prompt": "measured, on X", "understanding": "measured, on U"}
"""The names of the measured lines, which have a colour for each span."""
MASSES = ("mass", "matched_mass", "random_mass", "uniform_mass")
"""The measured mass and its controls."""
COLUMNS = (
    *("panel", "from_span", "to_span", "subset", "layer", "head", "measure", "role", "value", "low", "high"),
    *("control", "control_value", "n", "n_groups", "seed"),
)


def answer(bench: Bench) -> Answer:
    """A figure for each model, what comes of it, and what they say of claims 3a to 3c.

    Raises:
        RunError: no model has attention from K.
    """
    sheets = sheets_of(bench, draw)
    if not bench.specs:
        return Answer(sheets=sheets, measured=[])
    causes, of_causes = q3_knockout.draw(bench)
    measured = [*attention_claims.claims(bench), *of_causes]
    return Answer(sheets=[*sheets, *([causes] if causes else [])], measured=measured)


def draw(run: Run) -> Sheet:
    """The figure of one run.

    Raises:
        RunError: the run has no attention from K.
    """
    by_layer, by_head = run.attention_by_layer, run.attention_by_head
    if by_layer is None or by_head is None or "key_sentence" not in set(by_layer["from_span"]):
        raise RunError(f"run {run.path}: no attention, expected traces with a key sentence")
    by_layer, by_head = _shown(by_layer, "measure"), _shown(by_head, "head")
    kinds = kinds_of(run, by_layer)
    by_head = by_head[by_head["subset"] == "all"]
    views = [view for view in VIEWS if not _at(by_head, view).empty]
    seen: Table = pd.concat([_at(by_head, view) for view in views])
    mass_end, lift_end = float(seen["mass"].max()), largest_lift(seen, against="matched")
    figure = Composition()
    figure.add(
        [_mass(by_layer, view) for view in views],
        caption=(
            f"Mass by layer, mean over heads, beside three controls: {CHANCE['matched']} (what U’s own tokens give to "
            f"tokens as far away), {CHANCE['random']} of like share, {CHANCE['uniform']}."
        ),
        heading="Attention mass by layer, mean over heads, beside its controls",
        order=tuple(MEASURED.values()),
        height=200,
    )
    figure.add(
        with_something(_lift(by_layer, view, kinds) for view in views),
        caption="The same mass over the distance-matched baseline to the same traces; 1: distance explains it.",
        heading="The same over the distance-matched baseline, by kind of traces",
    )
    figure.add(
        [_heads(by_head, view, mass_end) for view in views],
        caption="Mass by head.",
        heading="Attention mass by head",
        scale="mass",
        height=150,
    )
    figure.add(
        [_heads_over_distance(by_head, view, lift_end) for view in views],
        caption="By head, over the distance-matched baseline; heads have no interval, so look there and claim nothing.",
        heading="By head, over the distance-matched baseline (blue: more, brown: less)",
        scale="log2 of the ratio",
        height=150,
    )
    paper = _paper(by_layer, kinds)
    drawn = pd.concat([figure.numbers(), paper], ignore_index=True).assign(seed=run.manifest["seed"])
    caption = _caption(run, figure.words(), by_layer, paper)
    return Sheet(
        name=NAME,
        title=f"What the key sentence attends to, in {model_in_words(run)}",
        caption=caption,
        spec=figures.grid.spec(figure.rows, caption=caption),
        numbers={NAME: drawn.reindex(columns=list(COLUMNS))},
        table=_paper_in_words(paper, kinds),
        table_caption=(
            f"The paper’s measure: layer {int(paper['layer'].iloc[0])} (the last with a pattern), mean over heads, sum "
            "over the span, mean over K’s tokens; 95 % over prompts"
        ),
        source=provenance(run),
    )


def _shown(table: Table, kind: str) -> Table:
    value = "value" if kind == "measure" else "mass"
    return table[np.isfinite(table[value].astype(float))]


def _at(table: Table, view: tuple[str, str]) -> Table:
    return table[(table["from_span"] == view[0]) & (table["to_span"] == view[1])]


def _mass(by_layer: Table, view: tuple[str, str]) -> Drawn:
    rows = _at(by_layer, view)
    rows = rows[(rows["subset"] == "all") & rows["measure"].isin(MASSES)]
    spec = figures.mass_by_layer.spec(rows, from_span=view[0], to_span=view[1])
    roles = np.where(rows["measure"] == "mass", "measured", "control")
    return Panel(title=VIEWS[view], spec=spec, names={"measured": MEASURED[view[1]]}), rows.assign(role=roles)


def _lift(by_layer: Table, view: tuple[str, str], kinds: Sequence[Kind]) -> Drawn | None:
    rows = _at(by_layer, view)
    rows = rows[rows["subset"].isin([kind.subset for kind in kinds]) & (rows["measure"] == RATIOS["matched"])]
    kept = [kind for kind in kinds if (rows["subset"] == kind.subset).any()]
    if not kept:
        return None
    spec = figures.lift_by_kind.spec(rows, kinds=kept, from_span=view[0], to_span=view[1])
    return Panel(title=VIEWS[view], spec=spec), _ratios(rows)


def _heads(by_head: Table, view: tuple[str, str], end: float) -> Drawn:
    rows = _at(by_head, view)
    spec = figures.mass_heatmap.spec(rows, from_span=view[0], to_span=view[1], limit=end)
    table = rows.assign(
        measure="mass", role="measured", value=rows["mass"], control="uniform", control_value=rows["uniform_mass"]
    )
    return Panel(title=VIEWS[view], spec=spec), table


def _heads_over_distance(by_head: Table, view: tuple[str, str], end: float) -> Drawn:
    rows = _at(by_head, view)
    spec = figures.lift_heatmap.spec(rows, from_span=view[0], to_span=view[1], against="matched", limit=end)
    control = rows["matched_mass"].where(rows["matched_mass"] > 0)
    return Panel(title=VIEWS[view], spec=spec), _ratios(
        rows.assign(measure=RATIOS["matched"], value=rows["mass"] / control)
    )


def _ratios(rows: Table) -> Table:
    return rows.assign(role="measured", control="matched", control_value=1.0)


def _paper(by_layer: Table, kinds: Sequence[Kind]) -> Table:
    """K's mass on X and on U at the last layer, with its controls, for all traces and each kind."""
    rows = by_layer[(by_layer["from_span"] == "key_sentence") & by_layer["measure"].isin(MASSES)]
    rows = rows[rows["to_span"].isin(["prompt", "understanding"]) & (rows["layer"] == rows["layer"].max())]
    rows = rows[rows["subset"].isin(["all", *(kind.subset for kind in kinds)])]
    roles = np.where(rows["measure"] == "mass", "measured", "control")
    return rows.assign(panel="paper's measure", role=roles)


def _paper_in_words(paper: Table, kinds: Sequence[Kind]) -> pd.DataFrame:
    table = []
    named = {"all": "all"} | {kind.subset: kind.name for kind in kinds if kind.subset != "all"}
    for subset, name in named.items():
        row: dict[str, Any] = {"traces": name}
        for span, short in (("prompt", "X"), ("understanding", "U")):
            measures = paper[(paper["subset"] == subset) & (paper["to_span"] == span)].set_index("measure")
            row[f"K on {short}"] = estimate(measures.loc["mass"]).text(".3f") if "mass" in measures.index else "n/a"
            for control, words in (("matched_mass", "distance-matched"), ("uniform_mass", "uniform")):
                there = control in measures.index
                row[f"{short}: {words}"] = f"{measures.loc[control, 'value']:.3f}" if there else "n/a"
        measures = paper[(paper["subset"] == subset) & (paper["measure"] == "mass")]
        table.append(row | {"n": counts(measures["n"]), "prompts": counts(measures["n_groups"])})
    return pd.DataFrame(table)


def _caption(run: Run, panels: str, by_layer: Table, paper: Table) -> str:
    all_traces = by_layer[(by_layer["subset"] == "all") & (by_layer["measure"] == "mass")]
    last = paper[paper["subset"] == "all"].set_index(["to_span", "measure"])
    masses = [
        f"{short} {estimate(last.loc[(span, 'mass')]).text('.3f')} (the uniform baseline would give "
        f"{last.loc[(span, 'uniform_mass'), 'value']:.3f})"
        for span, short in (("prompt", "X"), ("understanding", "U"))
        if (span, "mass") in last.index and (span, "uniform_mass") in last.index
    ]
    return (
        f"Attention of the key sentence K, and of the position that decides (the last before K), on the prompt X and "
        f"on the understanding U, in {model_in_words(run)}. {panels} Bands: 95 % over prompts; n = "
        f"{counts(all_traces['n'])} traces of {counts(all_traces['n_groups'])} prompts. The paper’s measure (layer "
        f"{int(paper['layer'].iloc[0])}, mean over heads): K gives {' and '.join(masses) or 'nothing measured'}."
    )
