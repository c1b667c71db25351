"""Fine-tuning of SmolLM2 with SafeKey's losses and without them, on the same examples.

    python -m analysis.smollm2.training --data ../shared/data [--n 250] [--epochs 3] [--write]

SmolLM2-135M-Instruct, fine-tuned twice with ``train/sft.yaml`` and ``train/safekey.yaml`` (with model, data and
schedule for two cores) on STAR-1 and on the partly constructed benign traces of :mod:`analysis.smollm2.data`: the same
examples in the same order, the same steps and seed; a tenth of the prompts is held out. Before and after: the loss of
the held-out safe key sentences with and without the prompt; safe against compliant key sentences on XSTest; attention
on U over its distance-matched baseline; AUROC by layer beside the text baseline; time of a step. Every stage resumes. A
model of 135M parameters trained for less than an hour is not the paper's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.smollm2.data import benign_traces, harmful_traces, mixed, xstest_traces
from analysis.tables import interval, markdown, publish
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.generation.aha_score import measure_aha, summarise_aha
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.attention_summary import summarise_attention
from safekey_interp.measures.intervals import difference_of_ratios, ratio_of_means
from safekey_interp.measures.separability import measure_separability
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load
from safekey_interp.runs.run_folder import Run, open_run
from safekey_interp.runs.storage import read_json, write_aside, write_json
from safekey_interp.training import TrainingConfig, read_config, train
from safekey_interp.training.batch import collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.examples import prepare_examples

RUNS = ("SFT", "SafeKey")
RECIPES = Path(__file__).parents[2] / "train"
HERE = (
    *("model=smollm2", "finder=given", "precision=fp32", "gradient_checkpointing=false", "max_length=512"),
    *("batch_size=16", "micro_batch_size=2", "learning_rate=5e-5", "held_out=0.1", "log_every=1", "seed=2002"),
)
"""What is not the paper's; chosen for two cores, and tuned on nothing."""
LAST = 0.4
"""Share of the epochs in which the auxiliary losses count: the paper's 2 of 5."""
POSITIONS = ("understanding", "decision")


def config_of(name: str, options: argparse.Namespace) -> TrainingConfig:
    """A recipe with what fits here."""
    epochs = (f"epochs={options.epochs}", f"auxiliary_epochs={LAST * options.epochs}")
    out = f"out={options.out / name.lower()}"
    return read_config(
        RECIPES / f"{name.lower()}.yaml", [*HERE, *epochs, out, f"traces={options.out / 'traces.jsonl'}"]
    )


