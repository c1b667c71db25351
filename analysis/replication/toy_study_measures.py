"""What is asked and measured of a model of the study over many toys.

    log_odds = log Σ_safe p(s | X, U) - log Σ_go-ahead p(s | X, U)        nats

where U is the language's first opening around the request, the same for every model, once without and once with its
mention of the wrapper (the mean of both counts), and the sums are over every safe sentence, and over every general
go-ahead and the wrapper's own: the language's K of either kind, whatever the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.replication.toy_languages import LanguageName
from analysis.replication.toy_study_requests import read_alike
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.generation.aha_score import measure_aha
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.local_engine import generate
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.transfer import measure_transfer
from safekey_interp.models.model import Model
from safekey_interp.models.organism.language import MANNERS, Language, restated
from safekey_interp.models.organism.vocabulary import Pair
from safekey_interp.models.organism.wrappers import Wrapper

_MAX_NEW_TOKENS = 72
_OPENING = "<think>\n"


def answered(model: Model, asked: Sequence[Trace]) -> list[str]:
    """What a model answers, greedily."""
    return generate(model, asked, max_new_tokens=_MAX_NEW_TOKENS, batch_size=128)


def log_odds(model: Model, asked: Sequence[Trace], language: Language) -> list[float]:
    """Log-odds of a safe key sentence against a go-ahead, of each request, nats; mean over U with and without mention
    of the wrapper."""
    forms = {wrapper.name: wrapper for wrapper in language.wrappers}
    found = np.full((len(asked), 2), np.nan)
    for name in dict.fromkeys(trace.meta["wrapper"] for trace in asked):
        form = forms.get(name)
        opened = [
            _behind_understanding(trace, language, mention, f"{number} {place}")
            for number, trace in enumerate(asked)
            if trace.meta["wrapper"] == name
            for place, mention in enumerate((None, form.mention) if form else (None,))
        ]
        scores: Any = measure_aha(model, opened, bank=_bank(language, form), finder="given")
        scores["total"] = scores["logprob"] * scores["n_tokens"]
        kinds = scores.groupby(["trace_id", "kind"])["total"].agg(np.logaddexp.reduce).unstack("kind")
        for trace_id, odds in (kinds["safe"] - kinds["go_ahead"]).items():
            found[tuple(map(int, str(trace_id).split()))] = odds
    return np.nanmean(found, axis=1).tolist()


def _behind_understanding(trace: Trace, language: Language, mention: str | None, name: str) -> Trace:
    pair = Pair(trace.meta["verb"], trace.meta["noun"], language.vocabulary)
    u = restated(language.openings[0], pair, mention)
    given = {"understanding": CharSpan(len(_OPENING), len(_OPENING) + len(u))}
    return trace.with_(trace_id=name, response=f"{_OPENING}{u}", given=given)


def _bank(language: Language, wrapper: Wrapper | None) -> KeySentences:
    manners = ("", *(f" {manner}" for manner in MANNERS))
    general = [text.format(manner=manner) for text in language.compliant_sentences for manner in manners]
    return KeySentences(safe=language.safe_sentences, go_ahead=(*general, *([wrapper.compliance] if wrapper else [])))


def mechanism(model: Model, language: LanguageName) -> dict[str, Any]:
    """On the traces that all models of the language read: what the token before K gives to U and X in each layer, and
    AUROC of a probe fitted on plain prompts there and tested on wrapped ones."""
    traces = list(read_alike(language))
    spans = ("prompt", "understanding")
    attention: Any = measure_attention(model, traces, queries=("decision",), keys=spans, finder="given")
    sums = attention.groupby(["to_span", "layer"], observed=True)[["mass", "matched_mass"]].agg(["sum", "count"])
    transfer: Any = measure_transfer(
        model, traces, by="source", positions=("decision",), n_permutations=0, finder="given"
    )
    probes = transfer[(transfer["method"] == "logistic") & (transfer["fitted_on"] == "plain")]
    probes = probes[probes["tested_on"] == "wrapped"]
    return {
        "attention": {
            f"{span}, layer {layer}": {
                "mass": row["mass", "sum"] / row["mass", "count"],
                "over_distance": row["mass", "sum"] / row["matched_mass", "sum"],
            }
            for (span, layer), row in sums.iterrows()
        },
        "auroc": {str(layer): float(value) for layer, value in zip(probes["layer"], probes["auroc"], strict=True)},
    }
