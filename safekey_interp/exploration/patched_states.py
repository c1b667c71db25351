"""Patch of states: those of another branch in the place of a branch's own, in every pass that reads these tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.decoding_passes import told_of_passes
from safekey_interp.capture.residual_edits import Edit, Place, edited
from safekey_interp.errors import InputError
from safekey_interp.generation.row_readings import watched_states
from safekey_interp.generation.token_stream import TokenStream
from safekey_interp.models.model import Model


class PatchedStates:
    """States that replace a branch's own."""

    def __init__(
        self, model: Model, states: Mapping[Place, Float[Tensor, "position d_model"]], positions: Sequence[int]
    ) -> None:
        """Set what replaces what.

        Args:
            model: the branch's model.
            states: of the source, at each place.
            positions: of the branch's tokens whose states they replace, ascending.
        """
        self.positions = tuple(positions)
        """Of the branch's tokens."""
        self._model, self._states = model, dict(states)
        self._begin = 0

    @property
    def n_bytes(self) -> int:
        """Memory of the states."""
        return sum(states.numel() * states.element_size() for states in self._states.values())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which passes of the branch's tokens are patched."""

        def begins(_ids: Tensor, n_past: int) -> None:
            self._begin = n_past

        edits: dict[Place, Edit] = {place: partial(self._patch, kept) for place, kept in self._states.items()}
        with ExitStack() as stack:
            stack.enter_context(told_of_passes(self._model.hf, begins))
            stack.enter_context(edited(self._model, edits))
            yield

    def _patch(self, kept: Tensor, states: Float[Tensor, "1 pos d_model"]) -> Tensor:
        end = self._begin + states.shape[1]
        inside = [number for number, at in enumerate(self.positions) if self._begin <= at < end]
        if not inside:
            return states
        states = states.clone()
        at = [self.positions[number] - self._begin for number in inside]
        states[0, at] = kept[inside].to(states)
        return states


def patched_from(
    source: TokenStream, positions: Sequence[int], target: Sequence[int], layers: Sequence[int] | None
) -> PatchedStates:
    """The states of a stream's tokens as those of another one's, read in one pass under its own edits.

    Args:
        source: whose states are taken.
        positions: of its tokens, ascending.
        target: of the tokens whose states they replace; matched from the last one on.
        layers: after which layers; all when None.

    Raises:
        InputError: no tokens, or an unknown layer.
    """
    n = min(len(positions), len(target))
    if not n:
        raise InputError(
            f"patch: got {len(positions)} tokens to take states from and {len(target)} to put them in, expected some; "
            "choose a position that the one has and the other begins with"
        )
    positions, target = positions[len(positions) - n :], target[len(target) - n :]
    model = source.model
    numbers = model.layer_numbers(layers) or range(model.n_layers)
    places = [Place(layer, "resid_post") for layer in numbers]
    ids = torch.tensor([source.ids], device=model.device)  # all of them: its edits are laid out for as many
    with source.applied(), watched_states(model, places) as seen:
        model.hf.get_decoder()(input_ids=ids, use_cache=False)
        states = {place: seen[place][0, list(positions)].clone() for place in places}
    return PatchedStates(model, states, target)