def prepare(options: argparse.Namespace) -> Path:
    """The file of traces."""
    file: Path = options.out / "traces.jsonl"
    if not file.is_file():
        options.out.mkdir(parents=True, exist_ok=True)
        model = load("smollm2")
        harmful = harmful_traces(model, options.data / "star1.jsonl", n=options.n, max_length=512)
        benign = benign_traces(
            model,
            options.data / "prompts_harmless.jsonl",
            options.out / "answers.jsonl",
            n=len(harmful),
            max_new_tokens=options.answer_tokens,
            tell=lambda line: print(line, flush=True),
        )
        rows = [organism.to_row(trace) for trace in mixed(harmful, benign, seed=0)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_aside(file, lambda aside: aside.write_text(lines, encoding="utf-8"))
    return file


def measure(model: Model, held_out: Sequence[Trace], xstest: Sequence[Trace]) -> dict[str, Any]:
    """Everything that stands in the tables, of one model."""
    harmful = [trace for trace in held_out if trace.label == "harmful"]
    measures: dict[str, Any] = {"key_loss": _key_loss(model, harmful), "aha": {}, "attention": {}, "auroc": []}
    for masked in (False, True):
        aha = summarise_aha(measure_aha(model, xstest, finder="given", mask_prompt=masked))
        measures["aha"]["U alone" if masked else "X and U"] = aha.to_dict("records")
    for name, traces in (("held-out STAR-1", harmful), ("XSTest", xstest)):
        summary: Any = summarise_attention(
            measure_attention(model, traces, finder="given"), {trace.trace_id: trace.group for trace in traces}
        )
        rows = summary[(summary["to_span"] == "understanding") & (summary["measure"] == "lift_over_matched")]
        measures["attention"][name] = rows[rows["layer"] == rows["layer"].max()].to_dict("records")
    table: Any = measure_separability(model, xstest, finder="given", positions=POSITIONS)
    columns = ["position", "layer", "method", "auroc", "auroc_low", "auroc_high", "null_auroc_high", "n", "n_groups"]
    measures["auroc"] = table[columns].to_dict("records")
    return measures


def _key_loss(model: Model, traces: Sequence[Trace]) -> dict[str, Any]:
    """Nats a token of each trace's own key sentence, with the prompt in sight and masked."""
    config = TrainingConfig(finder="given", held_out=0.0, max_length=512, head_weight=0, query_mask_weight=0)
    examples = prepare_examples(model, traces, config).train
    loss = BatchLoss(model.hf, None, weighs_key=True)
    rows = []
    with torch.no_grad():
        for example in examples:
            batch = collate([example.encoding], [example.label])
            sums, counts = loss(batch), batch.counts
            rows.append(
                [float(sums.key), int(counts.visible_key_tokens), float(sums.query_mask), int(counts.key_tokens)]
            )
    return {"groups": [example.group for example in examples], "rows": rows}


def tables(runs: dict[str, Run], measures: dict[str, dict[str, Any]]) -> dict[str, str]:
    """For RESULTS.md."""
    return {
        "smollm2-training": "; ".join(_run_in_words(name, run) for name, run in runs.items()),
        "smollm2-losses": markdown(_losses(runs)),
        "smollm2-keys": markdown(_keys(measures)),
        "smollm2-auroc": markdown(_aurocs(measures)),
    }


def _run_in_words(name: str, run: Run) -> str:
    data, schedule = run.manifest["data_report"]["train"], run.manifest["schedule"]
    steps: Any = run.steps
    has_both = schedule["auxiliary_from"] < schedule["steps"]
    parts = {"with both losses": steps["step"] > schedule["auxiliary_from"]} if has_both else {}
    parts = {"with language modelling alone": steps["step"] <= schedule["auxiliary_from"]} | parts
    seconds = ", ".join(
        f"{steps.loc[steps_of_part, 'seconds'].median():.1f} s {words}" for words, steps_of_part in parts.items()
    )
    minutes = run.manifest["result"]["seconds"] / 60
    what = f"{data['traces']} traces ({data['harmful']} harmful), {schedule['steps']} steps, {minutes:.0f} minutes"
    return f"{name}: {what}; median of a step {seconds}"


def _losses(runs: dict[str, Run]) -> pd.DataFrame:
    rows = []
    for name, run in runs.items():
        table: Any = run.held_out
        for which, row in (("before", table.iloc[0]), (name, table.iloc[-1])):
            if which == "before" and rows:
                continue
            terms = {"held-out loss": which, "LM, nats per token": f"{row['lm']:.3f}"}
            terms["K without X, nats per token"] = _or_none(row["query_mask"])
            rows.append(terms | {"safety head, nats per trace": _or_none(row["head"])})
    return pd.DataFrame(rows)


def _or_none(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "n/a"


def _keys(measures: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """What stands or falls with the key sentence."""
    rows = []
    for model, numbers in measures.items():
        row: dict[str, str] = {"model": model}
        kept = np.array(numbers["key_loss"]["rows"], float)
        for words, at in (("K's loss, X in sight", 0), ("K's loss, X masked", 2)):
            mean = ratio_of_means(kept[:, [at]], kept[:, [at + 1]], numbers["key_loss"]["groups"])
            row[f"{words} (n = {len(kept)})"] = f"{mean.value[0]:.2f} [{mean.low[0]:.2f}, {mean.high[0]:.2f}]"
        for sight, records in numbers["aha"].items():
            for subset in ("harmful", "benign"):
                record = next(r for r in records if r["subset"] == subset and r["measure"] == "difference")
                row[f"XSTest {subset}: safe minus compliant, {sight} (n = {record['n']})"] = interval(record)
        for data, records in numbers["attention"].items():
            for record in records:
                key = f"{record['from_span']} on U over the distance-matched baseline, {data} (n = {record['n']})"
                row[key] = interval(record)
        rows.append(row)
    table = pd.DataFrame(rows).set_index("model").T
    table["SafeKey minus SFT, by trace"] = ""
    for words, at in (("K's loss, X in sight", 0), ("K's loss, X masked", 2)):
        table.loc[f"{words} (n = {len(kept)})", "SafeKey minus SFT, by trace"] = _difference(measures, at)
    return table.rename_axis("measure").reset_index()


def _difference(measures: dict[str, dict[str, Any]], at: int) -> str:
    """Of K's mean loss a token, of the same traces."""
    sft, safekey = (np.array(measures[name]["key_loss"]["rows"], float)[:, at : at + 2].T for name in RUNS)
    groups = measures["SFT"]["key_loss"]["groups"]
    value, (low, high) = difference_of_ratios((sft[0], sft[1]), (safekey[0], safekey[1]), groups)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _aurocs(measures: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """XSTest: the median over layers, the states after the final norm, and the words, which are the same for all."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for model, numbers in measures.items():
        for position in POSITIONS:
            scores = [
                score for score in numbers["auroc"] if score["position"] == position and score["auroc"] is not None
            ]
            states = [score for score in scores if score["method"] == "logistic"]
            by_layer = [score["auroc"] for score in states]
            last = max(states, key=lambda score: score["layer"])
            [words] = [score for score in scores if score["method"] == "text_tfidf"]
            cells = {
                f"median of {len(states)} sites (least to most)": (
                    f"{np.median(by_layer):.3f} ({min(by_layer):.3f} to {max(by_layer):.3f})"
                ),
                "after the final norm": interval(last, "auroc", ".3f"),
                "words alone": interval(words, "auroc", ".3f"),
            }
            for where, cell in cells.items():
                about = {"position": position, "where": where, "n (groups)": f"{last['n']} ({last['n_groups']})"}
                rows.setdefault((position, where), about)[model] = cell
    return pd.DataFrame(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of star1, prompts_harmless, xstest_prompts")
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2-training"))
    parser.add_argument("--n", type=int, default=250, help="traces of each label")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--answer-tokens", type=int, default=160, help="most tokens of a benign answer")
    parser.add_argument("--limit-xstest", type=int, help="a part of XSTest, to try it out")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md, too")
    options = parser.parse_args()
    quiet_libraries()
    file = prepare(options)
    xstest = xstest_traces(options.data / "xstest_prompts.jsonl")[: options.limit_xstest]
    runs = {}
    for name in RUNS:
        print(f"training {name}", flush=True)
        config = config_of(name, options)
        runs[name] = train(load("smollm2", dtype="float32"), file, config)
    model = load("smollm2", dtype="float32")
    chosen = {e.trace_id for e in prepare_examples(model, _traces(file), config_of("SFT", options)).held_out}
    held_out = [trace for trace in _traces(file) if trace.trace_id in chosen]
    measures = {}
    trained = {name: str(run.path / "model") for name, run in runs.items()}
    for name, spec in ({"before": "smollm2"} | trained).items():
        record = options.out / f"measured-{name.lower()}.json"
        if not record.is_file():
            print(f"measuring {name}", flush=True)
            write_json(record, measure(load(spec, dtype="float32"), held_out, xstest))
        measures[name] = read_json(record)
    publish(tables({name: open_run(run.path) for name, run in runs.items()}, measures), write=options.write)


def _traces(file: Path) -> list[Trace]:
    return list(read_traces(file))


if __name__ == "__main__":
    main()
