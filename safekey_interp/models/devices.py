"""Device and floating-point type that a model is loaded to."""

from __future__ import annotations

import torch

from safekey_interp.errors import ModelError, first_line
from safekey_interp.runs.processes import place


def device_for(device: str | torch.device | None) -> torch.device:
    """The device that was asked for; CUDA, MPS or CPU, by what is there, when None.

    Raises:
        ModelError: it is not available here.
    """
    if device is None:
        if torch.cuda.is_available():
            return _own_gpu()
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        target = torch.device(device)
        target = _own_gpu() if target == torch.device("cuda") else target
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {device}: not available here ({first_line(error)}); try cpu") from error
    return target


def _own_gpu() -> torch.device:
    """The current GPU; of several processes on a machine each takes its own, as far as there are as many."""
    here = place()
    if here.world_size == 1:
        return torch.device("cuda")
    return torch.device("cuda", here.local_rank % max(1, torch.cuda.device_count()))


def dtype_for(dtype: str | torch.dtype | None, device: torch.device | None) -> str | torch.dtype:
    """The type that was asked for; the checkpoint's (``auto``) on an accelerator and float32 on CPU when None.

    Args:
        dtype: a type, its name, or ``auto``.
        device: where the model goes; None where its layers are spread over several.

    Raises:
        ModelError: no floating-point type of that name.
    """
    if dtype is None:
        on_cpu = device.type == "cpu" if device is not None else not torch.cuda.is_available()
        return torch.float32 if on_cpu else "auto"
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ModelError(f"dtype {dtype}: expected float32, bfloat16, float16 or auto")
    return named
