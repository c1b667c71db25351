"""Safety head of a trained model: two linear layers that read whether the prompt is harmful.

It lies beside the model's weights in a safetensors file of its own, with theta and the layer whose output it was
trained on as metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from safekey_interp.errors import RunError

THETA = 0.5
"""θ of the paper: the share of U's path in the head's loss."""


class HeadLogits(NamedTuple):
    """Logits of the two paths of the safety head; a row without the span has a logit of the bias alone."""

    understanding: Float[Tensor, " row"]
    """From the mean over U: above 0 for harmful."""
    context: Float[Tensor, " row"]
    """From the mean over the context."""


class SafetyHead(nn.Module):
    """Two linear heads that read the last-layer states (after the final norm) for whether the prompt is harmful."""

    def __init__(self, d_model: int, *, theta: float = THETA) -> None:
        super().__init__()
        self.understanding = nn.Linear(d_model, 1)
        """Reads the mean over U."""
        self.context = nn.Linear(d_model, 1)
        """Reads the mean over the context."""
        self.theta = theta
        """Share of U's path in the loss, in [0, 1]: 1 and 0 are the paper's single paths."""

    def forward(
        self,
        states: Float[Tensor, "row pos d_model"],
        understanding: Bool[Tensor, "row pos"],
        context: Bool[Tensor, "row pos"],
    ) -> HeadLogits:
        """Logits of each row.

        Args:
            states: after the final norm.
            understanding: True on U.
            context: True from the first token to the end of U.
        """
        by_u, by_c = (
            rearrange(linear(mean_over(states, span).to(linear.weight.dtype)), "row 1 -> row")
            for linear, span in ((self.understanding, understanding), (self.context, context))
        )
        return HeadLogits(by_u.float(), by_c.float())


def mean_over(states: Float[Tensor, "row pos d_model"], span: Bool[Tensor, "row pos"]) -> Float[Tensor, "row d_model"]:
    """Mean of the states over a span, in float32; zeros where it is empty."""
    # Padding may hold anything, and 0 × NaN is NaN.
    chosen = torch.where(rearrange(span, "row pos -> row pos 1"), states, 0).float()
    n = reduce(span, "row pos -> row 1", "sum").clamp(min=1)
    return reduce(chosen, "row pos d_model -> row d_model", "sum") / n


HEAD_FILE = "safety_head.safetensors"
"""The safety head's two linear layers; its metadata say theta and the layer that it reads."""


class TrainedHead(NamedTuple):
    """A safety head and what it reads."""

    head: SafetyHead
    """Its two linear layers."""
    layer: int | None
    """The layer whose output it was trained on; None for the states after the final norm."""


def load_safety_head(folder: str | Path) -> TrainedHead:
    """The safety head that lies beside a trained model.

    Args:
        folder: the ``model`` folder of a training run.

    Raises:
        RunError: there is none.
    """
    file = Path(folder) / HEAD_FILE
    if not file.is_file():
        raise RunError(f"{file}: no such file; expected the folder of a model that was trained with a safety head")
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = {name: json.loads(value) for name, value in (opened.metadata() or {}).items()}
    head = SafetyHead(tensors["understanding.weight"].shape[1], theta=metadata.get("theta", 0.5))
    head.load_state_dict(tensors)
    return TrainedHead(head, metadata.get("layer"))
