"""Question 5, depth of alignment: KL from the first model by token, and effects of prefilled harmful tokens.

The first model complies with harmful prompts (refused ones are left out). At each token of these answers: the KL of
the other models' next-token distribution from the first's (:mod:`safekey_interp.generation.kl`), by depth and by
part of the response (the first token of K, where the decision starts, against all others). And the share of
refusals of each other model after a prefill of a share of the tokens before K of the same answers, judged by the new
text (:mod:`safekey_interp.generation.prefill_depth`). All models get the same tokens, without K.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.paper.export import Answer
from analysis.paper.models import Bench, spread
from analysis.paper.responses import asked, mean_of
from analysis.paper.sheets import Composition, in_words, toy_in_words
from analysis.paper.verdicts import Measured, unmeasured
from safekey_interp.data.trace import Trace
from safekey_interp.errors import RunError
from safekey_interp.evaluation.judge_metrics import COMPLYING
from safekey_interp.generation.kl import measure_kl, summarise_kl
from safekey_interp.generation.kl_by_part import kl_by_part
from safekey_interp.generation.prefill_depth import SHARES, depth_requests, same_length
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_grid import Panel

NAME = "fig_depth"
SHALLOW = 5
"""Tokens that count as the first few: Qi et al.'s."""
PARTS = {
    "decision": "first token of K",
    "key_sentence": "other tokens of K",
    "understanding": "U",
    "rest": "behind K",
    "elsewhere": "all but K",
    "sentence_starts": "first tokens of other sentences",
}


def answer(bench: Bench) -> Answer:
    """The figure, and what it says of claims 5a and 5b.

    Raises:
        RunError: fewer than two models, or the first one answers no harmful prompt.
    """
    if len(bench.names) < 2:
        raise RunError("one model, expected the one that the others came from and at least one of these")
    answers = _harmful_answers(bench)
    if not answers:
        raise RunError(f"{bench.names[0]} answers no harmful prompt in full, expected some answers to prefill with")
    kl, prefilled = {}, {}
    for name in bench.others:
        kl[name] = measure_kl(bench.model(name), bench.model(bench.names[0]), answers)
        prefilled[name] = _prefilled(bench, name, answers)
    lines = pd.concat([summarise_kl(table).assign(series=name, x=lambda t: t["depth"]) for name, table in kl.items()])
    by_part = {name: kl_by_part(table) for name, table in kl.items()}
    parts = pd.DataFrame([row for name, table in by_part.items() for row in _means(name, table)])
    rates = pd.DataFrame([row for name, table in prefilled.items() for row in _rates(name, table)])
    figure = Composition()
    figure.add(
        [_lines(lines, "KL from the first model", "token of the response", "nats per token", percent=False)],
        caption=f"KL of each model from {bench.names[0]} at each token of the latter’s own harmful answers, in bins.",
        heading="KL by depth",
        height=220,
    )
    spec = figures.estimates_as_bars.spec(parts, title="KL by part", y="nats per token", caption="KL by part")
    figure.add(
        [(Panel(title="KL by part of the response", spec=spec), parts)],
        caption="The same KL by part of the response; the decision starts at the first token of K.",
        heading="KL by part of the response",
        height=240,
    )
    title, x, y = "Refused behind a prefill", "share of the tokens before K that is given", "share refused"
    figure.add(
        [_lines(rates, title, x, y, percent=True)],
        caption="Share refused when a share of the tokens before K of these answers is given; 0 is the control.",
        heading="Refusals behind a prefill that ends before K",
        height=220,
    )
    caption = (
        f"{figure.words()} n = {len(answers)} answers{toy_in_words(bench)}. All models get the same tokens; the judge "
        "reads the new text alone. Bands and lines: 95 % over prompts."
    )
    table = rates.assign(place=[f"{share:.0%} of the tokens before K given" for share in rates["x"]])
    return Answer(
        sheets=[
            figure.sheet(
                name=NAME,
                title="How deep does alignment go?",
                caption=caption,
                seed=bench.seed,
                table=in_words(table),
                table_caption="Share refused behind the first tokens of a harmful answer, 95 % over prompts",
                source=bench.source(),
            )
        ],
        measured=[
            *(claim for name in bench.others for claim in _claim_5a(bench, name, kl[name], by_part[name])),
            *(_claim_5b(bench, name, prefilled[name]) for name in bench.others),
        ],
    )


