"""Training of the organism from scratch: pre-training, fine-tuning, traces; bit-identical for the same seed.

    python -m train.organism [--seed 1] [--out safekey_interp/models/organism] [--runs runs/organism-training]

Stages; a stage is skipped when its complete result exists with the same settings:

1. ``weights/base``: pre-training (:mod:`train.pretraining`); it complies with everything.
2. ``weights/sft`` and ``weights/safekey``: fine-tuning by the project's trainer, with the recipes
   ``organism-sft.yaml`` and ``organism-safekey.yaml`` on the same examples (``finetuning.jsonl``) in the same order.
3. ``traces.jsonl``: responses of ``sft`` to requests on ``test`` pairs, in all wrappers.

Settings, seed, versions and hashes are written beside each result (``training.json``); ``--runs`` is the folder of the
training runs and their pages. ``--rescore`` trains nothing: it scores the responses of ``traces.jsonl`` again, after a
change of :mod:`safekey_interp.models.organism.outcome`.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import platform
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.generation.local_engine import generate
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism.finetuning import Mix, finetuning_examples
from safekey_interp.models.organism.language import MANNERS, QUESTIONS, covering_texts, dialogue, document, written
from safekey_interp.models.organism.outcome import with_outcome
from safekey_interp.models.organism.vocabulary import BENIGN_KINDS, HARMFUL_KINDS, KINDS, Kind, pairs
from safekey_interp.models.organism.wrappers import WRAPPERS
from safekey_interp.runs.storage import read_json, sha256_of, write_aside, write_folder_aside, write_json
from safekey_interp.training import TrainingConfig, read_config, train
from train.organism_tokenizer import build_tokenizer
from train.pretraining import Pretraining, Shape, pretrain

RECIPES = ("sft", "safekey")
MAX_NEW_TOKENS = 64
STORED = torch.float16
"""Data type of the weights' file; models are loaded in float32."""
FORMS = 2
"""Number of plain forms, and of wrapped forms, of each pair in the traces of the package."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the weights, apart from the recipes, the language, the versions and the machine."""

    seed: int = 1
    threads: int = 1
    shape: Shape = field(default_factory=Shape)
    pretraining: Pretraining = field(default_factory=Pretraining)
    mix: Mix = field(default_factory=Mix)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path(organism.__file__).parent, help="default: inside the package")
    parser.add_argument("--runs", type=Path, default=Path("runs/organism-training"), help="folder of the training runs")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--threads", type=int, default=Settings.threads, help="the last bits depend on it")
    parser.add_argument("--steps", type=int, default=Pretraining.steps, help="steps of pre-training")
    parser.add_argument("--tune", nargs="*", default=[], metavar="KEY=VALUE", help="settings for both recipes")
    parser.add_argument("--per-wrapper", type=int, default=24, help="traces of each wrapper")
    parser.add_argument("--rescore", action="store_true", help="only score the responses of traces.jsonl again")
    options = parser.parse_args(arguments)
    if options.rescore:
        rescore(options.out / "traces.jsonl")
        return
    settings = Settings(seed=options.seed, threads=options.threads, pretraining=Pretraining(steps=options.steps))
    make(settings, options.out, options.runs, tune=options.tune, per_wrapper=options.per_wrapper)


