"""Manifest of a run, ``run.json``: its model, data, settings and versions.

``identity`` decides whether two runs are the same: a folder is resumed when it agrees, whatever the files are called
and wherever they lie. Data are the same when the traces read from them are.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from safekey_interp.version import __version__

_VERSIONS = ("torch", "transformers", "transformer-lens", "numpy", "pandas", "scikit-learn", "tokenizers")
_OF_PLAN = ("chunk",)
_OF_MODEL = ("architecture", "dtype", "attn", "weights_sha256")


class Difference(NamedTuple):
    """A value in which two identities disagree."""

    path: tuple[str, ...]
    """The names that lead to it."""
    known: Any
    """In the first identity; None where it is absent."""
    asked: Any
    """In the second."""

    @property
    def name(self) -> str:
        """The names that lead to it, joined by dots."""
        return ".".join(self.path)


def new_manifest(
    command: Sequence[str], settings: Mapping[str, Any], seed: int, *, identity: Mapping[str, Any], **about: Any
) -> dict[str, Any]:
    """The content of ``run.json`` when a run begins.

    Args:
        command: as it was typed.
        settings: of the run.
        seed: of every draw.
        identity: what makes it the same run, besides settings and version.
        **about: everything else.
    """
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return {
        "safekey_interp": __version__,
        "command": list(command),
        **about,
        "settings": plain,
        "seed": seed,
        "timings": {},
        "identity": {**identity, "settings": plain, "version": __version__},
    }


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
    """The content of ``run.json`` when a run of one model begins.

    Args:
        model: its record.
        tokenizer_sha256: hash of its tokenizer.
        data: the source's record, with ``traces_sha256`` and ``n_read``.
        settings: of the run.
        plan: how the work is cut.
        seed: of every draw.
        command: as it was typed.
    """
    identity = {
        "model": {name: model[name] for name in _OF_MODEL}
        | {"device": model["device"].split(":")[0], "tokenizer_sha256": tokenizer_sha256},
        "data": {name: data[name] for name in ("traces_sha256", "n_read")},
        "plan": {name: plan[name] for name in _OF_PLAN if name in plan},
        "seed": seed,
        "libraries": {name: version_of(name) for name in ("torch", "transformers")},
    }
    about = {"model": dict(model), "data": dict(data), "versions": versions_of(_VERSIONS), "plan": dict(plan)}
    return new_manifest(command, settings, seed, identity=identity, **about, layers_without_pattern=[])


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """Python's version and the packages'; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: version_of(name) for name in packages}


def version_of(package: str) -> str | None:
    """The version that is installed; None for none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def differences(known: Mapping[str, Any], asked: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[Difference]:
    """The values in which two identities disagree; ``path`` leads to both."""
    changed = []
    for name in sorted({*known, *asked}):
        old, new = known.get(name), asked.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed += differences(old, new, (*path, name))
        elif old != new:
            changed.append(Difference((*path, name), old, new))
    return changed


def describe_changes(changed: Sequence[Difference]) -> str:
    """The first three differences, each as ``name was 1, now 2``."""
    return "; ".join(f"{one.name} was {shortened(one.known)}, now {shortened(one.asked)}" for one in changed[:3])


def shortened(value: Any) -> str:
    """A value in at most 40 characters."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
