"""Run of benchmarks by their harnesses. One benchmark of one model is one unit, which is asked once and kept.

    harness/MODEL/BENCHMARK/raw/         what the harness wrote, as it wrote it
    harness/MODEL/BENCHMARK/log.txt      the end of its output
    harness/MODEL/BENCHMARK/unit.json    its arguments, versions and seconds, whether it is done, and if not, why
    benchmarks                           one row a number

A resumed run asks nothing again that was done; what failed is asked again when the same command is given again, and
models and benchmarks may be added later. In the folder of a finished comparison the run lies in ``benchmarks``, and the
comparison's page shows its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.pass_cost import CostElsewhere
from safekey_interp.errors import InputError, RunError
from safekey_interp.evaluation.benchmarks.catalogue import Benchmark, benchmarks_of
from safekey_interp.evaluation.benchmarks.commands import BenchmarkSettings, check_call
from safekey_interp.evaluation.benchmarks.handover import HarnessModel, for_harness
from safekey_interp.evaluation.benchmarks.scores import COLUMNS
from safekey_interp.evaluation.benchmarks.subprocesses import interpreter, versions_in
from safekey_interp.evaluation.benchmarks.units import LOG, UNITS, BenchmarkUnit
from safekey_interp.models.model_list import NamedModel, named_models
from safekey_interp.progress import Progress
from safekey_interp.reporting.findings.benchmark_findings import tell
from safekey_interp.reporting.findings.effect_size import smallest_effects
from safekey_interp.reporting.findings.summary_lines import cut
from safekey_interp.runs.manifest import new_manifest
from safekey_interp.runs.processes import Team
from safekey_interp.runs.run_folder import Run, manifest_in
from safekey_interp.runs.run_session import run_session
from safekey_interp.runs.run_writer import RunWriter
from safekey_interp.runs.storage import remove_leftovers, write_json, write_table

if TYPE_CHECKING:
    import pandas as pd

KIND = "benchmarks"
INSIDE = "benchmarks"
"""Folder of the run in that of a comparison."""


def run_benchmarks(
    models: Sequence[str | Path],
    benchmarks: Sequence[str],
    *,
    out: str | Path,
    settings: BenchmarkSettings | None = None,
    python: str | None = None,
    timeout: float | None = None,
    allow_unknown: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Have lm-evaluation-harness and inspect run benchmarks on models, and collect their numbers into one table.

    Args:
        models: what ``load`` reads, or folders of training runs.
        benchmarks: names of :data:`~safekey_interp.evaluation.benchmarks.catalogue.NAMED`, or ``lm-eval:TASK``,
            ``inspect:TASK``.
        out: the run folder; one of the same settings is resumed. That of a finished comparison of some of the models
            keeps the run in its folder ``benchmarks``.
        settings: how benchmarks are asked; greedily, with thinking, when None.
        python: the interpreter of the environment that has the harnesses; this one when None.
        timeout: seconds after which a benchmark of a model is given up; None for never.
        allow_unknown: accept models whose tokenizer does not know English, which benchmarks are written in.
        overwrite: delete a run of benchmarks that is there.
        command: what the user typed, for the record.
        progress: shows how far the run is; bars in a notebook, and nothing elsewhere, when None.

    Returns:
        The run: ``run.benchmarks``; what failed is in ``run.findings["left_out"]``.

    Raises:
        InputError: a benchmark without a name here, code that may not be run, a missing package, a model in memory.
        ModelError: no such model.
        RunError: a folder that cannot be used, or nothing succeeded.
    """
    how, wanted = settings or BenchmarkSettings(), benchmarks_of(benchmarks)
    path, sides = _placed(Path(out), named_models(models, at_least=1))
    # The harnesses share no work, so that one process is the whole run.
    with run_session(path, overwrite=overwrite, progress=progress, processes=Team(0, 1)) as session:
        known = None if overwrite else manifest_in(path)
        executable = interpreter(python)
        session.progress.stage("reading", None)
        options: Any = {"delimiters": how.delimiters, "trust_remote_code": how.trust_remote_code}
        options["allow_unknown"] = allow_unknown
        handed = [for_harness(side, **options) for side in sides]
        _check_same_models(path, known, handed)
        units = [(model, BenchmarkUnit.at(path, model.record(), benchmark)) for model in handed for benchmark in wanted]
        for model, unit in units:
            check_call(unit.benchmark, model, how)
        # Before the lock and the first change of the folder: what is missing leaves nothing.
        asked = [(model, unit) for model, unit in units if overwrite or unit.done() is None]
        needed = [unit.benchmark for _, unit in asked]
        versions = versions_in(executable, needed, is_named=python is not None) if asked else {}
        session.progress.starts(lambda: CostElsewhere(len(asked), "benchmarks by harnesses"))
        empty: dict[str, Any] = {"models": [], "benchmarks": [], "versions": {}}
        manifest = new_manifest(command, how.record(), how.seed, identity={"kind": KIND}, kind=KIND, **empty)
        with session.writing(manifest) as writer:
            if asked or not writer.is_complete:
                _join(writer, handed, wanted, versions, command)
                for model in handed:
                    remove_leftovers(path / UNITS / model.folder)
                for model, unit in asked:
                    session.progress.stage(f"{model.name[-12:]}: {unit.benchmark.name}", None)
                    unit.ask(model, executable, how, versions, timeout=timeout)
                _assemble(writer)
            if not any(unit.done() for _, unit in units):
                first = units[0][1]
                raise RunError(
                    f"out {path}: no benchmark succeeded; {first.what}: {first.why_not()}; the end of its output is in "
                    f"{first.folder / LOG}"
                )
        return session.result()


