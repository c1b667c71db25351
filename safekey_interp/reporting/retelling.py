"""Retelling of a finished run: its findings in words with other smallest effects of interest, from its own tables.

What is measured does not change, and neither does what was left out; verdicts do. The smallest effects that a run is
told with stand in its ``run.json``, and its page is drawn with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.data.conditions import conditions_in
from safekey_interp.errors import InputError, RunError
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.reporting.findings import (
    benchmark_findings,
    comparison_findings,
    intervention_findings,
    probe_run_findings,
    series_findings,
)
from safekey_interp.reporting.findings.effect_size import checked_smallest, smallest_effects
from safekey_interp.reporting.report_file import PAGE
from safekey_interp.runs.run_folder import MANIFEST, Run, open_run
from safekey_interp.runs.storage import read_json, write_json

if TYPE_CHECKING:
    from safekey_interp.reporting.figures.figure_style import Table

__all__ = ["retell"]


def retell(run_dir: str | Path, smallest: Mapping[str, float]) -> Run:
    """Tell a finished run's findings anew, and delete its page, which is drawn with the same smallest effects.

    Args:
        run_dir: a folder that ``probe``, ``intervene``, ``compare`` or ``eval`` wrote.
        smallest: smallest effects of interest by kind: ``share`` and ``auroc`` (from 0 to 1), ``lift`` (attention over
            its distance-matched baseline), ``nats``, ``logits``; the usual ones hold for the others.

    Returns:
        The run, with these findings.

    Raises:
        InputError: another kind, or a number out of bounds.
        RunError: no finished run, one of ``train``, which states no verdict, or a folder that cannot be written.
    """
    given, run = checked_smallest(smallest), open_run(run_dir)
    if not run.is_complete:
        raise RunError(f"run {run.path}: not complete; the command that began it resumes it")
    if run.manifest.get("kind") == "training":
        raise InputError(f"run {run.path}: of a training, whose findings have no smallest effect of interest")
    manifest = {**run.manifest, "smallest_effects": given}
    with smallest_effects(given):
        told = _told(Run(run.path, manifest))
    # What was left out and cut was counted while the run was made.
    kept = {name: run.findings[name] for name in ("left_out", "notes") if name in run.findings}
    try:
        (run.path / PAGE).unlink(missing_ok=True)
        write_json(run.path / MANIFEST, manifest)
        write_json(run.path / "findings.json", told | kept)
    except OSError as error:
        raise RunError(f"run {run.path}: cannot be written: {error.strerror or error}") from error
    return open_run(run.path)


def findings_of_comparison(comparison: Table, series: Table | None, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables of a comparison say, as ``findings.json`` has it.

    Args:
        comparison: its table of that name.
        series: that of a series of checkpoints, else None.
        manifest: ``run.json``'s content.
    """
    settings, models = manifest["settings"], manifest["models"]
    about: dict[str, Any] = {
        "kept": bool(settings.get("keep_responses")),
        "counted": {one["name"]: one.get("finder_trust") for one in models},
        "finder": settings.get("finder", ""),
    }
    with smallest_effects(manifest.get("smallest_effects")):
        if series is not None:
            return series_findings.tell(series, comparison, **about)
        names = [str(one["name"]) for one in models]
        return comparison_findings.tell(comparison, names, conditions_in(manifest), **about)


def _told(run: Run) -> dict[str, Any]:
    kind, manifest = run.manifest.get("kind"), run.manifest
    if kind == "comparison":
        return findings_of_comparison(run.comparison, run.series, manifest)
    if kind == "benchmarks":
        names, notes = [str(one["name"]) for one in manifest["models"]], run.findings.get("notes") or [""]
        return benchmark_findings.tell(run.benchmarks, names, run.findings.get("left_out") or [], str(notes[0]))
    if kind == "intervention":
        named = find_intervention(manifest["intervention"])
        left_out = read_json(run.path / "left_out.json") or {}
        return intervention_findings.find(named, run.effects, run.summary, left_out, manifest)
    return probe_run_findings.find(run)
