"""Findings of a probe run: sentences with n, interval and control.

Four questions, in the order a reader asks them: where does the model decide (``where``), what does it look at there
(``what``), what did it already know (``knew``), and which of these would also be true by chance (``chance``); inside a
question, in the order in which it is told. A run of a user's own spans answers the last three, in its expressions.
Conditions that the run tells apart stand apart.

A sentence claims no more than its numbers. A layer that was picked because it is the best is named so: for attention
the number of layers that agree is what counts, and a probe must beat shuffled labels at their own best layer (p over
layers), at 0.05 shared among the positions, or the pairs of conditions (Bonferroni). The position before K was chosen
beforehand and comes first.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.measured_spans import spans_in
from safekey_interp.data.conditions import conditions_in
from safekey_interp.reporting.findings.attention_findings import beside_chance, looks
from safekey_interp.reporting.findings.outcome_findings import dormant_signal, outcomes
from safekey_interp.reporting.findings.phrases import Table, left_out
from safekey_interp.reporting.findings.probe_findings import other_probes, probe_chance, probes
from safekey_interp.reporting.findings.span_pair_findings import pair_looks, pairs_beside_chance
from safekey_interp.reporting.findings.transfer_findings import transfer_chance, transfers
from safekey_interp.reporting.labels import names_in

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run

__all__ = ["find"]


def find(run: Run) -> dict[str, Any]:
    """What a run's tables say: ``headline``, ``findings``, ``left_out``."""
    traces: Table | None = run.traces
    if traces is None:
        return {"headline": "", "findings": [], "left_out": []}
    conditions, names = conditions_in(run.manifest), names_in(run.manifest)
    attention, separability, transfer = run.attention_by_layer, run.separability, run.transfer
    if names.is_built_in:
        told = [
            *outcomes(traces, conditions),
            *looks(attention, conditions, run.manifest),
            *dormant_signal(traces, conditions),
        ]
        chance = beside_chance(attention, conditions)
    else:
        spans = spans_in(run.manifest)
        told = pair_looks(attention, conditions, run.manifest, spans)
        chance = pairs_beside_chance(attention, conditions, spans)
    findings = [
        *told,
        *probes(separability, names),
        *transfers(transfer, conditions, names),
        *other_probes(separability, names),
        *chance,
        *probe_chance(separability, names),
        *transfer_chance(transfer, conditions, names),
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
