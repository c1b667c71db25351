"""Comparison of the three organisms on the same prompts.

    python -m analysis.organism.comparison [--out runs/organisms] [--write]

``safekey-interp compare`` on the prompts of the package, with each model's own responses; the table contains every
measure that is not by wrapper. The run folder resumes after a kill, and its page is ``report.html``.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tables import markdown, publish
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.conditions import conditions_in
from safekey_interp.experiments.compare_run import run_comparison
from safekey_interp.models.organism import TRACES
from safekey_interp.reporting.findings.finding import estimate
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.labels import AUROCS, LOOKS, POSITIONS_COMPARED, SPAN_LETTERS, SUBSETS, title_of
from safekey_interp.runs.run_folder import Run

MODELS = ("organism:base", "organism:sft", "organism:safekey")
SHARES = ("attack_success", "over_refusal", "aha", "dormant_signal", "names_harm")


def table(run: Run) -> pd.DataFrame:
    """A row a measure: each model's value, and the differences of those that follow one another."""
    comparison: Any = run.comparison
    conditions = conditions_in(run.manifest)
    rows = []
    for (measure, subset, position, to_span), part in comparison.groupby(
        ["measure", "subset", "position", "to_span"], sort=False, dropna=False
    ):
        title = _title(str(measure), str(subset), position, to_span, conditions)
        if title is None:
            continue
        row: dict[str, str] = {"measure": title}
        form = ".2f"
        for model in MODELS:
            single = part[(part["model"] == model) & part["other"].isna()]
            row[model] = f"{estimate(single.iloc[0]).text(form)} ({single['n'].iloc[0]})" if len(single) else "n/a"
        for first, second in pairwise(MODELS):
            pair = part[(part["model"] == first) & (part["other"] == second)]
            row[f"{second} minus {first}"] = estimate(pair.iloc[0]).text("+.2f") if len(pair) else "n/a"
        rows.append(row)
    return pd.DataFrame(rows)


def _title(measure: str, subset: str, position: Any, to_span: Any, conditions: Any) -> str | None:
    if measure in SHARES and (subset in SUBSETS or subset in conditions.words()):
        return title_of(measure, subset, conditions)
    if measure in LOOKS and subset in ("harmful", "benign"):
        return f"attention of {ROWS[position]} on {SPAN_LETTERS[to_span]}, {LOOKS[measure]} ({subset})"
    if measure in AUROCS and position in POSITIONS_COMPARED:
        return f"AUROC {POSITIONS_COMPARED[position]}, {AUROCS[measure]}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("runs/organisms"))
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md, too")
    options = parser.parse_args()
    quiet_libraries()
    run = run_comparison(MODELS, TRACES, out=options.out)
    publish({"organism-comparison": markdown(table(run))}, write=options.write)


if __name__ == "__main__":
    main()
