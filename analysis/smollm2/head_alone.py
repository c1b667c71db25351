"""Training of the safety head on frozen states, at the model's learning rate and at its own.

    python -m analysis.smollm2.head_alone [--xstest ../shared/data/xstest_prompts.jsonl] [--n 60] [--steps 35] [--seeds
    5]

States after the final norm, averaged over U and over the context, as the head reads them in training: of SmolLM2 on
XSTest's prompts in one constructed trace, and of ``organism:base`` on fine-tuning traces. AdamW (.9, .95), cosine
schedule with 5 % warm-up, batches of 16; a quarter of the traces is held out. Printed: binary cross-entropy before and
after, at 5e-5 and at the rate of :mod:`safekey_interp.training.head_learning_rate`; chance is .693.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from analysis.smollm2.data import xstest_traces
from analysis.tables import markdown
from safekey_interp.capture.state_collection import collect_states
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism.finetuning import Mix, finetuning_examples
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.training.head_learning_rate import rate_for

MODELS_RATE = 5e-5
"""The rate of SmolLM2's fine-tuning in RESULTS.md."""
_POSITIONS = ("understanding", "context")


class Frozen(NamedTuple):
    """What the head's two paths read of each trace, and whether it is harmful."""

    understanding: Tensor
    context: Tensor
    harmful: Tensor


def frozen_states(model: Model, traces: Sequence[Trace]) -> Frozen:
    """States after the final norm, averaged over each position's tokens."""
    states, kept, _ = collect_states(model, traces, StreamSettings(finder="given"), positions=list(_POSITIONS))
    at = next(number for number, site in enumerate(states.layers) if site.site == "ln_final")
    u, context = (torch.tensor(np.asarray(states.matrix(at, name)), dtype=torch.float32) for name in _POSITIONS)
    return Frozen(u, context, torch.tensor([float(trace.label == "harmful") for trace in kept]))


def trained_alone(frozen: Frozen, rate: float, steps: int, seed: int) -> tuple[list[float], list[float]]:
    """Loss of the training traces and of the held-out quarter, before and after."""
    draws = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(frozen.harmful), generator=draws)
    n_held = len(order) // 4
    held, train = order[:n_held], order[n_held:]
    torch.manual_seed(seed)
    head = SafetyHead(frozen.understanding.shape[1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=1e-4)
    warm = math.ceil(0.05 * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: s / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / (steps - warm)))
    )

    def loss(rows: Tensor) -> Tensor:
        paths = (head.understanding, frozen.understanding), (head.context, frozen.context)
        logits = [states[rows] @ path.weight[0] + path.bias for path, states in paths]
        return sum((cross_entropy(logit, frozen.harmful[rows]) for logit in logits), torch.zeros(())) / 2

    losses = [[float(loss(train)), float(loss(held))]]
    for _ in range(steps):
        rows = train[torch.randint(len(train), (16,), generator=draws)]
        optimizer.zero_grad()
        loss(rows).backward()
        optimizer.step()
        schedule.step()
    losses.append([float(loss(train)), float(loss(held))])
    return [before for before, _ in losses], [after for _, after in losses]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--xstest", type=Path, default=Path("../shared/data/xstest_prompts.jsonl"))
    parser.add_argument("--n", type=int, default=60, help="traces of each label, about")
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    quiet_libraries()
    prompts = xstest_traces(options.xstest)
    random.Random(0).shuffle(prompts)
    sources = (
        ("smollm2", "XSTest in one made-up trace", prompts[: 2 * options.n]),
        ("organism:base", "fine-tuning traces", finetuning_examples(Mix(), 1)[: 2 * options.n]),
    )
    rows = []
    for name, words, traces in sources:
        frozen = frozen_states(load(name, device="cpu"), traces)
        norm = float((frozen.understanding.abs().sum(1) + frozen.context.abs().sum(1)).mean() / 2)
        for rate_name, rate in (("the model's", MODELS_RATE), ("the head's own", rate_for(norm))):
            runs = [trained_alone(frozen, rate, options.steps, seed) for seed in range(options.seeds)]
            train, held = (np.mean([run[part] for run in runs], axis=0) for part in (0, 1))
            losses = {"training": f"{train[0]:.3f} to {train[1]:.3f}", "held out": f"{held[0]:.3f} to {held[1]:.3f}"}
            about = {"model": name, "traces": f"{words} (n = {len(frozen.harmful)})"}
            rows.append(about | {"learning rate": f"{rate:.1e} ({rate_name})"} | losses)
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
