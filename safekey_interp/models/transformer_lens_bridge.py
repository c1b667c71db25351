"""TransformerLens bridge that shares a model's weights.

``boot_transformers`` rewires the model that it is given and sets it to eager attention. So it gets a module tree of its
own, built on the meta device, whose parameters are the very tensors of the first tree
(``load_state_dict(assign=True)``). What a state dict leaves out is copied over: non-persistent buffers (rotary
frequencies, Gemma's embedding scale) and the tie between embeddings and unembedding.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from safekey_interp.errors import ModelError, first_line

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def shared_bridge(
    hf: nn.Module, tokenizer: Any, *, spec: str, dtype: torch.dtype, device: torch.device
) -> TransformerBridge:
    """A bridge whose parameters have the same storage as the model's.

    Args:
        hf: the model of transformers.
        tokenizer: its tokenizer.
        spec: name of the model, for messages.
        dtype: of its parameters.
        device: of its parameters.

    Raises:
        ModelError: TransformerLens has no adapter for the architecture.
    """
    from transformer_lens.model_bridge import TransformerBridge

    twin = _twin(hf)
    with tempfile.TemporaryDirectory() as made:
        try:
            return TransformerBridge.boot_transformers(
                spec,
                hf_model=twin,
                tokenizer=_with_folder(tokenizer, made),
                dtype=dtype,
                device=device,
            )
        except Exception as error:
            raise ModelError(
                f"model {spec}: TransformerLens cannot bridge {type(hf).__name__}: {first_line(error)}"
            ) from error


def _with_folder(tokenizer: Any, folder: str) -> Any:
    """The tokenizer, from a folder: the bridge loads it again from there, which one made in memory does not have."""
    if Path(getattr(tokenizer, "name_or_path", "") or "?").is_dir():
        return tokenizer
    tokenizer.save_pretrained(folder)
    return type(tokenizer).from_pretrained(folder)


def _twin(hf: Any) -> Any:
    config = copy.deepcopy(hf.config)
    config.architectures = [type(hf).__name__]
    config._attn_implementation = "eager"
    with torch.device("meta"):
        twin = type(hf)(config)
    twin.load_state_dict(hf.state_dict(), assign=True, strict=False)
    for (_, module), (_, original) in zip(twin.named_modules(), hf.named_modules(), strict=True):
        for name, buffer in original._buffers.items():
            module._buffers[name] = buffer
    twin.tie_weights()
    twin.eval()
    return twin