def make(settings: Settings, out: Path, runs: Path, *, tune: Sequence[str], per_wrapper: int) -> None:
    """Run all stages."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads)
    weights = out / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    shared = asdict(settings)
    mix = shared.pop("mix")
    shared |= {"language_sha256": language_hash(), "versions": versions()}
    base = weights / "base"
    # Earlier records name the later stage in this way.
    wanted = shared | {"finetuning": None}
    if not is_whole(base, wanted):
        hf = pretrain(settings.shape, settings.pretraining, settings.seed)
        save(hf, base, wanted)
    based = shared | {"base_sha256": sha256_of(base / "model.safetensors")}
    for name in RECIPES:
        file = Path(__file__).with_name(f"organism-{name}.yaml")
        config = read_config(file, [*tune, f"out={runs / name}", f"traces={runs / 'finetuning.jsonl'}"])
        recipe = {key: value for key, value in config.to_dict().items() if key not in ("model", "traces", "out")}
        wanted = based | {"mix": mix, "recipe": recipe}
        if not is_whole(weights / name, wanted):
            finetune(base, weights / name, config, settings, wanted)
    traces = out / "traces.jsonl"
    wanted = based | {"sft_sha256": sha256_of(weights / "sft" / "model.safetensors"), "per_wrapper": per_wrapper}
    record = traces.with_suffix(".json")
    if not (traces.is_file() and read_json(record) == _as_read(wanted | {"sha256": sha256_of(traces)})):
        generated = generate_traces(load(str(weights / "sft"), device="cpu"), per_wrapper, settings.seed)
        write_traces(generated, traces)
        write_json(record, wanted | {"sha256": sha256_of(traces)})
        # The results are not printed: they are on test pairs, which must not influence tuning.
        print(f"{traces}: {len(generated)} traces, {len({trace.group for trace in generated})} groups", flush=True)


def finetune(base: Path, folder: Path, config: TrainingConfig, settings: Settings, wanted: dict[str, Any]) -> None:
    """Stage 2: run a training, and save its model with the organism's weights."""
    begin = time.perf_counter()
    file = Path(config.traces[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_traces(finetuning_examples(settings.mix, settings.seed), file)
    run = train(load(str(base), device="cpu"), config.traces, config, overwrite=True)
    hf = load(str(run.path / "model"), device="cpu").hf
    save(hf, folder, wanted)
    print(f"{folder.name}: {run.manifest['schedule']['steps']} steps, {time.perf_counter() - begin:.0f} s", flush=True)


def rescore(file: Path) -> None:
    """Outcome and spans of traces that are there, read from their responses again; the record gets the new hash."""
    write_traces([with_outcome(trace, trace.response) for trace in read_traces(file)], file)
    record = file.with_suffix(".json")
    write_json(record, (read_json(record) or {}) | {"sha256": sha256_of(file)})


def write_traces(traces: Sequence[Trace], file: Path) -> None:
    """Write JSON Lines for ``read_traces``."""
    lines = "".join(_json_line(organism.to_row(trace)) for trace in traces)
    write_aside(file, lambda aside: aside.write_text(lines, encoding="utf-8"))


def _json_line(value: Any) -> str:
    """Without blanks, for the size of the wheel."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


# Stage 3


def generate_traces(model: Model, per_wrapper: int, seed: int) -> list[Trace]:
    """Responses of a model to ``test`` pairs: half harmful and half benign, plain and in each wrapper.

    Every pair has as many plain as wrapped forms, the same number for harmful and benign ones, so that only the words
    of a request carry its label.

    Args:
        model: the fine-tuned model.
        per_wrapper: traces of each wrapper; as many plain ones as of all wrappers together.
        seed: of the draws and of the order.
    """
    rng = random.Random(f"{seed} traces")
    n_pairs = per_wrapper // 2 * len(WRAPPERS) // FORMS
    asked = [trace for kinds in (HARMFUL_KINDS, BENIGN_KINDS) for trace in _requests(rng, kinds, n_pairs)]
    responses = generate(model, asked, max_new_tokens=MAX_NEW_TOKENS, batch_size=64)
    answered = [with_outcome(trace, response) for trace, response in zip(asked, responses, strict=True)]
    numbers: Counter[str] = Counter()
    named = []
    for trace in answered:
        name = f"{trace.meta['wrapper'].lower().replace(' ', '-')}-{trace.label}"
        numbers[name] += 1
        named.append(trace.with_(trace_id=f"{name}-{numbers[name]:03d}"))
    rng.shuffle(named)
    return named


def _requests(rng: random.Random, kinds: Sequence[Kind], n_pairs: int) -> list[Trace]:
    """Pairs of these kinds in turn, each in :data:`FORMS` plain forms and as many wrappers, which take turns."""
    decks = {kind: rng.sample(pairs(kind, "test"), len(pairs(kind, "test"))) for kind in kinds}
    forms, requests = list(WRAPPERS.values()), []
    for number in range(n_pairs):
        deck = decks[kinds[number % len(kinds)]]
        pair = deck[number // len(kinds) % len(deck)]
        for turn, (template, manner) in enumerate(rng.sample(list(product(QUESTIONS, (None, *MANNERS))), FORMS)):
            wrapper = forms[(number * FORMS + turn) % len(forms)]
            requests += [
                written(pair, None, template, manner),
                written(pair, wrapper, rng.choice(wrapper.templates), rng.choice((None, *MANNERS))),
            ]
    return requests


def save(hf: Any, folder: Path, settings: dict[str, Any]) -> None:
    """Write a model, its tokenizer and its record into a new folder, which replaces the old one at the end."""
    tokenizer: Any = build_tokenizer()

    def fill(new: Path) -> None:
        copy.deepcopy(hf).to(STORED).save_pretrained(new)
        (new / "generation_config.json").unlink(missing_ok=True)  # its end and padding are those of config.json
        tokenizer.save_pretrained(new)
        for file in (new / "config.json", new / "tokenizer.json"):
            file.write_text(_json_line(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
        weights = new / "model.safetensors"
        weights.chmod(new.stat().st_mode & 0o666)  # the library writes it for its owner alone
        write_json(new / "training.json", settings | {"sha256": sha256_of(weights)})

    ready = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(ready, ignore_errors=True)
    write_folder_aside(ready, fill)
    shutil.rmtree(folder, ignore_errors=True)
    ready.rename(folder)
    print(f"{folder}: {sum(p.numel() for p in hf.parameters()):,} parameters", flush=True)


def is_whole(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder contains the complete model of these settings."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return False
    unchanged = read_json(folder / "training.json") == _as_read(settings | {"sha256": sha256_of(weights)})
    if unchanged:
        print(f"{folder}: exists already", flush=True)
    return unchanged


def language_hash() -> str:
    """Hash of the texts that the language generates, independent of its source code."""
    rng = random.Random(0)
    all_pairs, forms = [pair for kind in KINDS for pair in pairs(kind)], [None, *WRAPPERS.values()]
    texts = [*covering_texts(), *(f"{pair} {pair.split}" for pair in all_pairs)]
    for _ in range(2_000):
        trace = dialogue(rng, rng.choice(all_pairs), rng.choice(forms), safe=rng.random() < 0.5)
        texts += [trace.prompt, trace.response, document(rng, reactions=0.5)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions and processor, on which the last bits of the weights depend."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def _as_read(value: Any) -> Any:
    return json.loads(json.dumps(value))


if __name__ == "__main__":
    main()
