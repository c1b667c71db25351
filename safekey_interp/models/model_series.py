"""Series of checkpoints of one training: the models that a pattern of folders or a list of revisions names, by step.

    'run/checkpoint-*'           folders of checkpoints, of transformers' Trainer, of `train` or of anything else that
                                 saves models; one of an adapter alone stands for its base model with it merged
    owner/name@step512,step1000  revisions of a hub model

The step of a folder is ``global_step`` of its ``trainer_state.json``, else that of its name, as it is of a revision:
the number behind ``step``, ``checkpoint``, ``ckpt`` or ``iter``, or the only number there is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safekey_interp.errors import InputError, ModelError
from safekey_interp.models.checkpoints import resolve
from safekey_interp.models.model_list import NamedModel, named_models, read_model, told_apart
from safekey_interp.runs.storage import read_json

if TYPE_CHECKING:
    from safekey_interp.models.model import Model
    from safekey_interp.runs.run_folder import Run

TRAINER_STATE, ADAPTER_CONFIG = "trainer_state.json", "adapter_config.json"
_REVISIONS = re.compile(r"([\w.-]+(?:/[\w.-]+)?)@([\w./-]+(?:,[\w./-]+)*)")
_NUMBERED = re.compile(r"(?:step|checkpoint|ckpt|iter(?:ation)?)s?[-_=]?(\d+)", re.IGNORECASE)
_NAMES = "expected names such as checkpoint-500 or step500"


class _Member(NamedTuple):
    """One checkpoint of a series."""

    step: int
    name: str
    long_name: str
    spec: str
    options: dict[str, Any]


def compared_models(
    models: Sequence[Model | str | Path | Run], series: str | None = None, *, at_least: int = 2
) -> list[NamedModel]:
    """The models of a comparison: those of a series, where one is named, else as they are given.

    Args:
        models: as for :func:`~safekey_interp.models.model_list.named_models`; beside a series, its base.
        series: as for :func:`series_models`.
        at_least: how many there must be without a series.

    Raises:
        SafekeyError: as for both.
    """
    return named_models(models, at_least=at_least) if series is None else series_models(series, models)


def series_models(series: str, base: Sequence[Model | str | Path | Run] = ()) -> list[NamedModel]:
    """The models of a series in the order of their steps.

    Args:
        series: a pattern of folders, or ``owner/name@revision,revision``.
        base: the model before training, at step 0; at most one.

    Raises:
        InputError: no folder, a checkpoint without a step, two of one step, fewer than two models, or several bases.
        ModelError: a folder that holds no model.
        RunError: a base whose run folder is not complete.
    """
    if len(base) > 1:
        raise InputError(
            f"series {series}: got {len(base)} models beside it, expected at most one, the base at step 0; quote the "
            "pattern, so that the shell does not expand it"
        )
    members = sorted(_members(series), key=lambda member: member.step)
    steps, read = [0] * len(base), [read_model(model) for model in base]
    for member in members:
        if steps and steps[-1] == member.step:
            before = read[-1][1]
            raise InputError(f"series {series}: {before} and {member.long_name} are both of step {member.step}, "
                             "expected one model a step")  # fmt: skip
        steps.append(member.step)
        read.append((member.name, member.long_name, member.spec))
    if len(read) < 2:
        raise InputError(f"series {series}: one checkpoint, {read[0][1]}, expected at least two, or one and its base")
    own: list[dict[str, Any]] = [{}] * len(base) + [member.options for member in members]
    return [
        replace(side, step=step, options=options)
        for side, step, options in zip(told_apart(read), steps, own, strict=True)
    ]


def _members(series: str) -> list[_Member]:
    listed = None if has_magic(series) or Path(series).exists() else _REVISIONS.fullmatch(series)
    if listed is not None:
        repository, revisions = listed[1], listed[2].split(",")
        short = repository.rpartition("/")[2]
        resolve(repository)
        return [
            _Member(_step_in(revision, series), f"{short}@{revision}", f"{repository}@{revision}", repository,
                    {"revision": revision})
            for revision in revisions
        ]  # fmt: skip
    found = glob(str(Path(series).expanduser()), recursive=True) if series else []
    folders = [Path(name) for name in found if Path(name).is_dir()]
    if not folders:
        raise InputError(
            f"series {series}: no such folder, expected a pattern of checkpoint folders, such as 'run/checkpoint-*', "
            "or revisions of a hub model as owner/name@step500,step1000"
        )
    return [_of_folder(folder, series) for folder in folders]


def _of_folder(folder: Path, series: str) -> _Member:
    spec, options = str(folder), {}
    adapter = read_json(folder / ADAPTER_CONFIG)
    if isinstance(adapter, dict) and not (folder / "config.json").is_file():
        base = adapter.get("base_model_name_or_path")
        if not base:
            raise ModelError(
                f"adapter {folder}: {ADAPTER_CONFIG} names no base model, expected base_model_name_or_path"
            )
        spec, options = str(base), {"adapter": str(folder)}
    resolve(spec)
    state = read_json(folder / TRAINER_STATE)
    step = state.get("global_step") if isinstance(state, dict) else None
    step = step if isinstance(step, int) else _step_in(folder.resolve().name, series)
    return _Member(step, folder.resolve().name, str(folder), spec, options)


def _step_in(name: str, series: str) -> int:
    numbers = _NUMBERED.findall(name) or re.findall(r"\d+", name)
    if not numbers or (len(numbers) > 1 and not _NUMBERED.search(name)):
        raise InputError(f"series {series}: no step in the name {name!r} and no {TRAINER_STATE} with one; {_NAMES}")
    return int(numbers[0])
