"""Jacobian lens in place of the logit lens: states of a layer are moved to the last one by the mean Jacobian.

Gurnee et al. 2026, "Verbalizable Representations Form a Global Workspace in Language Models":

    J_l = E[ Σ_{t' ≥ t} ∂h_last,t' / ∂h_l,t ]        log p_l(t) = log softmax(unembed(norm(J_l resid_post_l)))_t

over prompts and positions t; J_l = 1 is the logit lens. Lenses are fitted, and read from files and from the hub, by
TransformerLens (``transformer_lens.tools.analysis.JacobianLens``, from 4.3 on):

    from transformer_lens.tools.analysis import JacobianLens
    JacobianLens.fit(model.bridge(), prompts, corpus="my prompts").save("lens.pt")
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from safekey_interp.errors import InputError, first_line

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class JacobianTransport(NamedTuple):
    """Mean Jacobians of layers."""

    name: str
    """File or name that it was read from."""
    matrices: dict[int, Float[Tensor, "d_model d_model"]]
    """J_l by layer, float32."""
    fitted_for: str | None
    """Name of the model, where the file has it."""

    @property
    def record(self) -> dict[str, Any]:
        """As ``run.json`` has it."""
        digest = hashlib.sha256()
        for layer in sorted(self.matrices):
            digest.update(f"{layer}".encode() + self.matrices[layer].cpu().contiguous().numpy().tobytes())
        return {"name": self.name, "fitted_for": self.fitted_for, "sha256": digest.hexdigest()}

    def layers(self, model: Model, layers: Sequence[int] | None) -> tuple[int, ...]:
        """The layers that are read: those asked for, or all that it has, and the last, which needs no Jacobian.

        Raises:
            InputError: it is of another model, or lacks a layer.
        """
        last = model.n_layers - 1
        width = next(iter(self.matrices.values())).shape[0]
        if width != model.d_model or max(self.matrices) >= last:
            raise InputError(
                f"jacobian {self.name}: of states of {width} numbers, layers {min(self.matrices)} to "
                f"{max(self.matrices)}; expected {model.d_model} numbers and layers below {last}, the last of the model"
            )
        if layers is None:
            return (*sorted(self.matrices), last)
        if missing := [layer for layer in layers if layer not in self.matrices and layer != last]:
            raise InputError(f"jacobian {self.name}: no layer {missing[0]}, expected some of {[*self.matrices, last]}")
        return tuple(layers)

    def move(self, states: Float[Tensor, "... d_model"], layer: int) -> Float[Tensor, "... d_model"]:
        """States of a layer as they would reach the last one, to first order; those of the last as they are."""
        matrix = self.matrices.get(layer)
        if matrix is None:
            return states
        if matrix.device != states.device:
            # It stays where it is used: a copy to a GPU for each batch would take longer than the product.
            matrix = self.matrices[layer] = matrix.to(states.device)
        return (states.float() @ matrix.T).to(states.dtype)


def read_jacobian_lens(source: JacobianTransport | str | Path) -> JacobianTransport:
    """Read a lens by TransformerLens, which loads tensors and no code.

    Args:
        source: a ``.pt`` file, the folder of a ``lens.pt``, or a name of its registry (``gemma-2-2b``), which comes
            from the hub; a lens that was read is returned as it is.

    Raises:
        InputError: there is none.
    """
    if isinstance(source, JacobianTransport):
        return source
    from transformer_lens.tools.analysis import JacobianLens

    try:
        lens: Any = JacobianLens.from_pretrained(str(source))
    except Exception as error:
        # torch's own line advises to run what the file holds.
        why = "not tensors alone" if isinstance(error, UnpicklingError) else first_line(error)
        raise InputError(
            f"jacobian {source}: cannot be read ({why}); expected a file of TransformerLens's "
            "JacobianLens.save, or a name of its registry"
        ) from None
    return transport_of(lens, str(source))


def transport_of(lens: Any, name: str = "given") -> JacobianTransport:
    """The Jacobians of a lens of TransformerLens."""
    matrices = {int(layer): matrix.detach().float().cpu() for layer, matrix in lens.jacobians.items()}
    return JacobianTransport(name, matrices, lens.metadata.get("model_name"))
