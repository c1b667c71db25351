"""Sparse autoencoders: latents equal their defining formulas, from every layout; what cannot be used is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sparse_autoencoders import random_weights, write_sae

from safekey_interp.errors import InputError
from safekey_interp.models.sae_files import read_sae
from safekey_interp.models.sparse_autoencoder import WEIGHTS as ARRAYS

D_IN, N = 16, 40
WEIGHTS = random_weights(D_IN, N)
HOOK = {"hook_name": "blocks.3.hook_resid_post"}
STATES = np.random.default_rng(1).normal(size=(50, D_IN)).astype(np.float32)


def defined(x: np.ndarray, architecture: str, *, takes_b_dec: bool, k: int = 0, scaled: bool = False) -> np.ndarray:
    """The latents by their formulas, in float64."""
    w = {name: array.astype(np.float64) for name, array in WEIGHTS.items()}
    x = x - w["b_dec"] if takes_b_dec else x
    if architecture == "gated":
        gate = x @ w["W_enc"] + w["b_gate"] > 0
        return gate * np.maximum(x @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"], 0)
    a = x @ w["W_enc"] + w["b_enc"]
    if architecture == "jumprelu":
        return np.where(a > w["threshold"], np.maximum(a, 0), 0)
    if architecture == "topk":
        a = a * np.linalg.norm(w["W_dec"], axis=1) if scaled else a
        return np.where(a >= np.sort(a, axis=1)[:, -k, None], np.maximum(a, 0), 0)
    return np.maximum(a, 0)


def since_6(**config: Any) -> dict[str, Any]:
    return config | {"metadata": HOOK}


@pytest.mark.parametrize(
    ("config", "formula"),
    [
        (since_6(architecture="standard"), {"architecture": "standard", "takes_b_dec": True}),
        (HOOK | {"apply_b_dec_to_input": False}, {"architecture": "standard", "takes_b_dec": False}),
        (since_6(architecture="topk", k=5), {"architecture": "topk", "k": 5, "takes_b_dec": True}),
        (
            since_6(architecture="topk", k=5, rescale_acts_by_decoder_norm=True),
            {"architecture": "topk", "k": 5, "scaled": True, "takes_b_dec": True},
        ),
        (
            HOOK | {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}},
            {"architecture": "topk", "k": 7, "takes_b_dec": True},
        ),
        (since_6(architecture="jumprelu"), {"architecture": "jumprelu", "takes_b_dec": True}),
        (since_6(architecture="gated"), {"architecture": "gated", "takes_b_dec": True}),
    ],
)
def test_latents_are_those_of_the_defining_formula(
    config: dict[str, Any], formula: dict[str, Any], tmp_path: Path
) -> None:
    own = {name: WEIGHTS[name] for name in ("W_dec", *ARRAYS[formula["architecture"]])}
    sae = read_sae(write_sae(tmp_path / "sae", own, config))
    assert (sae.layer, sae.site, sae.d_in, sae.n_latents) == (3, "resid_post", D_IN, N)
    expected = defined(STATES.astype(np.float64), **formula)
    assert 0 < (expected > 0).mean() < 1
    np.testing.assert_allclose(sae.latents(STATES), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("normalisation", "by_hand"),
    [
        ("constant_norm_rescale", lambda x: x * D_IN**0.5 / np.linalg.norm(x, axis=1, keepdims=True)),
        ("layer_norm", lambda x: (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-5)),
    ],
)
def test_activations_are_normalised_first_where_the_sae_was_trained_so(
    normalisation: str, by_hand: Any, tmp_path: Path
) -> None:
    config = since_6(architecture="standard", normalize_activations=normalisation)
    sae = read_sae(write_sae(tmp_path / "sae", WEIGHTS, config))
    expected = defined(by_hand(STATES.astype(np.float64)), "standard", takes_b_dec=True)
    np.testing.assert_allclose(sae.latents(STATES), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "site"), [("pt-res", "resid_post"), ("pt-mlp", "mlp_out"), ("9b-it-att-canonical", "head")]
)
def test_gemma_scope_says_in_its_path_what_it_reads(kind: str, site: str, tmp_path: Path) -> None:
    folder = tmp_path / f"gemma-scope-2b-{kind}" / "layer_12" / "width_16k" / "average_l0_82"
    arrays = {name: WEIGHTS[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
    sae = read_sae(write_sae(folder, arrays, {}, "params.npz"))
    assert (sae.architecture, sae.layer, sae.site, sae.name) == (
        "jumprelu",
        12,
        site,
        "layer_12/width_16k/average_l0_82",
    )
    expected = defined(STATES.astype(np.float64), "jumprelu", takes_b_dec=False)
    np.testing.assert_allclose(sae.latents(STATES), expected, atol=1e-6, rtol=1e-6)


def test_gemma_scope_2_has_a_configuration_and_names_in_small_letters(tmp_path: Path) -> None:
    names = {"w_enc": "W_enc", "w_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}
    arrays = {name: WEIGHTS[known] for name, known in names.items()}
    hook = "model.layers.17.output"
    config = {"architecture": "jump_relu", "hf_hook_point_in": hook, "hf_hook_point_out": hook, "l0": 20}
    sae = read_sae(write_sae(tmp_path / "sae", arrays, config, "params.safetensors") / "params.safetensors")
    assert (sae.layer, sae.site) == (17, "resid_post")
    expected = defined(STATES.astype(np.float64), "jumprelu", takes_b_dec=False)
    np.testing.assert_allclose(sae.latents(STATES), expected, atol=1e-6, rtol=1e-6)


def test_a_row_that_is_not_finite_has_no_latents_and_another_width_is_refused(tmp_path: Path) -> None:
    sae = read_sae(write_sae(tmp_path / "sae", WEIGHTS, since_6(architecture="topk", k=3)))
    broken = STATES.copy()
    broken[2, 5] = np.nan
    found = sae.latents(broken)
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, 0), sae.latents(np.delete(STATES, 2, 0)))
    assert sae.latents(STATES.reshape(5, 10, D_IN)).shape == (5, 10, N)
    assert torch.equal(
        sae.encode(torch.tensor(STATES).to(torch.bfloat16)).argmax(1),
        sae.encode(torch.tensor(STATES).bfloat16().float()).argmax(1),
    )
    with pytest.raises(InputError, match=r"shape \(50, 17\), expected \(…, 16\)"):
        sae.latents(np.zeros((50, 17)))


@pytest.mark.parametrize(
    ("change", "config", "said"),
    [
        ({}, since_6(architecture="crosscoder"), "got architecture 'crosscoder', expected one of standard"),
        ({}, HOOK | {"activation_fn_str": "tanh-relu"}, "standard with tanh-relu"),
        ({}, {"architecture": "standard"}, "nothing says what it reads; expected one such as blocks.12"),
        ({}, {"hook_name": "blocks.1.attn.hook_q"}, "got the hook 'blocks.1.attn.hook_q'"),
        ({}, since_6(architecture="topk"), "got k None"),
        ({}, since_6(architecture="topk", k=N + 1), f"got k {N + 1} in its configuration, expected a number from 1"),
        ({}, since_6(normalize_activations="expected_average_only_in"), "fold the factor"),
        ({"W_enc": None}, since_6(architecture="standard"), "expected W_enc, b_enc, b_dec"),
        (
            {"b_enc": WEIGHTS["b_enc"][1:]},
            since_6(architecture="standard"),
            r"b_enc of shape \(39,\), expected \(40,\)",
        ),
        ({"W_enc": WEIGHTS["b_enc"]}, since_6(architecture="standard"), r"got W_enc of shape \(40,\)"),
        (
            {"b_dec": WEIGHTS["b_dec"] * np.inf},
            since_6(architecture="standard"),
            "b_dec holds numbers that are not fin",
        ),
        (
            {},
            {"hf_hook_point_in": "model.layers.5.x.output", "hf_hook_point_out": "model.layers.5.y.output"},
            "got a transcoder",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line_that_says_why(
    change: dict[str, Any], config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    weights = {name: array for name, array in (WEIGHTS | change).items() if array is not None}
    if "architecture" not in config:
        weights.pop("threshold")
    with pytest.raises(InputError, match=said) as error:
        read_sae(write_sae(tmp_path / "sae", weights, config))
    assert "\n" not in str(error.value)


def test_files_that_are_none_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_sae(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no weights"):
        read_sae(tmp_path)
    (tmp_path / "params.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be read"):
        read_sae(tmp_path)
    (tmp_path / "params.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_sae(tmp_path / "params.npz")
    np.savez(tmp_path / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"cannot be read .*allow_pickle=False"):
        read_sae(tmp_path / "params.npz")
    folder = write_sae(tmp_path / "sae", WEIGHTS, {})
    for text in ("[1]", "{"):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(InputError, match=r"cfg\.json: (got list|cannot be read)"):
            read_sae(folder)


@pytest.mark.slow
def test_the_script_trains_an_sae_that_reconstructs_and_is_read(tmp_path: Path) -> None:
    out = tmp_path / "sae"
    options = ["--out", str(out), "--steps", "80", "--limit", "24", "--latents", "256"]
    done = subprocess.run([sys.executable, "-m", "train.sae", *options], capture_output=True, text=True, check=True)
    assert json.loads((out / "cfg.json").read_text())["k"] == read_sae(out).k == 8
    assert float(done.stdout.split(" tokens, ")[1].split("%")[0]) > 80
