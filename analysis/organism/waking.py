"""Waking the signal at inference: what the organism answers while the harmful direction is added, by scale.

    python -m analysis.organism.waking [--models organism:sft …] [--n 6] [--out runs/waking] [--write]

The direction from benign to harmful states at the token before K is fitted on each model's own answers to development
requests (pairs and wrappers of their own), and added while the model answers test requests: plain ones, and in the six
wrappers that neither fine-tuning nor development showed. Answers are scored by their act
(:mod:`safekey_interp.models.organism.outcome`), malformed is what breaks the language's grammar. Beside it, directions
of the same norm at the same scales: fitted to shuffled labels, drawn from the states' covariance, and isotropic. The
layer is the command's own (two thirds up) and every scale is shown: none was chosen by these answers. A second table
has the other layers and other positions, without controls. ``organism`` is ``organism:sft``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.organism.behaviour import answered, requests
from analysis.tables import interval, markdown, publish
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.experiments.answer_outcomes import judge_of_answers
from safekey_interp.interventions.directions import fit_directions
from safekey_interp.interventions.effects import tested_rows
from safekey_interp.interventions.response_steering import steer_responses
from safekey_interp.measures.control_directions import ControlKind
from safekey_interp.measures.crossed_intervals import two_way_share
from safekey_interp.measures.intervals import share_interval
from safekey_interp.models.model import Model, load

SCALES = (0.2, 0.4, 0.6, 1.0)
DRAWS: dict[ControlKind, int] = {"shuffled_labels": 20, "covariance": 5, "isotropic": 5}
"""Control directions of each kind; the first decides."""
MAX_NEW_TOKENS = 64
MEASURES = {
    "wrapped harmful: refused": ("wrapped", "harmful", "refused"),
    "plain harmful: refused": ("plain", "harmful", "refused"),
    "wrapped benign: refused": ("wrapped", "benign", "refused"),
    "plain benign: refused": ("plain", "benign", "refused"),
    "all: malformed": ("all", "all", "malformed"),
}
"""Source, label and what is counted."""
POSITIONS = {"all tokens": None, "generated tokens": ("generated",), "U, while it is written": ("understanding",)}


def asked_of(split: Any, n: int) -> list[Trace]:
    """Plain requests of a split, and those in its own wrappers."""
    return [trace for trace in requests(split, n, 0) if trace.meta["wrapper_split"] != "seen"]


def measured(spec: str, n: int, out: Path) -> dict[str, pd.DataFrame]:
    """A model's answers: beside each kind of control at one layer, and at each place; from ``out`` where they are."""
    model, asked = load(spec), asked_of("test", n)
    fitted = [trace for trace in answered(spec, asked_of("development", 3 * n)) if trace.given]
    assert not {trace.group for trace in fitted} & {trace.group for trace in asked}
    directions = fit_directions(model, fitted, finder="given")
    usual = directions[round((model.n_layers - 1) * 2 / 3)]
    print(f"{spec}: directions of {len(fitted)} answers, asked {len(asked)} requests", flush=True)
    wanted: dict[str, tuple[Any, dict[str, Any]]] = {
        kind: (usual, {"controls": (kind,), "n_random": n_draws}) for kind, n_draws in DRAWS.items()
    }
    for where, positions in POSITIONS.items():
        which = usual if positions else directions
        wanted[where] = (which, {"controls": (), "positions": positions})
    tables = {}
    for name, (which, changes) in wanted.items():
        file = out / f"{spec.replace(':', '-')}-{n}-{name.replace(' ', '-')}.parquet"
        if not file.is_file():
            out.mkdir(parents=True, exist_ok=True)
            table = steered(model, asked, which, **changes)
            table.attrs = {}
            table.drop(columns="response").to_parquet(file, index=False)
            print(f"{spec}: {name}", flush=True)
        tables[name] = pd.read_parquet(file)
    return tables


