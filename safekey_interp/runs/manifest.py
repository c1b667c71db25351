"""What was a run: its model, its data, its settings and versions, and which of these make it the same run?

``identity`` decides: a folder is continued when it agrees, whatever the files are called and wherever they lie. Data
are the same when the traces read from them are.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from safekey_interp.version import __version__

_VERSIONS = ("torch", "transformers", "transformer-lens", "numpy", "pandas", "scikit-learn", "tokenizers")
_OF_PLAN = ("chunk",)
_OF_MODEL = ("architecture", "dtype", "attn", "weights_sha256")


def manifest_of(
    model: Mapping[str, Any],
    tokenizer_sha256: str,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    plan: Mapping[str, Any],
    seed: int,
    command: Sequence[str],
) -> dict[str, Any]:
    """Everything that ``run.json`` says when a run begins.

    Args:
        model: its record.
        tokenizer_sha256: hash of its tokenizer.
        data: the source's record, with ``traces_sha256`` and ``n_read``.
        settings: of the run.
        plan: how the work is cut.
        seed: of everything that is drawn.
        command: as it was typed.
    """
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return {
        "safekey_interp": __version__,
        "command": list(command),
        "model": dict(model),
        "data": dict(data),
        "settings": listed,
        "versions": versions_of(_VERSIONS),
        "seed": seed,
        "plan": dict(plan),
        "layers_without_pattern": [],
        "timings": {},
        "identity": {
            "model": {name: model[name] for name in _OF_MODEL}
            | {"device": model["device"].split(":")[0], "tokenizer_sha256": tokenizer_sha256},
            "data": {name: data[name] for name in ("traces_sha256", "n_read")},
            "settings": listed,
            "plan": {name: plan[name] for name in _OF_PLAN if name in plan},
            "seed": seed,
            "version": __version__,
            "libraries": {name: version_of(name) for name in ("torch", "transformers")},
        },
    }


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """Python's version and the packages'; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: version_of(name) for name in packages}


def version_of(package: str) -> str | None:
    """The version that is installed; None for none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def differences(known: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What two identities disagree on, in words."""
    found = []
    for name in sorted({*known, *asked}):
        old, new = known.get(name), asked.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {_short(old)}, now {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
