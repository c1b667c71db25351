"""Latents that differ between classes: planted ones are found and ranked first, noise is not, differences are exact."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sparse_autoencoders import random_sae

import safekey_interp as ski
from safekey_interp.capture.feature_states import FeatureStates, write_features
from safekey_interp.errors import InputError
from safekey_interp.measures.latent_effects import COLUMNS, latent_effects
from safekey_interp.measures.separability import Separability
from safekey_interp.models import organism


def stored(latents: np.ndarray, folder: Path, position: str = "decision") -> FeatureStates:
    """Latents of traces, (trace, latent), as a run keeps them."""
    entries = [SimpleNamespace(measured=SimpleNamespace(features=row[None])) for row in latents.astype(np.float32)]
    file = folder / "features.safetensors"
    write_features(file, entries, (position,))
    return FeatureStates([file], [str(row) for row in range(len(latents))], SimpleNamespace(layer=2), (position,))


def sparse_noise(n: int, n_latents: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(n, n_latents)) * (rng.random((n, n_latents)) < 0.3)


def test_a_planted_latent_is_first_and_differences_are_those_of_the_class_means(tmp_path: Path) -> None:
    latents = sparse_noise(120, 60, seed=1)
    positive = np.arange(120) % 2 == 1
    latents[positive, 17] += 1.5
    latents[:, 5] = 0.7
    labels = ["harmful" if yes else "benign" for yes in positive]
    groups = [str(row // 2) for row in range(120)]
    table = latent_effects(stored(latents, tmp_path), labels, groups, n_latents=60).table
    assert list(table.columns) == list(COLUMNS)
    assert (table["latent"].iloc[0], table["rank"].iloc[0]) == (17, 1)
    first = table.iloc[0]
    assert first["p_value_over_latents"] == pytest.approx(1 / 201)
    assert first["difference_low"] < 1.5 < first["difference_high"]
    assert 5 not in set(table["latent"])
    assert (table["n_active"] == 59).all()
    assert (table["n_different"] == (table["p_value_over_latents"] <= 0.05).sum()).all()
    exact = latents.astype(np.float32)[:, table["latent"]]
    np.testing.assert_allclose(table["difference"], exact[positive].mean(0) - exact[~positive].mean(0), atol=1e-6)
    np.testing.assert_allclose(table["active_harmful"], (exact[positive] > 0).mean(0))
    assert (table["p_value_over_latents"].diff().dropna() >= 0).all()


def test_among_latents_of_noise_one_is_seldom_shown(tmp_path: Path) -> None:
    """At 0.05 over all latents at once: 60 draws, of which 10 or more would be shown with a probability of 2e-3."""
    shown = 0
    labels, groups = ["harmful", "benign"] * 30, [str(row) for row in range(60)]
    for seed in range(60):
        states = stored(sparse_noise(60, 80, seed), tmp_path)
        table = latent_effects(states, labels, groups, seed=seed, n_permutations=99, n_latents=1).table
        shown += int(table["n_different"].iloc[0] > 0)
    assert shown < 10


def test_what_cannot_be_compared_is_left_out_with_its_reason(tmp_path: Path) -> None:
    states = stored(sparse_noise(20, 5, 0), tmp_path, "key_sentence")
    groups = [str(row) for row in range(20)]
    few = latent_effects(states, ["harmful"] * 2 + ["benign"] * 18, groups)
    assert few.table.empty
    assert "too few groups: 2 harmful" in few.left_out[0].why
    circular = latent_effects(states, ["unsafe", "safe"] * 10, groups, label_by="aha")
    assert circular.table.empty
    assert "its words define the outcome" in circular.left_out[0].why
    with pytest.raises(InputError, match="labels: got 3, expected 20"):
        latent_effects(states, ["harmful"] * 3, groups)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory):
    model, traces = ski.load("organism:sft"), list(ski.read_traces(str(organism.TRACES), limit=60))
    sae = random_sae(tmp_path_factory.mktemp("sae"), model.d_model, n_latents=200, layer=2)
    return model, traces, sae


def test_latents_are_probed_as_states_are_with_the_same_controls(measured) -> None:
    model, traces, sae = measured
    few = {"n_permutations": 20}
    table = ski.measure_separability(model, traces, features=sae, positions=["decision"], **few)
    assert set(table["method"]) == {"logistic", "diff_of_means", "text_tfidf"}
    assert set(table["site"]) == {"sae", "text"}
    states = ski.states(model, traces, positions=["decision"], layers=[sae.layer])
    latents = sae.latents(states.array[:, 0, 0, 0])
    assert 0 < (latents > 0).mean() < 1
    kept = SimpleNamespace(
        layers=(SimpleNamespace(layer=sae.layer, site="sae"),),
        positions=("decision",),
        trace_ids=states.trace_ids,
        matrix=lambda layer, position: latents,
    )
    by_hand = Separability(list(states.index["label"]), list(states.index["group"]), {}, **few).measure(kept)
    own = table.loc[table["site"] == "sae"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[by_hand.columns], by_hand, rtol=1e-4, check_dtype=False)
    effects = ski.measure_latents(model, traces, sae, positions=["decision"], n_latents=3, **few)
    column = latents[:, effects["latent"].iloc[0]]
    harmful = (states.index["label"] == "harmful").to_numpy()
    assert effects["difference"].iloc[0] == pytest.approx(column[harmful].mean() - column[~harmful].mean(), abs=1e-5)
