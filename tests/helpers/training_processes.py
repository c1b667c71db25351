"""Training of a tiny model in two processes (DDP, FSDP2) and in one, with the same batch at each step."""

from __future__ import annotations

import json
import os
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import killed_processes
import reference_forward
import torch
from killed_processes import start_fork_server
from probe_processes import environment
from safetensors.torch import load_file, save_file
from tiny_models import BASE, byte_level_tokenizer, traces
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.models.model import from_hf
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.segmentation.segmenter import segment
from safekey_interp.training.batch import QueryMask, TrainingBatch, collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.distributed import shard
from safekey_interp.training.losses import Counts, combine

N_RANKS = 2
N_PASSES = 2
"""Forward passes of a process in a step."""
N_ROWS = 20
EVERY = ("13 rows", "15 rows", "16 rows", "no K on rank 1", "no row on rank 1")
"""What a step may be."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training run; its steps go through ``kinds`` again and again."""

    architecture: str
    way: Literal["ddp", "fsdp2", "fsdp2-apart"]
    """The last with the output embedding as a unit of its own, as some frameworks do it."""
    layout: QueryMask = "short"
    tied: bool = False
    kinds: tuple[str, ...] = EVERY
    checkpointing: bool = False
    more: bool = False
    """The head reads a layer in the middle, and K is weighed with the prompt in sight, too."""
    n_steps: int = 10

    def __str__(self) -> str:
        words = [self.architecture, self.way, self.layout]
        flags = {"tied": self.tied, "checkpointing": self.checkpointing, "more": self.more}
        words += [name for name, on in flags.items() if on]
        return " ".join(words if self.kinds == EVERY else [*words, *self.kinds])


class Run(NamedTuple):
    """What a training run came to."""

    weights: dict[str, Tensor]
    """Whole parameters by name."""
    logged: dict[str, list[float]]
    """Each term, step by step, over all rows."""
    of_rank: list[dict[str, Any]]
    """By rank: how many forwards of the decoder, which kinds of parameters, its own sums and counts of the head."""