def _placed(out: Path, sides: list[NamedModel]) -> tuple[Path, list[NamedModel]]:
    """The run's folder, and the models as the comparison there calls them.

    Raises:
        InputError: two models that are one in the comparison.
        RunError: another kind of run, or a comparison of other models or that is not finished.
    """
    manifest = manifest_in(out)
    kind = KIND if manifest is None else manifest.get("kind", "probe")
    if manifest is None or kind == KIND:
        return out, sides
    if kind != "comparison":
        raise RunError(
            f"out {out}: a run of kind {kind!r}, expected a new folder, one that `eval` wrote, or a finished comparison"
        )
    if manifest.get("status") != "complete":
        raise RunError(f"out {out}: not complete; the command that began it resumes it")
    known = [((one.get("model") or {}).get("spec"), str(one.get("name"))) for one in manifest.get("models") or []]
    named = [
        next((name for spec, name in known if isinstance(spec, str) and _same(spec, side.given)), None)
        for side in sides
    ]
    if not any(named):
        raise RunError(
            f"out {out}: a comparison of {', '.join(name for _, name in known)}, none of which is given; choose "
            "another folder"
        )
    placed = [side if name is None else replace(side, name=name) for side, name in zip(sides, named, strict=True)]
    if len({side.name for side in placed}) < len(placed):
        raise InputError(f"models: {next(filter(None, named))} is given twice, expected each once")
    return out / INSIDE, placed


def _check_same_models(path: Path, known: Mapping[str, Any] | None, models: Sequence[HarnessModel]) -> None:
    """Refuse a model that has the name of another one whose numbers are there, or its weights no more.

    Raises:
        RunError: with the model's name.
    """
    there = {one["name"]: one["fingerprint"] for one in (known or {}).get("models") or []}
    for model in models:
        if there.get(model.name, model.fingerprint) != model.fingerprint:
            raise RunError(
                f"out {path}: its numbers of {model.name} are of other weights; choose another folder or pass "
                "--overwrite"
            )


def _same(spec: str, given: Any) -> bool:
    if not isinstance(given, str):
        return False
    return spec == given or (Path(spec).is_dir() and Path(given).is_dir() and Path(spec).samefile(given))


def _join(
    writer: RunWriter,
    models: Sequence[HarnessModel],
    benchmarks: Sequence[Benchmark],
    versions: Mapping[str, str | None],
    command: Sequence[str],
) -> None:
    """Record what is asked beside what was asked before."""
    about = writer.manifest
    for name, records in (
        ("models", [model.record() for model in models]),
        ("benchmarks", [benchmark.record() for benchmark in benchmarks]),
    ):
        new = {one["name"]: one for one in records}
        about[name] = [new.pop(one["name"], one) for one in about[name]] + list(new.values())
    about["versions"] = dict(about["versions"]) | dict(versions)
    about["command"] = list(command)
    about["status"] = "running"
    writer.save()


def _assemble(writer: RunWriter) -> None:
    """The table and the findings, from every unit that is done."""
    import pandas as pd

    path, about = writer.path, writer.manifest
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    counts: list[tuple[str, int, int]] = []
    timings: dict[str, float] = {}
    asked = benchmarks_of([one["name"] for one in about["benchmarks"]])
    for unit in (BenchmarkUnit.at(path, model, benchmark) for model in about["models"] for benchmark in asked):
        done = unit.done()
        if done is not None:
            timings[unit.what] = done["seconds"]
            rows += unit.rows(done)
            counts.append(unit.cut())
        elif (why := unit.why_not()) is not None:
            left_out.append({"what": unit.what, "why": why, "n": None})
    writer.remove_results()
    about["timings"] = timings
    if not rows:
        writer.save()
        return
    table: pd.DataFrame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n": "Int64"})
    write_table(path / "benchmarks.parquet", table)
    with smallest_effects(about.get("smallest_effects")):
        findings = tell(table, [one["name"] for one in about["models"]], left_out, cut(counts))
    write_json(path / "findings.json", findings)
