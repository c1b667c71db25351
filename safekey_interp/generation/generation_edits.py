"""Edits of a model while it generates: steering, directional ablation, and keys that later tokens do not see.

    ski.generate(model, prompts, edits=[ski.Steer(direction, positions=["generated"], scale=2.0)])

A position names tokens of prompt, prefill and response:

- ``None``: all tokens;
- ``generated``: every token that the model writes (not those of a prefill);
- ``understanding`` and ``key_sentence``: in the response too, where the finder sees them in the text so far: a token
  counts when it is there in the text that ends with it. What was read before is not gone back to;
- every other name of :meth:`Encoding.positions <safekey_interp.Encoding.positions>` (``prompt``, ``template``,
  ``first_token`` …): the tokens that it has in prompt and prefill, fixed before the first new token. One that is not
  there is refused: which token is the last before K (``decision``), for one, is not known until K has begun, and then
  it has been read. Give a prefill that holds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from safekey_interp.capture.residual_edits import Place, every_place
from safekey_interp.data.span_expressions import check_spans, span_references
from safekey_interp.errors import InputError
from safekey_interp.measures.direction_record import Direction

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

Mode = Literal["ablate", "add"]
GENERATED = "generated"
"""The position of every token that the model writes."""
WRITTEN = ("understanding", "key_sentence")
"""Positions that are found in the response while it is written."""


@dataclass(frozen=True, eq=False)
class Steer:
    """A direction added to the residual stream: x ← x + scale · norm · d."""

    direction: Direction
    """The direction, of the model's width."""
    _: KW_ONLY
    positions: Sequence[str] | None = None
    """Where in the sequence; all tokens when None."""
    layers: Sequence[int] | None = None
    """After which layers; the direction's own when None."""
    scale: float = 1.0
    """In units of the direction's norm: 1 is the whole way from one class mean to the other; below 0 away from it."""

    @property
    def vector(self) -> np.ndarray:
        """What is added."""
        return self.scale * self.direction.norm * self.direction.vector

    def places(self, model: Model) -> tuple[Place, ...]:
        """Where in the model."""
        return places_of(model, self.direction, "add", self.layers)


@dataclass(frozen=True, eq=False)
class Ablate:
    """A direction taken out of the residual stream: x ← x − (x · d) d."""

    direction: Direction
    """The direction, of the model's width."""
    _: KW_ONLY
    positions: Sequence[str] | None = None
    """Where in the sequence; all tokens when None."""
    layers: Sequence[int] | None = None
    """After which layers; when None wherever the stream is written, so that nothing reads the direction."""

    @property
    def vector(self) -> np.ndarray:
        """What is taken out, norm 1."""
        return self.direction.vector

    def places(self, model: Model) -> tuple[Place, ...]:
        """Where in the model."""
        return places_of(model, self.direction, "ablate", self.layers)


@dataclass(frozen=True)
class HideSpan:
    """A span's keys hidden from later tokens, in each layer's own mask; a token never loses all that it sees."""

    span: str
    """The position whose keys are hidden."""
    _: KW_ONLY
    from_: str | None = None
    """The position whose tokens do not see them; when None all later ones outside of the span."""
    layers: Sequence[int] | None = None
    """In which layers; all when None."""
    heads: Sequence[int] | None = None
    """In which heads; all when None."""

    @property
    def positions(self) -> tuple[str, ...]:
        """The positions that it names."""
        return (self.span,) if self.from_ is None else (self.span, self.from_)


GenerationEdit = Steer | Ablate | HideSpan


def check_edits(model: Model, edits: Iterable[GenerationEdit], own: Collection[str] | None = None) -> None:
    """Refuse edits that do not fit a model; whether a prompt has their positions is known with the prompt.

    Args:
        model: the model.
        edits: of one request.
        own: names of the prompts' own spans; not checked when None.

    Raises:
        InputError: no such edit, layer, head, place or position, a direction of another width, a scale that is not
            finite, or a text where a list of positions is expected.
    """
    for number, edit in enumerate(edits):
        what = f"edit {number}"
        if not isinstance(edit, Steer | Ablate | HideSpan):
            raise InputError(f"{what}: got a value of type {type(edit).__name__}, expected Steer, Ablate or HideSpan")
        model.layer_numbers(edit.layers)
        if isinstance(edit.positions, str):
            raise InputError(f'{what}: positions: got one text, expected a list; ["{edit.positions}"]')
        named = [name for name in edit.positions or () if name != GENERATED]
        known = [name for name in span_references(named) if isinstance(name, str)] if own is None else own
        check_spans(named, known)
        if isinstance(edit, HideSpan):
            n_heads = model.n_heads
            for head in edit.heads or ():
                if not 0 <= head < n_heads:
                    raise InputError(f"{what}: got head {head}, expected one of 0 to {n_heads - 1}")
            continue
        check_direction(model, edit.direction, what)
        if isinstance(edit, Steer) and not isfinite(edit.scale):
            raise InputError(f"{what}: scale: got {edit.scale}, expected a finite number")
        edit.places(model)


def check_direction(model: Model, direction: Direction, what: str) -> None:
    """Refuse a direction of another width than the model's.

    Raises:
        InputError: with both.
    """
    if direction.d_model != model.d_model:
        raise InputError(
            f"{what}: got width {direction.d_model}, expected the model's {model.d_model}; "
            "fit one on a model of this width"
        )


def places_of(model: Model, direction: Direction, mode: Mode, layers: Sequence[int] | None) -> tuple[Place, ...]:
    """Where a direction is ablated or added.

    Args:
        model: the model.
        direction: the direction.
        mode: ``ablate`` or ``add``.
        layers: after which layers; when None, of ``ablate`` everywhere, of ``add`` the direction's own.

    Raises:
        InputError: no such layer.
    """
    if layers is not None:
        return tuple(Place(layer, "resid_post") for layer in model.layer_numbers(layers) or ())
    if mode == "ablate":
        return tuple(every_place(model))
    if direction.site == "ln_final":
        return (Place(model.n_layers, "ln_final"),)
    if not 0 <= direction.layer < model.n_layers:
        raise InputError(
            f"direction of layer {direction.layer}: no such layer in {model.spec}, which has {model.n_layers}; say "
            "after which layers it is added (layers)"
        )
    return (Place(direction.layer, "resid_post"),)


def record_of(edit: GenerationEdit) -> dict[str, Any]:
    """What a response depends on of an edit, for a hash or a file."""
    layers = None if edit.layers is None else list(edit.layers)
    record: dict[str, Any] = {"edit": type(edit).__name__, "layers": layers}
    if isinstance(edit, HideSpan):
        heads = None if edit.heads is None else list(edit.heads)
        return record | {"span": edit.span, "from": edit.from_, "heads": heads}
    direction, positions = edit.direction, edit.positions
    record |= {"positions": None if positions is None else list(positions), "layer": direction.layer}
    return record | {"site": direction.site, "sha256": hashlib.sha256(edit.vector.tobytes()).hexdigest()}