def deal(kind: str, step: int) -> list[list[list[int]]]:
    """Rows of each rank's each forward pass."""
    rows = [(5 * step + i) % N_ROWS for i in range(N_ROWS)]
    n_passes = N_RANKS * N_PASSES
    if kind == "no row on rank 1":
        return [[rows[:4], rows[4:7]], [[], []]]
    n = 8 if kind == "no K on rank 1" else int(kind[:2])
    passes = [rows[n * i // n_passes : n * (i + 1) // n_passes] for i in range(n_passes)]
    return [passes[rank::N_RANKS] for rank in range(N_RANKS)]


def train(case: Case, rank: int | None) -> tuple[dict[str, Tensor], dict[str, list[float]], dict[str, Any]]:
    """Ten steps, in this process alone when ``rank`` is None: then one batch has all rows of a step."""
    loss, n_forwards = fresh(case), 0

    def count(*_: Any) -> None:
        nonlocal n_forwards
        n_forwards += 1

    loss.hf.get_decoder().register_forward_pre_hook(count)
    module: nn.Module = loss if rank is None else wrapped(loss, case.way)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=1e-4)
    logged: dict[str, list[float]] = {name: [] for name in ("lm", "head", "query_mask", "total", "key")}
    own = []
    for step in range(case.n_steps):
        batches = batches_of(case, step, rank)
        counts = summed([torch.stack(list(map(torch.as_tensor, batch.counts))) for batch in batches], rank)
        optimizer.zero_grad()
        terms = []
        for i, batch in enumerate(batches):
            with accumulating(module, rank, last=i == len(batches) - 1):
                sums = module(batch)
                combined = combine(sums, Counts(*counts), key_weight=0.3 * case.more)
                (combined.total * (1 if rank is None else N_RANKS)).backward()
            terms.append(torch.stack([term.detach() for term in combined[:5]]))
            own.append((step, float(sums.head.detach()), int(batch.counts.rows)))
        optimizer.step()
        for name, term in zip(logged, summed(terms, rank), strict=True):
            logged[name].append(float(term))
    kinds = sorted({type(parameter).__name__ for parameter in module.parameters()})
    return whole(loss), logged, {"n_forwards": n_forwards, "parameters": kinds, "head": own}


def fresh(case: Case) -> BatchLoss:
    """Model and head as every process initialises them."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[case.architecture](**BASE | {"tie_word_embeddings": case.tied})
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    if case.checkpointing:
        hf.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(1)
    head = SafetyHead(BASE["hidden_size"])
    with torch.no_grad():  # so that rows differ in their loss
        for parameter in head.parameters():
            parameter.mul_(10)
    return BatchLoss(hf, head, head_layer=1 if case.more else None, weighs_key=case.more)


def wrapped(loss: BatchLoss, way: str) -> nn.Module:
    """As a user does it."""
    if way == "ddp":
        return DistributedDataParallel(loss)
    if way == "fsdp2-apart":
        fully_shard(loss.hf.get_output_embeddings(), mesh=init_device_mesh("cpu", (N_RANKS,)))
    return shard(loss)


def accumulating(module: Any, rank: int | None, *, last: bool) -> Any:
    """Gradients meet those of the other process after the last pass of a step alone."""
    if rank is not None and isinstance(module, DistributedDataParallel):
        return nullcontext() if last else module.no_sync()
    if rank is not None:
        module.set_requires_gradient_sync(last)
    return nullcontext()


def batches_of(case: Case, step: int, rank: int | None) -> list[TrainingBatch]:
    """This process's batches of a step; all rows in one when it is alone."""
    kind = case.kinds[step % len(case.kinds)]
    dealt = deal(kind, step)
    # A row without K is one where the deal says so, whoever reads it.
    without = set(chain(*dealt[1])) if kind == "no K on rank 1" else set()
    passes = [sorted(chain(*chain(*dealt)))] if rank is None else dealt[rank]
    encodings, labels = data()
    return [
        collate([encodings[row][row in without] for row in rows], [labels[row] for row in rows], layout=case.layout)
        for rows in passes
    ]


@lru_cache
def data() -> tuple[list[tuple[Any, Any]], list[str | None]]:
    """Rows of different lengths, each with and without K; some without a label."""
    short = traces(5)
    given = [
        reference_forward.with_given(short[i % 5], prompt=short[i % 5].prompt + " Explain." * (i // 5))
        for i in range(N_ROWS)
    ]
    labels = [None if i % 4 == 3 else trace.label for i, trace in enumerate(given)]
    hf = AutoModelForCausalLM.from_config(CONFIG_MAPPING["llama"](**BASE))
    model = from_hf(hf, byte_level_tokenizer(), spec="tiny")
    bare = [trace.with_(given={"understanding": trace.given["understanding"]}) for trace in given]
    return [
        tuple(model.encode(trace, segment(trace, finder="given")) for trace in pair)
        for pair in zip(given, bare, strict=True)
    ], labels


def summed(tensors: list[Tensor], rank: int | None) -> Tensor:
    """Over passes and processes."""
    total = torch.stack(tensors).sum(0)
    if rank is not None:
        torch.distributed.all_reduce(total)
    return total


def whole(loss: BatchLoss) -> dict[str, Tensor]:
    """Parameters, gathered where they are sharded."""
    return {
        name: (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach().clone()
        for name, parameter in loss.named_parameters()
    }


def run_team(cases: list[Case], out: Path) -> dict[str, Run]:
    """Every case in two processes that start once."""
    start_fork_server()
    processes = [
        killed_processes.context.Process(target=_child, args=(rank, place, cases, out))
        for rank, place in enumerate(environment(N_RANKS))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    errors = "\n".join(file.read_text() for file in sorted(out.glob("said-*")))
    assert not errors, errors
    assert not hung, "a process waits for ever"
    runs = {}
    for i, case in enumerate(cases):
        of_rank = [json.loads((out / f"{i}-{rank}.json").read_text()) for rank in range(N_RANKS)]
        runs[str(case)] = Run(load_file(out / f"{i}.safetensors"), of_rank[0].pop("logged"), of_rank)
    return runs


def _child(rank: int, place: dict[str, str], cases: list[Case], out: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(place)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=120))
    try:
        for i, case in enumerate(cases):
            weights, logged, own = train(case, rank)
            (out / f"{i}-{rank}.json").write_text(json.dumps(own | {"logged": logged}))
            if rank == 0:
                save_file(weights, out / f"{i}.safetensors")
    except Exception:
        (out / f"said-{rank}").write_text(f"rank {rank}, {case}:\n{traceback.format_exc()}")
        os._exit(1)
    torch.distributed.destroy_process_group()
