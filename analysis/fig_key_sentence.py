"""Does the key sentence decide? What became of prompts by what their K says, and what becomes when K is another one.

Two experiments on harmful prompts, every model with its own answers: how often it refuses where K is an aha moment and
where it is none; and the swap: the same trace continued from its own K, a safe one, a go-ahead, and a sentence that
decides nothing (:mod:`safekey_interp.generation.prefilled`). Outcomes are those of the judge ``refusal``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.asking import asked, mean_of
from analysis.bench import Bench, spread
from analysis.composing import Composition, in_words, shares, toy_in_words
from analysis.saving import Answer
from analysis.verdicts import Measured, unmeasured
from safekey_interp.comparing.measures import paired_shares
from safekey_interp.errors import RunError
from safekey_interp.generation.prefilled import SWAPS, swap_sentences_for, swaps
from safekey_interp.judge.metrics import REFUSING
from safekey_interp.segmentation import segmented

NAME = "fig_key_sentence"
AHA = {"safe": "K is an aha", "other": "K is none"}
IN_WORDS = {"own": "its own K", "safe": "a safe K", "neutral": "a neutral K", "go_ahead": "a go-ahead K"}


def answer(bench: Bench) -> Answer:
    """The figure, and what it says of claims 1a and 1b.

    Raises:
        RunError: no model has a harmful prompt with a key sentence.
    """
    by_aha = pd.DataFrame([row for name in bench.names for row in _by_aha(bench, name)])
    if by_aha.empty:
        raise RunError("no harmful prompt with a key sentence and a verdict, expected some")
    swapped = {name: found for name in bench.names if (found := _swapped(bench, name)) is not None}
    rows = [row for name, found in swapped.items() for row in _by_swap(name, found, bench.seed)]
    figure = Composition()
    figure.add(
        [shares(by_aha, "Refused, by what K says", "share refused")],
        said="Harmful prompts: share refused, by whether K is an aha moment (finder’s rules).",
        heading="What follows a key sentence",
        height=240,
    )
    if rows:
        figure.add(
            [shares(pd.DataFrame(rows), "Refused behind another K", "share refused")],
            said="The same traces up to K, with a sentence put in K’s place, and continued by the model.",
            heading="What follows when K is swapped",
            height=240,
        )
    n_of: Any = by_aha.groupby("series", sort=False)["n"].sum()
    sizes = ", ".join(f"{name} {n}" for name, n in n_of.items())
    caption = (
        f"{figure.words()} Outcome by the judge refusal, which reads the answer alone. n: {sizes} traces"
        f"{toy_in_words(bench)}. Lines: 95 % over prompts."
    )
    table = pd.concat([by_aha, pd.DataFrame(rows)], ignore_index=True)
    return Answer(
        sheets=[
            figure.sheet(
                name=NAME,
                title="Does the key sentence decide?",
                caption=caption,
                seed=bench.seed,
                table=in_words(table),
                table_caption="Share refused of harmful prompts, 95 % over prompts",
                source=bench.source(),
            )
        ],
        measured=[
            *(_claim_1a(bench, name) for name in bench.names),
            *(_claim_1b(bench, name, swapped) for name in bench.names),
        ],
    )


def _decided(bench: Bench, name: str) -> Any:
    """Harmful prompts whose K was found and whose answer has a verdict, with ``top`` (refused) and ``bottom``."""
    rows = bench.outcomes(name)
    known = (rows["label"] == "harmful").fillna(False) & rows["judged"].notna()
    known &= rows["has_key_sentence"].fillna(False) & (rows["status"] == "measured")
    mine = rows[known]
    refused = mine["judged"].isin(REFUSING).astype(float)
    return mine.assign(top=refused, bottom=1.0, is_aha=(mine["aha"] == "safe").fillna(False))


def _by_aha(bench: Bench, name: str) -> list[dict[str, Any]]:
    rows = _decided(bench, name)
    found = []
    for is_aha, place in ((True, AHA["safe"]), (False, AHA["other"])):
        part = rows[rows["is_aha"] == is_aha]
        if len(part):
            about = {"experiment": "by aha", "place": place, "series": name}
            found.append(about | mean_of(part["top"], part["group"]))
    return found


def _swapped(bench: Bench, name: str) -> Any | None:
    """Answers behind swapped key sentences, of at most ``MOST`` harmful traces."""
    if name not in bench.probes:
        return None
    harmful = [trace for trace in bench.answers(name) if trace.label == "harmful"]
    found = [(trace, one) for trace, one in segmented(harmful) if one.key_sentence is not None]
    chosen = {trace.trace_id for trace in spread([trace for trace, _ in found])}
    model = bench.model(name)
    sentences = swap_sentences_for(model.tokenizer)
    requests = [
        request
        for trace, one in found
        if trace.trace_id in chosen
        for request in swaps(trace, one, sentences, seed=bench.seed)
    ]
    if not requests:
        return None
    file = bench.out / "runs" / "swaps" / f"{bench.probes[name].path.name}.jsonl"
    return asked(model, requests, file, progress=bench.progress).dropna(subset=["refused"])


def _by_swap(name: str, table: Any, seed: int) -> list[dict[str, Any]]:
    rows = []
    for condition, place in IN_WORDS.items():
        part = table[table["condition"] == condition]
        if len(part):
            about = {"experiment": "swap", "place": place, "series": name}
            rows.append(about | mean_of(part["refused"].astype(float), part["group"]))
    return rows


def _claim_1a(bench: Bench, name: str) -> Measured:
    rows = _decided(bench, name)
    aha, other = rows[rows["is_aha"]], rows[~rows["is_aha"]]
    if aha.empty or other.empty:
        why = f"{len(aha)} traces with an aha and {len(other)} without: nothing to set against"
        return unmeasured("1a", name, why, toy=bench.is_toy(name))
    found = paired_shares(other, aha)
    return Measured(
        claim="1a",
        model=name,
        **{key: found[key] for key in ("value", "low", "high")},
        unit="of prompts",
        n=len(rows),
        n_groups=int(rows["group"].nunique()),
        control_value=f"refused where K is no aha: {other['top'].mean():.2f}",
        toy=bench.is_toy(name),
    )


def _claim_1b(bench: Bench, name: str, swapped: dict[str, Any]) -> Measured:
    if name not in swapped:
        return unmeasured("1b", name, "no key sentence to swap", toy=bench.is_toy(name))
    keys = ["trace_id", "group"]
    wide = swapped[name].pivot_table(index=keys, columns="condition", values="refused", aggfunc="first")
    wide = wide.astype(float).reindex(columns=list(SWAPS))
    both = wide.dropna(subset=["safe", "go_ahead"])
    if both.empty:
        return unmeasured("1b", name, "no trace with a verdict behind both", toy=bench.is_toy(name))
    found = mean_of(both["safe"] - both["go_ahead"], list(both.index.get_level_values("group")))
    others = ", ".join(f"{IN_WORDS[kind]} {np.nanmean(wide[kind]):.2f}" for kind in ("neutral", "own"))
    return Measured(
        claim="1b",
        model=name,
        unit="of prompts",
        control_value=f"refused behind {others}",
        toy=bench.is_toy(name),
        **found,
    )
