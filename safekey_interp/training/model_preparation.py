"""Preparation of a model for training: safety head, adapters, checkpointing; undone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from safekey_interp.errors import InputError, ModelError
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.config import TrainingConfig

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


@contextmanager
def prepared_loss(model: Model, config: TrainingConfig) -> Iterator[tuple[BatchLoss, Any]]:
    """Model and head as they are trained, and the PeftModel around the model where adapters are; undone at the end.

    Raises:
        InputError: no such layer, or no such modules.
        ModelError: the model cannot be saved, or its logits are not what its configuration says.
    """
    hf = model.hf
    check_head_layer(model, config)
    _mend_generation(hf)
    head = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.head_weight:
            head = SafetyHead(model.d_model, theta=config.theta).to(model.device)
    adapted = None if config.lora_rank is None else _adapted(hf, config)
    if adapted is None:
        hf.requires_grad_(True)
    # After the adapters: one of them may be on the unembedding.
    loss = BatchLoss(hf, head, head_layer=config.head_layer, weighs_key=config.key_weight > 0)
    if config.gradient_checkpointing:
        hf.gradient_checkpointing_enable({"use_reentrant": False})
    if config.compile:
        hf.get_decoder().compile()
    try:
        yield loss, adapted
    finally:
        if config.gradient_checkpointing:
            hf.gradient_checkpointing_disable()
        if config.compile:
            hf.get_decoder()._compiled_call_impl = None
        hf.eval()


def _adapted(hf: Any, config: TrainingConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = config.lora_targets if isinstance(config.lora_targets, str) else list(config.lora_targets)
    options: Any = {"r": config.lora_rank, "lora_alpha": config.lora_alpha, "task_type": "CAUSAL_LM"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            return get_peft_model(hf, LoraConfig(target_modules=targets, **options))
        except ValueError as error:
            raise InputError(f"lora_targets {targets!r}: {str(error).splitlines()[0]}") from error


def check_head_layer(model: Model, config: TrainingConfig) -> None:
    """Refuse a layer that the safety head cannot read.

    Raises:
        InputError: no such layer, or the last, whose states are read after the final norm.
    """
    layer = config.head_layer
    if layer is None:
        return
    model.layer_numbers([layer])
    if layer < 0 or layer == model.n_layers - 1:
        raise InputError(
            f"head_layer: got {layer}, expected from 0 to {model.n_layers - 2}, or null for the "
            "last layer's states after the final norm"
        )


def _mend_generation(hf: Any) -> None:
    """Settings of generation that transformers would refuse to write: sampling's, with sampling off."""
    generation = hf.generation_config
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True
        try:
            generation.validate(strict=True)
        except ValueError as error:
            first = str(error).splitlines()[0]
            raise ModelError(f"{type(hf).__name__}: its generation settings cannot be written ({first})") from error


def check_dtype(model: Model, config: TrainingConfig) -> None:
    """Refuse to train all of a model's weights in half precision.

    Raises:
        InputError: with the remedy.
    """
    if model.dtype != torch.float32 and config.lora_rank is None:
        name = str(model.dtype).removeprefix("torch.")
        raise InputError(
            f"model {model.name}: got {name} weights, in which small steps are lost to rounding; expected float32 "
            "(load it with dtype='float32'; precision=bf16 computes in half precision all the same)"
        )
