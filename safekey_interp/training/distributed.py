"""Sharding of weights, gradients and optimizer states over processes (FSDP2).

The units are the decoder's layers, each gathered while it runs, and the whole module with the rest: embeddings, final
norm, safety head. The output embedding is used outside the model's own forward but inside the module's, so that it is
whole there; a tied one is one parameter of one unit.

    loss = shard(BatchLoss(hf, head))
    optimizer = AdamW(loss.parameters())        # after sharding: the parameters are new ones
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from safekey_interp.capture.architecture import find_layout
from safekey_interp.errors import InputError, ModelError, RunError, install_hint
from safekey_interp.runs.processes import place
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.config import TrainingConfig

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


def shard(loss: BatchLoss, mesh: DeviceMesh | None = None, **options: Any) -> BatchLoss:
    """Shard a module, in place, over the processes of a mesh.

    Every process must run the same forwards: ``collate([], [])`` is the batch of one that has no row.

    Args:
        loss: the module, not yet sharded; its parameters become DTensors.
        mesh: the processes; None for all, on the CPU where they meet over gloo, else on torch's accelerator.
        **options: of ``torch.distributed.fsdp.fully_shard``, for every unit: ``mp_policy``, ``offload_policy``.

    Returns:
        The same module.

    Raises:
        RunError: there is no process group.
        ModelError: the model's layers are not found.
    """
    if mesh is None:
        mesh = _all_processes()
    for block in blocks(loss.hf):
        fully_shard(block, mesh=mesh, **options)
    fully_shard(loss, mesh=mesh, **options)
    return loss


def blocks(hf: Any) -> list[nn.Module]:
    """The decoder's layers in order; where they are in no list, the modules that the model says must not be split.

    Raises:
        ModelError: neither is found.
    """
    try:
        return list(find_layout(hf).layers)
    except ModelError:
        kinds = set(getattr(hf, "_no_split_modules", None) or ())
        modules = [module for module in hf.modules() if type(module).__name__ in kinds]
        if not modules:
            raise
        return modules


def _all_processes() -> DeviceMesh | None:
    if not torch.distributed.is_initialized():
        raise RunError("shard: no process group; start with torchrun and call torch.distributed.init_process_group()")
    if torch.distributed.get_backend() != "gloo":
        return None
    return init_device_mesh("cpu", (torch.distributed.get_world_size(),))


def check_installed() -> None:
    """Raise InputError where the packages of the extra ``train`` are missing."""
    from importlib.util import find_spec

    missing = [name for name in ("accelerate", "peft") if find_spec(name) is None]
    if missing:
        raise InputError(f"training needs {' and '.join(missing)}: {install_hint('train')}")


def n_shards() -> int:
    """How many devices a launcher spreads weights, gradients and optimizer over."""
    shards = any(os.environ.get(f"ACCELERATE_USE_{way}", "").lower() == "true" for way in ("FSDP", "DEEPSPEED"))
    return place().world_size if shards else 1


def check_sharded(config: TrainingConfig) -> None:
    """Refuse what needs whole weights in one process while these are spread over several.

    Raises:
        InputError: a setting does.
    """
    if n_shards() == 1:
        return
    for name in ("patience", "lora_rank", "probe_every", "log_gradient_norms_every"):
        if getattr(config, name):
            raise InputError(f"{name}: needs whole weights, which FSDP and DeepSpeed shard; expected null there")


def meet(model: Model) -> None:
    """Open the process group that the Trainer will use, before the processes speak to one another."""
    if place().world_size > 1:
        from accelerate import PartialState

        PartialState(cpu=model.device.type == "cpu")
