"""Files of sparse autoencoders: SAELens's and Gemma Scope's layouts (``ski.read_sae``).

    FOLDER/cfg.json, FOLDER/sae_weights.safetensors          SAELens, its configurations before and since version 6
    …/layer_12/width_16k/average_l0_82/params.npz            Gemma Scope: JumpReLU; the path says layer and component
    FOLDER/config.json, FOLDER/params.safetensors            Gemma Scope 2

Arrays of ``.npz`` are read without pickles.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from safekey_interp.errors import InputError, first_line
from safekey_interp.models.sparse_autoencoder import WEIGHTS, SparseAutoencoder
from safekey_interp.runs.storage import sha256_of

_FILES = ("sae_weights.safetensors", "params.safetensors", "params.npz")
_CONFIGURATIONS = ("cfg.json", "config.json")
_ARCHITECTURES = {name: name for name in WEIGHTS} | {"jump_relu": "jumprelu"}
_HOOKS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_z": "head",
    # Names of modules, as in Gemma Scope 2.
    "output": "resid_post",
    "self_attn.o_proj.input": "head",
    "post_feedforward_layernorm.output": "mlp_out",
}
"""Components by what follows the layer's number in a hook's name."""
_HOOK = re.compile(r"(?:model\.)?(?:blocks|layers)\.(\d+)\.([\w.]+)")
_GEMMA_SCOPE = {"-res": "hook_resid_post", "-mlp": "hook_mlp_out", "-att": "attn.hook_z"}


def read_sae(path: str | Path) -> SparseAutoencoder:
    """The sparse autoencoder of a file or folder, as SAELens or Gemma Scope publish it.

    Args:
        path: the folder of ``sae_weights.safetensors`` and ``cfg.json``, of ``params.npz`` or of ``params.safetensors``
            and ``config.json``; or the file of weights in it.

    Returns:
        Its encoder, float32, with the layer and component that it reads.

    Raises:
        InputError: no such file; another architecture; weights that are missing or do not fit one another; a layer or
            component that neither the configuration nor the path names.
    """
    file = _weights_file(Path(path).expanduser())
    config = _configuration(file)
    weights = _weights(file)
    architecture = _architecture(config, weights, file)
    needed = WEIGHTS[architecture]
    scales = architecture == "topk" and bool(config.get("rescale_acts_by_decoder_norm"))
    if scales:
        needed = (*needed, "W_dec")
    _check_weights(weights, needed, file)
    layer, site = _place(config, file)
    return SparseAutoencoder(
        name=_name_of(file),
        architecture=architecture,
        layer=layer,
        site=site,
        weights={name: weights[name].float().contiguous() for name in needed},
        k=_k(config, weights["W_enc"].shape[1], file) if architecture == "topk" else None,
        normalisation=_normalisation(config, file),
        subtracts_b_dec=bool(config.get("apply_b_dec_to_input", file.name == _FILES[0])),
        scales_by_decoder=scales,
        sha256=sha256_of(file),
    )


def _name_of(file: Path) -> str:
    """The file's own name, else that of its folder; of Gemma Scope, from the layer on."""
    if file.name not in _FILES:
        return file.stem
    parts = file.resolve().parent.parts
    layers = [number for number, part in enumerate(parts) if part.startswith("layer_")]
    return "/".join(parts[layers[-1] if layers else -1 :])


def _weights_file(path: Path) -> Path:
    expected = f"expected a folder that holds one of {', '.join(_FILES)}, or one of these files"
    if path.is_dir():
        found = [path / name for name in _FILES if (path / name).is_file()]
        if not found:
            raise InputError(f"sae {path}: holds no weights; {expected}")
        return found[0]
    if not path.is_file():
        raise InputError(f"sae {path}: no such file or folder; {expected}")
    return path


def _configuration(file: Path) -> dict[str, Any]:
    """The configuration beside a file of weights, the names of earlier versions as they are now."""
    found = next((file.parent / name for name in _CONFIGURATIONS if (file.parent / name).is_file()), None)
    if found is None:
        return {}
    try:
        config = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{found}: cannot be read ({first_line(error)}); expected the SAE's configuration") from None
    if not isinstance(config, dict):
        raise InputError(f"{found}: got {type(config).__name__}, expected an object with the SAE's configuration")
    metadata = config.get("metadata")
    return config | {name: value for name, value in (metadata if isinstance(metadata, dict) else {}).items() if value}


