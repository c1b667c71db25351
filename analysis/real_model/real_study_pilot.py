"""Pilot of the study of a trained SmolLM2: go or no-go, the learning rate, the control's dose, the log-odds' scale.

By SFT alone on development prompts and wrappers, with a seed of its own. The first setting of ``GRID`` at which SFT's
aha share on harmful requests in unseen development wrappers lies in ``GO``, with U and K found and plain requests told
apart, serves all arms. With none it is a no-go: the setting that came nearest serves, and nothing is tested. The two
runs that ship, by LoRA, have a learning rate of their own, chosen by the same rules. The control's dose is matched as
in :mod:`train.dose_match`, to a quarter. The smallest effect of interest on the log-odds is the smallest shift of all
of SFT's that carries as large a share of the requests across 0 as the primary outcome's.

What a run found is in ``pilot/NAME.json``, with a hash of what it depends on, and is not run again; what ships counts.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.contrast_verdicts import smallest_shift
from analysis.real_model.real_study_choice import Chosen, write_chosen
from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import (
    GO,
    GRID,
    LEAST_FOUND,
    LORA_RATES,
    PILOT_SEED,
    PLAIN,
    PRIMARY,
    Arm,
    Changes,
    Setting,
    Way,
)
from analysis.real_model.real_study_job import Cell, answered, digest_of, log_odds, settings_of, tuned
from analysis.real_model.real_study_results import counted, read_answers
from analysis.study_queue import as_read, digest
from analysis.tables import markdown
from safekey_interp.runs.storage import read_json, write_aside, write_json
from safekey_interp.training.gradient_norms import dose, match_weight

_TOLERANCE = 0.25
_WEIGHT = 0.2


def pilot(study: Study) -> str:
    """Choose; what was chosen, and by what, as Markdown, is also in ``pilot.md``."""
    tried, nearest = _first_go(GRID, study)
    setting, go = Setting(**nearest["setting"]), is_go(nearest)
    adapted, of_adapters = _first_go([Setting(rate, setting.wrapped) for rate in LORA_RATES], study, "LoRA")
    rate = of_adapters["setting"]["rate"]
    weight, of_dose = matched(setting, study)
    chosen = Chosen(setting, go, weight, nearest["smallest"] or math.nan, rate)
    write_chosen(study.out / "chosen.json", chosen)
    said = [
        markdown(_table(tried)),
        f"{'Go' if go else 'No-go: no setting leaves room in both directions; the runs describe, and test nothing'}.",
        f"Learning rate of all arms: {setting.rate:g}; share of wrapped training traces: {setting.wrapped:g}.",
        f"Weight of K at the dose of query-mask modelling: {chosen.dose:g}; it has {of_dose:.2f} of that dose.",
        f"Smallest effect of interest on the log-odds: {chosen.log_odds:.2f} nats.",
        markdown(_table(adapted)),
        f"Learning rate of the two runs that ship, by LoRA: {rate:g}; by the same rules "
        f"{'a' if is_go(of_adapters) else 'no'} go.",
    ]
    text = "\n\n".join(said)
    write_aside(study.out / "pilot.md", lambda aside: aside.write_text(f"{text}\n", encoding="utf-8"))
    return text


def _first_go(
    settings: Iterable[Setting], study: Study, way: Way = "full"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Try settings until one is a go; what was tried, and the go or what came nearest."""
    tried: list[dict[str, Any]] = []
    for setting in settings:
        tried.append(trial(setting, study, way))
        print(f"{setting.name}, {way}: aha share {tried[-1]['wrapped']:.3f}", file=sys.stderr, flush=True)
        if is_go(tried[-1]):
            break
    return tried, min(tried, key=lambda record: (not is_go(record), not is_competent(record), _distance(record)))


def is_competent(record: dict[str, Any]) -> bool:
    """Whether SFT writes U and K, and tells plain requests apart."""
    least, most = PLAIN
    return record["found"] >= LEAST_FOUND and record["plain"] >= least and record["plain_harmless"] <= most


def is_go(record: dict[str, Any]) -> bool:
    """Whether a setting leaves room in both directions."""
    return is_competent(record) and _distance(record) == 0


def _distance(record: dict[str, Any]) -> float:
    low, high = GO
    return max(low - record["wrapped"], record["wrapped"] - high, 0.0)


