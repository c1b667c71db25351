"""Models to compare, by name or loaded, and runs whose traces are taken as they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.errors import InputError, RunError
from safekey_interp.models.checkpoints import check_reachable, resolve
from safekey_interp.models.organism import is_organism
from safekey_interp.runs.run_folder import Run, manifest_in

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """One model or run of a comparison."""

    name: str
    """What tables and page call it; unique in a comparison."""
    folder: str
    """Name of its folder; safe for a file system and unique there."""
    given: Model | str | Run
    """A model, what ``load`` reads, or a finished run of ``probe``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``load`` of its own: a revision, an adapter."""
    step: int | None = None
    """The step of training after which it was saved; None outside a series."""

    @property
    def run(self) -> Run | None:
        """The run whose traces are taken as they are; None for a model."""
        return self.given if isinstance(self.given, Run) else None

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse a name that cannot be loaded, before the models that come before it have worked for hours.

        Raises:
            ModelError: nothing of that name can be read.
        """
        if isinstance(self.given, str):
            check_reachable(self.given, {**options, **self.options})

    def model(self, options: Mapping[str, Any]) -> Model:
        """The model, loaded with the options of ``load`` where it is not yet."""
        from safekey_interp.models.model import load

        assert not isinstance(self.given, Run)
        return load(self.given, **{**options, **self.options}) if isinstance(self.given, str) else self.given


def named_models(given: Sequence[Model | str | Path | Run], *, at_least: int = 2) -> list[NamedModel]:
    """Models and runs with names and folders of their own.

    Args:
        given: models, what ``load`` reads, or run folders: that of a probe stands for its traces, that of a training
            run for the model that it trained.
        at_least: how many there must be, one or two.

    Raises:
        InputError: fewer than that, or one of them twice.
        ModelError: a name that can be no model's.
        RunError: a run folder that is not complete, or holds neither probes nor a model.
    """
    if len(given) < at_least:
        least = ("one", "two")[at_least - 1]
        raise InputError(f"models: got {len(given)}, expected at least {least}, by name, folder or run folder")
    return told_apart([read_model(model) for model in given])


def told_apart(read: Sequence[tuple[str, str, Model | str | Run]]) -> list[NamedModel]:
    """Models with names and folders that are unique.

    Args:
        read: of each a short name, a long one that is taken where the short one is not unique, and what it is.

    Raises:
        InputError: one of them twice.
    """
    short = [name for name, _, _ in read]
    names = [full if short.count(name) > 1 else name for name, full, _ in read]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise InputError(f"models: {twice[0]} is given twice, expected each once")
    folders: list[str] = []
    for name in names:
        # Some file systems take names for the same that differ in case alone.
        taken = {folder.casefold() for folder in folders}
        safe = re.sub(r"[^\w.-]+", "-", name)[:80].strip("-.") or "model"
        free = (safe, *(f"{safe}-{number}" for number in range(2, len(names) + 1)))
        folders.append(next(folder for folder in free if folder.casefold() not in taken))
    return [
        NamedModel(name=name, folder=folder, given=model)
        for name, folder, (_, _, model) in zip(names, folders, read, strict=True)
    ]


def read_model(given: Model | str | Path | Run) -> tuple[str, str, Model | str | Run]:
    """A short name, a long one, and what is to be loaded; errors as for :func:`named_models`."""
    if isinstance(given, Run):
        return given.path.resolve().name, str(given.path), given
    if not isinstance(given, str | Path):
        return given.name, given.spec, given
    spec, folder = str(given), Path(given)
    manifest = manifest_in(folder) if folder.is_dir() else None
    if manifest is None:
        resolve(spec)  # before the models that come before it have worked for hours
        return (spec if is_organism(spec) else spec.rstrip("/").rsplit("/", 1)[-1]), spec, spec
    kind, short = manifest.get("kind", "probe"), folder.resolve().name
    if kind not in ("probe", "training"):
        raise RunError(f"run {folder}: of kind {kind!r}, expected a folder that `probe` or `train` wrote, or a model")
    if manifest.get("status") != "complete":
        raise RunError(f"run {folder}: not complete; the command that began it resumes it")
    return short, spec, str(folder / "model") if kind == "training" else Run(folder, manifest)
