"""Interventions on the organisms: knockout, activation patching and directions.

    python -m analysis.organism.causes [--models organism:sft organism:safekey] [--n 60] [--only steering] [--write]

Each model answers the test prompts of the package itself. Attention knockout of the queries that predict K, in all
layers and layer by layer, on wrapped harmful requests by outcome (refused: K is an aha; complied: a successful
jailbreak), on plain refused ones, and on benign ones; activation patching from the plain, refused form of a request
into the jailbreak; ablation and steering along the cross-fitted difference of means, beside directions fitted to
shuffled labels, drawn from the states' covariance, and isotropic ones. Every number has its control. No setting was
chosen on these traces.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd

from analysis.organism.behaviour import answered
from analysis.tables import interval, markdown, publish, where
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.interventions.activation_patching import patch, summarise_patching
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.cross_fitting import steer_held_out
from safekey_interp.interventions.donors import OTHER, SAME, find_donors
from safekey_interp.interventions.effects import TESTED, default_rows, tested_rows
from safekey_interp.interventions.knockout_summary import CONTRAST, CURVATURE, EFFECT, SLOPE, summarise_knockout
from safekey_interp.interventions.steering import summarise_steering
from safekey_interp.measures.control_directions import ControlKind
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import read_shipped

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
    cases: dict[str, list[Trace]] = {}
    for name, case in CASES.items():
        matching = [t for t in traces if (t.label, t.source, t.meta["outcome"]) == case]
        step = max(1, len(matching) // n)
        cases[name] = matching[::step][:n]
    return cases


def knockouts(
    models: dict[str, tuple[Model, dict[str, list[Trace]]]], answers: dict[str, list[Trace]]
) -> dict[str, pd.DataFrame]:
    """All layers at once, and X and U layer by layer; donors are all of the model's well-formed answers."""
    together, layers, pools = [], [], []
    for name, (model, by_case) in models.items():
        others = find_donors(model, answers[name], StreamSettings(finder="given"))
        for case, traces in by_case.items():
            if len(traces) < 5:
                continue
            about = {"model": name, "case": case}
            options: dict[str, Any] = {"finder": "given", "others": others}
            for spans in (SPANS[:2], SPANS[2:]):
                effects = knockout(model, traces, QUERIES, spans, **options)
                summary = summarise_knockout(effects)
                for span in spans:
                    line = about | {"K may not see": span}
                    together.append(line | _cells(summary, span) | _ahead(effects, span))
                    pools += [line | _pool(effects, span)] if spans == SPANS[:2] else []
            by_layer = summarise_knockout(
                knockout(model, traces, QUERIES, SPANS[:2], by="layer", controls=(SAME, OTHER), **options)
            )
            for span in SPANS[:2]:
                for measure, words in ((EFFECT, "hidden"), (CONTRAST, "other label's minus same label's in place")):
                    rows = _of(by_layer, span, measure)
                    by_number = {f"layer {row['layer']}": interval(row, form="+.2f") for _, row in rows.iterrows()}
                    layers.append(about | {"span": span, "what is done": words} | by_number)
    names = ("organism-knockout", "organism-knockout-layers", "organism-knockout-pool")
    return {name: pd.DataFrame(rows) for name, rows in zip(names, (together, layers, pools), strict=True)}


def patching(models: dict[str, tuple[Model, dict[str, list[Trace]]]], answers: dict[str, list[Trace]]) -> pd.DataFrame:
    """Shares of the way from the jailbreak to the refused plain request, by layer and position."""
    rows = []
    for name, (model, by_case) in models.items():
        chosen = {trace.trace_id for trace in by_case[JAILBROKEN]}
        pool = [t for t in answers[name] if t.label == "harmful" and (t.source == "plain" or t.trace_id in chosen)]
        table = patch(model, pool, positions=PATCHED, finder="given")
        summary: Any = default_rows(summarise_patching(table))
        shares = summary[
            (summary["metric"] == "difference") & (summary["measure"] == "share") & (summary["subset"] == "all")
        ]
        for position, part in shares.groupby("position", sort=False):
            line = {"model": name, "states of the plain request at": position}
            for _, row in part.iterrows():
                line[f"layer {row['layer']}"] = f"{row['value']:.2f} ({row['control']:.2f})"
            rows.append(line | {"n (groups)": f"{part['n'].iloc[0]} ({part['n_groups'].iloc[0]})"})
    return pd.DataFrame(rows)


