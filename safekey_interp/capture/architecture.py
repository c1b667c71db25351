"""Layout of a transformers model: its decoder stack, its layers, the kind of its rotary positions, evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from safekey_interp.errors import ModelError


class Layout(NamedTuple):
    """The parts of a model that hooks need."""

    decoder: Any
    """The text decoder: takes the tokens, returns states after the final norm."""
    layers: nn.ModuleList
    """Its layers, in order."""


def find_layout(hf: Any) -> Layout:
    """Find the decoder stack of a causal model.

    Raises:
        ModelError: no list of as many layers as the configuration states.
    """
    decoder = hf.get_decoder()
    n_layers = hf.config.get_text_config(decoder=True).num_hidden_layers
    for module in decoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers and _has_attention(module):
            return Layout(decoder, module)
    raise ModelError(
        f"{type(hf).__name__}: no list of {n_layers} decoder layers found; expected a decoder-only transformers model"
    )


def rope_kind(config: Any) -> str:
    """How a configuration's rotary positions are stretched: ``default``, ``linear``, ``dynamic``, ``longrope`` …"""
    settings = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [settings, *(value for value in settings.values() if isinstance(value, dict))]
    named = [str(kind.get("rope_type") or kind.get("type") or "default") for kind in kinds]
    return next((kind for kind in named if kind != "default"), "default")


@contextmanager
def evaluating(hf: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode for a while: a measurement in the middle of training has no dropout."""
    training = [module for module in hf.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _has_attention(layers: nn.ModuleList) -> bool:
    return any(hasattr(module, "layer_idx") for module in layers.modules())
