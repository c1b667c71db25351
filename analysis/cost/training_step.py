"""Time and memory of a training step with SafeKey's losses, against plain fine-tuning and the literal implementation.

    python analysis/cost/training_step.py [--model smollm2] [--batch 2] [--length 640] [--repeats 9]

Ways, each one step of a trainer on the same weights, with backward pass, gradient clipping and AdamW:

- ``hf``: transformers' Trainer, language modelling only;
- ``sft``: this package, language modelling only;
- ``short``, ``packed``: this package with both losses, in either layout of the prompt-masked pass;
- ``literal``: transformers' Trainer on a model that runs twice in full, the second time with the prompt masked, with
  all logits both times, as the reference does.

Times are interleaved, ratios are within a round, and their median has a bootstrap interval. Memory is the peak of
resident memory in a step, each way in its own process (median of ``--memory-runs``), weights and AdamW included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from capture import RETURNED, interleaved, interval
from torch import nn
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import TokenSpan
from safekey_interp.models.encoding import Encoding, TokenSet
from safekey_interp.models.model import Model, load
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.training.batch import QueryMask, TrainingBatch, collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.examples import Example
from safekey_interp.training.losses import head_loss
from safekey_interp.training.schedule import schedule_of
from safekey_interp.training.trainer import SafeKeyTrainer
from safekey_interp.training.trainer_arguments import arguments_of

WAYS = {
    "hf": "transformers' Trainer, SFT",
    "sft": "ours, SFT",
    "short": "ours, SafeKey (short)",
    "packed": "ours, SafeKey (packed)",
    "literal": "literal: two full passes",
}
_LAYOUTS: dict[str, QueryMask | None] = {"sft": None, "short": "short", "packed": "packed"}
_IGNORED = -100
Way = Callable[[], object]


def examples(model: Model, options: argparse.Namespace) -> list[Example]:
    """Traces of random tokens: a prompt, then U, K, and the rest of the response."""
    rng = torch.Generator().manual_seed(0)
    begin, u_end = options.prompt, options.prompt + options.u_tokens
    k_end = u_end + options.k_tokens
    spans = {
        "prompt": TokenSpan(1, begin),
        "template": TokenSet((TokenSpan(begin - 1, begin),)),
        "first_token": TokenSpan(0, 1),
        "understanding": TokenSpan(begin, u_end),
        "key_sentence": TokenSpan(u_end, k_end),
        "decision": TokenSpan(u_end - 1, u_end),
    }
    return [
        Example(
            trace_id=str(row),
            group=str(row),
            encoding=Encoding(
                trace_id=str(row),
                text="",
                input_ids=torch.randint(100, model.n_embeddings - 100, (options.length,), generator=rng),
                offsets=(),
                response_start=begin,
                spans=MappingProxyType(spans),
                straddling=(),
            ),
            label=("harmful", "benign")[row % 2],
            aha=None,
        )
        for row in range(options.batch)
    ]


class Literal(nn.Module):
    """The reference's step: all logits, and once more with the prompt masked."""

    def __init__(self, hf: Any, head: SafetyHead) -> None:
        super().__init__()
        self.hf, self.head = hf, head

    def forward(self, labels: Any, batch: TrainingBatch) -> dict[str, Any]:
        """Weighted sum of the three losses."""
        ids = batch.input_ids
        out = self.hf(input_ids=ids, labels=labels, output_hidden_states=True, use_cache=False)
        logits = self.head(out.hidden_states[-1], batch.understanding, batch.context)
        by_head = head_loss(logits, batch.harmful, batch.counted) / batch.counted.sum()
        again = self.hf(input_ids=ids, attention_mask=self._mask(batch, ids), use_cache=False).logits
        key = batch.key[:, 1:]
        masked = functional.cross_entropy(again[:, :-1][key].float(), ids[:, 1:][key])
        return {"loss": out.loss + 0.2 * by_head + 0.2 * masked}

    @staticmethod
    def _mask(batch: TrainingBatch, ids: Any) -> Any:
        first = batch.response.int().argmax(1)
        return (torch.arange(ids.shape[1])[None] >= first[:, None]).long()


