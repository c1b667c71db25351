"""TransformerLens backend of a capture: the same request answered by TransformerBridge's hooks.

Slower, since its hooks see whole patterns and whole streams, and with the same numbers: each way checks the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.recording import Captured
from safekey_interp.capture.residual_edits import edited
from safekey_interp.models.model import Model


def bridge_forward(model: Model, batch: Batch, request: CaptureRequest) -> Captured:
    """Run a batch through ``model.bridge()`` and answer the request from its hooks.

    Args:
        model: the model.
        batch: padded on the right.
        request: what is asked.
    """
    bridge = model.bridge()
    captured = Captured.empty(batch, request, model)
    visible: dict[int, Tensor] = {}

    def see_scores(scores: Tensor, hook: Any, layer: int) -> None:
        visible[layer] = scores > torch.finfo(scores.dtype).min / 2

    def see_pattern(pattern: Tensor, hook: Any, layer: int) -> None:
        captured.see_pattern(layer, pattern, visible.pop(layer))

    hooks: list[tuple[str, Callable[..., None]]] = []
    for layer in range(model.n_layers):
        # Linear-attention layers have no such hooks; they stay without an answer.
        if request.attention and request.reads_layer(layer) and f"blocks.{layer}.attn.hook_pattern" in bridge.hook_dict:
            hooks.append((f"blocks.{layer}.attn.hook_attn_scores", partial(see_scores, layer=layer)))
            hooks.append((f"blocks.{layer}.attn.hook_pattern", partial(see_pattern, layer=layer)))
    try:
        with bridge.hooks(fwd_hooks=hooks), edited(model, captured.readings(model.hf), backend="bridge"):
            bridge(batch.input_ids.to(model.device), return_type=None)
    finally:
        captured.forget()
    return captured
