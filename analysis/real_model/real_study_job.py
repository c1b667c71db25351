"""One cell of the study of a trained SmolLM2: fine-tuned by one arm and seed, asked, and measured.

A cell's folder holds ``cell.json`` (what it was, its measurements), ``answers.parquet`` (one row a request of the
tests: its number, the response, ``log_odds``) and ``model`` (the weights, or for LoRA the adapter alone); it comes as a
whole or not at all. A killed training goes on from its last checkpoint, at the end of an epoch, to the same weights.

    log_odds = log Σ_safe p(s | X, U) - log Σ_go-ahead p(s | X, U)        nats

where U is the first frame around the request, the same for every model, and the sums are over the sentences of the
general bank (:mod:`safekey_interp.generation.key_sentence_bank`), of harmful and harmless requests in wrappers.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.processors import processor
from analysis.real_model.real_study_choice import Chosen
from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import (
    ANSWER_LIMIT,
    ARMS,
    LORA_RANK,
    SEEDS,
    SETTINGS,
    SHIPPED,
    SHUFFLED_SEEDS,
    Arm,
    Changes,
    Setting,
    Way,
    changes_of,
)
from analysis.real_model.real_study_openings import opened
from analysis.real_model.real_study_prompts import PLAIN
from analysis.smollm2.data import FIXED_KEY
from analysis.study_queue import as_read, result_hashes, settings_that_count
from safekey_interp.data.trace import Trace
from safekey_interp.generation.aha_score import measure_aha
from safekey_interp.generation.local_engine import generate
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.transfer import measure_transfer
from safekey_interp.models.model import Model
from safekey_interp.runs.storage import read_json, write_folder_aside, write_json
from safekey_interp.training import TrainingConfig, read_config, train

RECIPE = Path(__file__).parents[2] / "train" / "sft.yaml"
AT_ONCE = 48
"""Answers that are decoded together."""


class Cell(NamedTuple):
    """SmolLM2, fine-tuned once."""

    arm: Arm
    seed: int
    """Of the order of the traces, of the head's first weights, and of the shuffled labels."""
    way: Way = "full"

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"seed{self.seed}-{self.arm.replace(' ', '-')}" + ("" if self.way == "full" else f"-{self.way}")


def cells() -> list[Cell]:
    """All cells, seed by seed, so that a queue that is cut short has whole seeds; the two that ship come after the
    first."""
    of_seed = {
        seed: [Cell(arm, seed) for arm in ARMS if arm != "DPSH shuffled" or seed in SHUFFLED_SEEDS] for seed in SEEDS
    }
    shipped = [Cell(arm, SEEDS[0], "LoRA") for arm in SHIPPED.values()]
    return [*of_seed.pop(SEEDS[0]), *shipped, *(cell for some in of_seed.values() for cell in some)]


def config_of(cell: Cell, out: Path, chosen: Chosen, changes: Changes | None = None) -> TrainingConfig:
    """The recipe of SFT with the design's settings, the pilot's choice, what the arm changes, and further changes."""
    rate = chosen.setting.rate if cell.way == "full" else chosen.lora_rate
    changed = {"learning_rate": rate, **changes_of(cell.arm, chosen.dose), **(changes or {})}
    pairs = [f"{name}={value}" for name, value in changed.items()]
    adapters = [f"lora_rank={LORA_RANK}"] if cell.way == "LoRA" else []
    return read_config(RECIPE, [*SETTINGS, *pairs, *adapters, f"seed={cell.seed}", f"out={out}"])


def is_done(cell: Cell, study: Study) -> bool:
    """Whether a cell's results are there, of these settings and data."""
    record = read_json(study.out / "cells" / cell.name / "cell.json")
    return bool(record) and record["identity"] == as_read(identity(cell, study))


