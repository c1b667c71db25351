"""Directional ablation and addition: states without a direction, or moved along it.

ablate:  x ← x − (x · d) d                    add:  x ← x + step
"""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor


def ablate(states: Float[Tensor, "row pos d_model"], unit: Float[Tensor, "row d_model"]) -> Tensor:
    """The states without their component along each row's unit vector, computed in float32 or wider."""
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    vector = unit.to(wide)
    along = einsum(wide, vector, "row pos d, row d -> row pos")
    return (wide - einsum(along, vector, "row pos, row d -> row pos d")).to(states.dtype)


def add(states: Float[Tensor, "row pos d_model"], step: Float[Tensor, "row d_model"]) -> Tensor:
    """The states moved by each row's vector."""
    return states + rearrange(step, "row d -> row 1 d").to(states)
