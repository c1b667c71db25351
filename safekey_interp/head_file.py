"""Where does the safety head of a trained model lie, and what does it read?

Beside the model's weights, in a safetensors file of its own: two linear layers, and as metadata theta and the layer
whose output it was trained on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open
from safetensors.torch import load_file

from safekey_interp.errors import RunError
from safekey_interp.losses import SafetyHead

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
        about = {name: json.loads(value) for name, value in (opened.metadata() or {}).items()}
    head = SafetyHead(tensors["understanding.weight"].shape[1], theta=about.get("theta", 0.5))
    head.load_state_dict(tensors)
    return TrainedHead(head, about.get("layer"))
