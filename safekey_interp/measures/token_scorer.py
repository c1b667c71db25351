"""Token scorer: the score of a probe or a direction on every token's state, with those of control directions.

    score(x) = ((x − mean) / scale) · weight + bias     of a probe      (its logit)
               x · d                                    of a direction  (length along it)

Long states have long projections on any direction, and states vary along few of them; so each score comes with those
of control directions on the same state (:mod:`safekey_interp.measures.control_directions`): probes or directions that
were fitted to shuffled labels, vectors of the same norm from the states' covariance, or isotropic ones. Of a probe, a
vector r of the latter two kinds scores (x − mean) · r + bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from safekey_interp.errors import InputError
from safekey_interp.measures.control_directions import (
    DEFAULT_CONTROLS,
    N_DRAWS,
    ControlKind,
    check_controls,
    control_draws,
)
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenScorer:
    """A probe or direction as an affine map of the states at a layer and site."""

    layer: int
    """Layer of the states."""
    site: str
    """``resid_post`` or ``ln_final``."""
    vector: Float[np.ndarray, " d_model"]
    """Its product with a state, plus ``bias``, is the score."""
    bias: float
    """Added to every score."""
    controls: Mapping[str, Float[np.ndarray, "draw d_model"]]
    """Vectors of each kind of control."""
    control_biases: Mapping[str, Float[np.ndarray, " draw"]]
    """What is added to their products with a state."""
    name: str
    """``probe`` or ``direction``, and where it was fitted."""

    @classmethod
    def of(
        cls,
        source: Probe | Direction,
        *,
        controls: Sequence[ControlKind] = DEFAULT_CONTROLS,
        n_random: int = N_DRAWS,
        seed: int = 0,
    ) -> TokenScorer:
        """From a record.

        Args:
            source: a probe or direction that knows its layer and site.
            controls: kinds of control.
            n_random: control vectors of each kind; fewer of shuffled labels where the record's groups allow no more.
            seed: seed of the isotropic ones.

        Raises:
            InputError: the record does not know where its states were read, or brings no controls of a kind.
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
        kind = type(source).__name__.lower()
        name = f"{kind} at {source.position or 'unknown position'}"
        drawn: dict[str, np.ndarray] = {}
        biases: dict[str, np.ndarray] = {}
        for control in check_controls(controls, n_random):
            options = {"d_model": source.d_model, "seed": (seed, source.layer), "what": name}
            vectors = control_draws(source.controls, control, n_random, **options)
            if isinstance(source, Probe) and control == "shuffled_labels" and source.controls is not None:
                drawn[control], biases[control] = vectors, source.controls.shuffled_bias[:n_random]
                continue
            drawn[control] = vectors * np.linalg.norm(vector)
            is_probe = isinstance(source, Probe)
            biases[control] = source.bias - drawn[control] @ source.mean if is_probe else np.zeros(len(vectors))
        return cls(
            layer=source.layer,
            site=source.site,
            vector=np.asarray(vector, np.float64),
            bias=bias,
            controls=drawn,
            control_biases=biases,
            name=name,
        )


def token_scorers(
    sources: Probe | Direction | Sequence[Probe | Direction],
    *,
    controls: Sequence[ControlKind] = DEFAULT_CONTROLS,
    n_random: int = N_DRAWS,
    seed: int = 0,
) -> list[TokenScorer]:
    """Token scorers of one record or of several.

    Raises:
        InputError: none, one that does not know its place, or one without controls of a kind.
    """
    records = [sources] if isinstance(sources, Probe | Direction) else list(sources)
    if not records:
        raise InputError("readers: got none, expected a Probe or a Direction")
    return [TokenScorer.of(record, controls=controls, n_random=n_random, seed=seed) for record in records]
