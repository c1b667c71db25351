"""How does one look into an attention function without slowing it down?

transformers calls attention by a name in the configuration. For the time of a capture that name is ours: the tap shows
query and key to what the forward pass carries along (an extra keyword argument, so no global state), then delegates to
the function that the model would have used. What is carried sees the layer, and may hand back another mask for it.
Flash and flex attention give way to SDPA for that time, and SDPA to eager where the class does not say that it supports
it (GPT-OSS with SDPA inside is wrong without an error). Once all have seen the layer, those that put other keys and
values in place do so (:class:`KeyChanger`).

A mask function is registered for each name too: without one, transformers passes no mask at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from safekey_interp.errors import ModelError

KEYWORD = "safekey_carried"
"""The keyword argument that carries captures and knockouts from the decoder's forward to the tap."""

# transformers looks for "sdpa" and "flash_attention" inside names: ours hold neither.
_FUSED, _EAGER = "safekey_tap_fused", "safekey_tap_eager"


@contextmanager
def tapped(hf: Any, decoder: Any) -> Iterator[None]:
    """Put the tap into ``decoder``'s attention, and take it out again whatever happens."""
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


class Passenger(Protocol):
    """What a forward pass carries to the tap."""

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """Look at one layer's attention, and say which mask it has for those who come later and for the model."""
        ...


class Keys(NamedTuple):
    """What a layer's queries look at."""

    key: Tensor
    """(batch, kv_head, k_pos, d_head), with positions in."""
    value: Tensor
    """(batch, kv_head, k_pos, d_head)."""
    mask: Tensor | None
    """(#batch, #head, q_pos, k_pos), of truths or to be added."""


@runtime_checkable
class KeyChanger(Protocol):
    """A passenger that reads the keys and values of a layer, or puts others in place."""

    def change_keys(self, module: Any, query: Tensor, keys: Keys) -> Keys:
        """What the layer's queries look at instead."""
        ...


@contextmanager
def carried(decoder: nn.Module, passenger: Passenger) -> Iterator[None]:
    """Hand ``passenger`` to every forward of ``decoder``, behind those that are there already."""

    def add(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs | {KEYWORD: (*kwargs.get(KEYWORD, ()), passenger)}

    handle = decoder.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask, sdpa_mask

    if _FUSED not in AttentionInterface().valid_keys():
        AttentionInterface.register(_FUSED, _tap("sdpa"))
        AttentionInterface.register(_EAGER, _tap("eager"))
        AttentionMaskInterface.register(_FUSED, sdpa_mask)
        AttentionMaskInterface.register(_EAGER, eager_mask)


def _tap(inner: str) -> Callable[..., Any]:
    def attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        passengers = kwargs.pop(KEYWORD, ())
        for passenger in passengers:
            attention_mask = passenger.see_attention(module, query, key, attention_mask, kwargs)
        for passenger in passengers:
            if isinstance(passenger, KeyChanger):
                key, value, attention_mask = passenger.change_keys(module, query, Keys(key, value, attention_mask))
        return _own_function(type(module), inner)(module, query, key, value, attention_mask, **kwargs)

    attention.__name__ = f"tapped_{inner}_attention"
    return attention


def _own_function(cls: type, name: str) -> Callable[..., Any]:
    """The attention function of that name in the file that defines ``cls``: architectures override it there."""
    for ancestor in cls.__mro__:
        home = sys.modules.get(ancestor.__module__)
        if name == "eager" and hasattr(home, "eager_attention_forward"):
            return home.eager_attention_forward  # type: ignore[union-attr]
        if name != "eager" and hasattr(home, "ALL_ATTENTION_FUNCTIONS"):
            return home.ALL_ATTENTION_FUNCTIONS[name]  # type: ignore[union-attr]
    raise ModelError(f"{cls.__name__}: defines no {name} attention function that the tap could call")
