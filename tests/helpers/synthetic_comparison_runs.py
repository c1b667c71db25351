"""Synthetic run folders of comparisons, of series of checkpoints and of benchmarks, with hostile texts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic_probe_runs import HOSTILE, write_run

from safekey_interp.data.conditions import NO_CONDITIONS
from safekey_interp.experiments.compare_series import series_table
from safekey_interp.reporting.findings.benchmark_findings import tell as tell_benchmarks
from safekey_interp.reporting.findings.comparison_findings import tell
from safekey_interp.reporting.findings.series_findings import tell as tell_series
from safekey_interp.runs.storage import write_json

NAMES = ("base", "tuned <b>")
_SHARES = {
    "attack_success": "harmful",
    "over_refusal": "benign",
    "aha": "harmful",
    "dormant_signal": "harmful",
    "unjudged": "all",
}


def write_comparison(folder: Path, *, benchmarks: bool = False) -> Path:
    """A complete comparison of two models, with or without benchmarks in its folder."""
    probe = write_run(folder / "models" / "one", n_traces=24, n_layers=4, n_heads=2, n_examples=1)
    by_layer, separability = (pd.read_parquet(probe / f"{name}.parquet") for name in _BY_MODEL)
    matched = by_layer[by_layer["measure"] == "lift"].assign(measure="lift_over_matched")
    for name, table in zip(_BY_MODEL, (pd.concat([by_layer, matched]), separability), strict=True):
        pd.concat([table.assign(model=model) for model in NAMES]).to_parquet(folder / f"{name}.parquet")
    table = pd.DataFrame(list(_rows()))
    table.to_parquet(folder / "comparison.parquet")
    sides = [
        {"model": name, "understanding": HOSTILE, "key_sentence": HOSTILE, "answer": HOSTILE, "reason": ""}
        for name in NAMES
    ]
    write_json(folder / "side_by_side.json", [{"trace_id": "1", "prompt": HOSTILE, "label": "harmful", "sides": sides}])
    models = [{"name": name, "model": {"spec": name, "name": name, "n_layers": 4}} for name in NAMES]
    write_json(folder / "run.json", _manifest("comparison", models=models, data={"n_read": 96, "sources": [HOSTILE]}))
    write_json(folder / "findings.json", tell(table, NAMES, NO_CONDITIONS, kept=False))
    if benchmarks:
        write_benchmarks(folder / "benchmarks")
    return folder


def write_series(folder: Path) -> Path:
    """A complete comparison of checkpoints at steps 0, 4 and 16, whose last is called by a hostile name."""
    write_comparison(folder)
    steps = {NAMES[0]: 0, NAMES[1]: 4, HOSTILE: 16}
    single = pd.DataFrame(list(_rows()))
    single = single[single["other"].isna()]
    of_first, of_second = (single[single["model"] == name] for name in NAMES)
    rows = [of_first, of_second, of_second.assign(model=HOSTILE)]
    rows += [part.assign(model=NAMES[0], other=part["model"], value=0.2) for part in rows[1:]]
    comparison = pd.concat(rows, ignore_index=True)
    separability = pd.read_parquet(folder / "separability.parquet")
    series = series_table(comparison, separability, steps)
    comparison.to_parquet(folder / "comparison.parquet")
    series.to_parquet(folder / "series.parquet")
    models = [
        {"name": name, "step": step, "model": {"spec": name, "name": name, "n_layers": 4}}
        for name, step in steps.items()
    ]
    write_json(folder / "run.json", _manifest("comparison", models=models, data={"n_read": 96, "sources": [HOSTILE]}))
    write_json(folder / "findings.json", tell_series(series, comparison, kept=False, counted={}))
    return folder


def write_benchmarks(folder: Path) -> Path:
    """A complete run of two benchmarks on two models."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"model": model, "benchmark": benchmark, "task": HOSTILE, "metric": "accuracy", "harness": "lm-eval"}
        | {"value": value, "stderr": 0.02, "low": value - 0.04, "high": value + 0.04, "n": 200, "is_main": True}
        | {"harness_version": "0.4", "task_version": "1"}
        for (model, benchmark), value in zip(
            itertools.product(NAMES, ("mmlu", f"lm-eval:{HOSTILE}")), (0.5, 0.3, 0.55, 0.2), strict=True
        )
    ]
    table = pd.DataFrame(rows).astype({"n": "Int64"})
    table.to_parquet(folder / "benchmarks.parquet")
    asked = [{"name": "mmlu", "harness": "lm-eval", "task": "mmlu", "cites": "Hendrycks et al. 2021"}]
    models = [{"name": name, "spec": name, "fingerprint": "ab" * 32} for name in NAMES]
    write_json(folder / "run.json", _manifest("benchmarks", models=models, benchmarks=asked))
    write_json(folder / "findings.json", tell_benchmarks(table, NAMES, []))
    return folder


_BY_MODEL = ("attention_by_layer", "separability")


def _rows() -> Any:
    rng = np.random.default_rng(0)

    def row(place: tuple[str, str, str | None, str | None], model: str, other: str | None) -> Any:
        value = 0.2 if other else 0.3 + 0.5 * float(rng.random())
        where = dict(zip(("measure", "subset", "position", "to_span"), place, strict=True))
        number = {"value": value, "low": value - 0.1, "high": value + 0.12, "n": 48, "n_groups": 24, "p": 0.03}
        return where | {"model": model, "other": other} | number

    wanted = [(measure, subset, None, None) for measure, subset in _SHARES.items()]
    spans = itertools.product(("decision", "key_sentence"), ("understanding", "prompt"))
    wanted += [("lift_over_matched", "all", position, span) for position, span in spans]
    wanted += [(name, "all", at, None) for name in ("auroc", "auroc_words") for at in ("understanding", "decision")]
    for each in wanted:
        for model, other in ((NAMES[0], None), (NAMES[1], None), NAMES):
            yield row(each, model, other)


def _manifest(kind: str, **more: Any) -> dict[str, Any]:
    about = {"safekey_interp": "0.4.0", "kind": kind, "status": "complete", "created": "2026-05-04T10:11:12+00:00"}
    return about | {"command": ["safekey-interp", kind], "settings": {}, "versions": {"python": "3.12"}} | more
