"""Model as a harness needs it: the place and hash of its weights, and the marks of its reasoning.

A model marks its reasoning as one of :data:`~safekey_interp.data.reasoning_marks.FAMILIES` when its chat
template or its vocabulary holds the family's last mark. Harnesses decode without special tokens, and a mark that is one
is gone by then, so its id is kept with its text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safekey_interp.data.reasoning_marks import FAMILIES, Family
from safekey_interp.errors import InputError, ModelError, RunError
from safekey_interp.models.checkpoints import hub_answers, read_tokenizer, resolve
from safekey_interp.models.model_list import NamedModel
from safekey_interp.models.unknown_tokens import UnknownTokens
from safekey_interp.runs.storage import sha256_of

LONGEST = 32_768
"""Most new tokens by default: what reasoning models are reported with (DeepSeek-R1, arXiv 2501.12948)."""
_LEFT_FOR_ANSWERS = 0.8
"""Share of the context that an answer may take, so that the rest holds the prompt."""
_USUAL_CONTEXT = 4_096
_ENGLISH = "Answer the following question about the world. Think step by step, and give your reasons first."
"""What stands for the texts of benchmarks, which the harnesses alone read."""


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """How a model marks its reasoning; ``closing`` is empty for one that does not reason in marks."""

    opening: str = ""
    """Mark before the reasoning."""
    closing: str = ""
    """The last mark before the answer."""
    closing_id: int | None = None
    """Its last token, where that is a special one, which decoding drops."""
    has_template: bool = False
    """Whether the tokenizer has a chat template."""
    has_switch: bool = False
    """Whether the template reads ``enable_thinking``."""

    def record(self) -> dict[str, Any]:
        """What a run writes down about it."""
        return {
            "marks": [self.opening, self.closing] if self.closing else [],
            "closing_id": self.closing_id,
            "chat_template": self.has_template,
            "switch": self.has_switch,
        }


@dataclass(frozen=True, kw_only=True)
class HarnessModel:
    """One model as a harness gets it."""

    name: str
    """What tables and page call it."""
    folder: str
    """Name of its folder of results."""
    spec: str
    """What the user gave."""
    location: str
    """A hub id, or the whole path of a folder."""
    fingerprint: str
    """Hash of the folder's weights, configuration and tokenizer; the commit of a hub model."""
    longest: int
    """Most new tokens that leave room for a prompt."""
    thinking: Thinking
    """How it marks its reasoning."""

    def record(self) -> dict[str, Any]:
        """Its record in ``run.json``."""
        about = {"name": self.name, "folder": self.folder, "spec": self.spec, "fingerprint": self.fingerprint}
        return about | {"longest_answer": self.longest, "thinking": self.thinking.record()}


def for_harness(
    side: NamedModel, *, delimiters: tuple[str, str] | None, trust_remote_code: bool, allow_unknown: bool = False
) -> HarnessModel:
    """What a harness needs to know of a model; its weights are not loaded.

    Args:
        side: the model, from :func:`~safekey_interp.models.model_list.named_models`.
        delimiters: marks of its reasoning; the known families' when None.
        trust_remote_code: whether code that comes with a hub model may run.
        allow_unknown: whether its tokenizer may lack the words of the benchmarks, which are English.

    Raises:
        InputError: a model that is in memory alone, or whose tokenizer does not know English.
        ModelError: no such model, no tokenizer, or a folder with pickled weights alone.
        RunError: a run of ``probe``, which holds no model.
    """
    if side.run is not None:
        raise RunError(
            f"run {side.run.path}: holds traces and no model; give the model, or a folder that `train` wrote"
        )
    if not isinstance(side.given, str):
        raise InputError(
            f"models: {side.name} is in memory, where no harness can read it; give its name, or save it with "
            "save_pretrained and give the folder"
        )
    checkpoint = resolve(side.given)
    location = str(Path(checkpoint.location).resolve()) if checkpoint.is_local else checkpoint.location
    if checkpoint.is_local and not any(Path(location).glob("*.safetensors")):
        raise ModelError(
            f"model {side.given}: the folder holds *.bin alone, which are pickles and can run code; expected "
            "*.safetensors; save it again with save_pretrained"
        )
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if not checkpoint.is_local and not hub_answers():
        options["local_files_only"] = True
    tokenizer = read_tokenizer(checkpoint, options)
    unknown = UnknownTokens(tokenizer)
    unknown.add(_ENGLISH)
    unknown.check(side.name, allowed=allow_unknown)
    config = _config(checkpoint.spec, location, options)
    return HarnessModel(
        name=side.name,
        folder=side.folder,
        spec=side.given,
        location=location,
        fingerprint=_of_folder(Path(location)) if checkpoint.is_local else str(getattr(config, "_commit_hash", None)),
        longest=_longest(config),
        thinking=thinking_of(tokenizer, delimiters),
    )


def thinking_of(tokenizer: Any, delimiters: tuple[str, str] | None = None) -> Thinking:
    """How a tokenizer's model marks its reasoning.

    Args:
        tokenizer: of transformers.
        delimiters: the marks; looked for when None.
    """
    template = tokenizer.chat_template or ""
    # Several templates under one name each: the harnesses use the default one.
    template = template.get("default", "") if isinstance(template, dict) else template
    vocabulary = tokenizer.get_vocab()
    about: Any = {"has_template": bool(template), "has_switch": "enable_thinking" in template}
    known = (family for family in FAMILIES if _mark(family) in template or _mark(family) in vocabulary)
    family = Family("given", *delimiters) if delimiters else next(known, None)
    if family is None:
        return Thinking(**about)
    ids = tokenizer.encode(_mark(family), add_special_tokens=False)
    added = tokenizer.added_tokens_decoder
    last = ids[-1] if ids and ids[-1] in added and added[ids[-1]].special else None
    return Thinking(opening=family.opening, closing=_mark(family), closing_id=last, **about)


def _mark(family: Family) -> str:
    """The last mark before the answer: a family that marks its answers closes other messages as it closes reasoning."""
    return family.answer or family.closing


def _config(spec: str, location: str, options: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(location, **options)
    except Exception as error:
        raise ModelError(f"model {spec}: no usable config.json: {str(error).strip().splitlines()[0]}") from error


def _longest(config: Any) -> int:
    """As many new tokens as leave a fifth of the context for the prompt, and no more than :data:`LONGEST`."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    named = (getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx"))
    context = next((value for value in named if isinstance(value, int)), _USUAL_CONTEXT)
    return max(1, min(LONGEST, int(context * _LEFT_FOR_ANSWERS)))


def _of_folder(folder: Path) -> str:
    """Hash of everything in a saved model that decides what it answers."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".jinja", ".model"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()