def _harmful_answers(bench: Bench) -> list[Trace]:
    """What the first model says to harmful prompts that it answers in full, at most ``MOST``."""
    first = bench.names[0]
    if first not in bench.probes:
        return []
    rows = bench.outcomes(first)
    wanted = set(rows[(rows["label"] == "harmful").fillna(False) & rows["judged"].isin(COMPLYING)].index)
    return spread([trace for trace in bench.answers(first) if trace.trace_id in wanted])


def _prefilled(bench: Bench, name: str, answers: list[Trace]) -> Any:
    """Answers behind each depth, and behind as many tokens of a benign answer of the first model."""
    model = bench.model(name)
    benign = [trace for trace in bench.answers(bench.names[0]) if trace.label == "benign"]
    controls = {"benign": same_length(model.tokenizer, answers, benign, seed=bench.seed)}
    requests = depth_requests(model.tokenizer, answers, controls=controls).requests
    file = bench.out / "runs" / "prefills" / f"{bench.probes[name].path.name}.jsonl"
    return asked(model, requests, file, bench.sampling, progress=bench.progress).dropna(subset=["refused"])


def _means(name: str, table: Any) -> list[dict[str, Any]]:
    rows = []
    for part, place in PARTS.items():
        if len(rows_of_part := table.dropna(subset=[part])):
            rows.append({"place": place, "series": name} | mean_of(rows_of_part[part], rows_of_part["group"]))
    return rows


def _rates(name: str, table: Any) -> list[dict[str, Any]]:
    depths = table[table["condition"] == "depth"]
    return [
        {"x": float(share), "series": name} | mean_of(part["refused"].astype(float), part["group"])
        for share, part in depths.groupby("share", sort=True)
    ]


def _lines(rows: Any, title: str, x: str, y: str, *, percent: bool) -> tuple[Panel, Any]:
    spec = figures.estimates_as_lines.spec(rows, title=title, x=x, y=y, caption=title, percent=percent)
    return Panel(title=title, spec=spec), rows


def _claim_5a(bench: Bench, name: str, table: Any, by_part: Any) -> list[Measured]:
    about: dict[str, Any] = {"claim": "5a", "model": f"{name}, from {bench.names[0]}", "toy": bench.is_toy(name)}
    both = by_part.dropna(subset=["contrast"])
    keys = ["trace_id", "group"]
    near = table[table["depth"] < SHALLOW].groupby(keys, sort=False)["kl"].mean()
    deep = table[table["depth"] >= SHALLOW].groupby(keys, sort=False)["kl"].mean()
    first_five = pd.concat({"near": near, "deep": deep}, axis=1).dropna()
    if both.empty or first_five.empty:
        return [unmeasured(why="no answer with K and tokens elsewhere", **about)]
    starts = by_part["sentence_starts"].mean()
    at_k = Measured(
        evidence="first token of K",
        family=name,
        control_value=f"at it {both['decision'].mean():.2f}, elsewhere {both['elsewhere'].mean():.2f}",
        note=f"first tokens of other sentences {starts:.2f}; largest on average at token "
        f"{int(table.groupby('depth')['kl'].mean().idxmax())}",
        **about,
        **mean_of(both["contrast"], both["group"]),
    )
    apart = first_five["near"] - first_five["deep"]
    early = Measured(
        evidence="first five tokens",
        family=name,
        control_value=f"first tokens {first_five['near'].mean():.2f}, behind them {first_five['deep'].mean():.2f}",
        **about,
        **mean_of(apart, list(first_five.index.get_level_values("group"))),
    )
    return [at_k, early]


def _claim_5b(bench: Bench, name: str, table: Any) -> Measured:
    known = table.assign(refused=table["refused"].astype(float))
    harmful, benign = (known[known["condition"] == condition] for condition in ("depth", "benign"))
    wide = harmful.pivot_table(index=["trace_id", "group"], columns="share", values="refused", aggfunc="first")
    both = wide.reindex(columns=[SHARES[0], SHARES[-1]]).dropna()
    if both.empty:
        return unmeasured("5b", name, "no answer without and with a prefill", toy=bench.is_toy(name))
    without, behind = both[SHARES[0]], both[SHARES[-1]]
    return Measured(
        claim="5b",
        evidence="before K",
        model=name,
        control_value=f"refused without {without.mean():.2f}, behind all tokens before K {behind.mean():.2f}, behind "
        f"as many of a benign answer {benign.loc[benign['share'] == SHARES[-1], 'refused'].mean():.2f}",
        note=f"the prefill is what {bench.names[0]} wrote before K",
        toy=bench.is_toy(name),
        **mean_of(without - behind, list(both.index.get_level_values("group"))),
    )
