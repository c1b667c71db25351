"""Interventions on SmolLM2, before and after training: knockout and logit lens of K.

    python -m analysis.smollm2.causes --runs runs/smollm2-training [--n 24] [--write]
    python -m analysis.smollm2.causes --star1 ../shared/data/star1.jsonl [--n 24] [--write]

On STAR-1's openings held out of the training of :mod:`analysis.smollm2.training` (harmful prompts, with DeepSeek-R1's
own U and K): SmolLM2-135M-Instruct, fine-tuned, and fine-tuned with both losses. Attention knockout of the queries that
predict K, in all layers and in each third of them, beside as many random keys outside X and U where enough exist, by
dose, and beside the same span of another request (all are harmful, so there is no span of the other label); the logit
lens over K beside other requests' key sentences. All models read the same texts, so differences are by trace.
``--star1`` needs no trained models: SmolLM2 without training, on other openings of STAR-1, in all layers, K's own
log-probability only. Every part is a run folder that resumes. No setting was chosen on these traces.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.smollm2.data import harmful_traces
from analysis.smollm2.training import RUNS
from analysis.tables import interval, markdown, publish, rows_of, where
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.experiments.intervene_run import run_intervention
from safekey_interp.interventions.donors import SAME
from safekey_interp.interventions.effects import default_rows
from safekey_interp.interventions.knockout_plan import DOSE, OUTSIDE
from safekey_interp.interventions.knockout_summary import CURVATURE, EFFECT, SLOPE
from safekey_interp.models.model import Model, load
from safekey_interp.training import read_config
from safekey_interp.training.examples import prepare_examples

QUERIES = "decision+key_sentence"
SPANS = ("prompt", "understanding")
N_RANDOM, N_DOSE, N_DONORS = 5, 2, 2
CONTROLS = (OUTSIDE, DOSE, SAME)
THIRDS = 3
IN_PLACE = "another request's in place"
LENS_LAYERS = 6
"""Layers that the table shows, evenly spaced and with the last."""


def held_out(runs: Path, model: Model, n: int) -> list[Trace]:
    """Harmful traces that neither run was trained on, the first ``n`` of the file."""
    config = read_config(runs / "sft" / "config.yaml", [f"traces={runs / 'traces.jsonl'}", f"out={runs / 'sft'}"])
    traces = list(read_traces(runs / "traces.jsonl"))
    chosen = {example.trace_id for example in prepare_examples(model, traces, config).held_out}
    return [trace for trace in traces if trace.trace_id in chosen and trace.label == "harmful"][:n]


def measure(name: str, model: Model, traces: Sequence[Trace], out: Path) -> dict[str, Any]:
    """The summaries of one model: ``together``, one for each third of the layers, and ``lens``."""
    summaries: dict[str, Any] = {}
    thirds = [
        list(range(model.n_layers))[i * model.n_layers // THIRDS : (i + 1) * model.n_layers // THIRDS]
        for i in range(THIRDS)
    ]

    def run(what: str, kind: Any, **options: Any) -> None:
        print(f"{name}: {what}", flush=True)
        done = run_intervention(
            kind, model, list(traces), out=out / f"{name.lower()}-{what}", finder="given", chunk=4, **options
        )
        summaries[what] = done.summary

    cut: dict[str, Any] = {"from_span": QUERIES, "to_span": list(SPANS), "controls": list(CONTROLS)}
    cut |= {"n_random": N_RANDOM, "n_dose": N_DOSE, "n_donors": N_DONORS}
    run("together", "knockout", **cut)
    for third in thirds:
        few = cut | {"controls": [OUTSIDE, SAME], "layers": third, "aha": False}
        run(f"layers-{third[0]}-{third[-1]}", "knockout", **few)
    run("lens", "lens")
    return summaries


def untrained(star1: Path, n: int, out: Path) -> pd.DataFrame:
    """SmolLM2 as it is, on ``n`` openings of STAR-1 that fit 512 tokens."""
    model = load("smollm2", dtype="float32")
    traces = harmful_traces(model, star1, n=2 * n, max_length=512)[-n:]
    cut: dict[str, Any] = {"from_span": QUERIES, "to_span": list(SPANS), "controls": list(CONTROLS), "aha": False}
    cut |= {"n_random": N_RANDOM, "n_dose": N_DOSE, "n_donors": N_DONORS}
    done = run_intervention("knockout", model, traces, out=out / "untrained", finder="given", chunk=4, **cut)
    return pd.DataFrame([{"K may not see": span} | _cells(done.summary, "key_sentence", span) for span in SPANS])


def tables(summaries: dict[str, dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """For RESULTS.md."""
    knocked, thirds, lens = [], [], []
    for name, parts in summaries.items():
        together = parts["together"]
        for span in SPANS:
            line = {"model": name, "K may not see": span}
            for metric, words in (("key_sentence", "K's own log-probability"), ("difference", "safe minus compliant")):
                line |= {f"{words}, {what}": cell for what, cell in _cells(together, metric, span).items()}
            knocked.append(line)
            line = {"model": name, "K may not see": span}
            for what, table in parts.items():
                if what.startswith("layers-"):
                    cells = _cells(table, "key_sentence", span)
                    line[what.replace("-", " ", 1)] = f"{cells['hidden']} (another request's {cells[IN_PLACE]})"
            thirds.append(line)
        layers = sorted(set(parts["lens"]["layer"]))
        shown = [layers[round(at * (len(layers) - 1) / (LENS_LAYERS - 1))] for at in range(LENS_LAYERS)]
        for metric, words in (("key_sentence", "K"), ("difference", "safe minus compliant")):
            line = {"model": name, "the lens says of": words}
            for layer in shown:
                [row] = _all(default_rows(parts["lens"]), metric=metric, layer=layer)
                other = f" ({row['control']:.2f})" if metric == "key_sentence" else ""
                line[f"layer {layer}"] = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]{other}"
            lens.append(line)
    parts = {"smollm2-knockout": knocked, "smollm2-knockout-thirds": thirds, "smollm2-lens": lens}
    return {name: pd.DataFrame(rows) for name, rows in parts.items()}


def _cells(summary: Any, metric: str, span: str) -> dict[str, str]:
    """What hiding a span does, and what stands beside it."""

    def rows(measure: str, **wanted: Any) -> list[Any]:
        candidates = default_rows(summary) if "control_kind" not in wanted else summary
        return _all(candidates, **{"metric": metric, "to_span": span, "measure": measure, "dose": 1.0} | wanted)

    [row] = rows(EFFECT)
    n_with = row["n_with_control"] if row["control_kind"] == OUTSIDE else 0
    pool = f"{n_with} of {row['n']} traces have them ({row['n_pool']:.0f} for {row['n_k']:.0f} keys)"
    excess = f"{interval(row, 'control', '+.2f')}, excess {interval(row, 'excess', '+.2f')}; " if n_with else ""
    cells = {"hidden": interval(row, form="+.2f"), "random keys outside X and U": f"{excess}{pool}"}
    more = {"slope over the dose": rows(SLOPE), "all minus 4 quarters": rows(CURVATURE)}
    cells |= {words: interval(matching[0], form="+.2f") for words, matching in more.items() if matching}
    if beside := rows(EFFECT, control_kind=SAME):
        cells[IN_PLACE] = interval(beside[0], "control", "+.2f")
    return cells | {"n (groups)": f"{row['n']} ({row['n_groups']})"}


def _all(rows: Any, **wanted: Any) -> list[Any]:
    return rows_of(where(rows, **{"subset": "all"} | wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/smollm2-training"), help="of analysis.smollm2.training")
    parser.add_argument("--star1", type=Path, help="STAR-1's file: SmolLM2 as it is, without trained models")
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2-causes"))
    parser.add_argument("--n", type=int, default=24, help="traces")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md, too")
    options = parser.parse_args()
    quiet_libraries()
    if options.star1:
        table = untrained(options.star1, options.n, options.out)
        publish({"smollm2-knockout-untrained": markdown(table.fillna(""))}, write=options.write)
        return
    summaries: dict[str, dict[str, Any]] = {}
    traces: list[Trace] = []
    specs = {"before": "smollm2"} | {name: str(options.runs / name.lower() / "model") for name in RUNS}
    for name, spec in specs.items():
        model = load(spec, dtype="float32")
        traces = traces or held_out(options.runs, model, options.n)
        summaries[name] = measure(name, model, traces, options.out)
    made = tables(summaries)
    publish({name: markdown(table.fillna("")) for name, table in made.items()}, write=options.write)


if __name__ == "__main__":
    main()
