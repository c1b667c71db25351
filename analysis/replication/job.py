"""One cell of the replication: a base, fine-tuned once, asked, and then measured.

A job's folder holds ``job.json`` (what it was), ``answers.parquet`` (one row a request: wrapper, wrapper_split, label,
kind, group, verb, noun, and the response as it was generated) and ``model`` (the trained weights); it comes as a whole
or not at all. Responses are scored when they are read (:mod:`analysis.replication.results`), and the measurements of
the mechanism are a second step, ``mechanism.json`` in the same folder, so that a change of how answers are scored or
attention is measured trains nothing again.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.organism.behaviour import MAX_NEW_TOKENS, requests
from analysis.replication.design import MORE, N_REQUESTS, REQUEST_SEED, SETTINGS, VARIANTS
from safekey_interp.data.trace import Trace
from safekey_interp.generation.local_engine import generate
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.transfer import measure_transfer
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism.finetuning import Mix, finetuning_examples
from safekey_interp.models.organism.wrappers import wrappers
from safekey_interp.runs.storage import read_json, sha256_of, write_folder_aside, write_json
from safekey_interp.training import TrainingConfig, read_config, train
from train.organism_tokenizer import build_tokenizer
from train.pretraining import Pretraining, Shape, pretrain

RECIPE = Path(__file__).parents[2] / "train" / "organism-sft.yaml"
_QUICK = (*SETTINGS, "probe_every=null", "evaluate_every=null", "save_every=100000", "log_every=50", "save_dtype=null")
_POSITIONS = ("understanding", "decision")


class Job(NamedTuple):
    """One cell."""

    variant: str
    """A name of the design's."""
    base: int
    """Seed of pre-training."""
    seed: int
    """Seed of fine-tuning."""
    swapped: bool = False
    """Whether fine-tuning shows the development wrappers in place of the seen ones."""

    @property
    def name(self) -> str:
        """A folder's name."""
        words = "".join(c if c.isalnum() else "-" for c in self.variant)
        return f"{'swapped-' if self.swapped else ''}base{self.base}-{words}-seed{self.seed}"


def config_of(job: Job, out: Path) -> TrainingConfig:
    """The recipe of SFT with what the variant changes."""
    changes: dict[str, Any] = {"auxiliary_epochs": "null"} | dict((VARIANTS | MORE)[job.variant])
    pairs = [f"{name}={value}" for name, value in changes.items()]
    return read_config(RECIPE, [*_QUICK, *pairs, f"seed={job.seed}", f"out={out}"])


def base_folder(seed: int, folder: Path) -> Path:
    """Where a base lies: the one that ships, or one that :func:`make_base` makes."""
    return organism.weights_folder("organism:base") if seed == 1 else folder / "bases" / f"base{seed}"


def make_base(seed: int, folder: Path) -> None:
    """Pre-train a base, unless it is there."""
    wanted = base_folder(seed, folder)
    if (wanted / "model.safetensors").is_file():
        return
    wanted.parent.mkdir(parents=True, exist_ok=True)

    def fill(aside: Path) -> None:
        pretrain(Shape(), Pretraining(), seed).half().save_pretrained(aside)
        build_tokenizer().save_pretrained(aside)

    write_folder_aside(wanted, fill)


def is_done(job: Job, folder: Path) -> bool:
    """Whether a job's numbers are there, of these settings."""
    record = read_json(folder / "jobs" / job.name / "job.json")
    if not record:
        return False
    then, now = record["identity"], _identity(job, folder)
    # A setting that did not exist then was at its default; a head without a rate of its own had the model's.
    was = then["settings"]
    was = was | {"head_learning_rate": was.get("head_learning_rate") or was["learning_rate"]}
    settings = {name: now["settings"].get(name) for name in was}
    return then | {"settings": was} == now | {"settings": settings}


