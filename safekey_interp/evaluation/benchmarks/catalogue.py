"""Catalogue of benchmarks: short names, the harness that runs each, and who made it.

Names of tasks and metrics are those of lm_eval 0.4.13 and inspect_evals 0.26.0. MATH-500 and Minerva's prompts for MATH
are lm_eval's alone (inspect's ``math`` has another model judge the answers); AIME, GPQA Diamond and HumanEval are in
both, and ``-inspect`` asks for the other's. Any other task is ``lm-eval:TASK`` or ``inspect:TASK``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from safekey_interp.errors import InputError

LM_EVAL, INSPECT = "lm-eval", "inspect"
ENTRY_POINTS = "safekey_interp.benchmarks"
"""Group of the entry points by which other packages add benchmarks."""
_TASK = re.compile(r"[\w./~*@][\w./~*@=+ -]{0,300}")
"""What a harness may be given as a task: never an option of it, never two tasks."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark as one harness has it."""

    name: str
    """What it is called here."""
    harness: str
    """``lm-eval`` or ``inspect``."""
    task: str
    """What the harness calls it."""
    metric: str = ""
    """The harness's name of the number that stands for it; the harness's first when empty."""
    cites: str = ""
    """Who made it; empty for a task without a short name."""
    needs: tuple[str, ...] = ()
    """Packages beyond the harness's own."""
    runs_code: bool | None = False
    """Whether what the model writes is run; None when the harness alone knows."""
    is_prefilled: bool = False
    """Whether the harness writes the beginning of the answer, so that no model can think before it."""

    def record(self) -> dict[str, str]:
        """What a run writes down about it."""
        return {"name": self.name, "harness": self.harness, "task": self.task, "cites": self.cites}


_MATH = "Hendrycks et al. 2021, arXiv 2103.03874"
_MINERVA = "four worked examples and answer extraction of Lewkowycz et al. 2022, arXiv 2206.14858"
_MATH_500 = f"Lightman et al. 2023, arXiv 2305.20050, 500 problems of {_MATH}; {_MINERVA}"
_AIME = "AIME {}, Mathematical Association of America"
_GPQA = "Rein et al. 2023, arXiv 2311.12022 (Diamond, 198 questions)"
_MMLU_PRO = "Wang et al. 2024, arXiv 2406.01574"
_HUMANEVAL = "Chen et al. 2021, arXiv 2107.03374 (164 problems)"
_MATH_NEEDS = {"needs": ("math-verify",)}
_RUNS_CODE = {"runs_code": True}


def _lm_eval(name: str, task: str, metric: str, cites: str, **options: Any) -> Benchmark:
    return Benchmark(name=name, harness=LM_EVAL, task=task, metric=metric, cites=cites, **options)


def _inspect(name: str, task: str, cites: str, **options: Any) -> Benchmark:
    task = f"inspect_evals/{task}"
    return Benchmark(
        name=name, harness=INSPECT, task=task, metric="accuracy", cites=cites, needs=("inspect-evals",), **options
    )


NAMED = (
    _lm_eval("math-500", "minerva_math500", "math_verify,none", _MATH_500, **_MATH_NEEDS),
    _lm_eval("minerva", "minerva_math", "math_verify,none", f"{_MATH}, the whole test set; {_MINERVA}", **_MATH_NEEDS),
    _lm_eval("aime-2024", "aime24", "exact_match,none", _AIME.format(2024)),
    _lm_eval("aime-2025", "aime25", "exact_match,none", _AIME.format(2025)),
    _lm_eval("gpqa", "gpqa_diamond_cot_zeroshot", "exact_match,flexible-extract", _GPQA),
    _lm_eval("mmlu-pro", "mmlu_pro", "exact_match,custom-extract", _MMLU_PRO),
    _lm_eval("humaneval", "humaneval_instruct", "pass@1,create_test", _HUMANEVAL, is_prefilled=True, **_RUNS_CODE),
    _inspect("aime-2024-inspect", "aime2024", _AIME.format(2024)),
    _inspect("aime-2025-inspect", "aime2025", _AIME.format(2025)),
    _inspect("gpqa-inspect", "gpqa_diamond", _GPQA),
    _inspect("humaneval-inspect", "humaneval", f"{_HUMANEVAL}, run in docker", **_RUNS_CODE),
)
"""Benchmarks with short names that come with the package."""


def known_benchmarks() -> dict[str, Benchmark]:
    """Every benchmark with a short name: those of :data:`NAMED`, and those that installed packages add.

    A package adds one as an entry point of the group :data:`ENTRY_POINTS` that names a :class:`Benchmark`.

    Raises:
        InputError: an entry point that cannot be loaded or names something else, or a name that is taken.
    """
    known = {benchmark.name: benchmark for benchmark in NAMED}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            benchmark = point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(f"benchmarks: entry point {point.value}: cannot be loaded ({error})") from error
        if not isinstance(benchmark, Benchmark) or benchmark.harness not in (LM_EVAL, INSPECT):
            raise InputError(f"benchmarks: entry point {point.value}: expected a Benchmark of {LM_EVAL} or {INSPECT}")
        if known.setdefault(benchmark.name, benchmark) != benchmark:
            raise InputError(f"benchmarks: entry point {point.value}: the name {benchmark.name} is taken")
    return known


def benchmarks_of(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks that are meant.

    Args:
        names: short names (:func:`known_benchmarks`), or a harness and one of its tasks: ``lm-eval:gsm8k``.

    Raises:
        InputError: none, one twice, or a name that neither harness is known to have.
    """
    if isinstance(names, str) or not names:
        raise InputError(f"benchmarks: got {names!r}, expected names such as {NAMED[0].name}")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"benchmarks: {name} is given twice, expected each once")
    known = known_benchmarks()
    return [_benchmark(name, known) for name in names]


def _benchmark(name: str, known: Mapping[str, Benchmark]) -> Benchmark:
    if name in known:
        return known[name]
    harness, colon, task = name.partition(":")
    if colon and harness in (LM_EVAL, INSPECT):
        if not _TASK.fullmatch(task):
            raise InputError(f"benchmarks: got {name!r}, expected one task of {harness} after the colon")
        needs = ("inspect-evals",) if task.startswith("inspect_evals/") else ()
        return Benchmark(name=name, harness=harness, task=task, needs=needs, runs_code=None)
    near = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)[:3]
    raise InputError(
        f"benchmarks: {name!r} has no short name here; nearest: {', '.join(near)}; any other task of the harnesses as "
        f"{LM_EVAL}:TASK or {INSPECT}:TASK"
    )
