"""Sparse autoencoders with random weights, and their files in the layouts that are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from safekey_interp.models.sae_files import read_sae
from safekey_interp.models.sparse_autoencoder import SparseAutoencoder


def random_weights(d_in: int, n_latents: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of every architecture, float32."""
    rng = np.random.default_rng(seed)
    shapes = {"W_enc": (d_in, n_latents), "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    shapes |= dict.fromkeys(("b_enc", "b_gate", "b_mag", "r_mag", "threshold"), (n_latents,))
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return weights | {"threshold": np.abs(weights["threshold"]), "W_enc": weights["W_enc"] / np.float32(d_in**0.5)}


def write_sae(
    folder: Path, weights: dict[str, np.ndarray], config: dict[str, Any], name: str = "sae_weights.safetensors"
) -> Path:
    """A folder with weights and a configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".npz"):
        np.savez(folder / name, **weights)
    else:
        save_file(weights, folder / name)
    if config:
        known = "config.json" if name.startswith("params") else "cfg.json"
        (folder / known).write_text(json.dumps(config), encoding="utf-8")
    return folder


def random_sae(
    folder: Path, d_in: int, *, n_latents: int = 24, layer: int = 1, hook: str = "hook_resid_post", seed: int = 0
) -> SparseAutoencoder:
    """A jump-ReLU SAE that reads a layer."""
    config = {"architecture": "jumprelu", "hook_name": f"blocks.{layer}.{hook}", "apply_b_dec_to_input": False}
    return read_sae(write_sae(folder, random_weights(d_in, n_latents, seed), config))
