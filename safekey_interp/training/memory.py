"""Memory of a training run: an estimate of what it needs, and what is free.

    weights       n · b
    gradients     n_trained · b
    AdamW         2 · n_trained · b                       two moments
    activations   T · layers · floats a token · b         what the backward pass reads; d_model alone when checkpointed
    unembedding   2 · n_embeddings · d_model · 4          its gradient and that of the loss's other terms, when trained
    logits        1,024 · n_embeddings · 4 · 3            the chunk that is in memory; all T where the unembedding
                                                          is sharded or adapted

with b bytes a number and T tokens of the longest micro-batch, the prompt-masked pass included. It is an estimate for
the longest rows, not a promise: allocators and libraries have their own, and attention that keeps its pattern needs
more.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from safekey_interp.errors import InputError
from safekey_interp.training.config import TrainingConfig

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_CHUNK = 1024
_PLENTY = 1 << 60
_LIMIT_AND_USED = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Files of a control group, of version 2 and of version 1."""


class Shape(NamedTuple):
    """What a model's memory depends on."""

    n_parameters: int
    """Numbers in it."""
    n_trained: int
    """Numbers that are trained."""
    n_layers: int
    """Decoder layers."""
    d_model: int
    """Width of the residual stream."""
    d_mlp: int
    """Width of the MLP, of all experts that a token visits."""
    d_kv: int
    """Width of the keys."""
    n_embeddings: int
    """Tokens of the vocabulary."""
    n_bytes: int = 4
    """Bytes of a weight."""


class MemoryEstimate(NamedTuple):
    """Bytes on each device."""

    weights: int
    """Of the model; they are there already when a run begins."""
    gradients: int
    """One number for each that is trained."""
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """What the backward pass reads, and the logits."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    def in_words(self) -> str:
        """One line."""
        parts = ", ".join(f"{name} {gigabytes(value)}" for name, value in self._asdict().items())
        return f"{gigabytes(self.total)} ({parts})"


def shape_of(model: Model, config: TrainingConfig) -> Shape:
    """A loaded model's shape, as it would be trained."""
    text = model.config
    parameters = {id(p): p for p in model.hf.parameters()}.values()
    n = sum(p.numel() for p in parameters)
    d_head = getattr(text, "head_dim", None) or model.d_model // model.n_heads
    d_mlp = getattr(text, "intermediate_size", None) or 4 * model.d_model
    experts = getattr(text, "num_experts_per_tok", None) or 1
    trained = n
    if config.lora_rank is not None:
        matrices = [m for m in model.hf.modules() if isinstance(m, torch.nn.Linear)]
        trained = sum(config.lora_rank * (m.in_features + m.out_features) for m in matrices)
    return Shape(
        n_parameters=n,
        n_trained=trained,
        n_layers=model.n_layers,
        d_model=model.d_model,
        d_mlp=experts * d_mlp,
        d_kv=(getattr(text, "num_key_value_heads", None) or model.n_heads) * d_head,
        n_embeddings=model.n_embeddings,
        n_bytes=model.dtype.itemsize,
    )


def estimate(
    shape: Shape, config: TrainingConfig, *, longest: int, longest_again: int | None = None, sharded_over: int = 1
) -> MemoryEstimate:
    """Bytes that training needs at its most.

    Args:
        shape: of the model.
        config: the settings.
        longest: tokens of the longest trace.
        longest_again: tokens of the longest row in which K is predicted once more; as many as of the longest trace when
            None.
        sharded_over: devices that weights, gradients and optimizer are spread over (FSDP, ZeRO-3).
    """
    per_number = 4 if config.precision == "fp32" else 2
    again = (longest if longest_again is None else longest_again) if config.query_mask_weight else 0
    tokens = config.micro_batch_size * (longest + again)
    inside = 10 * shape.d_model + 2 * shape.d_kv + 5 * shape.d_mlp
    kept = shape.d_model if config.gradient_checkpointing else inside
    layers = shape.n_layers * kept + (inside if config.gradient_checkpointing else 0)
    at_once = tokens if sharded_over > 1 else min(_CHUNK, tokens)
    logits = 3 * at_once * shape.n_embeddings * 4
    if config.lora_rank is None:
        logits += 2 * shape.n_embeddings * shape.d_model * 4
    return MemoryEstimate(
        weights=shape.n_parameters * shape.n_bytes // sharded_over,
        gradients=shape.n_trained * shape.n_bytes // sharded_over,
        optimizer=2 * shape.n_trained * shape.n_bytes // sharded_over,
        activations=tokens * layers * per_number + logits,
    )


def available(device: torch.device) -> int:
    """Bytes that are free on a device, as far as it says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return _PLENTY
    import psutil

    return min([psutil.virtual_memory().available, *_allowed(Path("/sys/fs/cgroup"))])


def check_memory(needed: MemoryEstimate, free: int) -> None:
    """Refuse a run that cannot fit.

    Args:
        needed: from :func:`estimate`.
        free: bytes that are free beside the weights, which are loaded already.

    Raises:
        InputError: with the parts and what would help.
    """
    more = needed.total - needed.weights
    if more > free:
        raise InputError(
            f"memory: training needs about {gigabytes(more)} beside the weights (gradients "
            f"{gigabytes(needed.gradients)}, optimizer {gigabytes(needed.optimizer)}, activations "
            f"{gigabytes(needed.activations)}), {gigabytes(free)} are free; take micro_batch_size=1, "
            "gradient_checkpointing=true, a smaller max_length, or lora_rank=16"
        )


def gigabytes(n: float) -> str:
    """Bytes in words."""
    return f"{n / 1e9:,.1f} GB" if n >= 5e7 else f"{n / 1e6:,.1f} MB"


def _allowed(folder: Path) -> list[int]:
    """What a container may still take."""
    free: list[int] = []
    for names in _LIMIT_AND_USED:
        with suppress(OSError, ValueError):
            limit, used = (int((folder / name).read_text()) for name in names)
            free.append(max(0, limit - used))
    return free
