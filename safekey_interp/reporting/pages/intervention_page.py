"""In which order does the page of an intervention tell its story? What was changed, what came of it, is it chance?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages import intervention_page_figures, intervention_text, knockout_text, page_text
from safekey_interp.reporting.pages.figure_embedding import embed
from safekey_interp.reporting.pages.html import Html, el, island, join
from safekey_interp.reporting.pages.page_layout import Frame, Section, figures_of, static
from safekey_interp.reporting.pages.probe_page_figures import Group
from safekey_interp.reporting.pages.training_text import public
from safekey_interp.runs.run_folder import Run

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_registry import Name

_ON_EFFECTS: dict[Name, str] = {
    "knockout": "Below 0, the span had spoken for what is read out: without it in sight, that is less likely.",
    "patch": "Above 0, the foreign states make what is read out likelier. If they carry the refusal, that is safe "
    "key sentences.",
    "direction": "Taken out or added, what does the direction change? Below 0, it makes what is read out less likely.",
    "suppress": "How far the prediction of a later sentence moves when an earlier one is hidden; 0 is not at all.",
    "lens": "How likely each layer finds what is read out. Early layers need not write in the unembedding’s basis: a "
    "low value says that the lens sees nothing there, not that nothing is there.",
    "trajectory": "What a probe or a direction reads off every token’s state, on requests that it was not fitted on "
    "unless it was given. A score that leaves the grey band is more than a state’s length.",
}


def render(run: Run) -> str:
    """The whole page as text."""
    manifest = public(run.manifest)
    name: Name = manifest["intervention"]
    summary: Table | None = run.summary
    groups = _groups(name, summary, manifest)
    model = (manifest.get("model") or {}).get("name") or "a model"
    before, behind = intervention_text.TITLES[name]
    n = 0 if summary is None or summary.empty else int(summary["n"].max())
    told = [f for f in (run.findings or {}).get("findings") or [] if f.get("question") == "changed"]
    frame = Frame(
        title=f"{before}{model}{behind} · safekey-interp",
        header=intervention_text.header(manifest, told[0]["n"] if told else n),
        scripts=("plots.js", "steps.js"),
        version=manifest.get("safekey_interp", ""),
    )
    islands = island("figures-data", embed(groups))
    return frame.page(_sections(name, run.findings, summary, manifest, groups), islands)


def _sections(
    name: Name, findings: dict[str, Any] | None, summary: Table | None, manifest: dict[str, Any], groups: list[Group]
) -> list[Section]:
    questions = intervention_text.QUESTIONS
    absent = page_text.absent("summary.parquet", "what the intervention did")
    shown = join(*(figures_of(group, "summary.parquet", "effects") for group in groups)) if groups else absent
    return [
        Section("summary", "In short", [page_text.summary(findings, questions)]),
        Section("changed", questions["changed"], intervention_text.changed(manifest, findings)),
        Section("did", questions["did"], [el("p", _ON_EFFECTS[name]), el("h3", "Measured, and its control"), shown]),
        Section("chance", questions["chance"], [_chance(name, summary, manifest)]),
        Section("left-out", "What was left out", [page_text.left_out(findings, manifest, [])]),
        Section("reading", "How to read this page", [Html(static("intervention_reading.html"))]),
        Section(
            "provenance", "Where the numbers come from", [page_text.provenance(manifest, intervention_text.PROVENANCE)]
        ),
    ]  # fmt: skip


def _chance(name: Name, summary: Table | None, manifest: dict[str, Any]) -> Html:
    if summary is None or summary.empty:
        return page_text.absent("summary.parquet", "effects beside their controls")
    if name == "trajectory":
        return intervention_text.score_table(summary)
    excess = intervention_text.excess_table(name, summary, manifest)
    return join(excess, knockout_text.controls(summary, manifest)) if name == "knockout" else excess


def _groups(name: Name, summary: Table | None, manifest: dict[str, Any]) -> list[Group]:
    if summary is None or summary.empty:
        return []
    if name == "trajectory":
        groups = intervention_page_figures.score_groups(summary, manifest["settings"]["align"])
    else:
        groups = intervention_page_figures.effect_groups(name, summary)
    return [group for group in groups if any(panel.variants for panel in group.panels)]
