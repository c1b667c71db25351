"""Question 1, key sentence: outcomes by the class of K, and after another K in its place.

Experiments on harmful prompts, with each model's own answers: the share of refusals where K is an aha moment and where
it is not; refusals when the same trace continues after a K of each kind sampled from the model in the same context
(on-policy, with the rate of each kind: :mod:`safekey_interp.generation.key_sentence_resampling`); and after its own K
and prepared safe, compliant and neutral ones (off-policy: the model may never generate them there). Outcomes are those
of the judge ``refusal``, which reads the new text only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.paper.export import Answer
from analysis.paper.models import Bench, spread
from analysis.paper.responses import asked, mean_of
from analysis.paper.sheets import Composition, in_words, shares, toy_in_words
from analysis.paper.verdicts import Measured, unmeasured
from safekey_interp.capture.pass_cost import counted_passes
from safekey_interp.data.trace import Trace
from safekey_interp.errors import RunError
from safekey_interp.evaluation.judge_metrics import REFUSING
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.experiments.compare_measures import paired_shares
from safekey_interp.generation.key_sentence_resampling import resample_key_sentences
from safekey_interp.generation.prefill import swap_sentences_for, swaps
from safekey_interp.generation.sampling import Sampling
from safekey_interp.segmentation.segmenter import segmented

NAME = "fig_key_sentence"
N_TRIES, RESAMPLED = 24, 72
"""Key sentences sampled a trace, and the traces of a model of which they are."""
AHA = {"safe": "K is an aha", "other": "K is none"}
KINDS = {"safe": "a safe K, sampled", "go_ahead": "a compliant K, sampled", "neutral": "a neutral K, sampled"}
IN_WORDS = {"own": "its own K", "safe": "a safe K", "neutral": "a neutral K", "go_ahead": "a compliant K"}


def answer(bench: Bench) -> Answer:
    """The figure, and what it says of claims 1a and 1b.

    Raises:
        RunError: no model has a harmful prompt with a key sentence.
    """
    by_aha = pd.DataFrame([row for name in bench.names for row in _by_aha(bench, name)])
    if by_aha.empty:
        raise RunError("no harmful prompt with a key sentence and a verdict, expected some")
    harmful = {name: _with_key_sentence(bench, name) for name in bench.names if name in bench.probes}
    harmful = {name: traces for name, traces in harmful.items() if traces}
    sampled = {name: _resampled(bench, name, spread(traces, RESAMPLED)) for name, traces in harmful.items()}
    swapped = {name: _swapped(bench, name, spread(traces)) for name, traces in harmful.items()}
    resampled = [row for name, responses in sampled.items() for row in _by_kind("resampled", KINDS, name, responses)]
    rows = [row for name, responses in swapped.items() for row in _by_kind("swap", IN_WORDS, name, responses)]
    figure = Composition()
    figure.add(
        [shares(by_aha, "Refused, by what K says", "share refused")],
        caption="Harmful prompts: share refused, by whether K is an aha moment (finder’s rules).",
        heading="Refusals by kind of K",
        height=240,
    )
    if resampled:
        figure.add(
            [shares(pd.DataFrame(resampled), "Refused behind a K that the model samples", "share refused")],
            caption="The same traces up to K, then a K of each kind sampled from the model, and continued by it.",
            heading="Refusals behind a resampled K (on-policy)",
            height=240,
        )
    if rows:
        figure.add(
            [shares(pd.DataFrame(rows), "Refused behind a written K", "share refused")],
            caption="The same traces up to K, with a sentence put in K’s place, and continued by the model.",
            heading="Refusals behind a written K (off-policy)",
            height=240,
        )
    n_of: Any = by_aha.groupby("series", sort=False)["n"].sum()
    sizes = ", ".join(f"{name} {n}" for name, n in n_of.items())
    caption = (
        f"{figure.words()} Outcome by the judge refusal, which reads new text alone. n: {sizes} traces"
        f"{toy_in_words(bench)}. Lines: 95 % over prompts."
    )
    table = pd.concat([by_aha, pd.DataFrame([*resampled, *rows])], ignore_index=True)
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
            *(_claim_1b(bench, name, "resampled K", sampled) for name in bench.names),
            *(_claim_1b(bench, name, "written K", swapped) for name in bench.names),
        ],
    )


def _decided(bench: Bench, name: str) -> Any:
    """Harmful prompts whose K was found and whose answer has a verdict, with ``top`` (refused) and ``bottom``."""
    rows = bench.outcomes(name)
    known = (rows["label"] == "harmful").fillna(False) & rows["judged"].notna()
    known &= rows["has_key_sentence"].fillna(False) & (rows["status"] == "measured")
    judged = rows[known]
    refused = judged["judged"].isin(REFUSING).astype(float)
    return judged.assign(top=refused, bottom=1.0, is_aha=(judged["aha"] == "safe").fillna(False))


def _by_aha(bench: Bench, name: str) -> list[dict[str, Any]]:
    rows = _decided(bench, name)
    rows_by_aha = []
    for is_aha, place in ((True, AHA["safe"]), (False, AHA["other"])):
        part = rows[rows["is_aha"] == is_aha]
        if len(part):
            about = {"experiment": "by aha", "place": place, "series": name}
            rows_by_aha.append(about | mean_of(part["top"], part["group"]))
    return rows_by_aha


def _with_key_sentence(bench: Bench, name: str) -> list[Trace]:
    """Harmful traces with the model's own answer, whose K was found."""
    harmful = [trace for trace in bench.answers(name) if trace.label == "harmful"]
    return [trace for trace, segmentation in segmented(harmful) if segmentation.key_sentence is not None]


