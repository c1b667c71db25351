"""Tables of RESULTS.md on SmolLM2: STAR-1 and XSTest.

    python -m analysis.results --star1 runs/smollm2-star1 --xstest runs/smollm2-xstest_prompts [--write]

Prints the tables of `analysis/RESULTS.md` from two run folders; ``--write`` puts them between the marks of that
file. The text around them is written by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables import interval, markdown, publish
from safekey_interp.reporting.findings.finding import AUROC, AUROC_OVER_LAYERS, estimate
from safekey_interp.runs.run_folder import Run, open_run

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""

SPANS = ("prompt", "understanding", "template", "first_token", "key_sentence")


def provenance(run: Run) -> str:
    model, data = run.manifest["model"], run.manifest["data"]
    return (
        f"{model['name']} ({model['dtype']}, weights {model['weights_sha256'][:12]}), {data['n_read']:,} traces "
        f"(data {data['sha256'][:12]}), seed {run.manifest['seed']}, safekey_interp {run.manifest['safekey_interp']}"
    )


def outcomes(run: Run) -> pd.DataFrame:
    """What became of the traces."""
    traces: Table = run.traces
    assert traces is not None
    counts = {
        "read": len(traces),
        "measured": int((traces["status"] == "measured").sum()),
        **{f"K {aha}": int((traces["aha"] == aha).sum()) for aha in ("safe", "neutral", "unsafe")},
        "U names the harm": int(traces["hint"].fillna(False).sum()),
        "with straddling tokens": int((traces["n_straddling"].fillna(0) > 0).sum()),
    }
    return pd.DataFrame({"traces": list(counts), "n": list(counts.values())})


def paper_measure(run: Run) -> pd.DataFrame:
    """Last layer, mean over heads: what K gives to each span."""
    rows = _by_layer(run)
    rows = rows[rows["layer"] == rows["layer"].max()]
    table = []
    for span in SPANS:
        measures = rows[rows["to_span"] == span].set_index("measure")
        table.append(
            {
                "K to": span,
                "mass": interval(measures.loc["mass"], form=".3f"),
                "mass without the first token": interval(measures.loc["mass_rest"], form=".3f")
                if "mass_rest" in measures.index
                else "n/a",
                "uniform baseline": f"{measures.loc['uniform_mass', 'value']:.3f}",
                "random keys": interval(measures.loc["random_mass"], form=".3f"),
                "distance-matched baseline": interval(measures.loc["matched_mass"], form=".3f")
                if "matched_mass" in measures.index
                else "n/a",
                "n": int(measures.loc["mass", "n"]),
            }
        )
    return pd.DataFrame(table)


def layers(run: Run) -> pd.DataFrame:
    """In how many layers K looks more, or less, at a span than at its controls."""
    table = []
    for source in ("key_sentence", "decision"):
        rows = _by_layer(run, source)
        for span in ("understanding", "prompt"):
            for measure, control in (
                ("lift", "uniform baseline"),
                ("lift_over_random", "random keys"),
                ("lift_over_matched", "distance-matched baseline, rows of U"),
                ("lift_over_matched_other", "distance-matched baseline, second reference"),
            ):
                by_layer = rows[(rows["to_span"] == span) & (rows["measure"] == measure)]
                peak = by_layer.loc[by_layer["value"].idxmax()]
                table.append(
                    {
                        "from": source,
                        "to": span,
                        "against": control,
                        "layers above": int((by_layer["low"] > 1).sum()),
                        "layers below": int((by_layer["high"] < 1).sum()),
                        "layers": len(by_layer),
                        "median ratio": f"{by_layer['value'].median():.2f}",
                        "largest (layer)": f"{interval(peak, form='.3f')} ({peak['layer']})",
                    }
                )
    return pd.DataFrame(table)


def separability(run: Run) -> pd.DataFrame:
    """Best layer of each position beside its controls."""
    table: Table = run.separability
    assert table is not None
    rows = []
    for position in table["position"].unique():
        scores = table[table["position"] == position]
        for method in ("logistic", "diff_of_means", "text_tfidf"):
            method_scores = scores[(scores["method"] == method) & scores["auroc"].notna()]
            if method_scores.empty:
                continue
            best = method_scores.loc[method_scores["auroc"].idxmax()]
            bounds = AUROC_OVER_LAYERS if len(method_scores) > 1 else AUROC
            middle = method_scores["auroc"].median()
            rows.append(
                {
                    "position": position,
                    "method": method,
                    "AUROC, best layer": estimate(best, *bounds).text(".3f"),
                    "layer": "words" if method == "text_tfidf" else f"{best['layer']} of {len(method_scores)}",
                    "median layer": f"{middle:.3f}",
                    "TPR at 1 % FPR": f"{best['tpr_at_1fpr']:.2f} [{best['tpr_low']:.2f}, {best['tpr_high']:.2f}]",
                    "shuffled labels": f"{best['null_auroc_low']:.2f} to {best['null_auroc_high']:.2f}",
                    "p over layers": f"{best.get('p_value_over_layers', np.nan):.3f}",
                    "n (harmful, benign)": f"{best['n']} ({best['n_harmful']}, {best['n_benign']})",
                    "groups": int(best["n_groups"]),
                }
            )
    return pd.DataFrame(rows)


def _by_layer(run: Run, source: str = "key_sentence") -> Table:
    table: Table = run.attention_by_layer
    assert table is not None
    return table[(table["subset"] == "all") & (table["from_span"] == source)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--star1", type=Path, required=True)
    parser.add_argument("--xstest", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    star1, xstest = open_run(options.star1), open_run(options.xstest)
    tables = {
        "star1-provenance": provenance(star1),
        "star1-outcomes": markdown(outcomes(star1)),
        "star1-paper": markdown(paper_measure(star1)),
        "star1-layers": markdown(layers(star1)),
        "xstest-provenance": provenance(xstest),
        "xstest-separability": markdown(separability(xstest)),
    }
    publish(tables, write=options.write)


if __name__ == "__main__":
    main()
