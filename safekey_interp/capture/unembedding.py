"""Unembedding: logits of residual-stream states, by final norm, output embedding, scale and softcap.

    logits(x) = softcap · tanh(scale · W norm(x) / softcap)

Both parts are found in the model and checked against its own output once. A norm whose scale is held fixed at a state x
is linear: norm(x) = α(x) · gain ⊙ x with α the reciprocal of the root mean square; a component c of the state then
contributes α(x) · gain ⊙ c. That is what direct logit attribution reads (Elhage et al. 2021).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safekey_interp.capture.architecture import evaluating, find_layout
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model


class Unembedding(NamedTuple):
    """How states become logits: softcap · tanh(scale · (W h + b) / softcap)."""

    linear: nn.Module
    """W and b: the model's own module."""
    scale: float = 1.0
    """Factor on the logits."""
    softcap: float | None = None
    """Bound on the logits; None for none."""

    def __call__(self, states: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_vocab"]:
        """Logits in float32."""
        return self.bounded(self.linear(states)).float()

    def bounded(self, logits: Tensor) -> Tensor:
        """Scale and softcap."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


_SCALES = {"logit_scale": False, "lm_head_multiplier": False, "logits_scaling": True}
"""Factors on the logits by their name in a configuration, and whether the logits are divided by them."""


def unembedding_of(hf: Any) -> Unembedding:
    """How a model's states become logits, checked once against its own.

    Raises:
        ModelError: they are not what the configuration states.
    """
    config = hf.config.get_text_config(decoder=True)
    scale = 1.0
    for name, divides in _SCALES.items():
        factor = getattr(config, name, None)
        if factor is not None:
            scale = scale / factor if divides else scale * factor
    unembedding = Unembedding(
        hf.get_output_embeddings(), scale=scale, softcap=getattr(config, "final_logit_softcapping", None)
    )
    ids = torch.zeros((1, 2), dtype=torch.int64, device=hf.get_input_embeddings().weight.device)
    with torch.no_grad(), evaluating(hf):
        expected = hf(input_ids=ids, use_cache=False).logits.float()
        logits = unembedding(hf.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(logits, expected, atol=1e-2, rtol=1e-2):
        raise ModelError(
            f"{type(hf).__name__}: its logits are not its output embedding's, scaled and bounded as the configuration "
            "says, so that no loss can be computed from its states; expected an ordinary causal model"
        )
    return unembedding


class LogitReader:
    """Reads states of the residual stream as if the layers above them were not there."""

    def __init__(self, model: Model) -> None:
        """Find norm and unembedding.

        Raises:
            ModelError: the logits are not what the configuration states, or the decoder does not end in a norm.
        """
        self.norm = final_norm(model.hf)
        """The model's own final norm."""
        self.unembedding = unembedding_of(model.hf)
        """States after the norm to logits."""

    def logits(self, states: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_vocab"]:
        """Logits of states of the residual stream, float32; of the last layer's, the model's own."""
        weight = next(self.norm.parameters())
        normed = self.norm(states.to(weight.device, weight.dtype))
        return self.unembedding(normed.to(self.unembedding.linear.weight.device))


def final_norm(hf: Any) -> nn.Module:
    """The norm between the last layer and the unembedding, checked against the decoder's own output.

    Raises:
        ModelError: no module of the decoder makes its output from the last layer's.
    """
    decoder, layers = find_layout(hf)
    seen: dict[str, Tensor] = {}

    def see_layer(_module: nn.Module, _args: Any, output: Any) -> None:
        seen["last"] = output if isinstance(output, Tensor) else output[0]

    ids = torch.arange(4, device=hf.get_input_embeddings().weight.device)[None]
    handle = layers[-1].register_forward_hook(see_layer)
    try:
        with torch.no_grad(), evaluating(hf):
            expected = decoder(input_ids=ids, use_cache=False).last_hidden_state
            for child in decoder.children():
                if "norm" in type(child).__name__.lower() and torch.equal(
                    child(seen["last"].to(expected.device)), expected
                ):
                    return child
    finally:
        handle.remove()
    raise ModelError(
        f"{type(hf).__name__}: its decoder does not end in a norm of the last layer's states, so that states of other "
        "layers cannot be read as logits; expected an ordinary causal model"
    )


def frozen_norm(norm: nn.Module, states: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """What the norm multiplies each feature of a component by, its scale held at these states; float32.

    Raises:
        ModelError: the norm is no multiplication (one that subtracts a mean, or adds a bias).
    """
    return norm_scale(norm, states) * norm_gain(norm)


def norm_gain(norm: nn.Module) -> Float[Tensor, " d_model"]:
    """The gain of a root-mean-square norm: what it leaves of a vector of ones; float32."""
    weight = next(norm.parameters())
    # Not called as a module: a hook that reads what the norm writes does not mean this.
    return norm.forward(torch.ones_like(weight, dtype=torch.float32)[None]).float()[0]


def norm_scale(norm: nn.Module, states: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows 1"]:
    """α, what the norm multiplies each state by beside its gain; float32. Errors as for :func:`frozen_norm`."""
    weight = next(norm.parameters())
    # Norms compute in float32 and give the type of what they are given: half precision would round the gain.
    wide = states.to(weight.device, torch.float32)
    normed = norm.forward(wide).float()
    shaped = norm_gain(norm) * wide
    alpha = (normed * shaped).sum(-1, keepdim=True) / shaped.square().sum(-1, keepdim=True).clamp(min=1e-30)
    close = 1e-4 if weight.dtype == torch.float32 else 3e-2
    if not ((normed - alpha * shaped).norm(dim=-1) <= close * normed.norm(dim=-1)).all():
        raise ModelError(
            f"{type(norm).__name__}: does more than multiply its features, so that a component's share cannot be read "
            "with its scale held fixed; expected a root-mean-square norm"
        )
    return alpha
