"""Heads of the organisms through which the token before K reads U, and their share of the effect of all heads.

    python -m analysis.organism.edges [--models organism:sft organism:safekey] [--n 60] [--write]

Each model answers the test prompts of the package itself (`organism` is `organism:sft`). The edge from the token before
K to U is cut in one head after another, in the top heads together, and in all (:func:`safekey_interp.cut_edges`). Cases
are measured apart, since cuts move the decision to opposite sides in them. Heads rank on other requests of the same
case; beside the top k stand as many random heads. A share is a ratio of means to the cut in all heads, with a 95 %
interval over groups; there is none where the effect of all heads has an interval over 0. No setting was chosen on these
traces.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from analysis.organism.behaviour import answered
from analysis.organism.causes import cases
from analysis.tables import interval, markdown, publish
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.interventions.edge_knockout import cut_edges, summarise_edges
from safekey_interp.interventions.effects import TESTED
from safekey_interp.models.model import load
from safekey_interp.models.organism import read_shipped

TOP = (1, 2, 4, 8)
FEWEST = 10
"""Traces of a case that is measured."""


def share_row(table: Any) -> dict[str, str]:
    """The cells of one model and case.

    Args:
        table: from ``cut_edges``.
    """
    summary: Any = summarise_edges(table)
    rows: Any = summary[(summary["metric"] == "difference") & (summary["subset"] == "all")]
    effects, shares = rows[rows["measure"] == "effect"], rows[rows["measure"] == "share"]
    whole = effects[effects["cut"] == "all"].iloc[0]
    cells = {"all heads": interval(whole, form="+.2f"), "first of the ranking, in so many traces": _first(table)}
    for _, row in shares[shares["cut"] == "top"].iterrows():
        p = effects.loc[(effects["cut"] == "top") & (effects["n_heads"] == row["n_heads"]), "p_value"].iloc[0]
        text = "n/a" if whole["low"] < 0 < whole["high"] else f"{interval(row)} ({row['control']:.2f}, p {p:.3f})"
        cells[f"share of the top {row['n_heads']} (random heads, p)"] = text
    single = effects[effects["cut"] == "head"]
    furthest = single.loc[single["value"].abs().sort_values(ascending=False).index[:4]]
    cells["largest single heads"] = "; ".join(
        f"{row['layer']}.{row['head']}: {interval(row, form='+.2f')}" for _, row in furthest.iterrows()
    )
    return cells | {"n (groups)": f"{whole['n']} ({whole['n_groups']})"}


def _first(table: Any) -> str:
    """The set of two heads that ranks first most often."""
    chosen = (table["cut"] == "top") & (table["control"] == TESTED) & (table["n_heads"] == TOP[1])
    sets = table.loc[chosen].drop_duplicates("trace_id")["heads"].value_counts()
    return f"{sets.index[0].replace(' ', ', ')} ({sets.iloc[0]} of {sets.sum()})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--models", nargs="+", default=["organism:sft", "organism:safekey"])
    parser.add_argument("--n", type=int, default=60, help="traces of each outcome")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md, too")
    options = parser.parse_args()
    quiet_libraries()
    asked = list(read_shipped())
    rows = []
    for spec in options.models:
        answers = [trace for trace in answered(spec, asked) if trace.given]
        for case, traces in cases(answers, options.n).items():
            if len(traces) >= FEWEST:
                table = cut_edges(load(spec), traces, top=TOP, finder="given")
                rows.append({"model": spec.removeprefix("organism:"), "case": case} | share_row(table))
                print(rows[-1], flush=True)
    publish({"organism-edges": markdown(pd.DataFrame(rows))}, write=options.write)


if __name__ == "__main__":
    main()