def steps(model: Model, options: argparse.Namespace, folder: Path, names: list[str]) -> dict[str, Way]:
    """Each way as a function without arguments; they share weights and optimizer."""
    rows = examples(model, options)
    torch.manual_seed(0)
    head = SafetyHead(model.d_model)
    model.hf.requires_grad_(True)
    optimizer = torch.optim.AdamW([*model.hf.parameters(), *head.parameters()], lr=1e-6, betas=(0.9, 0.95))

    def finish(backward: Way) -> Way:
        def run() -> None:
            model.hf.train()
            backward()
            torch.nn.utils.clip_grad_norm_(model.hf.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return run

    made: dict[str, Callable[[], Way]] = {
        "hf": lambda: _plain(model.hf, _labelled(rows), folder),
        "literal": lambda: _plain(
            Literal(model.hf, head),
            _labelled(rows)
            | {"batch": collate([r.encoding for r in rows], [r.label for r in rows], layout="masked")}
            | {"input_ids": None},
            folder,
        ),
    }
    ours = {name: partial(_ours, model, head, rows, layout, folder) for name, layout in _LAYOUTS.items()}
    return {name: finish((made | ours)[name]()) for name in names}


def _labelled(rows: list[Example]) -> dict[str, Any]:
    ids = torch.stack([row.encoding.input_ids for row in rows])
    labels = ids.clone()
    for number, row in enumerate(rows):
        labels[number, : row.encoding.response_start] = _IGNORED
    return {"input_ids": ids, "labels": labels}


def _plain(module: Any, inputs: dict[str, Any], folder: Path) -> Way:
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True)
    trainer = Trainer(model=module, args=arguments)
    trainer.current_gradient_accumulation_steps = 1
    given = {name: value for name, value in inputs.items() if value is not None}
    return lambda: trainer.training_step(module, dict(given))


def _ours(model: Model, head: SafetyHead, rows: list[Example], layout: QueryMask | None, folder: Path) -> Way:
    weights: dict[str, Any] = {} if layout else {"head_weight": 0.0, "query_mask_weight": 0.0}
    n = len(rows)
    config = TrainingConfig(batch_size=n, micro_batch_size=n, auxiliary_epochs=None, held_out=0.0, **weights)
    loss = BatchLoss(model.hf, head if layout else None)
    schedule = schedule_of(config, 1)
    arguments = arguments_of(config, schedule, folder, model, has_held_out=False)
    trainer = SafeKeyTrainer(
        loss,
        config=config,
        arguments=arguments,
        schedule=schedule,
        layout=layout,
        train=rows,
        tokenizer=model.tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1

    def run() -> None:
        inputs, counts = trainer.get_batch_samples(iter([rows]), 1, torch.device("cpu"))
        for batch in inputs:
            trainer.training_step(loss, batch, counts)

    return run


def peak(run: Way) -> float:
    """MB of resident memory at the peak of a step, once the optimizer has its state (Linux)."""
    run()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
        control.write("5")
    run()
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _peak_elsewhere(way: str, arguments: list[str]) -> float:
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--peak-of", way],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | RETURNED,
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=640)
    parser.add_argument("--prompt", type=int, default=48, help="tokens before the response (STAR-1's median)")
    parser.add_argument("--u-tokens", type=int, default=28, help="from there to the end of U (STAR-1's median)")
    parser.add_argument("--k-tokens", type=int, default=17, help="of K (STAR-1's median)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory-runs", type=int, default=3, help="processes a way; the median counts")
    parser.add_argument("--peak-of", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_libraries()
    given = [word for word in sys.argv[1:] if not word.startswith("--peak-of")]
    memory: dict[str, Any] = {}
    if not options.peak_of:
        # Before this process takes memory of its own.
        memory = {way: np.median([_peak_elsewhere(way, given) for _ in range(options.memory_runs)]) for way in WAYS}
    model = load(options.model, dtype="float32", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        if options.peak_of:
            print(json.dumps(peak(steps(model, options, Path(folder), [options.peak_of])[options.peak_of])))
            return
        times = interleaved(steps(model, options, Path(folder), list(WAYS)), options.repeats)
    threads = torch.get_num_threads()
    what = f"{options.batch} x {options.length} tokens (X {options.prompt}, U {options.u_tokens}, K {options.k_tokens})"
    print(f"{options.model}, {what}, {options.repeats} interleaved rounds, {threads} threads")
    print(f"{'way':<28}{'median s':>9}{'x our SFT':>10}{'95 % interval':>18}{'MB':>8}{'x our SFT':>10}")
    for way, name in WAYS.items():
        ratio, low, high = interval(np.asarray(times[way]) / np.asarray(times["sft"]))
        print(
            f"{name:<28}{np.median(times[way]):>9.2f}{ratio:>10.3f}{f'{low:.3f} to {high:.3f}':>18}"
            f"{memory[way]:>8.0f}{memory[way] / memory['sft']:>10.3f}"
        )
    ratio, low, high = interval(np.asarray(times["sft"]) / np.asarray(times["hf"]))
    print(f"our SFT against transformers': {ratio:.3f} x the time [{low:.3f}, {high:.3f}], ", end="")
    print(f"{memory['sft'] / memory['hf']:.3f} x the memory")


if __name__ == "__main__":
    main()
