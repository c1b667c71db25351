"""One cell of the study over many toys: a base fine-tuned by one arm, asked, and measured.

A cell's folder holds ``cell.json`` (what it was, its measurements), ``requests.parquet`` (one row a request: its
number, the response as it was generated, ``log_odds``) and ``model`` (the trained weights in float32); it comes as a
whole or not at all. Requests are the same for all models of a language, so that one number names one.

    log_odds = log Σ_safe p(s | X, U) - log Σ_go-ahead p(s | X, U)        nats

where U is the language's first opening around the request, the same for every model, once without and once with its
mention of the wrapper (the mean of both counts), and the sums are over every safe sentence, and over every general
go-ahead and the wrapper's own: the language's K of either kind, whatever the answer.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.replication.toy_languages import LANGUAGES, LanguageName
from analysis.replication.toy_study_choice import Chosen, read_chosen
from analysis.replication.toy_study_design import (
    MIX,
    N_BENIGN,
    N_HARMFUL,
    N_PLAIN,
    N_SEEN,
    PRETRAINING,
    REQUEST_SEED,
    SETTINGS,
    Arm,
    Changes,
    arms_of,
    language_of,
)
from analysis.study_queue import as_read
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.generation.aha_score import measure_aha
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.local_engine import generate
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.transfer import measure_transfer
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism.finetuning import finetuning_examples
from safekey_interp.models.organism.language import MANNERS, Language, dialogue, different_requests, restated
from safekey_interp.models.organism.tokenizer import build_tokenizer
from safekey_interp.models.organism.vocabulary import BENIGN_KINDS, HARMFUL_KINDS, Pair, Split
from safekey_interp.models.organism.wrappers import Wrapper
from safekey_interp.runs.storage import read_json, sha256_of, write_folder_aside, write_json
from safekey_interp.training import TrainingConfig, read_config, train
from train.pretraining import Shape, pretrain

RECIPE = Path(__file__).parents[2] / "train" / "organism-sft.yaml"
_QUICK = ("probe_every=null", "evaluate_every=null", "save_every=100000", "log_every=50", "save_dtype=null")
_MAX_NEW_TOKENS = 72
_OPENING = "<think>\n"


class Cell(NamedTuple):
    """A base, fine-tuned once."""

    arm: Arm
    """A name of the design's."""
    base: int
    """Seed of pre-training; it gives the language, too."""
    seed: int
    """Seed of fine-tuning: of the examples, of their order, and of the head's first weights."""

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"base{self.base:03d}-seed{self.seed}-{self.arm.replace(' ', '-')}"

    @property
    def language(self) -> Language:
        """What the base speaks."""
        return LANGUAGES[language_of(self.base)]


def config_of(cell: Cell, out: Path, chosen: Chosen, changes: Changes | None = None) -> TrainingConfig:
    """The recipe of SFT with the design's settings, the pilot's choice, what the arm changes, and further changes."""
    of_arm = arms_of(chosen.dose[language_of(cell.base)])[cell.arm]
    changed = {"learning_rate": chosen.rate, **of_arm, **(changes or {})}
    pairs = [f"{name}={value}" for name, value in changed.items()]
    return read_config(RECIPE, [*_QUICK, *SETTINGS, *pairs, f"seed={cell.seed}", f"out={out}"])


def base_folder(base: int, folder: Path) -> Path:
    """Where a base lies."""
    return folder / "bases" / f"base{base:03d}"


def make_base(base: int, folder: Path) -> None:
    """Pre-train a base, unless it is there."""
    wanted = base_folder(base, folder)
    if (wanted / "model.safetensors").is_file():
        return
    wanted.parent.mkdir(parents=True, exist_ok=True)
    language = LANGUAGES[language_of(base)]

    def fill(aside: Path) -> None:
        pretrain(Shape(), PRETRAINING, base, language).half().save_pretrained(aside)
        build_tokenizer(language).save_pretrained(aside)

    write_folder_aside(wanted, fill)


def is_done(cell: Cell, folder: Path) -> bool:
    """Whether a cell's results are there, of these settings."""
    record = read_json(folder / "cells" / cell.name / "cell.json")
    return bool(record) and record["identity"] == as_read(_identity(cell, folder))


