"""Memory estimates for training the paper's three models.

    python -m analysis.cost.training_memory

Prints the table of ``train/README.md``: the estimate of :mod:`safekey_interp.training.memory` for
``train/safekey.yaml`` and a trace of ``max_length`` tokens. The models are built without weights from their public
configurations, so that nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from analysis.cost.shapes import shape_config
from analysis.tables import markdown
from safekey_interp.models.model import Model
from safekey_interp.training.config import TrainingConfig, read_config
from safekey_interp.training.memory import estimate, gigabytes, shape_of

RECIPE = Path(__file__).parents[2] / "train" / "safekey.yaml"


class Way(NamedTuple):
    """How the weights are trained."""

    settings: tuple[str, ...]
    """In place of the recipe's."""
    sharded_over: int = 1
    """Devices that weights, gradients and optimizer are spread over."""


MODELS: dict[str, PretrainedConfig] = {
    name: shape_config(name.lower().replace("llama-3.1", "llama"))
    for name in ("Qwen2.5-7B", "Llama-3.1-8B", "Qwen2.5-14B")
}
"""Shapes of what the paper's 7B, 8B and 14B were distilled into; no embedding is tied."""
WAYS = {
    "full, one GPU": Way(("gradient_checkpointing=false",)),
    "full, one GPU, checkpointing": Way(()),
    "full, FSDP over 8 GPUs, checkpointing": Way((), sharded_over=8),
    "LoRA of rank 16, one GPU, checkpointing": Way(("lora_rank=16",)),
}


def table() -> pd.DataFrame:
    """Bytes on each device, by model and way."""
    rows: list[dict[str, Any]] = []
    for name, shape in MODELS.items():
        model = without_weights(name, shape)
        for way, (settings, sharded_over) in WAYS.items():
            config: TrainingConfig = read_config(RECIPE, settings)
            longest = config.max_length
            needed = estimate(shape_of(model, config), config, longest=longest, sharded_over=sharded_over)
            parts = {part: gigabytes(value) for part, value in needed._asdict().items()}
            size = f"{model.hf.num_parameters() / 1e9:.2f} billion"
            rows.append({"model": name, "parameters": size, "trained": way} | _in_order(parts, needed.total))
    return pd.DataFrame(rows)


def without_weights(name: str, config: PretrainedConfig) -> Model:
    """A model of this shape, in float32 as ``safekey-interp train`` loads it, that takes no memory."""
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return Model(hf, None, spec=name)


def _in_order(parts: dict[str, str], total: int) -> dict[str, str]:
    return {"each GPU": gigabytes(total)} | {f"of it {part}": value for part, value in parts.items()}


if __name__ == "__main__":
    print(markdown(table()))