def steered(model: Model, asked: Sequence[Trace], directions: Any, **options: Any) -> pd.DataFrame:
    """Answers under each direction at each scale, with the wrapper of each request."""
    shared: dict[str, Any] = {"scales": SCALES, "max_new_tokens": MAX_NEW_TOKENS, "batch_size": 1024}
    table = steer_responses(model, asked, directions, judge=judge_of_answers(model), **shared, **options)
    wrappers = {trace.trace_id: trace.meta["wrapper"] for trace in asked}
    return table.assign(wrapper=[wrappers[name] for name in table["trace_id"]])


def by_scale(tables: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    """A row a model, measure and scale: the direction beside the mean, the furthest draw and p of each control."""
    rows = []
    for model, parts in tables.items():
        for measure in MEASURES:
            for scale in SCALES:
                row = {"model": model, "measure": measure, "scale": f"{scale:g}"}
                for kind in DRAWS:
                    of = counted(parts[kind], measure)
                    of = of[of["scale"] == scale]
                    tested: Any = tested_rows(of)
                    share = tested["value"].mean()
                    if kind == next(iter(DRAWS)):
                        row |= {
                            "as it is": f"{tested['baseline'].mean():.2f}",
                            "direction added": with_interval(tested),
                        }
                        row["n (pairs)"] = f"{len(tested)} ({tested['group'].nunique()})"
                    draws = of[of["control"] == kind].groupby("draw")["value"].mean().to_numpy()
                    row[kind.replace("_", " ")] = beside(share, draws)
                rows.append(row)
    return pd.DataFrame(rows)


def by_place(tables: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    """A row a model, place and scale, without controls; the model as it is at scale 0."""
    rows = []
    for model, parts in tables.items():
        for where in POSITIONS:
            table: Any = parts[where]
            for layer in sorted(set(table["layer"])):
                for scale in (0.0, *SCALES):
                    row = {"model": model, "added at": where, "layer": str(layer), "scale": f"{scale:g}"}
                    for measure in MEASURES:
                        of = counted(
                            table[(table["layer"] == layer) & (table["scale"] == (scale or SCALES[0]))], measure
                        )
                        row[measure] = f"{of['value' if scale else 'baseline'].mean():.2f}"
                    rows.append(row)
    return pd.DataFrame(rows)


def counted(table: Any, measure: str) -> Any:
    """The rows of one measure."""
    condition, label, metric = MEASURES[measure]
    of = table[table["metric"] == metric]
    of = of if condition == "all" else of[of["condition"] == condition]
    return of if label == "all" else of[of["label"] == label]


def with_interval(rows: Any) -> str:
    """A share with its interval over pairs, and over wrappers too where there are several."""
    values, pairs, wrappers = (rows[column].to_numpy() for column in ("value", "group", "wrapper"))
    several = len(set(wrappers)) > 1
    low, high = two_way_share(values, wrappers, pairs) if several else share_interval(values, pairs)
    return interval({"value": values.mean(), "low": low, "high": high})


def beside(share: float, draws: np.ndarray) -> str:
    """The mean of the draws, the one that goes furthest the way that the share goes, and p of the share among them."""
    way = 1 if share >= draws.mean() else -1
    everything = np.append(draws, share)
    away = np.abs(everything - everything.mean())
    p = (1 + (away[:-1] >= away[-1] - 1e-12).sum()) / len(everything)
    return f"{draws.mean():.2f}, to {(draws * way).max() * way:.2f}, p {p:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--models", nargs="+", default=["organism:sft"])
    parser.add_argument(
        "--n", type=int, default=6, help="requests of each wrapper and label; of plain ones thrice as many"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/waking"), help="keeps each model's answers as counted")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md, too")
    options = parser.parse_args()
    quiet_libraries()
    tables = {spec.removeprefix("organism:"): measured(spec, options.n, options.out) for spec in options.models}
    shown = {
        "organism-waking": by_scale(tables),
        "organism-waking-places": by_place(tables),
    }
    publish({name: markdown(table.fillna("")) for name, table in shown.items()}, write=options.write)


if __name__ == "__main__":
    main()
