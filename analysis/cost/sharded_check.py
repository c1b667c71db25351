"""Check of FSDP2: the losses of two processes that share the weights are those of one that has them.

    python -m torch.distributed.run --nproc_per_node 2 -m analysis.cost.sharded_check --device cpu

Over gloo on a CPU, and over NCCL where there are two GPUs. Each process takes a row, and prints its sums.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import torch

from analysis.cost.bench import Bench, Setup
from analysis.cost.loss_checks import small_batch
from analysis.cost.training_step import LABELS, sequences
from safekey_interp.training.batch import collate
from safekey_interp.training.batch_loss import BatchLoss

_N = 2
_CLOSE, _TIMEOUT = 1e-4, 300


def check_sharding(bench: Bench) -> Iterator[tuple[str, float, float, str]]:
    """Sums of the losses over two processes against one."""
    if not torch.distributed.is_available():
        yield "FSDP2 in two processes", 0, 0, "left out: this torch has no torch.distributed"
        return
    device = "cuda" if bench.setup.device == "cuda" and torch.cuda.device_count() >= _N else "cpu"
    command = ["-m", "torch.distributed.run", "--nproc_per_node", str(_N), "-m", __name__, "--device", device]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the processes ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    # Lines of two processes may run into one another.
    shared = torch.tensor([json.loads(sums) for sums in re.findall(r"\[[^\]]*\]", done.stdout)]).sum(0)
    alone = torch.tensor(_sums_of_one(bench))
    error = float(((shared - alone).abs() / alone.abs()).max()) if len(shared) == len(alone) else float("inf")
    yield f"FSDP2 in two processes ({device})", error, _CLOSE, ""


def _sums_of_one(bench: Bench) -> list[float]:
    head, batch, _ = small_batch(bench)
    return [float(term.detach()) for term in BatchLoss(bench.small.hf, head)(batch)[:3]]


def main() -> None:
    """One process: its row's sums, with the weights shared."""
    from safekey_interp.training.distributed import shard

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    rank = int(os.environ["RANK"])
    device = f"cuda:{rank}" if options.device == "cuda" else "cpu"
    if options.device == "cuda":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl" if options.device == "cuda" else "gloo")
    bench = Bench(Setup(model="tiny", device=device, dtype="float32", length=128, minutes=1))
    head, _, _ = small_batch(bench)
    row = sequences(bench, length=128, model=bench.small)[rank : rank + 1]
    batch = collate(row, LABELS[rank : rank + 1], layout="short").to(device)
    loss = shard(BatchLoss(bench.small.hf.requires_grad_(True), head))
    assert all(hasattr(parameter, "full_tensor") for parameter in loss.parameters()), "a parameter is not shared"
    sums = loss(batch)
    (sums.lm + sums.head + sums.query_mask).backward()
    print(json.dumps([float(term.detach()) for term in sums[:3]]), flush=True)
    torch.distributed.destroy_process_group()
    # Without the interpreter's own end: a thread of gloo that still holds a tensor then aborts the process (SIGABRT).
    os._exit(0)


if __name__ == "__main__":
    main()
