"""Meter of forward passes: how many a model makes, and over how many tokens.

A pass is a call of the decoder, whatever it is for: a batch of sequences, of continuations behind a kept beginning, or
one token of each row of a batch that is decoded. Tokens count the padding and leave out what a cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


@dataclass
class PassCount:
    """Forward passes so far."""

    passes: int = 0
    """Calls of the decoder."""
    tokens: int = 0
    """Rows · positions of their inputs, summed."""


@contextmanager
def counted_passes(model: Model, on_pass: Callable[[], object] = lambda: None) -> Iterator[PassCount]:
    """Count a model's forward passes inside the block; ``on_pass`` is called before each."""
    count = PassCount()

    def before(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        inputs = (*args, options.get("input_ids"), options.get("inputs_embeds"))
        first = next(each for each in inputs if each is not None)
        count.passes += 1
        count.tokens += first.shape[0] * first.shape[1]
        on_pass()

    handle = model.hf.get_decoder().register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield count
    finally:
        handle.remove()
