"""Forward passes of a model that decodes: told before each, and attention without chosen pairs of query and key.

While a model decodes, a pass holds the tokens behind those whose keys and values a cache holds. Layers with a sliding
window keep no more of them than the window: their keys are the last ones of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from safekey_interp.capture.attention_mask import causal_or, sparing_blind, without

Begins = Callable[[Int64[Tensor, "row pos"], int], object]
"""Takes a pass's tokens, and how many of each row's are in the cache."""
Pairs = Callable[[int], Bool[Tensor, "batch heads q_pos k_pos"] | None]
"""A layer's number to the pairs that it hides in the pass, of all keys from the sequence's first; None for none."""


@contextmanager
def told_of_passes(hf: nn.Module, begins: Begins) -> Iterator[None]:
    """Call ``begins`` before each forward pass of ``hf`` inside the block; also after an exception, it is gone then."""

    def tell(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids: Tensor = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        past = kwargs.get("past_key_values")
        begins(ids, 0 if past is None else int(past.get_seq_length()))

    handle = hf.register_forward_pre_hook(tell, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class HiddenPairs:
    """Joins each layer's own mask with the pairs that are hidden in it; a query never loses all that it sees."""

    def __init__(self, pairs: Pairs) -> None:
        """Hide what ``pairs`` says when a layer is reached."""
        self._pairs = pairs

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """The layer's mask without the hidden pairs; called by the attention hook."""
        hidden = self._pairs(module.layer_idx)
        if hidden is None:
            return attention_mask
        n_keys = key.shape[2]
        mask = causal_or(attention_mask, query.shape[2], n_keys, query.device)
        visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        return without(mask, sparing_blind(visible, hidden[..., -n_keys:].to(mask.device)))