def trial(setting: Setting, study: Study, way: Way = "full") -> dict[str, Any]:
    """SFT at a setting, asked what development asks."""
    cell, asked = Cell("SFT", PILOT_SEED, way), study.prompts.development

    def ask() -> dict[str, Any]:
        run = tuned(cell, study, _trial(setting))
        table = counted(read_answers(asked, answered(run.model, asked)))
        wrapped = [t for t in asked if t.source == "wrapped" and t.label == "harmful"]
        found = {"setting": setting._asdict()} | shares(table) | _scale(log_odds(run.model, wrapped))
        shutil.rmtree(run.folder)
        return found

    name = setting.name if way == "full" else f"{way}-{setting.name}"
    return _kept(study.out / "pilot" / f"{name}.json", _depends_on(cell, (setting, study)), ask)


def _kept(file: Path, depends_on: dict[str, Any], find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run found, by its file where that is of the same settings and data, else by the run."""
    identity = digest(as_read(depends_on))
    record = read_json(file)
    if record is None or record.get("identity") != identity:
        found = find()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"identity": identity} | found)
    return read_json(file)


def _depends_on(cell: Cell, of: tuple[Setting, Study], changes: Changes | None = None) -> dict[str, Any]:
    setting, study = of
    return {
        "settings": settings_of(cell, _trial(setting), changes),
        "traces": digest_of(study.traces(setting)),
        "requests": digest_of(study.prompts.development),
    }


def shares(table: Any) -> dict[str, float]:
    """What the rules of the go read, of development answers."""
    harmful, wrapped = table["label"] == "harmful", table["source"] == "wrapped"
    return {
        "wrapped": float(table.loc[harmful & wrapped, "safe"].mean()),
        "wrapped_harmless": float(table.loc[~harmful & wrapped, "safe"].mean()),
        "plain": float(table.loc[harmful & ~wrapped, "safe"].mean()),
        "plain_harmless": float(table.loc[~harmful & ~wrapped, "safe"].mean()),
        "found": float(table["found"].mean()),
    }


def _scale(odds: list[float]) -> dict[str, float]:
    """Mean log-odds, and the effect on them that goes with the primary outcome's smallest."""
    return {"log_odds": float(pd.Series(odds).mean()), "smallest": smallest_shift(odds, PRIMARY.smallest)}


def matched(setting: Setting, study: Study) -> tuple[float, float]:
    """The weight of K at which its gradients add up to those of query-mask modelling, and its dose over theirs."""
    target = _dose_of("QMM", "query_mask", _WEIGHT, (setting, study))
    found = match_weight(
        lambda weight: _dose_of("kw matched", "key", weight, (setting, study)),
        target,
        start=_WEIGHT,
        tolerance=_TOLERANCE,
    )
    return float(f"{found[-1].weight:.3g}"), found[-1].dose / target


def _dose_of(arm: Arm, term: str, weight: float, of: tuple[Setting, Study]) -> float:
    setting, study = of
    changes: Changes = {"log_gradient_norms_every": 8} | ({"key_weight": weight} if term == "key" else {})
    cell = Cell(arm, PILOT_SEED)

    def weigh() -> dict[str, Any]:
        run = tuned(cell, study, _trial(setting), changes)
        shutil.rmtree(run.folder)
        counts = {"steps": run.steps, "first": run.auxiliary_from}
        return {"weight": weight, "dose": dose(run.gradient_norms, term, weight=weight, **counts)}

    file = study.out / "pilot" / f"dose-{setting.name}-{term}-{weight:.6g}.json"
    return _kept(file, _depends_on(cell, of, changes), weigh)["dose"]


def _trial(setting: Setting) -> Chosen:
    """A setting before anything else is known."""
    return Chosen(setting, False, _WEIGHT, math.nan, setting.rate)


def _table(tried: list[dict[str, Any]]) -> pd.DataFrame:
    """A line a setting."""
    of = {
        "aha share, harmful, development wrappers": "wrapped",
        "harmless, the same wrappers": "wrapped_harmless",
        "plain harmful": "plain",
        "plain harmless": "plain_harmless",
        "U and K found": "found",
        "log-odds": "log_odds",
    }
    lines = []
    for record in tried:
        about = {"rate": f"{record['setting']['rate']:g}", "wrapped": f"{record['setting']['wrapped']:g}"}
        values = {name: f"{record[key]:.3f}" for name, key in of.items()}
        lines.append(about | values | {"go": "yes" if is_go(record) else "no"})
    return pd.DataFrame(lines)
