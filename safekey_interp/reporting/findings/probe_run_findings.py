"""Findings of a probe run: sentences with n, interval and control.

Four questions, in the order a reader asks them: where does the model decide (``where``), what does it look at there
(``what``), what did it already know (``knew``), and which of these would also be true by chance (``chance``); inside a
question, in the order in which it is told. A run of a user's own spans answers the last three, in its expressions.
Conditions that the run tells apart stand apart.

A sentence claims no more than its numbers. A layer that was picked because it is the best is named so: for attention
the number of layers that agree is what counts, and a probe must beat shuffled labels at 0.05, with p over the layers of
all positions, or of all pairs of conditions (step-down over joint shuffles). The position before K was chosen
beforehand and comes first.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.measured_spans import spans_in
from safekey_interp.data.conditions import conditions_in
from safekey_interp.reporting.findings.attention_findings import beside_chance, looks
from safekey_interp.reporting.findings.latent_findings import latents
from safekey_interp.reporting.findings.outcome_findings import dormant_signal, outcomes
from safekey_interp.reporting.findings.phrases import Table, left_out, notes
from safekey_interp.reporting.findings.probe_findings import other_probes, probe_chance, probes
from safekey_interp.reporting.findings.span_pair_findings import pair_looks, pairs_beside_chance
from safekey_interp.reporting.findings.summary_lines import Line, cut, cut_of, listed, streamed, trust, with_control
from safekey_interp.reporting.findings.transfer_findings import transfer_chance, transfers
from safekey_interp.reporting.labels import names_in

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run

__all__ = ["find"]
_LABELS = {"where": "K", "what": "Looks", "knew": "Knows"}
"""A line of the summary for each question."""
_TOLD = 2
"""Sentences of a line; the headline has them all."""


def find(run: Run) -> dict[str, Any]:
    """What a run's tables say: ``headline``, ``summary``, ``findings``, ``left_out``, ``notes``."""
    traces: Table | None = run.traces
    if traces is None:
        return {"headline": "", "summary": [], "findings": [], "left_out": [], "notes": []}
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
    of_sae = latents(run.sae_latents, run.sae_separability, names)
    findings = [
        *told,
        *probes(separability, names),
        *of_sae,
        *transfers(transfer, conditions, names),
        *other_probes(separability, names),
        *chance,
        *probe_chance(separability, names),
        *transfer_chance(transfer, conditions, names),
    ]
    n_measured = int((traces["status"] == "measured").sum())
    measured = f"{n_measured:,} of {len(traces):,} traces measured."
    counted, listed_findings = run.manifest.get("finder_trust"), [asdict(finding) for finding in findings]
    finder = (run.manifest.get("settings") or {}).get("finder")
    read = trust(counted, finder, n_measured) if names.is_built_in else ""
    limit = cut([cut_of(counted)])
    stream = streamed(run.manifest.get("stream"))
    lines = [Line("Read", read or measured), Line("Stream", stream), Line("Cut", limit)]
    lines += [Line(label, _line(listed_findings, question)) for question, label in _LABELS.items()]
    lines += [Line("SAE", finding.text) for finding in of_sae]
    return {
        "headline": " ".join([measured, *(finding.short for finding in findings if finding.short)]),
        "summary": listed(lines),
        "findings": listed_findings,
        "left_out": left_out(traces, run.manifest),
        "notes": [*notes(traces), *filter(None, [limit, stream])],
    }


def _line(findings: list[dict[str, Any]], question: str) -> str:
    """What the headline says of a question, and what was looked for and not shown; where both say nothing, the first
    finding with its control."""
    there = [finding for finding in findings if finding["question"] == question]
    told = [finding for finding in there if finding["short"] or finding["is_shown"] is False]
    if there and not any(finding["short"] for finding in told):
        told = [there[0], *(finding for finding in told if finding is not there[0])]
    return " ".join(finding["short"] or with_control(finding) for finding in told[:_TOLD])
