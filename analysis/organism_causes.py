"""What causes the decision in the organisms: what does K need to see, and where do states carry the refusal?

    python -m analysis.organism_causes [--models organism:sft organism:safekey] [--n 60] [--only steering] [--write]

Each model answers the shipped test prompts itself. Attention knockout of the queries that predict K, all layers at once
and layer by layer, on harmful requests behind wrappers, apart by what became of them (refused: K is an aha; complied: a
jailbreak that succeeded), on plain ones that are refused, and on benign ones; activation patching from the plain,
refused form of a request into the jailbreak; steering along the difference of means of held-out requests, beside
directions fitted to shuffled labels, drawn from the states' covariance, and isotropic ones. Every figure stands beside
its control. Nothing was chosen by these traces.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args

import pandas as pd

from analysis.organism_behaviour import answered
from analysis.tables import interval, markdown, publish
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.controls import ControlKind
from safekey_interp.interventions.attention_knockout import knockout, summarise_knockout
from safekey_interp.interventions.effects import TESTED, control_kinds, default_rows, tested_rows
from safekey_interp.interventions.held_out import steer_held_out
from safekey_interp.interventions.patching import patch, summarise_patching
from safekey_interp.interventions.steering import summarise_steering
from safekey_interp.models import Model, load
from safekey_interp.organism import read_shipped
from safekey_interp.trace import Trace

QUERIES = "decision+key_sentence"
SPANS = ("prompt", "understanding", "template", "first_token")
CASES = {
    "wrapped, refused": ("harmful", "wrapped", "refused"),
    "wrapped, complied": ("harmful", "wrapped", "complied"),
    "plain, refused": ("harmful", "plain", "refused"),
    "wrapped, benign": ("benign", "wrapped", "complied"),
}
"""Label, source and outcome of each case; the last one shows what a cut does where there is nothing to refuse."""
JAILBROKEN = "wrapped, complied"
PATCHED = ("prompt_end", "understanding", "decision")


def cases(traces: Sequence[Trace], n: int) -> dict[str, list[Trace]]:
    """Traces of each case, at most ``n``, spread over the wrappers."""
    found: dict[str, list[Trace]] = {}
    for name, case in CASES.items():
        mine = [t for t in traces if (t.label, t.source, t.meta["outcome"]) == case]
        step = max(1, len(mine) // n)
        found[name] = mine[::step][:n]
    return found


def knockouts(models: dict[str, tuple[Model, dict[str, list[Trace]]]]) -> dict[str, pd.DataFrame]:
    """All layers at once, and X and U layer by layer."""
    together, layers = [], []
    for name, (model, by_case) in models.items():
        for case, traces in by_case.items():
            if len(traces) < 5:
                continue
            about = {"model": name, "case": case}
            found: Any = knockout(model, traces, QUERIES, SPANS, finder="given")
            table: Any = summarise_knockout(found)
            for _, row in _of(table, "difference").iterrows():
                ahead = {"safe is ahead, of all: before, cut, random": _ahead(found, row["to_span"])}
                together.append(about | {"K may not see": row["to_span"]} | _cells(row) | ahead)
            by_layer: Any = summarise_knockout(knockout(model, traces, QUERIES, SPANS[:2], by="layer", finder="given"))
            for span, rows in _of(by_layer, "difference").groupby("to_span", sort=False):
                line = about | {"K may not see": span}
                for _, row in rows.iterrows():
                    line[f"layer {row['layer']}"] = interval(row, "excess", form="+.2f")
                layers.append(line)
    return {"organism-knockout": pd.DataFrame(together), "organism-knockout-layers": pd.DataFrame(layers)}


def patching(models: dict[str, tuple[Model, dict[str, list[Trace]]]], answers: dict[str, list[Trace]]) -> pd.DataFrame:
    """Shares of the way from the jailbreak to the refused plain request, by layer and position."""
    rows = []
    for name, (model, by_case) in models.items():
        chosen = {trace.trace_id for trace in by_case[JAILBROKEN]}
        pool = [t for t in answers[name] if t.label == "harmful" and (t.source == "plain" or t.trace_id in chosen)]
        table = patch(model, pool, positions=PATCHED, finder="given")
        summary: Any = default_rows(summarise_patching(table))
        mine = summary[
            (summary["metric"] == "difference") & (summary["measure"] == "share") & (summary["subset"] == "all")
        ]
        for position, part in mine.groupby("position", sort=False):
            line = {"model": name, "states of the plain request at": position}
            for _, row in part.iterrows():
                line[f"layer {row['layer']}"] = f"{row['value']:.2f} ({row['control']:.2f})"
            rows.append(line | {"n (groups)": f"{part['n'].iloc[0]} ({part['n_groups'].iloc[0]})"})
    return pd.DataFrame(rows)


def steering(models: dict[str, tuple[Model, dict[str, list[Trace]]]], answers: dict[str, list[Trace]]) -> pd.DataFrame:
    """The direction from benign to harmful taken out of plain requests, and added to jailbreaks, beside each control.

    Of each kind of control the mean, the draw that goes furthest the same way, and p of the largest over all layers.
    """
    rows = []
    for name, (model, _) in models.items():
        plain = [t for t in answers[name] if t.source == "plain" and t.meta["outcome"] != "malformed"]
        wrapped = [t for t in answers[name] if t.source == "wrapped" and t.meta["outcome"] != "malformed"]
        ways = (("taken out, plain harmful", plain, "ablate"), ("added, wrapped harmful", wrapped, "add"))
        for words, traces, mode in ways:
            table: Any = steer_held_out(
                model, traces, fit_position="decision", finder="given", mode=mode, controls=get_args(ControlKind)
            )
            summary: Any = summarise_steering(table)
            mine = summary[(summary["metric"] == "difference") & (summary["subset"] == "harmful")]
            drawn = table[(table["metric"] == "difference") & (table["label"] == "harmful")]
            furthest = _furthest(drawn.groupby(["layer", "control", "draw"])["effect"].mean())
            for layer, part in mine.groupby("layer"):
                first = part.iloc[0]
                line = {"model": name, "direction of decision": words, "layer": str(layer)}
                line |= {"change of safe less go-ahead": interval(first, form="+.2f")}
                for _, row in part.iterrows():
                    kind = row["control_kind"]
                    line[kind.replace("_", " ")] = (
                        f"{row['control']:+.2f}, to {furthest[layer, kind]:+.2f}, p {row['p_value_over_all']:.3f}"
                    )
                line |= {"|cosine| with PC1": f"{first['pc1_cosine']:.2f} ({first['pc1_share']:.0%} of the variance)"}
                rows.append(line | {"n (groups)": f"{first['n']} ({first['n_groups']})"})
    return pd.DataFrame(rows)


def _furthest(means: Any) -> dict[tuple[int, str], float]:
    """By layer and kind of control, the mean of the draw that goes furthest the way that the tested direction goes."""
    found = {}
    for (layer, kind), part in means.groupby(["layer", "control"]):
        way = 1 if means[layer, TESTED, -1] > 0 else -1
        found[layer, kind] = float((way * part).max() * way)
    return found


def _ahead(found: Any, span: str) -> str:
    """Shares of traces for which safe key sentences are likelier than go-aheads."""
    mine = found[(found["metric"] == "difference") & (found["to_span"] == span)]
    cut, random = tested_rows(mine), mine[mine["control"] == control_kinds(mine)[0]]
    shares = [(part > 0).mean() for part in (cut["baseline"], cut["value"], random["value"])]
    return ", ".join(f"{one:.2f}" for one in shares)


def _of(summary: Any, metric: str) -> Any:
    rows: Any = default_rows(summary)
    return rows[(rows["metric"] == metric) & (rows["subset"] == "all")]


def _cells(row: Any) -> dict[str, str]:
    return {
        "change of safe less go-ahead": interval(row, form="+.2f"),
        "random keys": interval(row, "control", form="+.2f"),
        "beyond random": interval(row, "excess", form="+.2f"),
        "n (groups)": f"{row['n']} ({row['n_groups']})",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--models", nargs="+", default=["organism:sft", "organism:safekey"])
    parser.add_argument("--n", type=int, default=60, help="traces of each outcome")
    parser.add_argument("--only", choices=("knockout", "patching", "steering"), help="one part alone")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md, too")
    options = parser.parse_args()
    quiet_libraries()
    asked = list(read_shipped())
    answers, models = {}, {}
    for spec in options.models:
        name = spec.removeprefix("organism:")
        answers[name] = [t for t in answered(spec, asked) if t.meta["outcome"] != "malformed"]
        models[name] = (load(spec), cases(answers[name], options.n))
        counts = {case: len(traces) for case, traces in models[name][1].items()}
        print(f"{spec}: {len(answers[name])} of {len(asked)} well-formed; {counts}", flush=True)
    tables: dict[str, pd.DataFrame] = {}
    if options.only in (None, "knockout"):
        tables |= knockouts(models)
    if options.only in (None, "patching"):
        tables["organism-patching"] = patching(models, answers)
    if options.only in (None, "steering"):
        tables["organism-steering"] = steering(models, answers)
    publish({name: markdown(table.fillna("")) for name, table in tables.items()}, write=options.write)


if __name__ == "__main__":
    main()
