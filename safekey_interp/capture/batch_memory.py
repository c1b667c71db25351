"""Token budget of a batch: how many padded tokens go through a model at once, by the memory that its GPUs have free.

    tokens = the largest power of two with tokens · bytes a token ≤ half of what is free

Bytes a token are measured on one pass without labels or logits; the other half is for what is read inside the pass. A
power of two, so that a little more or less of free memory leaves the batches as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from safekey_interp.capture.architecture import evaluating, find_layout

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_CPU = 2048
"""What a CPU's caches hold."""
_UNMEASURED = 16_384
"""On an accelerator that does not say how much memory a pass took: a few gigabytes of activations."""
_LEAST, _MOST, _TRIAL = 1024, 65_536, 1024
_known: WeakKeyDictionary[Model, int] = WeakKeyDictionary()


def token_budget(model: Model) -> int:
    """Padded tokens of a batch; measured once for each model on CUDA, where the fullest of its GPUs decides."""
    if model.device.type == "cpu":
        return _CPU
    if model.device.type != "cuda":
        return _UNMEASURED
    if model not in _known:
        _known[model] = min(tokens_in(free, taken / _TRIAL) for free, taken in _measured(model))
    return _known[model]


def tokens_in(free: int, per_token: float) -> int:
    """Tokens that half of the free memory holds.

    Args:
        free: bytes.
        per_token: bytes that a token takes during a pass.

    Returns:
        A power of two from 1,024 to 65,536.
    """
    tokens = _LEAST
    while tokens < _MOST and 2 * tokens * per_token <= free / 2:
        tokens *= 2
    return tokens


def _measured(model: Model) -> list[tuple[int, int]]:
    """Of each GPU that holds weights, its free bytes, and what one pass took above what it held."""
    devices = sorted({p.device for p in model.hf.parameters() if p.device.type == "cuda"}, key=str)
    # What the allocator keeps for later is free, too.
    free = [torch.cuda.mem_get_info(d)[0] + torch.cuda.memory_reserved(d) - _held(d) for d in devices]
    before = [_held(device) for device in devices]
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    length = min(_TRIAL, model.max_positions or _TRIAL)
    ids = torch.zeros((-(-_TRIAL // length), length), dtype=torch.int64, device=model.device)
    with torch.inference_mode(), evaluating(model.hf):
        find_layout(model.hf).decoder(input_ids=ids, use_cache=False)
    taken = [torch.cuda.max_memory_allocated(d) - held for d, held in zip(devices, before, strict=True)]
    return list(zip(free, taken, strict=True))


def _held(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device)