def _resampled(bench: Bench, name: str, traces: Sequence[Trace]) -> Any:
    """Answers behind key sentences that the model samples: a row a trace and kind, also where the kind never came."""
    model = bench.model(name)
    drawing = Sampling(temperature=1.0, seed=bench.seed)

    def resample(_: Callable[[int], object]) -> pd.DataFrame:
        with counted_passes(model, bench.progress.passed):
            return resample_key_sentences(
                model, traces, judge=judge_refusal, n_tries=N_TRIES, sampling=drawing, answering=bench.sampling
            )

    depends = ["resampled K", N_TRIES, drawing, bench.sampling, [trace.trace_id for trace in traces]]
    stage = f"{N_TRIES} key sentences of each of {len(traces)} traces"
    table = bench.kept(name, depends, resample, stage=stage, total=None)
    refused = table["judged"].isin(REFUSING).astype("boolean").where(table["judged"].notna())
    return table.assign(refused=refused)


def _swapped(bench: Bench, name: str, traces: Sequence[Trace]) -> Any:
    """Answers behind key sentences that were written beforehand."""
    model = bench.model(name)
    sentences = swap_sentences_for(model.tokenizer)
    requests = [
        request
        for trace, segmentation in segmented(traces)
        for request in swaps(trace, segmentation, sentences, seed=bench.seed)
    ]
    file = bench.out / "runs" / "swaps" / f"{bench.probes[name].path.name}.jsonl"
    return asked(model, requests, file, bench.sampling, progress=bench.progress)


def _by_kind(experiment: str, places: Mapping[str, str], name: str, table: Any) -> list[dict[str, Any]]:
    rows = []
    for condition, place in places.items():
        part = table[table["condition"] == condition].dropna(subset=["refused"])
        if len(part):
            about = {"experiment": experiment, "place": place, "series": name}
            rows.append(about | mean_of(part["refused"].astype(float), part["group"]))
    return rows


def _claim_1a(bench: Bench, name: str) -> Measured:
    rows = _decided(bench, name)
    aha, other = rows[rows["is_aha"]], rows[~rows["is_aha"]]
    if aha.empty or other.empty:
        why = f"{len(aha)} traces with an aha and {len(other)} without: nothing to set against"
        return unmeasured("1a", name, why, toy=bench.is_toy(name))
    difference = paired_shares(other, aha)
    return Measured(
        claim="1a",
        evidence="own answers",
        model=name,
        **{key: difference[key] for key in ("value", "low", "high")},
        n=len(rows),
        n_groups=int(rows["group"].nunique()),
        control_value=f"refused where K is no aha: {other['top'].mean():.2f}",
        toy=bench.is_toy(name),
    )


def _claim_1b(bench: Bench, name: str, evidence: str, tables: Mapping[str, Any]) -> Measured:
    about: dict[str, Any] = {"claim": "1b", "evidence": evidence, "model": name, "toy": bench.is_toy(name)}
    if name not in tables:
        return unmeasured(why="no harmful trace with a key sentence", **about)
    table = tables[name]
    is_sampled = evidence == "resampled K"
    conditions = list(KINDS if is_sampled else IN_WORDS)
    known = table.dropna(subset=["refused"])
    wide = known.assign(refused=known["refused"].astype(float)).pivot_table(
        index=["trace_id", "group"], columns="condition", values="refused", aggfunc="first"
    )
    wide = wide.reindex(columns=conditions)
    rates = _rates_in_words(table) if is_sampled else ""
    both = wide.dropna(subset=["safe", "go_ahead"])
    if both.empty:
        return unmeasured(why="; ".join(filter(None, ["no trace with a verdict behind both kinds", rates])), **about)
    interval = mean_of(both["safe"] - both["go_ahead"], list(both.index.get_level_values("group")))
    words = KINDS if is_sampled else IN_WORDS
    others = [f"{words[kind]} {wide[kind].mean():.2f}" for kind in conditions if wide[kind].notna().any()]
    return Measured(control_value=f"refused behind {', '.join(others)}", note=rates, **about, **interval)


def _rates_in_words(table: Any) -> str:
    """Rate of each kind of sampled K, and the number of traces without it."""
    parts = []
    for kind, name in (("safe", "safe"), ("go_ahead", "compliant")):
        rows = table[table["condition"] == kind]
        share, never = float(rows["rate"].mean()), int((rows["n_of_kind"] == 0).sum())
        parts.append(f"{name} {share:.2f} of samples, never in {never} of {len(rows)} traces")
    return f"rate: {'; '.join(parts)}"