def steering(models: dict[str, tuple[Model, dict[str, list[Trace]]]], answers: dict[str, list[Trace]]) -> pd.DataFrame:
    """The direction from benign to harmful ablated on plain requests, and added to jailbreaks, beside each control.

    Of each kind of control the mean, the draw that goes furthest the same way, and p of the largest over all layers.
    """
    rows = []
    for name, (model, _) in models.items():
        plain = [t for t in answers[name] if t.source == "plain"]
        wrapped = [t for t in answers[name] if t.source == "wrapped"]
        ways = (("ablated, plain harmful", plain, "ablate"), ("added, wrapped harmful", wrapped, "add"))
        for words, traces, mode in ways:
            table: Any = steer_held_out(
                model, traces, fit_position="decision", finder="given", mode=mode, controls=get_args(ControlKind)
            )
            summary: Any = summarise_steering(table)
            matching = summary[(summary["metric"] == "difference") & (summary["subset"] == "harmful")]
            drawn = table[(table["metric"] == "difference") & (table["label"] == "harmful")]
            furthest = _furthest(drawn.groupby(["layer", "control", "draw"])["effect"].mean())
            for layer, part in matching.groupby("layer"):
                first = part.iloc[0]
                line = {"model": name, "direction of decision": words, "layer": str(layer)}
                line |= {"change of safe minus compliant": interval(first, form="+.2f")}
                for _, row in part.iterrows():
                    kind = row["control_kind"]
                    line[kind.replace("_", " ")] = (
                        f"{row['control']:+.2f}, to {furthest[layer, kind]:+.2f}, p {row['p_value_over_all']:.3f}"
                    )
                line |= {
                    "abs. cosine with PC1": f"{first['pc1_cosine']:.2f} ({first['pc1_share']:.0%} of the variance)"
                }
                rows.append(line | {"n (groups)": f"{first['n']} ({first['n_groups']})"})
    return pd.DataFrame(rows)


def _furthest(means: Any) -> dict[tuple[int, str], float]:
    """By layer and kind of control, the mean of the draw that goes furthest the way that the tested direction goes."""
    furthest = {}
    for (layer, kind), part in means.groupby(["layer", "control"]):
        way = 1 if means[layer, TESTED, -1] > 0 else -1
        furthest[layer, kind] = float((way * part).max() * way)
    return furthest


def _ahead(effects: Any, span: str) -> dict[str, str]:
    """Shares of traces for which safe key sentences are likelier than compliant ones."""
    rows = effects[(effects["metric"] == "difference") & (effects["to_span"] == span)]
    cut = tested_rows(rows)
    parts = [cut["baseline"], cut["value"], *(rows.loc[rows["control"] == kind, "value"] for kind in (OTHER, SAME))]
    shares = [f"{(part > 0).mean():.2f}" for part in parts if part.notna().any()]
    return {"safe is ahead: as it is, hidden, other label's, same label's": ", ".join(shares)}


def _of(summary: Any, span: str, measure: str, **wanted: Any) -> Any:
    """Rows of all traces, each place once."""
    rows: Any = default_rows(summary) if "control_kind" not in wanted else summary
    usual = {"metric": "difference", "subset": "all", "dose": 1.0}
    return where(rows, **usual | wanted, to_span=span, measure=measure)


def _cells(summary: Any, span: str) -> dict[str, str]:
    def cell(measure: str, name: str = "value", **wanted: Any) -> str:
        rows = _of(summary, span, measure, **wanted)
        return "" if rows.empty or rows[name].isna().all() else interval(rows.iloc[0], name, form="+.2f")

    [row] = [row for _, row in _of(summary, span, EFFECT).iterrows()]
    outside = f"{row['n_with_control']} of {row['n']} traces have them ({row['n_pool']:.0f} of {row['n_k']:.0f} keys)"
    if row["n_with_control"]:
        outside = f"{interval(row, 'control', form='+.2f')}, excess {interval(row, 'excess', form='+.2f')}; {outside}"
    return {
        "hidden": interval(row, form="+.2f"),
        "random keys outside": outside,
        "a quarter of it hidden": cell(EFFECT, dose=0.25),
        "slope over the dose": cell(SLOPE),
        "all minus 4 quarters": cell(CURVATURE),
        "other label's in place": cell(EFFECT, "control", control_kind=OTHER),
        "same label's in place": cell(EFFECT, "control", control_kind=SAME),
        "other minus same": cell(CONTRAST),
        "n (groups)": f"{row['n']} ({row['n_groups']})",
    }


def _pool(effects: Any, span: str) -> dict[str, str]:
    """Where random keys could lie: in the other tested span, or outside both."""
    rows = tested_rows(effects)
    keys = rows[rows["metric"] == "difference"].pivot(index="trace_id", columns="to_span", values=["n_k", "n_pool"])
    [other] = set(SPANS[:2]) - {span}
    n, beside, pool = (keys[column].to_numpy(float) for column in (("n_k", span), ("n_k", other), ("n_pool", span)))
    return {
        "keys, median": f"{np.median(n):.0f}",
        "keys outside X, U and the first token": f"{np.median(pool):.0f}",
        "traces with as many": f"{(pool >= n).sum()} of {len(n)}",
        "of random keys that may lie in the other span, so many do": f"{(beside / (beside + pool)).mean():.2f}",
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
        answers[name] = [t for t in answered(spec, asked) if t.given]
        models[name] = (load(spec), cases(answers[name], options.n))
        counts = {case: len(traces) for case, traces in models[name][1].items()}
        print(f"{spec}: {len(answers[name])} of {len(asked)} with U and K; {counts}", flush=True)
    tables: dict[str, pd.DataFrame] = {}
    if options.only in (None, "knockout"):
        tables |= knockouts(models, answers)
    if options.only in (None, "patching"):
        tables["organism-patching"] = patching(models, answers)
    if options.only in (None, "steering"):
        tables["organism-steering"] = steering(models, answers)
    publish({name: markdown(table.fillna("")) for name, table in tables.items()}, write=options.write)


if __name__ == "__main__":
    main()
