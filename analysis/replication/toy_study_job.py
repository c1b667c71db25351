"""One cell of the study over many toys: a base fine-tuned by one arm, asked, and measured.

A cell's folder holds ``cell.json`` (what it was, its measurements), ``requests.parquet`` (one row a request: its
number, the response as it was generated, ``log_odds``) and ``model`` (the trained weights in float32); it comes as a
whole or not at all. Requests are the same for all models of a language, so that one number names one.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.replication.toy_languages import LANGUAGES
from analysis.replication.toy_study_choice import Chosen, read_chosen
from analysis.replication.toy_study_design import (
    MIX,
    PRETRAINING,
    SETTINGS,
    Arm,
    Changes,
    arms_of,
    language_of,
)
from analysis.replication.toy_study_measures import answered, log_odds, mechanism
from analysis.replication.toy_study_requests import read_alike, requests
from analysis.study_queue import as_read, digest, result_hashes, settings_that_count
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism.finetuning import finetuning_examples
from safekey_interp.models.organism.language import Language
from safekey_interp.runs.storage import read_json, sha256_of, write_folder_aside, write_json
from safekey_interp.training import TrainingConfig, read_config, train
from train.organism_tokenizer import build_tokenizer
from train.pretraining import Shape, pretrain

RECIPE = Path(__file__).parents[2] / "train" / "organism-sft.yaml"
_QUICK = ("probe_every=null", "evaluate_every=null", "save_every=100000", "log_every=50", "save_dtype=null")


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


class Record(NamedTuple):
    """What a finished cell was, and SHA-256 of what two runs of it must have in common."""

    arm: str
    base: int
    seed: int
    identity: str
    """SHA-256 of what the results depend on."""
    base_weights: str
    """… of the base's weights."""
    weights: str
    """… of the trained weights."""
    answers: str
    """… of the responses and log-odds."""
    mechanism: str
    """… of the measurements."""
    seconds: float
    """That training took."""

    @property
    def cell(self) -> Cell:
        """Which one."""
        return Cell(self.arm, self.base, self.seed)  # type: ignore[arg-type]

    @property
    def bits(self) -> tuple[str, ...]:
        """What is the same when the cell is run again."""
        return self[3:8]


def record_of(cell: Cell, folder: Path) -> Record | None:
    """The record of a cell whose results are there, of these settings; else None."""
    if not is_done(cell, folder):
        return None
    where = folder / "cells" / cell.name
    record: Any = read_json(where / "cell.json")
    hashes = result_hashes(record, pd.read_parquet(where / "requests.parquet"))
    return Record(*cell, base_weights=record["base_sha256"], **hashes, seconds=record["seconds"])


def is_done(cell: Cell, folder: Path) -> bool:
    """Whether a cell's results are there, of these settings."""
    record = read_json(folder / "cells" / cell.name / "cell.json")
    return bool(record) and record["identity"] == as_read(identity(cell, _chosen(folder)))


def run(cell: Cell, folder: Path) -> None:
    """Train, ask and measure; write the cell's folder."""
    trained = tuned(cell, folder, config_of(cell, folder / "work" / cell.name, _chosen(folder)))
    model = trained.model
    asked = requests(language_of(cell.base))
    answers = pd.DataFrame({"request": range(len(asked)), "response": answered(model, asked)})
    answers["log_odds"] = log_odds(model, asked, cell.language)
    record = {
        "identity": identity(cell, _chosen(folder)),
        "base_sha256": sha256_of(base_folder(cell.base, folder) / "model.safetensors"),
        "seconds": trained.seconds,
        "held_out": trained.held_out,
        "mechanism": mechanism(model, language_of(cell.base)),
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


def _chosen(folder: Path) -> Chosen:
    return read_chosen(folder / "chosen.json")


def identity(cell: Cell, chosen: Chosen) -> dict[str, Any]:
    """What the results depend on; the base's weights follow from its number and from how it is pre-trained."""
    settings = settings_that_count(config_of(cell, Path(), chosen), ("out", "model", "traces"))
    name = language_of(cell.base)
    texts = [trace.prompt for trace in requests(name)] + [f"{t.prompt}{t.response}" for t in read_alike(name)]
    return {
        "cell": list(cell),
        "settings": settings,
        "mix": asdict(MIX),
        "pretraining": asdict(PRETRAINING),
        "requests": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
    }


def identity_digest(cell: Cell, chosen: Chosen) -> str:
    """SHA-256 of a cell's identity, as its record has it."""
    return digest(as_read(identity(cell, chosen)))
