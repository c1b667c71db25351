"""Question 4, hidden states before the key sentence: separability, and transfer to wrapped prompts.

Separability of harmful and benign prompts (or of unsafe and safe outcomes, as the run has it) by position and layer,
beside shuffled labels and the text baseline; each trace at one site; and probes fitted on one condition and tested on
another.

The site of the scatter plot was fixed before any run: the position ``decision`` after the final norm, since SafeKey's
heads read the last hidden state. Where a run does not have it: the last measured layer and the end of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis.paper import representation_claims
from analysis.paper.export import Answer, Sheet
from analysis.paper.model_pairs import sheets_of
from analysis.paper.models import Bench
from analysis.paper.sheets import Composition, Drawn, Table, model_in_words, shown_conditions
from analysis.results import provenance
from safekey_interp.errors import RunError
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_grid import Panel
from safekey_interp.reporting.figures.figure_numbers import counts
from safekey_interp.reporting.figures.figure_style import escape
from safekey_interp.reporting.findings.finding import AUROC_OVER_LAYERS, estimate
from safekey_interp.reporting.labels import METHODS, POSITIONS
from safekey_interp.runs.run_folder import Run

NAME = "fig_representations"
SITES = ("decision", "prompt_end", "prompt")
"""Positions of the scatter, the first that the run has."""
TRANSFERS = ("prompt", "understanding", "decision")
"""Positions at which probes are moved from one condition to another."""
ACROSS = 3
"""Panels side by side."""
LINES = (METHODS["logistic"], METHODS["diff_of_means"], METHODS["text_tfidf"], "shuffled labels")
"""The legend, from top to bottom of most panels."""
_CAPTION = (
    "AUROC by layer of a logistic probe and of the difference of class means, out of fold (folds of whole prompts), "
    "with 95 % over prompts, beside shuffled labels (mean and 95 % of shuffles) and the words of the same "
    "span alone."
)
AUROC = ("auroc", "auroc_low", "auroc_high")
COLUMNS = (
    *("panel", "position", "layer", "site", "method", "role", "fitted_on", "tested_on", "label_by"),
    *("value", "low", "high", "p_value", "p_value_over_layers"),
    *("n", "n_harmful", "n_benign", "n_groups", "n_folds", "seed", "note"),
)
POINTS = ("panel", "trace_id", "label", "condition", "position", "layer", "site", "lda", "pc1", "seed")


class _Site(NamedTuple):
    position: str
    layer: int
    site: str

    def words(self) -> str:
        where = "after the final norm" if self.site == "ln_final" else f"layer {self.layer}"
        return f"{POSITIONS.get(self.position, self.position)}, {where}"


def answer(bench: Bench) -> Answer:
    """A figure for each model, and what they say of claims 4a and 4b.

    Raises:
        RunError: no model's states could be probed.
    """
    sheets = sheets_of(bench, draw)
    if not bench.specs:
        return Answer(sheets=sheets, measured=[])
    return Answer(sheets=sheets, measured=representation_claims.claims(bench))


def draw(run: Run) -> Sheet:
    """The figure of one run.

    Raises:
        RunError: the run has no separability.
    """
    separability, coordinates = run.separability, run.coordinates
    if separability is None or coordinates is None or separability.empty:
        raise RunError(f"run {run.path}: no separability, expected traces of two classes")
    label_by = separability["label_by"].iloc[0]
    before: Table = separability[~separability["after_the_fact"].astype(bool) & (separability["label_by"] == label_by)]
    inner = before[before["method"] != "text_tfidf"]
    positions = [name for name in POSITIONS if (inner["position"] == name).any()]
    if not positions:
        raise RunError(f"run {run.path}: no separability before the key sentence")
    figure = Composition()
    for start in range(0, len(positions), ACROSS):
        figure.add(
            [_separability(before, position) for position in positions[start : start + ACROSS]],
            caption="" if start else _CAPTION,
            heading="" if start else "How well the states tell the classes apart, by position and layer",
            columns=ACROSS,
            order=LINES,
        )
    fitted_on, tested_on = _pair(run)
    figure.add(
        _transfers(run.transfer, positions, fitted_on, tested_on),
        caption=(
            f"The probe fitted on {fitted_on} prompts and tested on {tested_on} ones, beside one fitted where it is "
            "tested; no prompt, nor a wrapped form of it, is on both sides."
        ),
        heading=escape(f"Fitted on {fitted_on} prompts, tested on {tested_on} ones"),
        columns=ACROSS,
        order=(f"fitted on {fitted_on}", f"fitted on {tested_on} itself", *LINES[-2:]),
    )
    site = _site_of(coordinates)
    figure.add(
        _scatters(run, coordinates, site),
        caption=(
            f"Each trace at a site that was fixed before any run was looked at ({site.words()}, where SafeKey’s own "
            "heads read): across, the score of a linear discriminant that never saw the trace; up, the first principal "
            "component."
        ),
        kind="points",
        heading=f"Each trace at one site, fixed beforehand: {site.words()}",
        height=260,
        columns=2,
        order=("harmful", "benign"),
    )
    caption = _caption(run, figure.words(), before)
    seed = run.manifest["seed"]
    drawn = figure.numbers().assign(seed=seed).reindex(columns=list(COLUMNS))
    placed = figure.numbers("points").assign(seed=seed).reindex(columns=list(POINTS))
    return Sheet(
        name=NAME,
        title=f"What the states know before the key sentence, in {model_in_words(run)}",
        caption=caption,
        spec=figures.grid.spec(figure.rows, caption=caption),
        numbers={NAME: drawn, f"{NAME}_points": placed},
        table=_in_words(before, positions),
        table_caption="The best layer of each position (picked after the fact), the median layer, and the controls",
        source=provenance(run),
    )


def _separability(before: Table, position: str) -> Drawn:
    rows = before[before["position"] == position]
    spec = figures.auroc_by_layer.spec(rows, position=position)
    null = rows[rows["method"] != "text_tfidf"].drop_duplicates(["layer", "site"])
    title = escape(POSITIONS.get(position, position))
    return Panel(title=title, spec=spec), _beside_shuffled(rows, null)


def _pair(run: Run) -> tuple[str, str]:
    """Fitted on the plain prompts, where there are any of that name, and tested on the others."""
    names = sorted(shown_conditions(run), key=lambda name: (name != "plain", name))
    return (names[0], names[1]) if len(names) == 2 else ("", "")


def _transfers(transfer: Table | None, positions: Sequence[str], fitted_on: str, tested_on: str) -> list[Drawn]:
    if transfer is None:
        return []
    to = transfer[(transfer["tested_on"] == tested_on) & transfer["auroc"].notna()]
    across = to[to["fitted_on"] == fitted_on]
    there = [name for name in TRANSFERS if name in positions and (across["position"] == name).any()]
    drawn = []
    for position in there:
        within = (to["fitted_on"] == tested_on) & (to["method"] == "logistic")
        rows = to[(to["position"] == position) & ((to["fitted_on"] == fitted_on) | within)]
        spec = figures.transfer_by_layer.spec(rows, fitted_on=fitted_on, tested_on=tested_on, position=position)
        spec["layout"]["yaxis"]["range"] = [min(0.3, float(to["auroc_low"].min()) - 0.02), 1.02]
        null = rows[(rows["fitted_on"] == fitted_on) & (rows["method"] == "logistic")]
        drawn.append((Panel(title=escape(POSITIONS.get(position, position)), spec=spec), _beside_shuffled(rows, null)))
    return drawn


def _beside_shuffled(rows: Table, null: Table) -> Table:
    """Measured rows and the words alone, then shuffled labels where ``null`` has them, all with value, low and high."""
    measured = _long(rows, dict(zip(("value", "low", "high"), AUROC, strict=True)))
    measured = measured.assign(role=["control" if name == "text_tfidf" else "measured" for name in rows["method"]])
    null = null.dropna(subset=["null_auroc_low", "null_auroc_high"])
    names = {"value": "null_auroc_mean", "low": "null_auroc_low", "high": "null_auroc_high"}
    shuffled = _long(null, names).assign(method="shuffled labels", role="control")
    return pd.concat([measured, shuffled.drop(columns=["p_value", "p_value_over_layers"])], ignore_index=True)


def _long(rows: Table, names: dict[str, str]) -> Table:
    return rows.assign(**{new: rows[old] for new, old in names.items()})


def _site_of(coordinates: Table) -> _Site:
    there = set(coordinates["position"].astype(str))
    position = next((name for name in SITES if name in there), min(there))
    rows = coordinates[coordinates["position"] == position]
    last = rows.sort_values(["layer", "site"], kind="stable")
    final = last[last["site"] == "ln_final"]
    chosen = (final if len(final) else last).iloc[-1]
    return _Site(position, int(chosen["layer"]), str(chosen["site"]))


def _scatters(run: Run, coordinates: Table, site: _Site) -> list[Drawn]:
    """The traces of the two most frequent conditions apart, on the same axes; all together where there are none."""
    at = (coordinates["position"] == site.position) & (coordinates["layer"] == site.layer)
    rows = coordinates[at & (coordinates["site"] == site.site)].dropna(subset=["lda", "pc1"])
    traces: Table = run.traces
    texts = {} if traces is None else dict(zip(traces["trace_id"], traces["prompt"].astype(str), strict=True))
    parts = {"all traces": rows.assign(condition="")}
    if traces is not None and (names := shown_conditions(run)):
        of = rows["trace_id"].map(dict(zip(traces["trace_id"], traces["condition"], strict=True)))
        parts = {name: rows[of == name].assign(condition=name) for name in names}
    panels = []
    for name, part in parts.items():
        spec = figures.lda_scatter.spec(part, position=site.position, layer=site.layer, site=site.site, texts=texts)
        spec["layout"]["xaxis"]["range"] = _range(rows["lda"])
        spec["layout"]["yaxis"]["range"] = _range(rows["pc1"])
        panels.append((Panel(title=escape(f"{name}, n = {len(part):,}"), spec=spec), part))
    return panels


def _range(values: Table) -> list[float]:
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 1.0
    return [low - room, high + room]


def _caption(run: Run, panels: str, before: Table) -> str:
    probe = before[before["method"] == "logistic"]
    notes = sorted({str(note) for note in probe["note"].dropna() if note})
    remarks = f" Notes: {'; '.join(notes)}." if notes else ""
    classes = "unsafe and safe outcomes" if probe["label_by"].iloc[0] == "aha" else "harmful and benign prompts"
    return (
        f"How well the hidden states tell {classes} apart before the key sentence is written, in "
        f"{model_in_words(run)}. {panels} n = {counts(probe['n'])} traces of {counts(probe['n_groups'])} prompts. A "
        "layer that is picked because it is the highest flatters itself: against shuffled labels, the p-value of the "
        f"best of all layers counts.{remarks}"
    )


def _in_words(before: Table, positions: Sequence[str]) -> pd.DataFrame:
    table = []
    for position in positions:
        rows = before[before["position"] == position]
        probe = rows[(rows["method"] == "logistic") & rows["auroc"].notna()]
        words = rows[rows["method"] == "text_tfidf"]
        if probe.empty:
            continue
        best = probe.loc[probe["auroc"].idxmax()]
        table.append(
            {
                "position": POSITIONS.get(position, position),
                "AUROC, best layer": estimate(best, *AUROC_OVER_LAYERS).text(".3f"),
                "layer": "final norm" if best["site"] == "ln_final" else str(int(best["layer"])),
                "median layer": f"{probe['auroc'].median():.3f}",
                "words alone": estimate(words.iloc[0], *AUROC).text(".3f") if len(words) else "n/a",
                "shuffled labels": f"{best['null_auroc_low']:.2f} to {best['null_auroc_high']:.2f}",
                "p over layers": f"{best['p_value_over_layers']:.3f}",
                "n": f"{int(best['n']):,}",
                "prompts": f"{int(best['n_groups']):,}",
            }
        )
    return pd.DataFrame(table)
