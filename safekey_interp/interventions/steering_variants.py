"""Variants of a model with directions ablated or added: what each changes, exactly and to the first order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.places import COMPONENTS, Place
from safekey_interp.capture.residual_edits import Edit, ablate, add
from safekey_interp.errors import InputError
from safekey_interp.generation.generation_edits import Mode, check_direction, places_of
from safekey_interp.interventions.direction_estimates import estimate_directions
from safekey_interp.interventions.effect_metrics import Readout, Subject
from safekey_interp.interventions.effects import TESTED
from safekey_interp.interventions.first_order import Segment, gradients_at
from safekey_interp.interventions.variant_scores import Branch, EditsOf, score_variants
from safekey_interp.measures.control_directions import ControlKind, control_draws
from safekey_interp.measures.direction_record import Direction

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class Variant(NamedTuple):
    """One way to change the model."""

    vector: np.ndarray
    """Unit vector of ``ablate``, step of ``add``; zeros change nothing."""
    places: tuple[Place, ...]
    """Where; none for the baseline."""
    direction: int
    """Number of the direction."""
    scale: float
    """NaN for ``ablate``."""
    control: str
    """Kind of control; ``none`` for the direction itself."""
    draw: int
    """-1 for the direction itself, else the number of the draw."""


def variants_of(
    model: Model,
    directions: Sequence[Direction],
    mode: Mode,
    chosen: Sequence[int],
    *,
    scales: Sequence[float],
    layers: Sequence[int] | None,
    kinds: Sequence[ControlKind],
    n_random: int,
    seed: int,
) -> list[Variant]:
    """The baseline first."""
    if not directions:
        raise InputError("directions: got none, expected at least one")
    variants = [Variant(np.zeros(model.d_model), (), -1, float("nan"), TESTED, -1)]
    for number in chosen:
        direction = directions[number]
        check_direction(model, direction, f"direction {number}")
        places = places_of(model, direction, mode, layers)
        vectors = [(TESTED, -1, direction.vector)]
        for kind in kinds:
            what = {"d_model": model.d_model, "what": f"direction {number}"}
            drawn = control_draws(direction.controls, kind, n_random, seed=(seed, number), **what)
            vectors += [(kind, draw, vector) for draw, vector in enumerate(drawn)]
        for scale in scales:
            factor = 1.0 if mode == "ablate" else scale * direction.norm
            variants += [Variant(factor * unit, places, number, scale, kind, draw) for kind, draw, unit in vectors]
    return variants


def _edits(variants: Sequence[Variant], subject: Subject, mode: Mode, where: Sequence[Sequence[int]] | None) -> EditsOf:
    """Edits of each row of a pass, at all positions or at those of its first continuation."""
    change = ablate if mode == "ablate" else add

    def edits_of(batch: Sequence[Branch], positions: np.ndarray) -> Mapping[Place, Edit]:
        edits: dict[Place, Edit] = {}
        for place in dict.fromkeys(place for branch in batch for place in variants[branch.variant].places):
            rows = [number for number, branch in enumerate(batch) if place in variants[branch.variant].places]
            stacked = np.stack([variants[batch[row].variant].vector for row in rows])
            vectors = torch.as_tensor(stacked, dtype=torch.float32)
            inside = None
            if where is not None:
                inside = torch.as_tensor(np.stack([np.isin(positions[row], where[batch[row].row]) for row in rows]))

            def edit(
                states: Tensor, rows: list[int] = rows, vectors: Tensor = vectors, inside: Tensor | None = inside
            ) -> Tensor:
                every = len(rows) == len(states)
                chosen = states if every else states[rows]
                changed = change(chosen, vectors.to(states.device))
                if inside is not None:
                    mask = rearrange(inside[:, : states.shape[1]], "row pos -> row pos 1")
                    changed = torch.where(mask.to(states.device), changed, chosen)
                if every:
                    return changed
                out = states.clone()
                out[rows] = changed
                return out

            edits[place] = edit
        return edits

    return edits_of


def _where(subject: Subject, row: int, positions: Sequence[str]) -> list[int]:
    return sorted({at for name in positions for at in subject.rows[row].positions(name)})


def exact_metrics(
    model: Model,
    variants: Sequence[Variant],
    subject: Subject,
    readout: Readout,
    *,
    mode: Mode,
    positions: Sequence[str] | None,
    **options: Any,
) -> Float[np.ndarray, "variant metric"]:
    """The metrics of each variant, the baseline's first."""
    rows = subject.rows
    where = None if positions is None else [_where(subject, row, positions) for row in range(len(rows))]
    options["alike"] = where is None or all(of_row == where[0] for of_row in where)
    edits = _edits(variants, subject, mode, where)
    return readout.values(score_variants(model, rows, len(variants), edits, **options).numpy(), subject.parts)


def estimated_metrics(
    model: Model,
    variants: Sequence[Variant],
    subject: Subject,
    readout: Readout,
    *,
    mode: Mode,
    positions: Sequence[str] | None,
    **options: Any,
) -> Float[np.ndarray, "variant metric"]:
    """The metrics of each variant to the first order, the baseline's first."""
    places = [variant.places for variant in variants]
    every = sorted({place for each in places for place in each}, key=_in_order)
    rows = subject.rows
    found = gradients_at(model, rows, readout.weights(subject.parts), every, **options)

    def where_of(segment: Segment) -> Sequence[int] | None:
        if positions is None:
            return None
        n = len(segment.states[every[0]])
        behind = (at - segment.begin for at in _where(subject, segment.row, positions))
        return [at for at in behind if 0 <= at < n]

    vectors = np.stack([variant.vector for variant in variants])
    effects = estimate_directions(
        found.segments, vectors, [tuple(sorted(each, key=_in_order)) for each in places], mode, where_of
    )
    return readout.values(found.scores[None], subject.parts) + effects


def _in_order(place: Place) -> tuple[int, int]:
    """Sort key of places: the order in which a forward pass reaches them."""
    return place.layer, COMPONENTS.index(place.component)
