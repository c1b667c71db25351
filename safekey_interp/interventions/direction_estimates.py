"""First-order estimates of what directions do in the residual stream, all of them from one backward pass.

    add:      effect ≈ Σ_positions g · step
    ablate:   effect ≈ − Σ_places Σ_positions (g · d) (w · d)

with g the gradient of the metric at a place. w is what is ablated there first: ablation everywhere takes d out of what
the embedding and every layer write to the stream, once, so that of the stream behind a layer only that counts which no
earlier place has had ablated. (With the whole stream at each place, a component would be taken out once a layer.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.places import Place
from safekey_interp.generation.generation_edits import Mode
from safekey_interp.interventions.first_order import Segment

if TYPE_CHECKING:
    from collections.abc import Callable

_WRITES = ("attn_out", "mlp_out")


def estimate_directions(
    segments: Sequence[Segment],
    vectors: Float[np.ndarray, "variant d_model"],
    places: Sequence[tuple[Place, ...]],
    mode: Mode,
    where_of: Callable[[Segment], Sequence[int] | None],
) -> Float[np.ndarray, "variant metric"]:
    """First-order effect of each variant on each metric.

    Args:
        segments: states and gradients at all of the places.
        vectors: unit vector of ``ablate``, step of ``add``.
        places: where each applies, in the order of the forward pass; none changes nothing.
        mode: ``ablate`` or ``add``.
        where_of: a segment to the indices of its tokens that are changed; None for all.
    """
    effects = np.zeros((len(vectors), len(segments[0].weights)))
    for of_places in dict.fromkeys(places):
        chosen = [number for number, each in enumerate(places) if each == of_places]
        along = torch.as_tensor(vectors[chosen], dtype=torch.float32)
        for segment in segments:
            by_variant = np.zeros(len(chosen))
            for gradient, ablated in _changed(segment, of_places, where_of(segment)):
                along = along.to(gradient)  # a copy once, not at every place
                if mode == "add":
                    moved = einsum(gradient, along, "pos d, variant d -> variant")
                else:
                    slope, taken = (
                        einsum(side, along, "pos d, variant d -> variant pos") for side in (gradient, ablated)
                    )
                    moved = -einsum(slope, taken, "variant pos, variant pos -> variant")
                by_variant += moved.double().cpu().numpy()
            effects[chosen] += by_variant[:, None] * segment.weights
    return effects


def _changed(segment: Segment, places: Sequence[Place], where: Sequence[int] | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The gradient at each place, and what is ablated there that was not before, at the tokens that are changed."""
    tokens = slice(None) if where is None else list(where)
    before: Tensor | None = None
    for place in places:
        states = segment.states[place].float()
        if place.component in _WRITES:
            ablated, before = states, states if before is None else before + states
        else:
            ablated, before = states if before is None else states - before, states
        yield segment.gradients[place][tokens].float(), ablated[tokens]
