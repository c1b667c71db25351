"""Question 2, dormant signal: U of successful attacks, by the finder and by probes.

Among harmful prompts with full compliance: the share whose U alone names the harm, beside the same share of benign
prompts (the finder's false positives); and the AUROC of a probe on the states over U for these traces against benign
ones, beside the text baseline of U with the same folds and shuffled labels
(:mod:`safekey_interp.measures.separability`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.paper.export import Answer
from analysis.paper.models import Bench
from analysis.paper.responses import mean_of
from analysis.paper.sheets import Composition, in_words, shares, toy_in_words
from analysis.paper.verdicts import Measured, unmeasured
from safekey_interp.errors import InputError, RunError
from safekey_interp.evaluation.judge_metrics import COMPLYING
from safekey_interp.experiments.compare_measures import paired_shares
from safekey_interp.measures.separability import measure_separability
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_grid import Panel
from safekey_interp.reporting.findings.finding import estimate

NAME = "fig_dormant_signal"
PLACES = {"success": "successful attacks", "benign": "benign prompts"}
_FEWEST = 10
"""Successful attacks below which no probe is fitted."""


def answer(bench: Bench) -> Answer:
    """The figure, and what it says of claims 2a and 2b.

    Raises:
        RunError: no attack succeeds on any model, so that there is no signal to be dormant.
    """
    hints = pd.DataFrame([row for name in bench.names for row in _told(bench, name)])
    if hints.empty or PLACES["success"] not in set(hints["place"]):
        raise RunError("no successful attack whose understanding was found, expected some")
    probed = {name: probe_rows for name in bench.names if (probe_rows := _probed(bench, name)) is not None}
    figure = Composition()
    figure.add(
        [shares(hints, "U names the harm", "share of traces")],
        caption="Share of traces whose U names the harm: of successful attacks, and of benign prompts (false alarms).",
        heading="What U says",
        height=240,
    )
    if probed:
        figure.add(
            [_layers(name, table) for name, table in probed.items()],
            caption=(
                "AUROC by layer of a probe over U, successful attacks against benign prompts, out of fold, beside "
                "shuffled labels and the words of U."
            ),
            heading="What the states over U know",
        )
    successes: Any = hints[hints["place"] == PLACES["success"]]
    sizes = ", ".join(f"{row['series']} {row['n']} successes" for _, row in successes.iterrows())
    caption = f"{figure.words()} {sizes}{toy_in_words(bench)}. Lines and bands: 95 % over prompts."
    return Answer(
        sheets=[
            figure.sheet(
                name=NAME,
                title="Is there a dormant signal?",
                caption=caption,
                seed=bench.seed,
                table=in_words(hints),
                table_caption="Share of traces whose U names the harm, 95 % over prompts",
                source=bench.source(),
            )
        ],
        measured=[
            *(_claim_2a(bench, name) for name in bench.names),
            *(_claim_2b(bench, name, probed.get(name)) for name in bench.names),
        ],
    )


def _layers(name: str, table: Any) -> tuple[Panel, Any]:
    spec = figures.auroc_by_layer.spec(table, position="understanding")
    return Panel(title=name, spec=spec), table.assign(series=name)


def _read(bench: Bench, name: str) -> dict[str, Any]:
    """Successful attacks and benign prompts whose U was read, with ``top`` (it names the harm) and ``bottom``."""
    rows = bench.outcomes(name)
    known = rows["has_key_sentence"].fillna(False) & (rows["status"] == "measured") & rows["hint"].notna()
    known &= rows["judged"].notna()
    rows = rows[known].assign(bottom=1.0)
    rows = rows.assign(top=rows["hint"].astype(float))
    succeeded = (rows["label"] == "harmful").fillna(False) & rows["judged"].isin(COMPLYING)
    return {"success": rows[succeeded], "benign": rows[(rows["label"] == "benign").fillna(False)]}


def _told(bench: Bench, name: str) -> list[dict[str, Any]]:
    return [
        {"place": PLACES[which], "series": name} | mean_of(part["top"], part["group"])
        for which, part in _read(bench, name).items()
        if len(part)
    ]


def _probed(bench: Bench, name: str) -> Any | None:
    """AUROC by layer over U, successful attacks against benign prompts; None with too few of either."""
    parts = _read(bench, name)
    if min(map(len, parts.values())) < _FEWEST:
        return None
    wanted = {*parts["success"].index, *parts["benign"].index}
    traces = [trace for trace in bench.answers(name) if trace.trace_id in wanted]
    try:
        return measure_separability(bench.model(name), traces, positions=("understanding",), seed=bench.seed)
    except InputError:  # too few prompts of a class for folds
        return None


def _claim_2a(bench: Bench, name: str) -> Measured:
    parts = _read(bench, name)
    if any(part.empty for part in parts.values()):
        why = f"{len(parts['success'])} successful attacks and {len(parts['benign'])} benign prompts"
        return unmeasured("2a", name, why, toy=bench.is_toy(name))
    difference = paired_shares(parts["benign"], parts["success"])
    return Measured(
        claim="2a",
        evidence="own answers",
        model=name,
        **{key: difference[key] for key in ("value", "low", "high")},
        n=sum(map(len, parts.values())),
        n_groups=len({*parts["benign"]["group"], *parts["success"]["group"]}),
        control_value=f"benign prompts: {parts['benign']['top'].mean():.2f}",
        toy=bench.is_toy(name),
    )


def _claim_2b(bench: Bench, name: str, table: Any | None) -> Measured:
    if table is None:
        return unmeasured("2b", name, "too few successful attacks for a probe", toy=bench.is_toy(name))
    states = table[(table["method"] == "logistic") & table["auroc"].notna()]
    words = table[(table["method"] == "text_tfidf") & table["auroc"].notna()]
    if states.empty or words.empty:
        return unmeasured("2b", name, "no AUROC", toy=bench.is_toy(name))
    last = states.loc[states["layer"].idxmax()]
    probe, text = (estimate(row, "auroc", "auroc_low", "auroc_high") for row in (last, words.iloc[0]))
    value = probe.value - text.value
    # Of one another's error nothing is known, so the two are taken as independent: too wide rather than too narrow.
    low = value - float(np.hypot(probe.value - probe.low, text.high - text.value))
    high = value + float(np.hypot(probe.high - probe.value, text.value - text.low))
    return Measured(
        claim="2b",
        evidence="probe",
        model=name,
        value=value,
        low=low,
        high=high,
        n=int(last["n"]),
        n_groups=int(last["n_groups"]),
        control_value=f"states {probe.text('.3f')}, words {text.text('.3f')}",
        note=_shuffles_in_words(last),
        toy=bench.is_toy(name),
    )


def _shuffles_in_words(row: Any) -> str:
    """How high shuffled labels come; why there are none, where the sizes of groups tell the classes apart."""
    if pd.notna(row["null_auroc_high"]):
        return f"shuffled labels up to {row['null_auroc_high']:.2f}"
    return f"no shuffled labels{': ' if row['note'] else ''}{row['note']}"
