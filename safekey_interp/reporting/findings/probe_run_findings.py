"""Findings of a probe run: sentences with n, interval and control.

Four questions, in the order a reader asks them: where does the model decide (``where``), what does it look at there
(``what``), what did it already know (``knew``), and which of these would also be true by chance (``chance``); inside a
question, in the order in which it is told. Conditions that the run tells apart stand apart.

A sentence claims no more than its numbers. A layer that was picked because it is the best is named so: for attention
the number of layers that agree is what counts, and a probe must beat shuffled labels at their own best layer (p over
layers), at 0.05 shared among the positions, or the pairs of conditions (Bonferroni). The position before K was chosen
beforehand and comes first.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from safekey_interp.data.conditions import conditions_in
from safekey_interp.reporting.findings.attention_findings import beside_chance, looks
from safekey_interp.reporting.findings.outcome_findings import dormant_signal, outcomes
from safekey_interp.reporting.findings.phrases import Table, left_out
from safekey_interp.reporting.findings.probe_findings import other_probes, probe_chance, probes
from safekey_interp.reporting.findings.transfer_findings import transfer_chance, transfers

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run

__all__ = ["find"]


def find(run: Run) -> dict[str, Any]:
    """What a run's tables say: ``headline``, ``findings``, ``left_out``."""
    traces: Table | None = run.traces
    if traces is None:
        return {"headline": "", "findings": [], "left_out": []}
    conditions = conditions_in(run.manifest)
    findings = [
        *outcomes(traces, conditions),
        *looks(run.attention_by_layer, conditions, run.manifest),
        *dormant_signal(traces, conditions),
        *probes(run.separability),
        *transfers(run.transfer, conditions),
        *other_probes(run.separability),
        *beside_chance(run.attention_by_layer, conditions),
        *probe_chance(run.separability),
        *transfer_chance(run.transfer, conditions),
    ]
    measured = int((traces["status"] == "measured").sum())
    return {
        "headline": " ".join(
            [
                f"{measured:,} of {len(traces):,} traces measured.",
                *(finding.short for finding in findings if finding.short),
            ]
        ),
        "findings": [asdict(finding) for finding in findings],
        "left_out": left_out(traces, run.manifest),
    }
