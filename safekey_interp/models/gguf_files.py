"""Dequantisation of GGUF files into folders that ``from_pretrained`` reads.

A file is dequantised once and kept as safetensors in the cache folder (``$SAFEKEY_CACHE``, else the user's cache
folder), under a name made from the file's own hash.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safekey_interp.errors import ModelError, first_line
from safekey_interp.runs.storage import cache_folder, sha256_of, try_writing, write_folder_aside


def dequantised(file: Path) -> Path:
    """The folder of a GGUF file's dequantised copy, made when it is not there yet.

    Raises:
        ModelError: the package gguf is missing, the cache cannot be written, or the file is broken.
    """
    digest = sha256_of(file)
    folder = cache_folder() / "models" / f"{file.stem}-{digest[:16]}"
    if (folder / "config.json").is_file():
        return folder
    if find_spec("gguf") is None:
        raise ModelError(f"model {file.name}: reading GGUF needs the package gguf; pip install --no-deps gguf")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try_writing(folder.parent)
    except OSError as error:
        raise ModelError(
            f"model {file.name}: the cache {folder.parent} cannot be written ({error.strerror}), where its dequantised "
            "copy belongs; set SAFEKEY_CACHE to another folder"
        ) from error
    plain, tokenizer = _from_gguf(file)

    def save(aside: Path) -> None:
        plain.save_pretrained(aside)
        tokenizer.save_pretrained(aside)

    try:
        write_folder_aside(folder, save)
    except Exception as error:
        # Another process may have converted it meanwhile; its copy is the same.
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"model {file.name}: its copy cannot be written to {folder}: {first_line(error)}"
            ) from error
    return folder


def _from_gguf(file: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
        read, info = loaded
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # the reader meets whatever bytes the file holds
        raise ModelError(f"model {file}: not a GGUF file that transformers reads: {first_line(error)}") from error
    refuse_missing(str(file), info)
    # The model read from GGUF carries a quantizer that refuses to be saved; a plain one with the same weights does not.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(read)(config)
    plain.load_state_dict(read.state_dict())
    return plain, tokenizer


def refuse_missing(spec: str, info: Any) -> None:
    """Refuse weights that lack a tensor, which transformers would make up.

    Args:
        spec: the model, for the message.
        info: the loading information of ``from_pretrained``.

    Raises:
        ModelError: a tensor is missing.
    """
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"model {spec}: the weights hold no {missing[0]}"
            + (f" and {len(missing) - 1} tensors more" if len(missing) > 1 else "")
            + ", which would be random; expected the whole causal model"
        )
