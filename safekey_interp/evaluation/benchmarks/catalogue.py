"""Which benchmarks have a short name here, which harness runs each, and who made it?

Names of tasks and metrics are those of lm_eval 0.4.13 and inspect_evals 0.26.0. MATH-500 and Minerva's prompts for MATH
are lm_eval's alone (inspect's ``math`` has another model judge the answers); AIME, GPQA Diamond and HumanEval are in
both, and ``-inspect`` asks for the other's. Any other task is ``lm-eval:TASK`` or ``inspect:TASK``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from safekey_interp.errors import InputError

LM_EVAL, INSPECT = "lm-eval", "inspect"
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
_AIME = "AIME {}, Mathematical Association of America"
_GPQA = "Rein et al. 2023, arXiv 2311.12022 (Diamond, 198 questions)"
_HUMANEVAL = "Chen et al. 2021, arXiv 2107.03374 (164 problems)"
_MINERVA = "four worked examples and answer extraction of Lewkowycz et al. 2022, arXiv 2206.14858"

NAMED = (
    Benchmark(
        name="math-500",
        harness=LM_EVAL,
        task="minerva_math500",
        metric="math_verify,none",
        cites=f"Lightman et al. 2023, arXiv 2305.20050, 500 problems of {_MATH}; {_MINERVA}",
        needs=("math-verify",),
    ),
    Benchmark(
        name="minerva",
        harness=LM_EVAL,
        task="minerva_math",
        metric="math_verify,none",
        cites=f"{_MATH}, the whole test set; {_MINERVA}",
        needs=("math-verify",),
    ),
    Benchmark(
        name="aime-2024",
        harness=LM_EVAL,
        task="aime24",
        metric="exact_match,none",
        cites=_AIME.format(2024),
    ),
    Benchmark(
        name="aime-2025",
        harness=LM_EVAL,
        task="aime25",
        metric="exact_match,none",
        cites=_AIME.format(2025),
    ),
    Benchmark(
        name="gpqa",
        harness=LM_EVAL,
        task="gpqa_diamond_cot_zeroshot",
        metric="exact_match,flexible-extract",
        cites=_GPQA,
    ),
    Benchmark(
        name="mmlu-pro",
        harness=LM_EVAL,
        task="mmlu_pro",
        metric="exact_match,custom-extract",
        cites="Wang et al. 2024, arXiv 2406.01574",
    ),
    Benchmark(
        name="humaneval",
        harness=LM_EVAL,
        task="humaneval_instruct",
        metric="pass@1,create_test",
        cites=_HUMANEVAL,
        runs_code=True,
        is_prefilled=True,
    ),
    Benchmark(
        name="aime-2024-inspect",
        harness=INSPECT,
        task="inspect_evals/aime2024",
        metric="accuracy",
        cites=_AIME.format(2024),
        needs=("inspect-evals",),
    ),
    Benchmark(
        name="aime-2025-inspect",
        harness=INSPECT,
        task="inspect_evals/aime2025",
        metric="accuracy",
        cites=_AIME.format(2025),
        needs=("inspect-evals",),
    ),
    Benchmark(
        name="gpqa-inspect",
        harness=INSPECT,
        task="inspect_evals/gpqa_diamond",
        metric="accuracy",
        cites=_GPQA,
        needs=("inspect-evals",),
    ),
    Benchmark(
        name="humaneval-inspect",
        harness=INSPECT,
        task="inspect_evals/humaneval",
        metric="accuracy",
        cites=f"{_HUMANEVAL}, run in docker",
        needs=("inspect-evals",),
        runs_code=True,
    ),
)  # fmt: skip
"""Benchmarks with short names."""
_BY_NAME = {benchmark.name: benchmark for benchmark in NAMED}


def benchmarks_of(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks that are meant.

    Args:
        names: names of :data:`NAMED`, or a harness and one of its tasks: ``lm-eval:gsm8k``.

    Raises:
        InputError: none, one twice, or a name that none of the two harnesses is said to have.
    """
    if isinstance(names, str) or not names:
        raise InputError(f"benchmarks: got {names!r}, expected names such as {NAMED[0].name}")
    found = [_benchmark(name) for name in names]
    for place, benchmark in enumerate(found):
        if benchmark.name in {other.name for other in found[:place]}:
            raise InputError(f"benchmarks: {benchmark.name} is given twice, expected each once")
    return found


def _benchmark(name: str) -> Benchmark:
    if name in _BY_NAME:
        return _BY_NAME[name]
    harness, colon, task = name.partition(":")
    if colon and harness in (LM_EVAL, INSPECT):
        if not _TASK.fullmatch(task):
            raise InputError(f"benchmarks: got {name!r}, expected one task of {harness} after the colon")
        needs = ("inspect-evals",) if task.startswith("inspect_evals/") else ()
        return Benchmark(name=name, harness=harness, task=task, needs=needs, runs_code=None)
    near = get_close_matches(name, _BY_NAME, n=3, cutoff=0.4) or list(_BY_NAME)[:3]
    raise InputError(
        f"benchmarks: {name!r} has no short name here; nearest: {', '.join(near)}; any other task of the harnesses as "
        f"{LM_EVAL}:TASK or {INSPECT}:TASK"
    )
