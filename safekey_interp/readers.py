"""What does a probe or a direction say of every token's state, not only of a mean over a span?

    score(x) = ((x − mean) / scale) · weight + bias     of a probe      (its logit)
               x · d                                    of a direction  (length along it)

Long states have long projections on any direction; so beside each score stands what random directions say of the same
state: their mean is about 0, and their spread tells how much of a score is length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from safekey_interp.errors import InputError
from safekey_interp.probes import Direction, Probe


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """A probe or direction as one affine map of a state at one place."""

    layer: int
    """Layer of the states."""
    site: str
    """``resid_post`` or ``ln_final``."""
    vector: Float[np.ndarray, " d_model"]
    """Its product with a state, plus ``bias``, is the score."""
    bias: float
    """Added to every score."""
    random: Float[np.ndarray, "draw d_model"]
    """Random vectors of the same norm: the control."""
    name: str
    """``probe`` or ``direction``, and where it was fitted."""

    @classmethod
    def of(cls, source: Probe | Direction, *, n_random: int = 20, seed: int = 0) -> Reader:
        """From a record.

        Args:
            source: a probe or direction that knows its layer and site.
            n_random: random vectors.
            seed: seed of their draw.

        Raises:
            InputError: the record does not know where its states were read.
        """
        if source.layer < 0 or source.site not in ("resid_post", "ln_final"):
            raise InputError(
                f"reader: got a {type(source).__name__.lower()} of layer {source.layer}, site {source.site!r}; "
                "expected one that knows its layer and site (layer=…, site='resid_post' when it is fitted)"
            )
        if isinstance(source, Probe):
            vector = source.weight / source.scale
            bias = float(source.bias - source.mean @ vector)
        else:
            vector, bias = source.vector, 0.0
        draws = np.random.default_rng([seed, source.layer]).standard_normal((n_random, len(vector)))
        draws *= np.linalg.norm(vector) / np.linalg.norm(draws, axis=1, keepdims=True)
        kind = type(source).__name__.lower()
        return cls(
            layer=source.layer,
            site=source.site,
            vector=np.asarray(vector, np.float64),
            bias=bias,
            random=draws,
            name=f"{kind} at {source.position or 'unknown position'}",
        )


def readers_of(
    sources: Probe | Direction | Sequence[Probe | Direction], *, n_random: int = 20, seed: int = 0
) -> list[Reader]:
    """Readers of one record or of several.

    Raises:
        InputError: none, or one that does not know its place.
    """
    several = [sources] if isinstance(sources, Probe | Direction) else list(sources)
    if not several:
        raise InputError("readers: got none, expected a Probe or a Direction")
    return [Reader.of(source, n_random=n_random, seed=seed) for source in several]
