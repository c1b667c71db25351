"""Page of an intervention: what was changed, what that did, and whether it is more than chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages import intervention_page_figures, intervention_text, knockout_text, page_text
from safekey_interp.reporting.pages.figure_embedding import embed
from safekey_interp.reporting.pages.html import Html, el, island, join
from safekey_interp.reporting.pages.page_layout import Frame, Section, figures_of
from safekey_interp.reporting.pages.page_text import public
from safekey_interp.reporting.pages.probe_page_figures import Group
from safekey_interp.reporting.pages.rendering import static
from safekey_interp.runs.run_folder import Run

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention


def render(run: Run) -> str:
    """The whole page as text."""
    manifest = public(run.manifest)
    intervention = find_intervention(manifest["intervention"])
    summary = run.summary
    groups = _groups(intervention, summary, manifest)
    model = (manifest.get("model") or {}).get("name") or "a model"
    n = 0 if summary is None or summary.empty else int(summary["n"].max())
    changes = [f for f in (run.findings or {}).get("findings") or [] if f.get("question") == "changed"]
    frame = Frame(
        title=f"{intervention.title.format(model=model)} · safekey-interp",
        header=intervention_text.header(intervention, manifest, changes[0]["n"] if changes else n),
        scripts=("plots.js", "steps.js"),
        version=manifest.get("safekey_interp", ""),
    )
    islands = island("figures-data", embed(groups))
    return frame.page(_sections(intervention, run.findings, summary, manifest, groups), islands)


def _sections(
    intervention: Intervention,
    findings: dict[str, Any] | None,
    summary: Table | None,
    manifest: dict[str, Any],
    groups: list[Group],
) -> list[Section]:
    questions = intervention_text.QUESTIONS
    absent = page_text.absent("summary.parquet", "what the intervention did")
    shown = join(*(figures_of(group, "summary.parquet", "effects") for group in groups)) if groups else absent
    return [
        Section("summary", "In short", [page_text.summary(findings, questions)]),
        Section("changed", questions["changed"], intervention_text.changed(intervention, manifest, findings)),
        Section("did", questions["did"], [el("p", intervention.reading), el("h3", "Measured, and its control"), shown]),
        Section("chance", questions["chance"], [_chance(intervention, summary, manifest)]),
        Section("left-out", "What was left out", [page_text.left_out(findings, manifest, [])]),
        Section("reading", "How to read this page", [Html(static("intervention_reading.html"))]),
        Section(
            "provenance", "Where the numbers come from", [page_text.provenance(manifest, intervention_text.PROVENANCE)]
        ),
    ]  # fmt: skip


def _chance(intervention: Intervention, summary: Table | None, manifest: dict[str, Any]) -> Html:
    if summary is None or summary.empty:
        return page_text.absent("summary.parquet", "effects beside their controls")
    if intervention.form == "scores":
        return intervention_text.score_table(summary)
    tables = knockout_text.control_tables(intervention, summary, manifest)
    return join(intervention_text.excess_table(intervention, summary, manifest), *tables)


def _groups(intervention: Intervention, summary: Table | None, manifest: dict[str, Any]) -> list[Group]:
    if summary is None or summary.empty:
        return []
    if intervention.form == "scores":
        groups = intervention_page_figures.score_groups(summary, manifest["settings"]["align"])
    else:
        groups = intervention_page_figures.effect_groups(intervention, summary)
    return [group for group in groups if any(panel.variants for panel in group.panels)]
