"""Adapters ``smollm2:sft`` and ``smollm2:safekey``: two LoRA runs of the study, made on this machine or shipped.

They ship in the repository and not in the wheel, which they would double.

Both are runs of the study's own arms (SFT, and both losses): the same traces in the same order, the same seed, epochs
and schedule of the losses, with LoRA in the place of full fine-tuning. Their answers stand in the study's tables beside
the full runs', and are no part of its tests. At half precision, so that two are 5 MB.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import SEEDS, SHIPPED
from analysis.real_model.real_study_job import Cell, is_done, tuned
from safekey_interp.errors import InputError
from safekey_interp.models.smollm2_adapters import SHIPPED as FOLDER
from safekey_interp.models.smollm2_adapters import cached_adapter
from safekey_interp.runs.storage import write_folder_aside

MOST_BYTES = 6_000_000
"""Of both adapters together."""
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def make_adapter(name: str, study: Study) -> Path:
    """Put an adapter into the cache folder: the one that ships, that of the cell that is done, else of a training.

    Args:
        name: ``sft`` or ``safekey``.
        study: its folder of runs holds the pilot's choice.
    """
    cell = Cell(SHIPPED[name], SEEDS[0], "LoRA")
    target = cached_adapter(f"smollm2:{name}")
    if is_shipped(name):
        copy_adapter(FOLDER / name, target)
        return target
    if is_done(cell, study):
        copy_adapter(study.out / "cells" / cell.name / "model", target)
        return target
    trained = tuned(cell, study, study.chosen)
    saved = trained.folder / "adapter"
    shutil.rmtree(saved, ignore_errors=True)
    trained.save(saved)
    copy_adapter(saved, target)
    shutil.rmtree(trained.folder)
    return target


def is_shipped(name: str) -> bool:
    """Whether an adapter ships."""
    return (FOLDER / name / _CONFIG).is_file()


def ship_adapters(study: Study, folder: Path = FOLDER) -> int:
    """Put both adapters into the repository, of cells that are done; their bytes together.

    Raises:
        InputError: a cell is not done, or they are too large; nothing is written then.
    """
    sources = {name: Cell(arm, SEEDS[0], "LoRA") for name, arm in SHIPPED.items()}
    for cell in sources.values():
        if not is_done(cell, study):
            raise InputError(f"{study.out}: {cell.name} is not done; `--run` makes it")
    aside = study.out / "adapters"
    for name, cell in sources.items():
        copy_adapter(study.out / "cells" / cell.name / "model", aside / name)
    size = sum(file.stat().st_size for file in aside.rglob("*") if file.is_file())
    if size > MOST_BYTES:
        raise InputError(f"{aside}: {size:,} bytes, expected at most {MOST_BYTES:,}")
    for name in sources:
        copy_adapter(aside / name, folder / name)  # whole: a configuration without weights would pass for an adapter
    return size


def copy_adapter(source: Path, target: Path) -> None:
    """Write an adapter at half precision, without the name of a folder of this machine."""
    from safetensors.torch import load_file, save_file

    def fill(aside: Path) -> None:
        save_file({name: tensor.half() for name, tensor in load_file(source / _WEIGHTS).items()}, aside / _WEIGHTS)
        config = json.loads((source / _CONFIG).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = "smollm2"
        (aside / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_folder_aside(target, fill)
