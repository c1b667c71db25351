"""Training of a small top-k sparse autoencoder on a model's activations, saved in SAELens's layout.

    python -m train.sae --out sae [--model organism:sft] [--layer 2] [--latents 512] [--k 8] [--steps 500]

The activations are the outputs of one layer at every token of the traces. The loss is the mean squared error of
x̂ = latents W_dec + b_dec (Gao et al. 2024, arXiv 2406.04093), without their auxiliary loss: it is meant for the
organism and for tests, not for a language model of any size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import edited
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import TRACES
from safekey_interp.runs.storage import write_folder_aside

BATCH = 1_024


def activations(model: Model, traces: Iterable[Trace], layer: int) -> Float[Tensor, "token d_model"]:
    """Outputs of a layer at every token of the traces."""
    kept: list[Tensor] = []

    def keep(states: Tensor) -> None:
        kept.append(rearrange(states.detach().float().cpu(), "batch pos d -> (batch pos) d"))

    with torch.inference_mode(), edited(model, {Place(layer, "resid_post"): keep}):
        for trace in traces:
            ids = model.encode(trace).input_ids[None].to(model.device)
            model.hf(input_ids=ids, logits_to_keep=1)
    return torch.cat(kept)


def train_sae(
    states: Float[Tensor, "token d_in"], *, n_latents: int, k: int, steps: int, seed: int = 0
) -> dict[str, Tensor]:
    """Weights of a top-k SAE: W_enc, b_enc, W_dec and b_dec."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_latents, states.shape[1], generator=generator)
    decoder = nn.Parameter(directions / directions.norm(dim=1, keepdim=True))
    encoder = nn.Parameter(decoder.detach().T.clone())
    bias, centre = nn.Parameter(torch.zeros(n_latents)), nn.Parameter(states.mean(0))
    optimizer = torch.optim.Adam([encoder, decoder, bias, centre], lr=1e-3)
    scale = states.var(0).sum()
    for _ in range(steps):
        rows = states[torch.randint(len(states), (BATCH,), generator=generator)]
        largest, where = ((rows - centre) @ encoder + bias).topk(k, dim=-1)
        latents = torch.zeros(len(rows), n_latents).scatter(-1, where, largest.relu())
        loss = (latents @ decoder + centre - rows).square().sum(-1).mean() / scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = {"W_enc": encoder, "b_enc": bias, "W_dec": decoder, "b_dec": centre}
    return {name: weight.detach().contiguous() for name, weight in weights.items()}


def save_sae(folder: Path, weights: dict[str, Tensor], *, k: int, layer: int, model_name: str) -> None:
    """Write an SAE as SAELens does."""
    d_in, d_sae = weights["W_enc"].shape
    config = {"architecture": "topk", "d_in": d_in, "d_sae": d_sae, "k": k, "dtype": "float32"}
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none"}
    config["metadata"] = {"model_name": model_name, "hook_name": f"blocks.{layer}.hook_resid_post"}

    def fill(made: Path) -> None:
        save_file(weights, made / "sae_weights.safetensors")
        (made / "cfg.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    write_folder_aside(folder, fill)


def main() -> None:
    """Train an SAE and say how well it reconstructs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="organism:sft")
    parser.add_argument("--layer", type=int, default=2)
    parser.add_argument("--traces", default=str(TRACES))
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--steps", type=int, default=500)
    given = parser.parse_args()
    model = load(given.model)
    states = activations(model, read_traces(given.traces, limit=given.limit), given.layer)
    weights = train_sae(states, n_latents=given.latents, k=given.k, steps=given.steps)
    save_sae(given.out, weights, k=given.k, layer=given.layer, model_name=given.model)
    from safekey_interp.models.sae_files import read_sae

    latents = read_sae(given.out).encode(states)
    unexplained = (latents @ weights["W_dec"] + weights["b_dec"] - states).var(0).sum() / states.var(0).sum()
    active = int((latents > 0).any(0).sum())
    print(f"{given.out}: {len(states):,} tokens, {1 - unexplained:.1%} of their variance, {active} latents are used")


if __name__ == "__main__":
    main()