def run(cell: Cell, folder: Path) -> None:
    """Train, ask and measure; write the cell's folder."""
    trained = tuned(cell, folder, config_of(cell, folder / "work" / cell.name, _chosen(folder)))
    model = trained.model
    asked = requests(language_of(cell.base))
    answers = pd.DataFrame({"request": range(len(asked)), "response": answered(model, asked)})
    answers["log_odds"] = log_odds(model, asked, cell.language)
    record = {
        "identity": _identity(cell, folder),
        "seconds": trained.seconds,
        "held_out": trained.held_out,
        "mechanism": mechanism(model, cell),
    }

    def fill(aside: Path) -> None:
        model.hf.save_pretrained(aside / "model")
        model.tokenizer.save_pretrained(aside / "model")
        weights = sha256_of(aside / "model" / "model.safetensors")
        answers.to_parquet(aside / "requests.parquet", index=False)
        write_json(aside / "cell.json", record | {"weights_sha256": weights})

    target = folder / "cells" / cell.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    write_folder_aside(target, fill)


class Tuned(NamedTuple):
    """A fine-tuned base."""

    model: Model
    seconds: float
    """That training took."""
    steps: int
    held_out: Any
    """Losses on held-out examples at the end."""
    gradient_norms: Any
    """The table of the run; None where they were not measured."""


def tuned(cell: Cell, folder: Path, config: TrainingConfig) -> Tuned:
    """Fine-tune a cell's base; the folder that training wrote is removed, and so is what a killed one left there."""
    shutil.rmtree(config.out, ignore_errors=True)
    model = load(str(base_folder(cell.base, folder)), device="cpu")
    examples = finetuning_examples(MIX, cell.seed, language=cell.language)
    trained = train(model, examples, config)
    norms = trained.table("gradient_norms") if config.log_gradient_norms_every else None
    shutil.rmtree(config.out, ignore_errors=True)
    result, schedule = trained.manifest["result"], trained.manifest["schedule"]
    return Tuned(model, result["seconds"], schedule["steps"], result["held_out"], norms)


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


@lru_cache
def requests(name: LanguageName, split: Split = "test") -> tuple[Trace, ...]:
    """The requests that every model of a language answers, in their order; ``development`` for the pilot."""
    language, rng = LANGUAGES[name], random.Random(f"{REQUEST_SEED} {name} {split}")
    forms: list[tuple[Wrapper | None, int, int]] = [(None, N_PLAIN, N_PLAIN)]
    forms += [(form, N_SEEN, N_SEEN) for form in language.wrappers_of("seen")]
    forms += [(form, N_HARMFUL, N_BENIGN) for form in language.wrappers if form.split == split]
    return tuple(
        trace
        for form, n_harmful, n_benign in forms
        for kinds, n in ((HARMFUL_KINDS, n_harmful), (BENIGN_KINDS, n_benign))
        for trace in different_requests(rng, kinds, split, form, n, words=language.vocabulary)
    )


@lru_cache
def read_alike(name: LanguageName) -> tuple[Trace, ...]:
    """The traces that every model of a language reads for its mechanism, with U and K as training writes them."""
    language, rng = LANGUAGES[name], random.Random(f"{REQUEST_SEED} {name} read")
    unseen = language.wrappers_of("test")
    asked = [
        trace
        for kinds in (HARMFUL_KINDS, BENIGN_KINDS)
        for form, n in ((None, 2 * len(unseen)), *((form, 2) for form in unseen))
        for trace in different_requests(rng, kinds, "test", form, n, words=language.vocabulary)
    ]
    forms = {form.name: form for form in unseen}
    read = []
    for number, trace in enumerate(asked):
        pair = Pair(trace.meta["verb"], trace.meta["noun"], language.vocabulary)
        said = dialogue(rng, pair, forms.get(trace.meta["wrapper"]), safe=pair.is_harmful, language=language)
        read.append(said.with_(trace_id=f"{number:03d}"))
    return tuple(read)


def mechanism(model: Model, cell: Cell) -> dict[str, Any]:
    """On the traces that all models of the language read: what the token before K gives to U and X in each layer, and
    AUROC of a probe fitted on plain prompts there and tested on wrapped ones."""
    traces = list(read_alike(language_of(cell.base)))
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


def _chosen(folder: Path) -> Chosen:
    return read_chosen(folder / "chosen.json")


def _identity(cell: Cell, folder: Path) -> dict[str, Any]:
    """What the results depend on."""
    settings = {
        k: v
        for k, v in config_of(cell, folder, _chosen(folder)).to_dict().items()
        if k not in ("out", "model", "traces")
    }
    name = language_of(cell.base)
    texts = [trace.prompt for trace in requests(name)] + [f"{t.prompt}{t.response}" for t in read_alike(name)]
    return {
        "cell": list(cell),
        "settings": settings,
        "mix": asdict(MIX),
        "pretraining": asdict(PRETRAINING),
        "base_sha256": sha256_of(base_folder(cell.base, folder) / "model.safetensors"),
        "requests": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
    }
