"""How often two stages hold the place with the largest exact effect among those that they screen.

    python -m analysis.cost.two_stage [--file ../shared/data/star1.jsonl] [--first 40] [--cases 40]
                                      [--models organism smollm2] [--out FILE] [--write]

A case is a draw of a few traces, an intervention (a direction ablated or added by layer; states patched by layer and
position, of the stream alone or of heads and MLPs, too) and a model: every place of it is estimated and measured
exactly, without controls, and the place with the largest mean exact effect on safe minus compliant key sentences is
looked for among those that are screened. As the screened places are ranked by their exact effects, it then is the first
of the five best. Beside it stands its rank among the estimates. As many places are confirmed, which says how many are
screened, as by default on SmolLM2: one direction, five patches. How many are screened was chosen on cases 0 to 39, so
that those from 40 on, the default, test it. Cases go to the models by turns, and of each model to the interventions
with more places than are screened, which directions of the organism's four layers are not. Labels of STAR-1's traces
are drawn, and sources of its patches are other requests' traces. ``--out`` keeps a line a case, so that a stopped
script goes on, and of which other runs' lines are in the table, too; ``--write`` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.cost.interventions import usual_traces
from analysis.tables import interval, markdown, publish
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.interventions.activation_patching import patch
from safekey_interp.interventions.directions import fit_directions
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.interventions.steering import steer
from safekey_interp.interventions.trace_pairs import TracePair, find_pairs
from safekey_interp.interventions.two_stages import mean_effects, places_to_screen
from safekey_interp.measures.intervals import share_interval
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import TRACES

WAYS = {"organism": ("components",), "smollm2": ("ablate", "add", "patch")}
CONFIRMED = {"ablate": 1, "add": 1, "patch": 5, "components": 5}
COMPONENTS = ("resid_post", "head", "mlp_out")
BEST = 5
N_FITTED, N_STEERED, N_PAIRS, N_POOL = 24, 2, 2, 200


def pool_of(name: str, model: Model, file: str) -> list[Trace]:
    """The traces that cases are drawn from."""
    return list(read_traces(TRACES)) if name == "organism" else usual_traces(model, file, N_POOL)[0]


def case(name: str, model: Model, pool: Sequence[Trace], way: str, number: int) -> dict[str, Any]:
    """Where the exact first place of one case is among the estimates."""
    rng = np.random.default_rng([number, 41])
    order = rng.permutation(len(pool)).tolist()
    kind = "direction" if way in ("ablate", "add") else "patch"
    stages = find_intervention(kind).stages
    assert stages is not None
    if kind == "patch":
        components = COMPONENTS if way == "components" else None
        measure = partial(patch, model, _pairs(name, pool, order), n_random=0, components=components)
    else:
        labelled = [pool[at].with_(label=("harmful", "benign")[i % 2]) for i, at in enumerate(order)]
        directions = fit_directions(model, labelled[N_STEERED : N_STEERED + N_FITTED], n_controls=1, seed=number)
        options: Any = {"mode": way, "n_random": 0}
        measure = partial(steer, model, labelled[:N_STEERED], directions, **options)
    tables = {stage: measure(**getattr(stages, stage)) for stage in ("estimate", "exact")}
    means = pd.concat({stage: mean_effects(table, stages).abs() for stage, table in tables.items()}, axis=1).dropna()
    exact = means["exact"].to_numpy()
    rank = int((means["estimate"] > means["estimate"].to_numpy()[exact.argmax()]).sum()) + 1
    screened = places_to_screen(tables["estimate"], stages, CONFIRMED[way], seed=number)
    top = means.index[exact.argmax()]
    held = (top if isinstance(top, tuple) else (top,)) in screened
    correlation = float(means.corr("spearman").loc["estimate", "exact"])  # type: ignore[arg-type]
    about = {"model": name, "way": way, "number": number, "places": len(means), "screened": len(screened)}
    return about | {"rank": rank, "held": held, "spearman": correlation}


def _pairs(name: str, pool: Sequence[Trace], order: Sequence[int]) -> list[TracePair]:
    if name == "organism":
        pairs, _ = find_pairs(pool)
        return [pairs[at % len(pairs)] for at in order[:N_PAIRS]]
    return [TracePair(pool[a], pool[b]) for a, b in zip(order[::2], order[1::2], strict=False)][:N_PAIRS]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--file", default="../shared/data/star1.jsonl")
    parser.add_argument("--first", type=int, default=40, help="number of the first case. Default: 40")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--models", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    quiet_libraries()
    models = {name: load(name) for name in options.models}
    pools = {name: pool_of(name, model, options.file) for name, model in models.items()}
    ways = {name: cycle(WAYS[name]) for name in models}
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if _is_there(options.out) else []
    done = {(each["model"], each["number"]): each for each in known}
    found = []
    for number, name in enumerate(islice(cycle(models), options.cases), options.first):
        way = next(ways[name])
        is_new = (name, number) not in done
        one = case(name, models[name], pools[name], way, number) if is_new else done.pop((name, number))
        found.append(one)
        print(
            f"{one['model']:<10}{one['way']:<8}{number:>4}  the exact first of {one['places']} places is number "
            f"{one['rank']} of the estimates, {'held' if one['held'] else 'lost'} with {one['screened']} screened; "
            f"rank correlation {one['spearman']:.2f}",
            flush=True,
        )
        if options.out is not None and is_new:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
    publish({"two-stages": markdown(tabulate([*found, *done.values()]))}, write=options.write)


def tabulate(cases: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """How often the exact first place was held, by model and intervention and in all."""
    table = pd.DataFrame(cases).assign(best=lambda each: each["rank"] <= BEST)
    parts = [*table.groupby(["model", "way"], sort=False), (("all", ""), table)]
    rows = []
    for (model, way), part in parts:
        row: dict[str, Any] = {"model": model, "intervention": way, "cases": len(part)}
        row |= {"places": "–".join(map(str, dict.fromkeys([part["places"].min(), part["places"].max()])))}
        for words, column in (("among the screened", "held"), (f"among the {BEST} largest estimates", "best")):
            names = [f"{one} {number}" for one, number in zip(part["model"], part["number"], strict=True)]
            low, high = share_interval(part[column].to_numpy(float), names)
            row[words] = interval({"value": part[column].mean(), "low": low, "high": high})
        rows.append(row | {"median rank correlation": f"{part['spearman'].median():.2f}"})
    return pd.DataFrame(rows)


def _is_there(file: Path | None) -> bool:
    return file is not None and file.is_file()


if __name__ == "__main__":
    main()