def _weights(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                tensors = {name: torch.as_tensor(arrays[name]) for name in arrays.files}
        else:
            tensors = load_file(file)
    except (OSError, ValueError, TypeError, SafetensorError, zipfile.BadZipFile) as error:
        raise InputError(
            f"sae {file}: cannot be read ({first_line(error)}); expected arrays of numbers in .safetensors or .npz"
        ) from None
    matrices = {"w_enc": "W_enc", "w_dec": "W_dec"}
    return {matrices.get(name, name): tensor for name, tensor in tensors.items()}


def _architecture(config: dict[str, Any], weights: dict[str, Tensor], file: Path) -> Any:
    """What the configuration names; without one, Gemma Scope's, whose files hold thresholds."""
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    named = str(config.get("architecture") or ("jumprelu" if "threshold" in weights else "standard"))
    if named == "standard" and activation == "topk":
        named = "topk"
    if named not in _ARCHITECTURES or activation not in ("relu", "topk"):
        got = named if named not in _ARCHITECTURES else f"{named} with {activation}"
        raise InputError(
            f"sae {file}: got architecture {got!r}, expected one of {', '.join(WEIGHTS)}; SAELens saves one that was "
            "trained with batch-top-k as jumprelu"
        )
    into, out = (config.get(f"hf_hook_point_{end}") for end in ("in", "out"))
    if into != out or config.get("affine_connection"):
        raise InputError(f"sae {file}: got a transcoder, which reads {into} and writes {out}; expected an autoencoder")
    return _ARCHITECTURES[named]


def _check_weights(weights: dict[str, Tensor], needed: tuple[str, ...], file: Path) -> None:
    missing = [name for name in needed if name not in weights]
    if missing:
        raise InputError(f"sae {file}: holds {', '.join(sorted(weights)) or 'nothing'}; expected {', '.join(needed)}")
    shape = tuple(weights["W_enc"].shape)
    d_in, n = shape if len(shape) == 2 else (0, 0)
    expected = dict.fromkeys(needed, (n,)) | {"W_enc": (d_in, n), "W_dec": (n, d_in), "b_dec": (d_in,)}
    for name in needed:
        if tuple(weights[name].shape) != expected[name] or not d_in:
            raise InputError(
                f"sae {file}: got {name} of shape {tuple(weights[name].shape)}, expected {expected[name]}, as W_enc is "
                f"{shape}, (d_in, latents)"
            )
        if not bool(torch.isfinite(weights[name]).all()):
            raise InputError(f"sae {file}: {name} holds numbers that are not finite; expected finite weights")


def _place(config: dict[str, Any], file: Path) -> tuple[int, str]:
    """Layer and component, from the name of the hook, or from the path of Gemma Scope's files."""
    hook = config.get("hook_name") or config.get("hook_point") or config.get("hf_hook_point_in") or _in_path(file)
    found = _HOOK.fullmatch(str(hook or ""))
    if found is None or found[2] not in _HOOKS:
        got = f"got the hook {hook!r}" if hook else "nothing says what it reads"
        raise InputError(
            f"sae {file}: {got}; expected one such as blocks.12.hook_resid_post, as hook_name in a cfg.json beside it"
        )
    site = _HOOKS[found[2]]
    head = config.get("hook_head_index")
    return int(found[1]), f"{site}.{int(head)}" if site == "head" and head is not None else site


def _in_path(file: Path) -> str | None:
    path = file.resolve().as_posix()
    layer = re.search(r"/layer_(\d+)/", path)
    kind = next((hook for mark, hook in _GEMMA_SCOPE.items() if re.search(rf"gemma-scope[^/]*{mark}\b", path)), None)
    return f"blocks.{layer[1]}.{kind}" if layer and kind else None


def _k(config: dict[str, Any], n_latents: int, file: Path) -> int:
    arguments = config.get("activation_fn_kwargs")
    k = config.get("k", arguments.get("k") if isinstance(arguments, dict) else None)
    if isinstance(k, bool) or not isinstance(k, int) or not 0 < k <= n_latents:
        raise InputError(f"sae {file}: got k {k!r} in its configuration, expected a number from 1 to {n_latents}")
    return k


def _normalisation(config: dict[str, Any], file: Path) -> Any:
    named = config.get("normalize_activations") or "none"
    if named not in ("none", "layer_norm", "constant_norm_rescale"):
        raise InputError(
            f"sae {file}: got normalize_activations {named!r}, expected none, layer_norm or constant_norm_rescale; "
            "fold the factor of its training set into the weights (SAELens: fold_activation_norm_scaling_factor)"
        )
    return named
