"""Attention hook: query, key and mask of each layer, shown to observers inside the forward pass.

transformers calls attention by a name in the configuration. For the time of a capture that name is ours: the hook shows
query and key to the observers that the forward pass carries along (an extra keyword argument, so no global state), then
delegates to the function that the model would have used. An observer sees the layer, and may return another mask for
it. Flash and flex attention are replaced by SDPA for that time, and SDPA by eager attention where the class does not
declare that it supports it (GPT-OSS with SDPA inside is wrong without an error). Once all have seen the layer, those
that replace keys and values do so (:class:`KeyValueEditor`).

A mask function is registered for each name too: without one, transformers passes no mask at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn

from safekey_interp.capture.architecture import find_layout
from safekey_interp.errors import ModelError

KEYWORD = "safekey_observers"
"""The keyword argument that carries observers from the decoder's forward to the attention hook."""

# transformers looks for "sdpa" and "flash_attention" inside names: ours hold neither.
_FUSED, _EAGER = "safekey_hook_fused", "safekey_hook_eager"


class AttentionObserver(Protocol):
    """What the attention hook calls in each layer of a forward pass."""

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """Read one layer's attention, and return the mask that later observers and the model use."""
        ...


class Keys(NamedTuple):
    """What a layer's queries attend to."""

    key: Tensor
    """(batch, kv_head, k_pos, d_head), with positions in."""
    value: Tensor
    """(batch, kv_head, k_pos, d_head)."""
    mask: Tensor | None
    """(#batch, #head, q_pos, k_pos), boolean or additive."""


class KeyValueEditor(Protocol):
    """An observer that reads the keys and values of a layer, or replaces them."""

    def change_keys(self, module: Any, query: Tensor, keys: Keys) -> Keys:
        """What the layer's queries attend to instead."""
        ...


Observer = TypeVar("Observer", bound=AttentionObserver)


@contextmanager
def observed_attention(hf: Any, observer: Observer) -> Iterator[Observer]:
    """Call ``observer`` in each attention layer of every forward of ``hf`` inside the block.

    Raises:
        ModelError: the architecture does not call attention through transformers' interface.
    """
    decoder = find_layout(hf).decoder
    with hooked_attention(hf, decoder), carried(decoder, observer):
        yield observer


@contextmanager
def hooked_attention(hf: Any, decoder: Any) -> Iterator[None]:
    """Put the hook into ``decoder``'s attention for the block; it is removed after an exception, too."""
    _register()
    config = decoder.config
    before = config._attn_implementation
    if before in (_FUSED, _EAGER):
        yield
        return
    if not decoder._can_set_attn_implementation():
        raise ModelError(
            f"{type(hf).__name__}: does not call attention through transformers' attention interface, so that its "
            "pattern cannot be read; expected an architecture whose attention function can be set"
        )
    fused = before != "eager" and decoder._supports_sdpa
    config._attn_implementation = _FUSED if fused else _EAGER
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def carried(decoder: nn.Module, observer: AttentionObserver) -> Iterator[None]:
    """Hand ``observer`` to every forward of ``decoder`` inside the block, after those that are there already."""

    def add(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs | {KEYWORD: (*kwargs.get(KEYWORD, ()), observer)}

    handle = decoder.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask, sdpa_mask

    if _FUSED not in AttentionInterface().valid_keys():
        AttentionInterface.register(_FUSED, _hook_around("sdpa"))
        AttentionInterface.register(_EAGER, _hook_around("eager"))
        AttentionMaskInterface.register(_FUSED, sdpa_mask)
        AttentionMaskInterface.register(_EAGER, eager_mask)


def _hook_around(inner: str) -> Callable[..., Any]:
    def attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        observers = kwargs.pop(KEYWORD, ())
        for observer in observers:
            attention_mask = observer.see_attention(module, query, key, attention_mask, kwargs)
        for observer in observers:
            if hasattr(observer, "change_keys"):  # a check of the protocol takes as long as a small layer
                key, value, attention_mask = observer.change_keys(module, query, Keys(key, value, attention_mask))
        return _own_function(type(module), inner)(module, query, key, value, attention_mask, **kwargs)

    attention.__name__ = f"hooked_{inner}_attention"
    return attention


def _own_function(cls: type, name: str) -> Callable[..., Any]:
    """The attention function of that name in the file that defines ``cls``: architectures override it there."""
    for ancestor in cls.__mro__:
        module = sys.modules.get(ancestor.__module__)
        if name == "eager" and hasattr(module, "eager_attention_forward"):
            return module.eager_attention_forward  # type: ignore[union-attr]
        if name != "eager" and hasattr(module, "ALL_ATTENTION_FUNCTIONS"):
            return module.ALL_ATTENTION_FUNCTIONS[name]  # type: ignore[union-attr]
    raise ModelError(f"{cls.__name__}: defines no {name} attention function that the attention hook could call")
