"""Requirements for the figures of the paper's own models: ``paper.yaml`` and its checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from analysis.paper.questions import QUESTIONS
from safekey_interp.data.suites import SUITES
from safekey_interp.errors import InputError

PAPER = Path(__file__).with_name("paper.yaml")
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "models": {"size": str, "base": str, "safekey": str, "parameters_b": (int, float)},
    "data": {"name": str, "file": str, "n": int, "suite": str},
    "questions": {"number": int, "card_hours": (int, float), "memory_gib": (int, float), "needs": str},
}
_PLACES = ("{base}", "{sft}", "{safekey}", "{size}")
_BYTES, _GIB = 2, 2**30


def check(file: Path = PAPER) -> str:
    """Check the plan, and say it in words.

    Raises:
        InputError: a field is missing or of a wrong type, a question is missing, a suite is unknown, the command lacks
            a place, or a model needs more memory than the plan has for it.
    """
    plan = _read(file)
    for part, fields in _FIELDS.items():
        for number, row in enumerate(plan[part], 1):
            for field, kind in fields.items():
                if not isinstance(row, dict) or not isinstance(row.get(field), kind):
                    raise InputError(f"{file.name}: {part}, entry {number}: {field} is missing or of a wrong type")
    numbers = [row["number"] for row in plan["questions"]]
    if numbers != [question.number for question in QUESTIONS]:
        raise InputError(f"{file.name}: questions {numbers}, expected {[question.number for question in QUESTIONS]}")
    for row in plan["data"]:
        if row["suite"] not in SUITES:
            raise InputError(
                f"{file.name}: data, {row['name']}: no suite {row['suite']!r}, expected {', '.join(SUITES)}"
            )
    for place in _PLACES:
        if place not in plan["command"]:
            raise InputError(f"{file.name}: command: no place {place}")
    least = min(row["memory_gib"] for row in plan["questions"])
    for row in plan["models"]:
        weights = row["parameters_b"] * 1e9 * _BYTES / _GIB
        if weights > least:
            raise InputError(f"{file.name}: {row['size']}: {weights:.0f} GiB of weights, the plan has {least} GiB")
    return _in_words(plan)


def _read(file: Path) -> dict[str, Any]:
    try:
        plan = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{file.name}: cannot be read: {' '.join(str(error).split())}") from None
    missing = [part for part in (*_FIELDS, "sft", "command") if not isinstance(plan, dict) or part not in plan]
    if missing:
        raise InputError(f"{file.name}: no {', '.join(missing)}")
    return plan


def _in_words(plan: dict[str, Any]) -> str:
    titles = {question.number: question.title for question in QUESTIONS}
    hours = sum(row["card_hours"] for row in plan["questions"])
    sizes, prompts = len(plan["models"]), sum(row["n"] for row in plan["data"])
    lines = [
        f"paper.yaml is whole: {sizes} sizes, {prompts:,} prompts, about {hours} card-hours a size (estimates, not "
        "measured)."
    ]
    for row in plan["models"]:
        weights = row["parameters_b"] * 1e9 * _BYTES / _GIB
        lines.append(f"  {row['size']:>4}  {row['safekey']} from {row['base']}, {weights:.0f} GiB of weights")
    for row in plan["questions"]:
        lines.append(
            f"  {row['number']}. {titles[row['number']]} {row['card_hours']} h, {row['memory_gib']} GiB: {row['needs']}"
        )
    return "\n".join([*lines, f"  SFT: {plan['sft'].strip()}", f"  {plan['command'].strip()}"])
