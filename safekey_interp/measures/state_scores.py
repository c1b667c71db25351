"""Scores of the states of a forward pass by probes and directions, reduced while it runs: no state is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.residual_edits import Edit, Place
from safekey_interp.measures.token_scorer import TokenScorer


class StateScores:
    """The scores of every state of the last forward pass under its :attr:`edits`."""

    def __init__(self, scorers: Sequence[TokenScorer]) -> None:
        """Before the first pass."""
        self.values: list[dict[str, Float[np.ndarray, "row pos"]]] = [{} for _ in scorers]
        """Of each scorer: score, and mean and sd of each kind of control, float64."""
        self._scorers = scorers
        self._vectors = [
            torch.as_tensor(np.concatenate([scorer.vector[None], *scorer.controls.values()]), dtype=torch.float32)
            for scorer in scorers
        ]
        numbers_at: dict[Place, list[int]] = {}
        for number, scorer in enumerate(scorers):
            site: Any = scorer.site
            numbers_at.setdefault(Place(scorer.layer, site), []).append(number)
        self.edits: dict[Place, Edit] = {place: partial(self._see, numbers) for place, numbers in numbers_at.items()}
        """What reads the states, for :func:`~safekey_interp.capture.residual_edits.edited`."""

    def _see(self, numbers: Sequence[int], states: Tensor) -> Tensor:
        wide = states.float()
        for number in numbers:
            scorer = self._scorers[number]
            vectors = self._vectors[number] = self._vectors[number].to(wide.device)
            products = (wide @ vectors.T).double().cpu().numpy()
            scores = {"score": products[..., 0] + scorer.bias}
            begin = 1
            for control, biases in scorer.control_biases.items():
                drawn = products[..., begin : begin + len(biases)] + biases
                begin += len(biases)
                scores |= {f"{control}_mean": _mean(drawn), f"{control}_sd": _sd(drawn)}
            self.values[number] = scores
        return states


def _mean(drawn: np.ndarray) -> np.ndarray:
    # As numpy's own mean and std, bit for bit, without their wrappers: this runs for every token that is written.
    return np.add.reduce(drawn, -1) / n if (n := drawn.shape[-1]) else np.full(drawn.shape[:-1], np.nan)


def _sd(drawn: np.ndarray) -> np.ndarray:
    """NaN of fewer than two draws."""
    n = drawn.shape[-1]
    if n < 2:
        return np.full(drawn.shape[:-1], np.nan)
    return np.sqrt(np.add.reduce(np.square(drawn - _mean(drawn)[..., None]), -1) / (n - 1))