class Record(NamedTuple):
    """What a finished cell was, and SHA-256 of what two runs of it must have in common."""

    arm: str
    seed: int
    way: str
    identity: str
    """SHA-256 of what the results depend on."""
    weights: str
    """… of the trained weights."""
    answers: str
    """… of the responses and log-odds."""
    mechanism: str
    """… of the measurements."""
    seconds: float
    """That training took in its last process."""
    processor: str = ""
    """On which it was made; empty where that was not recorded."""

    @property
    def cell(self) -> Cell:
        """Which one."""
        return Cell(self.arm, self.seed, self.way)  # type: ignore[arg-type]

    @property
    def bits(self) -> tuple[str, ...]:
        """What is the same when the cell is run again."""
        return self[3:7]


def record_of(cell: Cell, study: Study) -> Record | None:
    """The record of a cell whose results are there, of these settings and data; else None."""
    if not is_done(cell, study):
        return None
    where = study.out / "cells" / cell.name
    record: Any = read_json(where / "cell.json")
    hashes = result_hashes(record, pd.read_parquet(where / "answers.parquet"))
    return Record(*cell, **hashes, seconds=record["seconds"], processor=record.get("processor", ""))


def run(cell: Cell, study: Study) -> None:
    """Train, ask and measure; write the cell's folder."""
    depends_on = identity(cell, study)
    trained = tuned(cell, study, study.chosen)
    asked = study.prompts.tests
    answers = pd.DataFrame({"request": range(len(asked)), "response": answered(trained.model, asked)})
    wrapped = [number for number, trace in enumerate(asked) if trace.meta["wrapper"] != PLAIN]
    answers.loc[wrapped, "log_odds"] = log_odds(trained.model, [asked[number] for number in wrapped])
    record = {
        "identity": depends_on,
        "seconds": trained.seconds,
        "processor": processor(),
        "weights_sha256": trained.model.fingerprint(),
        "mechanism": mechanism(trained.model, read_alike(asked)),
    }

    def fill(aside: Path) -> None:
        trained.save(aside / "model")
        answers.to_parquet(aside / "answers.parquet", index=False)
        write_json(aside / "cell.json", record)

    target = study.out / "cells" / cell.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    write_folder_aside(target, fill)
    shutil.rmtree(trained.folder)