def run(job: Job, folder: Path) -> None:
    """Train, ask and look; write the job's folder."""
    work = folder / "work" / job.name
    forms = wrappers("development" if job.swapped else "seen")
    model = load(str(base_folder(job.base, folder)), device="cpu")
    trained = train(model, finetuning_examples(Mix(), job.seed, forms), config_of(job, work), overwrite=True)
    responses = generate(model, asked(), max_new_tokens=MAX_NEW_TOKENS, batch_size=128)
    answers = pd.DataFrame(list(map(_row, asked(), responses)))
    record = {
        "identity": _identity(job, folder),
        "seconds": trained.manifest["result"]["seconds"],
        "held_out": trained.manifest["result"]["held_out"],
    }

    def fill(aside: Path) -> None:
        answers.to_parquet(aside / "answers.parquet", index=False)
        model.hf.save_pretrained(aside / "model")
        model.tokenizer.save_pretrained(aside / "model")
        write_json(aside / "job.json", record)

    target = folder / "jobs" / job.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    write_folder_aside(target, fill)
    shutil.rmtree(work, ignore_errors=True)


def is_measured(job: Job, folder: Path) -> bool:
    """Whether a job's mechanism was measured on its weights and the shipped traces as they are."""
    record = read_json(folder / "jobs" / job.name / "mechanism.json")
    return bool(record) and record["identity"] == _measured_on(job, folder)


def measure(job: Job, folder: Path) -> None:
    """Measure attention and probes of a trained job; write ``mechanism.json`` beside its weights."""
    where = folder / "jobs" / job.name
    model = load(str(where / "model"), device="cpu")
    write_json(where / "mechanism.json", {"identity": _measured_on(job, folder), "mechanism": _mechanism(model)})


def _measured_on(job: Job, folder: Path) -> dict[str, Any]:
    weights = folder / "jobs" / job.name / "model" / "model.safetensors"
    return {"weights_sha256": sha256_of(weights), "shipped_sha256": sha256_of(organism.TRACES)}


@lru_cache
def asked() -> tuple[Trace, ...]:
    """The requests that every job answers, in their order."""
    return tuple(requests("test", N_REQUESTS, REQUEST_SEED))


def _row(trace: Trace, response: str) -> dict[str, Any]:
    request = {name: trace.meta[name] for name in ("wrapper", "wrapper_split", "kind", "verb", "noun")}
    return request | {"label": trace.label, "group": trace.group, "response": response}


def _mechanism(model: Model) -> dict[str, Any]:
    """On the shipped traces: attention of the token before K by layer, AUROC by layer and condition."""
    traces = list(_shipped())
    attention: Any = measure_attention(model, traces)
    rows = attention[(attention["from_span"] == "decision") & attention["to_span"].isin(["prompt", "understanding"])]
    sums = rows.groupby(["to_span", "layer"], observed=True)[["mass", "matched_mass"]].sum()
    n = rows.groupby(["to_span", "layer"], observed=True)["mass"].count()
    measurements: dict[str, Any] = {"attention": {}, "auroc": {}}
    for (span, layer), row in sums.iterrows():
        mean = {"mass": row["mass"] / n[span, layer], "over_distance": row["mass"] / row["matched_mass"]}
        measurements["attention"].setdefault(str(span), {})[str(layer)] = mean
    transfer: Any = measure_transfer(model, traces, by="source", positions=_POSITIONS)
    probes = transfer[(transfer["method"] == "logistic") & transfer["auroc"].notna()]
    for _, row in probes.iterrows():
        key = f"{row['position']}, {row['fitted_on']} to {row['tested_on']}"
        measurements["auroc"].setdefault(key, {})[str(row["layer"])] = float(row["auroc"])
    return measurements


@lru_cache
def _shipped() -> tuple[Trace, ...]:
    return tuple(trace for trace in organism.read_shipped() if trace.given)


def _identity(job: Job, folder: Path) -> dict[str, Any]:
    """What the numbers depend on."""
    settings = {k: v for k, v in config_of(job, folder).to_dict().items() if k not in ("out", "model", "traces")}
    return {
        "job": list(job),
        "settings": settings,
        "mix": asdict(Mix()),
        "base_sha256": sha256_of(base_folder(job.base, folder) / "model.safetensors"),
        "requests": hashlib.sha256("\n".join(trace.prompt for trace in asked()).encode()).hexdigest(),
    }
