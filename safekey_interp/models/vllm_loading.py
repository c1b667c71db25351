"""vLLM's offline engine, loaded for generation and for hidden states (extra ``[vllm]``)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from safekey_interp.errors import InputError, ModelError, first_line, install_hint
from safekey_interp.models.checkpoints import Checkpoint


def import_vllm() -> Any:
    """The package.

    Raises:
        InputError: it is missing.
    """
    if find_spec("vllm") is None:
        raise InputError(f"no package vllm, which runs the model; {install_hint('vllm')} on Linux")
    return import_module("vllm")


def start_vllm(
    checkpoint: Checkpoint, *, revision: str | None, dtype: str | None, trust_remote_code: bool, **options: Any
) -> Any:
    """A ``vllm.LLM`` of a checkpoint.

    Args:
        checkpoint: the model.
        revision: branch, tag or commit of a hub checkpoint, and of its tokenizer.
        dtype: the checkpoint's own when None.
        trust_remote_code: run code that comes with a hub model.
        **options: for ``vllm.LLM``.

    Raises:
        ModelError: vLLM cannot load it.
    """
    try:
        return import_vllm().LLM(
            model=checkpoint.location,
            revision=revision,
            tokenizer_revision=revision,
            dtype=dtype or "auto",
            trust_remote_code=trust_remote_code,
            **options,
        )
    except InputError:
        raise
    except Exception as error:
        raise ModelError(f"model {checkpoint.spec}: vLLM cannot load it: {first_line(error)}") from error
