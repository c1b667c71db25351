"""Attention, separability and transfer of the organisms, on plain and on wrapped prompts.

    python -m analysis.organism.results --base RUN --sft RUN --safekey RUN [--write]

Prints the organism's tables of `analysis/RESULTS.md` from runs over the traces of the package; ``--write`` puts them
between the marks of that file. All models read the responses of ``sft`` (teacher forcing), hence the same tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.results import provenance
from analysis.tables import interval, markdown, publish
from safekey_interp.reporting.findings.finding import AUROC_OVER_LAYERS, estimate
from safekey_interp.runs.run_folder import Run, open_run

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
MODELS = ("base", "sft", "safekey")
SUBSETS = {
    f"source={source}, {label}": f"{source}, {label}"
    for source in ("plain", "wrapped")
    for label in ("harmful", "benign")
}
SPANS = {"prompt": "X", "understanding": "U"}
READERS = {"decision": "the token before K", "key_sentence": "K"}
POSITIONS = ("prompt", "understanding", "context", "decision")


def attention(runs: dict[str, Run]) -> pd.DataFrame:
    """Last layer, mean over heads: what K and the token before it give to X and U, beside their controls."""
    rows = []
    for reader, words in READERS.items():
        for subset, of in SUBSETS.items():
            for model, run in runs.items():
                table: Table = run.attention_by_layer
                selected = table[(table["from_span"] == reader) & (table["subset"] == subset)]
                selected = selected[selected["layer"] == selected["layer"].max()].set_index(["to_span", "measure"])
                row: dict[str, Any] = {"from": words, "prompts": of, "model": model}
                for span, short in SPANS.items():
                    row[f"to {short}"] = interval(selected.loc[(span, "mass")])
                    row[f"{short}, uniform"] = f"{selected.loc[(span, 'uniform_mass'), 'value']:.2f}"
                    row[f"{short} / distance-matched"] = interval(selected.loc[(span, "lift_over_matched")])
                    other = (span, "lift_over_matched_other")
                    row[f"{short} / second reference"] = (
                        interval(selected.loc[other]) if other in selected.index else "n/a"
                    )
                rows.append(row | {"n": int(selected.loc[("prompt", "mass"), "n"])})
    return pd.DataFrame(rows)


def separability(runs: dict[str, Run]) -> pd.DataFrame:
    """Harmful against benign over all traces, at the best layer of each position, beside the words."""
    rows = []
    for position in POSITIONS:
        for model, run in runs.items():
            table: Table = run.separability
            scores = table[(table["position"] == position) & table["auroc"].notna()]
            row: dict[str, Any] = {"position": position, "model": model}
            rows.append(row | _beside_words(scores))
    return pd.DataFrame(rows)


def transfer(runs: dict[str, Run]) -> pd.DataFrame:
    """A probe that was fitted on one condition, tested on each, no request on both sides."""
    rows = []
    for position in POSITIONS:
        for fitted, tested in (("plain", "plain"), ("plain", "wrapped"), ("wrapped", "wrapped"), ("wrapped", "plain")):
            for model, run in runs.items():
                table: Table = run.transfer
                scores = table[(table["position"] == position) & table["auroc"].notna()]
                scores = scores[(scores["fitted_on"] == fitted) & (scores["tested_on"] == tested)]
                row: dict[str, Any] = {"position": position, "fitted on": fitted, "tested on": tested, "model": model}
                rows.append(row | _beside_words(scores))
    return pd.DataFrame(rows)


def _beside_words(scores: Table) -> dict[str, Any]:
    probes, words = scores[scores["method"] == "logistic"], scores[scores["method"] == "text_tfidf"]
    best = probes.loc[probes["auroc"].idxmax()]
    text_row = words.iloc[0]
    return {
        "AUROC, best layer": estimate(best, *AUROC_OVER_LAYERS).text(".2f"),
        "layer": f"{best['layer']} of {len(probes)}",
        "words alone": interval(text_row, "auroc"),
        "shuffled labels": f"{best['null_auroc_low']:.2f} to {best['null_auroc_high']:.2f}",
        "p over layers": f"{best['p_value_over_layers']:.3f}",
        "n (harmful, benign)": f"{best['n']} ({best['n_harmful']}, {best['n_benign']})",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    for name in MODELS:
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"run of organism:{name} on the shipped traces")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md, too")
    options = parser.parse_args()
    runs = {name: open_run(getattr(options, name)) for name in MODELS}
    tables = {
        "organism-provenance": "; ".join(map(provenance, runs.values())),
        "organism-attention": markdown(attention(runs)),
        "organism-separability": markdown(separability(runs)),
        "organism-transfer": markdown(transfer(runs)),
    }
    publish(tables, write=options.write)


if __name__ == "__main__":
    main()
