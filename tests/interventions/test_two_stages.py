"""First-order estimates are derivatives, and two stages measure the places that these rank first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
import torch

from safekey_interp.capture.residual_edits import Edit, Place
from safekey_interp.data.trace import Trace
from safekey_interp.generation.key_sentence_bank import GENERAL, KeySentences
from safekey_interp.interventions.effect_metrics import find_subjects, readout_of
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.interventions.steering import steer, summarise_steering
from safekey_interp.interventions.two_stages import (
    N_DRAWN,
    in_two_stages,
    join_stages,
    mean_effects,
    n_screened,
    next_call,
    places_to_screen,
    rank_agreement,
)
from safekey_interp.interventions.variant_scores import Branch, score_variants
from safekey_interp.measures.direction_record import Direction
from safekey_interp.models.model import Model

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[1:4])
STAGES = find_intervention("direction").stages
assert STAGES is not None
PLACES = ["trace_id", "direction", "control", "draw", "metric"]
ARCHITECTURES = ("llama", "gemma3_text", "qwen3")


@lru_cache
def traces(n: int = 4) -> list[Trace]:
    return [reference_forward.with_given(trace) for trace in tiny_models.traces(n)]


def unit(model: Model, seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(model.d_model)
    return vector / np.linalg.norm(vector)


def directions(model: Model, n: int = 3) -> list[Direction]:
    return [
        Direction(vector=unit(model, seed), norm=2.0, layer=seed % model.n_layers, site="resid_post")
        for seed in range(n)
    ]


def measured(model: Model, n: int = 3, **options: Any) -> pd.DataFrame:
    chosen: dict[str, Any] = {"controls": "isotropic", "n_random": 2, "bank": SMALL, "finder": "given"} | options
    return steer(model, traces(), directions(model, n), **chosen)


@pytest.mark.parametrize("positions", [None, ("understanding", "decision")])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_estimate_is_the_derivative_of_what_is_added(architecture: str, positions: Any) -> None:
    model, step = tiny_models.tiny_model(architecture), 2e-3
    options: dict[str, Any] = {"mode": "add", "scales": [step, -step], "positions": positions}
    exact = measured(model, **options).set_index([*PLACES, "scale"])["effect"].unstack("scale")
    estimate = measured(model, estimate=True, **options).set_index([*PLACES, "scale"])["effect"].unstack("scale")
    slope = (exact[step] - exact[-step]) / 2
    error = np.linalg.norm(slope - estimate[step]) / np.linalg.norm(slope)
    assert error < 0.03
    np.testing.assert_allclose(estimate[step], -estimate[-step], atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_estimate_is_the_derivative_of_what_is_taken_out_of_every_write(architecture: str) -> None:
    """Of a small share of the direction, taken out of what the embedding, attention and MLP of every layer write."""
    model, share = tiny_models.tiny_model(architecture), 2e-3
    readout = readout_of(model, None, SMALL)
    vectors = [torch.as_tensor(direction.vector, dtype=torch.float32) for direction in directions(model)]
    writes = [Place(0, "resid_pre")]
    writes += [Place(layer, site) for layer in range(model.n_layers) for site in ("attn_out", "mlp_out")]

    def edits_of(batch: Sequence[Branch], positions: np.ndarray) -> Mapping[Place, Edit]:
        shares = [share * (1 - 2 * (branch.variant % 2)) for branch in batch]
        stacked = torch.stack([vectors[branch.variant // 2] for branch in batch])

        def edit(states: torch.Tensor) -> torch.Tensor:
            along = torch.einsum("rpd,rd->rp", states, stacked) * torch.tensor(shares)[:, None]
            return states - along[..., None] * stacked[:, None]

        return dict.fromkeys(writes, edit)

    subjects, _ = find_subjects(model, traces(), readout, spans=())
    table = measured(model, estimate=True, n_random=0).set_index([*PLACES])["effect"]
    slopes, estimates = [], []
    for subject in subjects:
        with torch.no_grad():
            scores = score_variants(model, subject.rows, 2 * len(vectors), edits_of).numpy()
        both = readout.values(scores, subject.parts)
        slopes.append((both[::2] - both[1::2]) / (2 * share))
        of_trace = table.loc[subject.trace.trace_id].unstack("metric")[list(readout.names)]
        estimates.append(of_trace.to_numpy())
    error = np.linalg.norm(np.array(slopes) - np.array(estimates)) / np.linalg.norm(slopes)
    assert error < 0.03


def test_what_is_confirmed_is_what_one_stage_measures() -> None:
    model = tiny_models.tiny_model("llama")
    both = in_two_stages(partial(measured, model, 16), STAGES, 2, seed=0)
    exact = measured(model, 16).set_index(PLACES)
    second = both.loc[both["stage"] == "exact"].set_index(PLACES)
    np.testing.assert_allclose(second["effect"], exact.loc[second.index, "effect"], rtol=1e-4, atol=1e-5)
    with_controls = second.loc[second.index.get_level_values("control") != "none"]
    confirmed = with_controls.index.get_level_values("direction").unique()
    assert len(confirmed) == 2
    assert second.index.get_level_values("direction").nunique() == n_screened(2) + 1, "one is left to be drawn"
    assert not second.index.duplicated().any(), "what was screened and then confirmed is there once"
    first = both.loc[both["stage"] == "estimate"]
    assert len(first) == len(exact)
    largest = mean_effects(both.loc[both["stage"] == "exact"], STAGES).abs().nlargest(2).index
    assert set(confirmed) == set(largest), "the largest exact effects of what was screened"


def test_an_exact_place_has_the_p_over_all_places_of_its_estimate() -> None:
    model = tiny_models.tiny_model("llama")
    table = in_two_stages(partial(measured, model, 8, n_random=3), STAGES, 2, seed=0)
    summary = summarise_steering(table)
    estimates = summarise_steering(table.loc[table["stage"] == "estimate"].drop(columns="stage"))
    keys = ["direction", "metric", "subset", "control_kind"]
    exact = summary.loc[(summary["stage"] == "exact") & (summary["control_kind"] != "none")].set_index(keys)
    expected = estimates.set_index(keys).loc[exact.index, "p_value_over_all"]
    assert len(exact)
    np.testing.assert_allclose(exact["p_value_over_all"], expected)
    assert exact["p_value"].isna().all(), "a place that was chosen has no p of one chosen beforehand"
    assert set(summary["n_places"]) == {8}


def of_means(means: Sequence[float], **columns: Any) -> pd.DataFrame:
    """A table with these effects of places."""
    about = {"trace_id": "a", "control": "none", "draw": -1, "metric": "difference"}
    return pd.DataFrame([{"direction": at, "effect": value, **about, **columns} for at, value in enumerate(means)])


def test_the_largest_estimates_of_either_sign_are_screened_and_others_drawn_beside() -> None:
    means = np.random.default_rng(0).standard_normal(30)
    order = np.argsort(-np.abs(means)).tolist()
    drawn, n = set(), n_screened(2)
    for seed in range(20):
        screened = [number for (number,) in places_to_screen(of_means(means.tolist()), STAGES, 2, seed=seed)]
        assert screened[:n] == order[:n]
        assert set(screened[n:]) <= set(order[n:])
        assert len(screened) == n + N_DRAWN
        drawn |= set(screened)
    assert len(drawn) > n + N_DRAWN, "another seed draws others"


def test_the_largest_exact_effects_among_the_screened_are_confirmed() -> None:
    estimates, exact = of_means([3.0, 2.0, -1.0, 0.5]), of_means([0.1, -0.9, 0.2, 0.8])
    assert next_call([estimates, exact], STAGES, 2, seed=0)["only"] == [(1,), (3,)]


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_the_rank_correlation_is_that_of_sizes(sign: int, expected: float) -> None:
    estimates = of_means([0.1, -0.4, 0.9, 1.6], stage="estimate")
    exact = of_means([(0.1, -0.4, 0.9, 1.6)[::sign][at] for at in range(4)], stage="exact")
    found = rank_agreement(join_stages(pd.concat([estimates, exact])), STAGES)
    assert found == (pytest.approx(expected), 4)
