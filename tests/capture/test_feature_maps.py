"""Features of positions: means over tokens of each token's latents, whatever the batch, site and backend."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sparse_autoencoders import random_sae

from safekey_interp.capture.feature_maps import check_features
from safekey_interp.capture.feature_states import FeatureStates, write_features
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import edited
from safekey_interp.capture.state_collection import collect_states
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError
from safekey_interp.models import organism
from safekey_interp.models.model import load

POSITIONS = ("prompt", "decision", "last(understanding)")


@pytest.fixture(scope="module")
def organism_traces():
    return load("organism:sft"), list(read_traces(organism.TRACES, limit=12))


def tokens_at(model, sae, encoding) -> np.ndarray:
    """Activations of every token at the place that an SAE reads, heads side by side."""
    seen: list[torch.Tensor] = []

    def keep(activations: torch.Tensor) -> None:
        seen.append(activations.flatten(2)[0])

    with torch.inference_mode(), edited(model, {Place(sae.layer, sae.site): keep}):
        model.hf(input_ids=encoding.input_ids[None])
    return seen[0].numpy()


@pytest.mark.parametrize(
    ("hook", "site", "backend"),
    [
        ("hook_resid_post", "resid_post", "hf"),
        ("hook_resid_post", "resid_post", "bridge"),
        ("hook_mlp_out", "mlp_out", "hf"),
        ("attn.hook_z", "head", "hf"),
    ],
)
def test_features_are_means_over_tokens_of_what_the_sae_makes_of_each(
    hook: str, site: str, backend: str, organism_traces, tmp_path: Path
) -> None:
    model, traces = organism_traces
    sae = random_sae(tmp_path / "sae", model.d_model, hook=hook)
    assert sae.site == site
    settings = StreamSettings(batch_size=5, backend=backend)
    states, kept, _ = collect_states(model, traces, settings, positions=POSITIONS, features=sae)
    assert isinstance(states, FeatureStates)
    assert [place.layer for place in states.layers] == [sae.layer]
    found = {position: states.active(position) for position in POSITIONS}
    for row, trace in enumerate(kept):
        encoding = model.encode(trace, reads=POSITIONS)
        latents = sae.latents(tokens_at(model, sae, encoding))
        for position in POSITIONS:
            numbers, matrix = found[position]
            by_hand = latents[list(encoding.positions(position))].mean(0)
            np.testing.assert_allclose(matrix[row], by_hand[numbers], atol=2e-5, rtol=1e-4)
            assert not np.delete(by_hand, numbers).any()


def test_latents_of_a_mean_are_not_the_mean_of_latents_that_is_read(organism_traces, tmp_path: Path) -> None:
    model, traces = organism_traces
    sae = random_sae(tmp_path / "sae", model.d_model)
    features, _, _ = collect_states(model, traces, positions=["prompt"], features=sae)
    states, _, _ = collect_states(model, traces, layers=[sae.layer], positions=["prompt"])
    numbers, matrix = features.active("prompt")
    assert np.abs(sae.latents(states.matrix(0, "prompt"))[:, numbers] - matrix).max() > 0.1


def test_files_hold_features_as_they_are_and_nan_where_a_trace_lacks_the_position(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(6, 2, 9)).astype(np.float32) * (rng.random((6, 2, 9)) < 0.3)
    whole[:, :, 4] = 0
    whole[2, 1] = np.nan
    entries = [SimpleNamespace(measured=SimpleNamespace(features=one)) for one in whole]
    files = [tmp_path / f"{start}.safetensors" for start in (0, 2, 5)]
    for file, (start, end) in zip(files, pairwise((0, 2, 5, 6)), strict=True):
        write_features(file, entries[start:end], ("a", "b"))
    read = FeatureStates(files, list("012345"), SimpleNamespace(layer=3), ("a", "b"))
    for number, position in enumerate("ab"):
        numbers, matrix = read.active(position)
        np.testing.assert_array_equal(matrix, whole[:, number, numbers])
        assert not np.nan_to_num(np.delete(whole[:, number], numbers, axis=1)).any()
        np.testing.assert_array_equal(matrix, read.matrix(0, position))


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        ((100, 1, "hook_resid_post"), "reads activations of width 100, and resid_post of layer 1 of .* has 128"),
        ((100, 1, "attn.hook_z"), "of width 100, and head of layer 1 of .* has 128"),
        ((128, 9, "hook_resid_post"), "reads layer 9, and .* has layers 0 to 3; expected an SAE of this model"),
    ],
)
def test_an_sae_of_another_model_is_refused(reads, said: str, organism_traces, tmp_path: Path) -> None:
    width, layer, hook = reads
    with pytest.raises(InputError, match=said):
        check_features(organism_traces[0], random_sae(tmp_path / "sae", width, layer=layer, hook=hook))
