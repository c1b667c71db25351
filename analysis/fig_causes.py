"""Is what the key sentence looks at what it acts on? Attention knockout by layer, beside random keys.

On harmful prompts where K is an aha moment and, as a reference, on benign ones: what hiding X or U from K and from the
token before it does to safe key sentences less go-aheads (:mod:`safekey_interp.interventions.attention_knockout`), one
layer at a time, beside as many random keys. Attention says where a row looks, this what comes of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.bench import Bench, spread
from analysis.composing import Composition, Drawn, toy_in_words
from analysis.saving import Sheet
from analysis.tables import interval
from analysis.verdicts import Measured, unmeasured
from safekey_interp import figures
from safekey_interp.errors import InputError
from safekey_interp.figures.grid import Panel
from safekey_interp.interventions.attention_knockout import knockout, summarise_knockout
from safekey_interp.interventions.effects import control_kinds, default_rows, tested_rows
from safekey_interp.stats import FEW, difference_of_ratios

NAME = "fig_causes"
QUERIES = "decision+key_sentence"
SPANS = {"prompt": "X", "understanding": "U"}
CASES = {"aha": "harmful, K is an aha", "benign": "benign"}
MOST, N_RANDOM = 32, 8


def draw(bench: Bench) -> tuple[Sheet | None, list[Measured]]:
    """The figure, None where no model has an aha moment, and what it says of claim 3c."""
    by_layer, together = {}, {}
    for name in bench.names:
        for case, traces in _cases(bench, name).items():
            try:
                options: dict[str, Any] = {"n_random": N_RANDOM, "seed": bench.seed}
                model = bench.model(name)
                by_layer[name, case] = knockout(model, traces, QUERIES, tuple(SPANS), by="layer", **options)
                if case == "aha" or (name, "aha") in by_layer:
                    together[name, case] = knockout(model, traces, QUERIES, "understanding", **options)
            except InputError:  # no trace of the case can be cut
                continue
    measured = [_claim(bench, name, together) for name in bench.names]
    shown = [name for name in bench.names if (name, "aha") in by_layer]
    if not shown:
        return None, measured
    figure = Composition()
    for case, words in CASES.items():
        panels = [_panel(name, by_layer[name, case], bench.seed) for name in shown if (name, case) in by_layer]
        figure.add(
            panels,
            said=f"{words}: change of safe less go-ahead when K and the token before it may not see X or U, by layer.",
            heading=f"{words[0].upper()}{words[1:]}: X or U hidden, beside random keys",
            height=200,
        )
    sizes = ", ".join(f"{name} {by_layer[name, 'aha']['trace_id'].nunique()}" for name in shown)
    caption = (
        f"{figure.words()} Random: as many keys of the same trace, {N_RANDOM} draws. n with an aha: {sizes}"
        f"{toy_in_words(bench)}. Bands: 95 % over prompts."
    )
    sheet = figure.sheet(
        name=NAME,
        title="What comes of what the key sentence looks at",
        caption=caption,
        seed=bench.seed,
        table=_in_words(together, bench.seed),
        table_caption="All layers at once: change of safe less go-ahead (nats a token), U hidden, beside random keys",
        source=bench.source(),
    )
    return sheet, measured


def _cases(bench: Bench, name: str) -> dict[str, Any]:
    if name not in bench.probes:
        return {}
    rows = bench.outcomes(name)
    wanted = {
        "aha": set(rows[(rows["label"] == "harmful").fillna(False) & (rows["aha"] == "safe").fillna(False)].index),
        "benign": set(rows[(rows["label"] == "benign").fillna(False) & (rows["aha"] != "safe").fillna(False)].index),
    }
    answers = bench.answers(name)
    chosen = {case: spread([t for t in answers if t.trace_id in ids], MOST) for case, ids in wanted.items()}
    return {case: traces for case, traces in chosen.items() if len(traces) >= FEW}


def _panel(name: str, table: Any, seed: int) -> Drawn:
    summary: Any = default_rows(summarise_knockout(table))
    mine = summary[(summary["metric"] == "difference") & (summary["subset"] == "all")]
    rows = []
    for _, row in mine.iterrows():
        about = {"x": int(row["layer"]), "n": int(row["n"]), "n_groups": int(row["n_groups"])}
        span = SPANS[str(row["to_span"])]
        rows.append(about | {"series": f"{span} hidden"} | {key: row[key] for key in ("value", "low", "high")})
        control = {"value": row["control"], "low": row["control_low"], "high": row["control_high"]}
        rows.append(about | {"series": f"random, as many as {span}"} | control)
    drawn = pd.DataFrame(rows)
    order = [words for span in SPANS.values() for words in (f"random, as many as {span}", f"{span} hidden")]
    drawn = drawn.sort_values("series", key=lambda names: names.map(order.index), kind="stable")
    spec = figures.estimates_as_lines.spec(
        drawn, title=name, x="layer", y="nats a token", caption=f"Knockout by layer, {name}", across_at=0.0
    )
    return Panel(title=name, spec=spec), drawn.assign(model=name)


def _excess(table: Any) -> Any:
    """By trace: the change with the span hidden, less the mean change with random keys hidden; with its group."""
    mine = table[table["metric"] == "difference"]
    keys = ["trace_id", "group"]
    cut = tested_rows(mine).groupby(keys)["effect"].mean()
    random = mine[mine["control"] == control_kinds(mine)[0]].groupby(keys)["effect"].mean()
    return pd.DataFrame({"cut": cut, "random": random}).dropna().reset_index()


def _claim(bench: Bench, name: str, together: dict[tuple[str, str], Any]) -> Measured:
    parts = [_excess(together[name, case]) for case in CASES if (name, case) in together]
    if len(parts) < len(CASES):
        return unmeasured(
            "3c", name, "too few traces whose K is an aha, or too few benign ones", toy=bench.is_toy(name)
        )
    apart = [(part["cut"] - part["random"]).to_numpy(float) for part in parts]
    means = [part.mean() for part in apart]
    groups = [group for part in parts for group in part["group"]]
    # Each trace is of one case alone, and has no part in the other's mean.
    of_case = np.repeat([0, 1], [len(part) for part in apart])
    every = np.concatenate(apart)
    aha, benign = ((np.where(of_case == case, every, 0.0), (of_case == case).astype(float)) for case in (0, 1))
    value, (low, high) = difference_of_ratios(benign, aha, groups)
    return Measured(
        claim="3c",
        model=name,
        value=value,
        low=low,
        high=high,
        unit="nats a token",
        n=sum(map(len, parts)),
        n_groups=len(set(groups)),
        control_value=f"beyond random: aha {means[0]:+.2f}, benign {means[1]:+.2f}",
        note="all layers at once",
        toy=bench.is_toy(name),
    )


def _in_words(together: dict[tuple[str, str], Any], seed: int) -> pd.DataFrame:
    rows = []
    for (name, case), table in together.items():
        summary: Any = default_rows(summarise_knockout(table))
        [row] = [
            row
            for _, row in summary[(summary["metric"] == "difference") & (summary["subset"] == "all")].iterrows()
        ]  # fmt: skip
        rows.append(
            {
                "model": name,
                "traces": CASES[case],
                "U hidden": interval(row, form="+.2f"),
                "random keys": interval(row, "control", "+.2f"),
                "n (prompts)": f"{row['n']} ({row['n_groups']})",
            }
        )
    return pd.DataFrame(rows)
