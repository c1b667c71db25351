"""Request of a forward pass: attention of which spans to which, and states at which positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from safekey_interp.errors import InputError

QUERY_SPANS = ("key_sentence", "decision", "understanding")
"""Spans whose rows of the attention pattern are read."""
KEY_SPANS = ("prompt", "understanding", "template", "first_token", "key_sentence")
"""Spans whose keys' attention is summed."""
STATE_POSITIONS = (
    "prompt",
    "prompt_end",
    "understanding",
    "context",
    "prompt+understanding",
    "decision",
    "key_sentence",
)
"""Positions at which states are averaged; ``prompt_end`` and ``decision`` are single tokens."""
KNOWN_POSITIONS = (*STATE_POSITIONS, "understanding_end")
"""Those that can be asked for; U's last token is read when it is, and in no run by itself."""


class Site(NamedTuple):
    """Where in the residual stream a state was read."""

    layer: int
    """Layer of ``resid_post``; the number of layers for ``ln_final``."""
    site: Literal["resid_post", "ln_final"]
    """``resid_post`` is the stream after a layer, ``ln_final`` after the final norm (HF's last hidden state)."""


@dataclass(frozen=True, kw_only=True)
class CaptureRequest:
    """What one forward pass measures."""

    attention: bool = True
    """Measure attention between spans."""
    states: bool = True
    """Average states over positions."""
    layers: tuple[int, ...] | None = None
    """Layers to read; all when None. The final norm is read when the last layer is."""
    positions: tuple[str, ...] = STATE_POSITIONS
    """Positions whose states are averaged."""
    token_weights: bool = False
    """Also keep, per layer, head and query span, the mean weight of every token."""
    n_random: int = 20
    """Draws of each random key set."""
    seed: int = 0
    """Seed of the draws; each trace has its own stream, whatever batch it is in."""

    def __post_init__(self) -> None:
        if self.n_random < 1:
            raise InputError(f"n_random: got {self.n_random}, expected at least 1 draw")
        if self.seed < 0:
            raise InputError(f"seed: got {self.seed}, expected 0 or more")

    def reads_layer(self, layer: int) -> bool:
        """Whether this layer is asked for."""
        return self.layers is None or layer in self.layers

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        """The sites of the states that the request returns, in order."""
        layers = range(n_layers) if self.layers is None else self.layers
        sites = [Site(layer, "resid_post") for layer in layers]
        return (*sites, Site(n_layers, "ln_final")) if self.reads_layer(n_layers - 1) else tuple(sites)
