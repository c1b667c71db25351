"""Findings of a training run: a sentence a number, under the questions of its page, each with its n and control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safekey_interp.reporting.figures.attention_snapshot_figures import snapshot_name
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.figures.training_figures import TERMS, Term
from safekey_interp.reporting.findings.finding import Estimate
from safekey_interp.reporting.findings.summary_lines import Line, listed, with_control
from safekey_interp.reporting.pages.page_layout import filled
from safekey_interp.reporting.pages.training_controls import Changes, Row, changes
from safekey_interp.reporting.pages.training_facts import count
from safekey_interp.reporting.pages.training_page_figures import terms_of
from safekey_interp.runs.run_folder import Run

_LABELS = {"trained": "Read", "fell": "Losses", "moved": "Moved", "chance": "Chance"}
"""A line of the summary for each question."""
_TOLD = 3
"""Findings of a line; ``--details`` and the page have all."""


def tell(run: Run) -> dict[str, Any]:
    """``headline``, ``summary`` and ``findings`` of a finished run, from its tables."""
    tables = (run.aha, run.attention_by_layer, run.separability)
    steps, held_out = filled(run.steps), filled(run.held_out)
    measured = changes(*(filled(table) for table in tables))
    found = findings(run.manifest, steps, held_out, terms_of(run.manifest.get("settings") or {}), measured)
    there = {label: [one for one in found["findings"] if one["question"] == key] for key, label in _LABELS.items()}
    lines = [Line(label, " ".join(map(with_control, some[:_TOLD]))) for label, some in there.items()]
    lines.append(Line("Model", str(run.path / "model")))
    return found | {"summary": listed(lines), "left_out": _left_out(run.manifest)}


def _left_out(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the data report leaves out, as ``findings.json`` of other runs has it."""
    dropped = (manifest.get("data_report") or {}).get("left_out") or []
    return [{"what": f"traces, the first {item.get('first')}", "why": item["why"], "n": item["n"]} for item in dropped]


def findings(
    manifest: Mapping[str, Any],
    steps: Table | None,
    held_out: Table | None,
    terms: Sequence[Term],
    measured: Changes,
) -> dict[str, Any]:
    """The headline, and a sentence with its number for each of the page's questions, as ``findings.json`` has them.

    Args:
        manifest: ``run.json``'s content.
        steps: the run's ``steps``.
        held_out: the run's ``held_out``.
        terms: those that count in its loss.
        measured: the last snapshot beside the first.
    """
    listed = [
        *_on_data(manifest),
        *_on_losses(manifest, steps, held_out, terms),
        *_on_changes(measured),
        *_on_chance(measured),
    ]
    return {"headline": _headline(manifest, held_out, measured), "findings": listed}


def _on_data(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    report = manifest.get("data_report") or {}
    trained, held_out = report.get("train") or {}, report.get("held_out") or {}
    if not trained:
        return []
    dropped = sum(int(item.get("n") or 0) for item in report.get("left_out") or [])
    text = (
        f"Trained on {count(trained.get('traces'))} traces of {count(trained.get('groups'))} prompts: "
        f"{count(trained.get('harmful'))} harmful, {count(trained.get('benign'))} benign, "
        f"{count(trained.get('unlabelled'))} without a label. Of {count(report.get('read'))} that were read, "
        f"{dropped:,} were left out."
    )
    control = f"{count(held_out.get('traces'))} traces of {count(held_out.get('groups'))} other prompts, held out"
    return [_finding("trained", text, n=trained.get("traces"), control=control if held_out.get("traces") else "")]


def _on_losses(
    manifest: Mapping[str, Any], steps: Table | None, held_out: Table | None, terms: Sequence[Term]
) -> list[dict[str, Any]]:
    """Each term at the last measurement; on held-out traces where there are, else on those of training."""
    table, whose = (steps, "in training alone") if held_out is None else (held_out, "held out")
    if table is None:
        return []
    traces = ((manifest.get("data_report") or {}).get("train" if held_out is None else "held_out") or {}).get("traces")
    told = []
    for term in terms:
        rows = table.dropna(subset=[term]).sort_values("step")
        if rows.empty:
            continue
        first, last = rows.iloc[0], rows.iloc[-1]
        what = TERMS[term]
        text = f"{what.title}, {whose}: from {first[term]:.3f} to {last[term]:.3f} {what.unit}."
        n = what.n(last) if what.column else f"{count(traces)} traces"
        control = f"{snapshot_name(int(first['step']))} {first[term]:.3g}"
        told.append(_finding("fell", text, value=float(last[term]), n=n, control=control))
    return told


def _on_changes(measured: Changes) -> list[dict[str, Any]]:
    decision = [row for row in measured.probes if row.name == "Decision"] or measured.probes[:1]
    told = [(row, "safe minus compliant key sentences", "nats per token") for row in measured.aha]
    told += [(row, "attention over all layers", "× distance-matched baseline") for row in measured.attention]
    told += [(row, f"AUROC of the probe, {row.place},", "") for row in decision]
    return [
        _of_row(
            "moved", row, f"{row.name}: {what} went from {_first(row).value:.3g} to {row.measured.value:.3g} {unit}"
        )
        for row, what, unit in told
    ]


def _on_chance(measured: Changes) -> list[dict[str, Any]]:
    """How many of the changes part from the first snapshot."""
    named = [(f"key sentences on {row.name.lower()}", row) for row in measured.aha]
    named += [(row.name, row) for row in measured.attention]
    named += [(f"AUROC {row.name[0].lower()}{row.name[1:]}", row) for row in measured.probes]
    if not named:
        return []
    sure = [f"{name} ({lies})" for name, row in named if (lies := row.measured.lies(_first(row)))]
    text = f"None of {len(named)} numbers of the last snapshot lies apart from the first."
    if sure:
        text = f"{len(sure)} of {len(named)} numbers of the last snapshot lie apart from the first: {'; '.join(sure)}."
    return [_finding("chance", text, control="the same measure at the first snapshot; intervals that do not touch")]


def _first(row: Row) -> Estimate:
    """The first snapshot, which comes first among the controls."""
    return next(iter(row.controls.values()))


def _of_row(question: str, row: Row, text: str) -> dict[str, Any]:
    value, low, high = (x if math.isfinite(x) else None for x in row.measured)
    controls = ", ".join(
        f"{name} {control.value:.3g}" for name, control in row.controls.items() if math.isfinite(control.value)
    )
    return _finding(question, f"{text.rstrip()}.", value=value, low=low, high=high, n=row.n, control=controls)


def _headline(manifest: Mapping[str, Any], held_out: Table | None, measured: Changes) -> str | None:
    steps = (manifest.get("schedule") or {}).get("steps")
    lm = None if held_out is None else held_out.dropna(subset=["lm"]).sort_values("step")
    parts = []
    if lm is not None and len(lm) > 1:
        steps = int(lm["step"].iloc[-1])
        parts.append(
            f"the held-out language-modelling loss went from {lm['lm'].iloc[0]:.3f} to {lm['lm'].iloc[-1]:.3f}"
        )
    if steps is None:
        return None
    for row in measured.aha[:1]:
        lies = row.measured.lies(_first(row))
        where = f"surely {lies} where they were" if lies else "not told apart from where they were"
        parts.append(f"safe key sentences on {row.name.lower()}, beside compliant ones, are {where}")
    return f"After {steps:,} steps, {'; '.join(parts) or 'nothing was measured on held-out traces'}."


def _finding(question: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"question": question, "text": text} | fields
