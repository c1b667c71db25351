"""Places in a decoder by TransformerLens's names: where activations are read and changed.

    resid_pre ──► attention ── attn_out ──► + ─ resid_mid ──► MLP ── mlp_out ──► + ─ resid_post ──► … ──► ln_final

``attn_out`` and ``mlp_out`` are what is added to the stream: behind a norm that follows (Gemma), times a factor
(Granite). ``head`` are the heads' values before the output projection (z = Σ_k p_qk v_k, TransformerLens's
``hook_z``), ``head.3`` those of one head, and ``projected`` is what the projection makes of them, before any norm. In a
parallel block (GPT-NeoX), attention and MLP read the same states, so that it has no ``resid_mid``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from safekey_interp.errors import InputError

COMPONENTS = ("resid_pre", "head", "projected", "attn_out", "resid_mid", "mlp_out", "resid_post", "ln_final")
"""Names of what a layer has (and of what follows the last one), in the order of the forward pass."""


HeadValues = Literal["z", "output"]
"""What is read of heads: z, or what each adds to the stream."""


class Place(NamedTuple):
    """Where activations are read or changed."""

    layer: int
    """The layer; the number of layers for ``ln_final``."""
    site: str
    """One of :data:`COMPONENTS`, or ``head.H`` for one head."""

    @property
    def component(self) -> str:
        """The site without the number of a head."""
        return self.site.partition(".")[0]

    @property
    def head(self) -> int | None:
        """The number of the head; None where it is no single head."""
        _, _, number = self.site.partition(".")
        return int(number) if number else None


def layers_of(component: str, n_layers: int) -> range:
    """Numbers of the layers that may have a component: all, and for ``ln_final`` the one behind the last."""
    return range(n_layers, n_layers + 1) if component == "ln_final" else range(n_layers)


def check_site(site: str, n_heads: int, what: str) -> None:
    """Raises InputError, which begins with ``what``, unless it is the name of a component or of a head."""
    component, dot, number = site.partition(".")
    single = component == "head" and number.isdecimal() and int(number) < n_heads
    if component not in COMPONENTS or (dot and not single):
        names = f"{', '.join(COMPONENTS)}, or head.0 to head.{n_heads - 1}"
        raise InputError(f"{what}: got {site!r}, expected one of {names}")