class Tuned(NamedTuple):
    """A fine-tuned SmolLM2 and the run folder of its training, which its user removes."""

    model: Model
    folder: Path
    seconds: float
    """That training took in its last process."""
    steps: int
    auxiliary_from: int
    """The first step, from 0, with auxiliary losses."""
    gradient_norms: Any
    """The table of the run; None where they were not measured."""
    is_adapter: bool

    def save(self, folder: Path) -> None:
        """Write the trained weights; of LoRA the adapter of the last checkpoint."""
        if not self.is_adapter:
            shutil.copytree(self.folder / "model", folder)
            return
        last = max((self.folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        folder.mkdir()
        for file in last.glob("adapter_*"):
            shutil.copy(file, folder)


def tuned(cell: Cell, study: Study, chosen: Chosen, changes: Changes | None = None) -> Tuned:
    """Fine-tune SmolLM2, from the last checkpoint where a killed run left one of the same settings and data."""
    traces = study.traces(chosen.setting)
    key = {"settings": settings_of(cell, chosen, changes), "traces": digest_of(traces)}
    folder = study.out / "work" / f"{cell.name}-{hashlib.sha256(str(key).encode()).hexdigest()[:12]}"
    config = config_of(cell, folder, chosen, changes)
    model = study.base()
    trained = train(model, traces, config)
    norms = trained.table("gradient_norms") if config.log_gradient_norms_every else None
    schedule = trained.manifest["schedule"]
    return Tuned(
        model=model,
        folder=folder,
        seconds=trained.manifest["result"]["seconds"],
        steps=schedule["steps"],
        auxiliary_from=schedule["auxiliary_from"],
        gradient_norms=norms,
        is_adapter=config.lora_rank is not None,
    )


def answered(model: Model, asked: Sequence[Trace]) -> list[str]:
    """What a model answers, greedily, cut at the design's limit."""
    return generate(model, asked, max_new_tokens=ANSWER_LIMIT, batch_size=AT_ONCE)


def log_odds(model: Model, asked: Sequence[Trace]) -> list[float]:
    """Log-odds of a safe key sentence against a go-ahead behind each request, nats."""
    behind = [opened(trace.with_(trace_id=str(number)), "") for number, trace in enumerate(asked)]
    scores: Any = measure_aha(model, behind, finder="given")
    scores["total"] = scores["logprob"] * scores["n_tokens"]
    kinds = scores.groupby(["trace_id", "kind"])["total"].agg(np.logaddexp.reduce).unstack("kind")
    found = (kinds["safe"] - kinds["go_ahead"]).to_dict()
    return [float(found.get(str(number), np.nan)) for number in range(len(asked))]


def read_alike(asked: Sequence[Trace]) -> list[Trace]:
    """Traces that all models read: each test prompt plain and in its first wrapper, with one U and one K."""
    first: dict[tuple[str, str | None], Trace] = {}
    for trace in asked:
        if trace.source != "xstest":
            first.setdefault((trace.group, trace.source), trace)
    return [opened(trace, FIXED_KEY) for trace in first.values()]


def mechanism(model: Model, traces: Sequence[Trace]) -> dict[str, Any]:
    """Attention on harmful wrapped requests, and the AUROC at the token before K of a probe fitted on plain requests
    and tested on wrapped ones, by layer."""
    wrapped = [trace for trace in traces if trace.source == "wrapped" and trace.label == "harmful"]
    return {"attention": attention(model, wrapped), "auroc": _plain_to_wrapped(model, traces, "logistic")}


def words_auroc(model: Model, traces: Sequence[Trace]) -> float:
    """The same of the words up to there, which are those of all models: TF-IDF, fitted on plain requests."""
    [auroc] = _plain_to_wrapped(model, traces, "text_tfidf", layers=[0]).values()
    return auroc


def _plain_to_wrapped(model: Model, traces: Sequence[Trace], method: str, **about: Any) -> dict[str, float]:
    table: Any = measure_transfer(
        model, traces, by="source", positions=("decision",), n_permutations=0, finder="given", **about
    )
    found = table[(table["method"] == method) & (table["fitted_on"] == "plain") & (table["tested_on"] == "wrapped")]
    return {str(layer): float(value) for layer, value in zip(found["layer"], found["auroc"], strict=True)}


def attention(model: Model, traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """What K and the token before it give to U and X: mass, and its ratio to distance alone; a row a layer."""
    queries, spans = ("key_sentence", "decision"), ("prompt", "understanding")
    table: Any = measure_attention(model, traces, queries=queries, keys=spans, finder="given", n_random=1)
    by = table.groupby(["from_span", "to_span", "layer"], observed=True)[["mass", "matched_mass"]].agg(["sum", "count"])
    return [
        {
            "from": source,
            "to": span,
            "layer": int(layer),
            "mass": row["mass", "sum"] / row["mass", "count"],
            "over_distance": row["mass", "sum"] / row["matched_mass", "sum"],
        }
        for (source, span, layer), row in by.iterrows()
    ]


def digest_of(traces: Sequence[Trace]) -> str:
    """SHA-256 of texts and labels."""
    texts = (f"{trace.trace_id}\n{trace.prompt}\n{trace.response}\n{trace.label}\n" for trace in traces)
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def settings_of(cell: Cell, chosen: Chosen, changes: Changes | None = None) -> dict[str, Any]:
    """The settings of a cell's training, but for those that name a place."""
    return settings_that_count(config_of(cell, Path("."), chosen, changes), ("out", "model", "traces"))


def identity(cell: Cell, study: Study) -> dict[str, Any]:
    """What the results depend on."""
    chosen: Setting = study.chosen.setting
    return {
        "cell": list(cell),
        "settings": settings_of(cell, study.chosen),
        "traces": digest_of(study.traces(chosen)),
        "requests": digest_of(study.prompts.tests),
        "answer_limit": ANSWER_LIMIT,
    }
