"""Benchmark unit: one benchmark of one model, run once, kept whole, and read whenever the table is made.

A unit's folder comes by renaming, so that a killed run has it or not; ``unit.json`` holds its arguments, versions and
seconds, whether it is done, and if not, why, and the hash of every other file of the folder.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from safekey_interp.errors import RunError
from safekey_interp.evaluation.benchmarks.catalogue import Benchmark
from safekey_interp.evaluation.benchmarks.commands import RAW, BenchmarkSettings, call_of
from safekey_interp.evaluation.benchmarks.handover import HarnessModel
from safekey_interp.evaluation.benchmarks.scores import cut_in, scores_in
from safekey_interp.evaluation.benchmarks.subprocesses import run_harness, version_of_harness
from safekey_interp.runs.storage import read_json, write_folder_aside, write_json
from safekey_interp.runs.whole_files import file_hashes

_UNIT = "unit.json"
UNITS = "harness"
"""Folder of the units in that of the run."""
LOG = "log.txt"
"""The end of the harness's output."""


class BenchmarkUnit(NamedTuple):
    """Files and record of one benchmark of one model."""

    folder: Path
    """Where it lies."""
    model: str
    """The model's name."""
    benchmark: Benchmark
    """The benchmark."""

    @classmethod
    def at(cls, run: Path, model: Mapping[str, Any], benchmark: Benchmark) -> BenchmarkUnit:
        """That of a run's folder; ``model`` as ``run.json`` has it."""
        safe = re.sub(r"[^\w.-]+", "-", benchmark.name).strip("-.")
        if safe != benchmark.name:  # two tasks may differ in what no file system takes
            safe = f"{safe[:60]}-{hashlib.sha256(benchmark.name.encode()).hexdigest()[:8]}"
        return cls(folder=run / UNITS / model["folder"] / safe, model=model["name"], benchmark=benchmark)

    @property
    def what(self) -> str:
        """Its name in words."""
        return f"{self.benchmark.name} of {self.model}"

    def done(self) -> dict[str, Any] | None:
        """Its record; None when it is not done, or its files are not as they were written."""
        unit = read_json(self.folder / _UNIT)
        if not isinstance(unit, dict) or unit.get("status") != "done":
            return None
        return unit if unit.get("files") == _hashes(self.folder) else None

    def why_not(self) -> str | None:
        """Why it failed; None when it was never asked to its end."""
        unit = read_json(self.folder / _UNIT)
        return str(unit.get("why") or "its files are not as they were written") if isinstance(unit, dict) else None

    def rows(self, unit: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Its rows of ``benchmarks``; ``unit`` from :meth:`done`."""
        table = []
        for score in scores_in(self.folder / RAW, self.benchmark):
            low, high = score.interval
            about = {"model": self.model, "benchmark": self.benchmark.name, "harness": self.benchmark.harness}
            version = {"seconds": unit["seconds"], "harness_version": unit["harness_version"]}
            table.append(about | score._asdict() | {"low": low, "high": high} | version)
        return table

    def cut(self) -> tuple[str, int, int]:
        """The model, its responses that the largest number of tokens cut, and those of which it is known."""
        return f"{self.model} on {self.benchmark.name}", *cut_in(self.folder / RAW, self.benchmark)

    def ask(
        self,
        model: HarnessModel,
        python: str,
        settings: BenchmarkSettings,
        versions: Mapping[str, str | None],
        *,
        timeout: float | None,
    ) -> None:
        """Run it and keep what the harness wrote, or why it failed.

        Args:
            model: the model.
            python: the interpreter that has the harness.
            settings: how it is asked.
            versions: what that interpreter has.
            timeout: seconds after which it is given up; None for never.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)  # an attempt that failed
        record: dict[str, Any] = {
            "model": model.record(),
            "benchmark": self.benchmark.record(),
            "max_new_tokens": settings.max_new_tokens or model.longest,
            "harness_version": version_of_harness(self.benchmark, versions),
            "versions": dict(versions),
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
        }

        def fill(aside: Path) -> None:
            call = call_of(self.benchmark, model, settings, aside)
            (aside / RAW).mkdir()
            for name, value in call.files.items():
                write_json(aside / name, value)
            start = time.perf_counter()
            why = run_harness(python, call, aside / LOG, timeout=timeout)
            seconds = round(time.perf_counter() - start, 2)
            if not why:
                try:
                    scores_in(aside / RAW, self.benchmark)
                except RunError as error:
                    why = str(error)
            arguments = [word.replace(str(aside), ".") for word in call.arguments]
            outcome = {"status": "failed" if why else "done", "why": why, "seconds": seconds, "arguments": arguments}
            write_json(aside / _UNIT, record | outcome | {"files": _hashes(aside)})

        write_folder_aside(self.folder, fill)


def _hashes(folder: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in file_hashes(folder).items() if name != _UNIT}
