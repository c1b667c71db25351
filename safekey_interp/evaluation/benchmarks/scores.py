"""Scores of the harnesses, read from their JSON: every type is checked, nothing is trusted.

lm_eval writes ``results[task]["metric,filter"]`` with ``"metric_stderr,filter"`` next to it, groups of tasks among
them; inspect writes ``results.scores``, each with metrics, of which ``stderr`` is that of the mean. An interval is

    value ± t · stderr

from the harness's standard error and Student's t with one degree of freedom less than there are tasks; for a number in
[0, 1] one task of 1 and one of 0 are added (:func:`safekey_interp.measures.intervals.share_from_error`). There is none
without a standard error, with fewer than :data:`~safekey_interp.data.conditions.FEW` tasks, and where the error is 0:
all tasks came out alike, and the harness does not state whether the number is a share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from safekey_interp.data.conditions import FEW
from safekey_interp.display import one_line
from safekey_interp.errors import RunError
from safekey_interp.evaluation.benchmarks.catalogue import LM_EVAL, Benchmark
from safekey_interp.measures.intervals import Interval, share_from_error, student

COLUMNS = (
    *("model", "benchmark", "harness", "task", "metric", "is_main"),
    *("value", "stderr", "low", "high", "n", "seconds", "harness_version"),
)
"""Of ``benchmarks``: one row a number. ``is_main`` marks the headline number of its benchmark; ``n`` counts tasks."""
MOST_BYTES = 4 << 30
"""A file larger than this is no summary of a benchmark."""
_LONGEST_NAME = 200


class Score(NamedTuple):
    """One number of a harness."""

    task: str
    """The harness's name of the task, or of a group of tasks."""
    metric: str
    """The harness's name of the metric."""
    value: float
    """The number."""
    stderr: float
    """Its standard error; NaN where the harness gives none."""
    n: int | None
    """Tasks that were scored; None where the harness does not say."""
    is_main: bool
    """Whether it is the headline number of the benchmark."""

    @property
    def interval(self) -> Interval:
        """95 %, from the standard error; NaN without one."""
        if not self.stderr > 0 or (self.n or 0) < FEW:
            return Interval(math.nan, math.nan)
        if 0 <= self.value <= 1:
            return share_from_error(self.value, self.stderr, self.n or 0)
        half = float(student((self.n or 0) - 1)) * self.stderr
        return Interval(self.value - half, self.value + half)


def scores_in(folder: Path, benchmark: Benchmark) -> list[Score]:
    """The numbers in what a harness has written.

    Args:
        folder: where it wrote.
        benchmark: what it ran.

    Raises:
        RunError: no such file, or one that is not the harness's or holds no number.
    """
    document = _read(_results(folder, benchmark), benchmark)
    scores = list(_of_lm_eval(document) if benchmark.harness == LM_EVAL else _of_inspect(document))
    if not scores:
        raise RunError(f"{benchmark.name}: {_results(folder, benchmark).name} holds no number")
    return _with_main(scores, benchmark, document)


def cut_in(folder: Path, benchmark: Benchmark) -> tuple[int, int]:
    """Responses that the largest number of tokens cut, and those of which it is known: none of lm-eval's, which does
    not say why a response ended.

    Args:
        folder: where the harness wrote.
        benchmark: what it ran.

    Raises:
        RunError: as for :func:`scores_in`.
    """
    if benchmark.harness == LM_EVAL:
        return 0, 0
    samples = _read(_results(folder, benchmark), benchmark).get("samples")
    reasons = [
        choice.get("stop_reason")
        for sample in (samples if isinstance(samples, list) else [])
        if isinstance(sample, dict)
        for choice in (_mapping(sample, "output").get("choices") or [])[:1]
        if isinstance(choice, dict)
    ]
    return sum(reason == "max_tokens" for reason in reasons), sum(isinstance(reason, str) for reason in reasons)


def _results(folder: Path, benchmark: Benchmark) -> Path:
    files = sorted(folder.glob("results_*.json" if benchmark.harness == LM_EVAL else "*.json"))
    if len(files) != 1:
        raise RunError(f"{benchmark.name}: {benchmark.harness} left {len(files)} files of results, expected one")
    return files[0]


def _read(file: Path, benchmark: Benchmark) -> Mapping[str, Any]:
    try:
        if file.is_symlink() or file.stat().st_size > MOST_BYTES:
            raise RunError(f"{benchmark.name}: {file.name} is no file that a harness writes")
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{benchmark.name}: {file.name} is not JSON ({str(error)[:100]})") from error
    if not isinstance(document, dict):
        raise RunError(f"{benchmark.name}: {file.name} holds no object")
    return document


def _of_lm_eval(document: Mapping[str, Any]) -> Iterator[Score]:
    sizes, members = _mapping(document, "n-samples"), _mapping(document, "group_subtasks")
    for task, metrics in _mapping(document, "results").items():
        if not isinstance(metrics, dict):
            continue
        n = _n_of(task, sizes, members, set())
        for key, value in metrics.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not _is_number(value):
                continue
            error = metrics.get(f"{metric}_stderr,{chosen}")
            stderr = float(error) if _is_number(error) else math.nan
            yield Score(_name(task), _name(key.removesuffix(",none")), float(value), stderr, n, False)


def _n_of(task: str, sizes: Mapping[str, Any], members: Mapping[str, Any], seen: set[str]) -> int | None:
    """How many a task or a group of tasks has; a group that holds itself has none."""
    size = sizes.get(task)
    if isinstance(size, dict):
        return _count(size.get("effective"))
    inside = members.get(task)
    if not isinstance(inside, list) or not inside or task in seen:
        return None
    counts = [_n_of(str(name), sizes, members, seen | {task}) for name in inside]
    return None if None in counts else sum(count for count in counts if count is not None)


def _of_inspect(document: Mapping[str, Any]) -> Iterator[Score]:
    if document.get("status") != "success":
        error = _mapping(document, "error").get("message")
        raise RunError(
            f"inspect: ended with {str(document.get('status'))[:40]!r}: {str(error or 'no reason given')[:200]}"
        )
    task = _name(_mapping(document, "eval").get("task"))
    results = _mapping(document, "results")
    scores = results.get("scores")
    listed = [score for score in scores if isinstance(score, dict)] if isinstance(scores, list) else []
    for score in listed:
        told = ((name, metric) for name, metric in _mapping(score, "metrics").items() if isinstance(metric, dict))
        metrics = {name: float(value) for name, metric in told if _is_number(value := metric.get("value"))}
        size = _count(score.get("scored_samples", results.get("completed_samples")))
        for name, value in metrics.items():
            if name == "stderr":
                continue
            stderr = metrics.get("stderr", math.nan) if name in ("accuracy", "mean") else math.nan
            label = name if len(listed) == 1 else f"{score.get('name')}/{name}"
            yield Score(task, _name(label), value, stderr, size, False)


def _with_main(scores: list[Score], benchmark: Benchmark, document: Mapping[str, Any]) -> list[Score]:
    """The same, with the headline number marked: the named metric of the whole task, or the first."""
    wanted = benchmark.metric.removesuffix(",none")
    if not wanted:
        headline = _mapping(_mapping(document, "results"), "headline")
        wanted = f"{headline.get('score')}/{headline.get('metric')}"
    whole = [score for score in scores if score.task == benchmark.task] or scores
    main = next((score for score in whole if score.metric == wanted), whole[0])
    return [score._replace(is_main=score is main) for score in scores]


def _mapping(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _name(value: Any) -> str:
    return one_line(str(value)[:_LONGEST_NAME])
