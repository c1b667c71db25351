"""Attention of compared models on U and X, beside the distance-matched baseline: sums over a trace's layers and heads.

The lift over the distance-matched baseline is Σ mass / Σ matched mass
(:mod:`safekey_interp.measures.attention_summary`), here over all layers and heads, so that no layer is picked and
models of any depth compare. Its change between two models is split into those of mass and baseline
(:mod:`safekey_interp.measures.attention_change`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safekey_interp.reporting.figures.figure_style import Table

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run

PAIRS = tuple((row, span) for row in ("decision", "key_sentence") for span in ("understanding", "prompt"))
"""Rows of attention, and the spans of their keys."""


def sums_of(run: Run) -> dict[tuple[str, str], Table]:
    """``top`` (mass), ``bottom`` (matched mass), ``group`` and ``label`` of each trace, by its id.

    Read in pieces: the table has a row for each trace, layer, head and pair of spans. Where one of the two is not
    defined, neither counts.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    file, traces = run.path / "attention.parquet", run.traces
    if not file.is_file() or traces is None:
        return {}
    pieces: list[Any] = []
    keys = ["from_span", "to_span", "trace_id"]
    for batch in pq.ParquetFile(file).iter_batches(1_000_000, columns=[*keys, "mass", "matched_mass"]):
        rows: Any = batch.to_pandas().dropna()
        rows[keys] = rows[keys].astype(str)
        wanted = [pair in PAIRS for pair in zip(rows["from_span"], rows["to_span"], strict=True)]
        pieces.append(rows[wanted].astype({"mass": float, "matched_mass": float}).groupby(keys).sum())
    joined: Any = pd.concat(pieces)
    sums = joined.groupby(keys).sum().rename(columns={"mass": "top", "matched_mass": "bottom"})
    about: Any = traces.set_index("trace_id")[["group", "label"]]
    there = set(zip(sums.index.get_level_values(0), sums.index.get_level_values(1), strict=True))
    return {pair: sums.loc[pair].join(about, how="left") for pair in PAIRS if pair in there}


def of_label(sums: Table, subset: str) -> Table:
    """The traces of one label; all of them for ``all``."""
    return sums if subset == "all" else sums[(sums["label"] == subset).fillna(False)]
