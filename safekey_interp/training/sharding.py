"""How are weights, gradients and the optimizer's states spread over processes (FSDP2)?

The units are the decoder's layers, each gathered while it runs, and the whole module with the rest: embeddings, final
norm, safety head. The output embedding is used outside the model's own forward but inside the module's, so that it is
whole there; a tied one is one parameter of one unit.

    loss = shard(BatchLoss(hf, head))
    optimizer = AdamW(loss.parameters())        # after sharding: the parameters are new ones
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from safekey_interp.capture.layout import find_layout
from safekey_interp.errors import ModelError, RunError
from safekey_interp.training.terms import BatchLoss


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
        found = [module for module in hf.modules() if type(module).__name__ in kinds]
        if not found:
            raise
        return found


def _all_processes() -> DeviceMesh | None:
    if not torch.distributed.is_initialized():
        raise RunError("shard: no process group; start with torchrun and call torch.distributed.init_process_group()")
    if torch.distributed.get_backend() != "gloo":
        return None
    return init_device_mesh("cpu", (torch.distributed.get_world_size(),))
