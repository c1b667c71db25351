"""In which order does the page of a training run tell its story? What was trained, what fell, what moved?"""

from __future__ import annotations

from typing import Any

from safekey_interp.data.conditions import conditions_in
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.training_findings import findings
from safekey_interp.reporting.pages import page_text, training_page_figures, training_text
from safekey_interp.reporting.pages.figure_embedding import embed
from safekey_interp.reporting.pages.html import Html, el, island
from safekey_interp.reporting.pages.page_layout import Frame, Section, figures_of, static
from safekey_interp.reporting.pages.probe_page_figures import Group, subset_names
from safekey_interp.reporting.pages.training_controls import Changes, against_chance, changes
from safekey_interp.runs.run_folder import Run

_ON_LOSSES = (
    "Each term as itself, unweighted. Held-out points are means over all held-out traces and have no interval; rows of "
    "training are means over few traces and waver. A loss that falls on both was learned; one that falls in training "
    "alone was learned by heart."
)
_ON_AHA = (
    "How likely are sentences that a safe model might say next, beside sentences that go ahead, after the same U? The "
    "benign prompts are the control: a model that only turned wary rises on both."
)
_ON_ATTENTION = (
    "What K, and the row that decides it, attend to, divided by what tokens at the same distances get in the same "
    "layer and head. The first look, before training, is the other control."
)
_ON_PROBES = (
    "A probe is fitted anew at every look and must tell harmful from benign on prompts that it never saw. It counts "
    "only as far as it beats shuffled labels and the words alone."
)


def render(run: Run) -> str:
    """The whole page as text."""
    manifest = training_text.public(run.manifest)
    name = (manifest.get("model") or {}).get("name") or "a model"
    groups = _groups(run)
    frame = Frame(
        title=f"What training changed in {name} · safekey-interp",
        header=training_text.header(manifest),
        scripts=("plots.js", "steps.js"),
        version=manifest.get("safekey_interp", ""),
    )
    found = changes(*(_filled(table) for table in (run.aha, run.attention_by_layer, run.separability)))
    return frame.page(_sections(run, manifest, groups, found), island("figures-data", embed(list(groups.values()))))


def _sections(run: Run, manifest: dict[str, Any], groups: dict[str, Group], found: Changes) -> list[Section]:
    questions = training_text.QUESTIONS
    terms = training_page_figures.terms_of(manifest.get("settings") or {})
    told = findings(manifest, _filled(run.steps), _filled(run.held_out), terms, found)
    return [
        Section("summary", "In short", [page_text.summary(told, questions)]),
        Section("trained", questions["trained"], training_text.trained_on(manifest)),
        Section("fell", questions["fell"], _losses(run, groups)),
        Section(
            "moved",
            questions["moved"],
            [
                el("h3", "Safe key sentences against go-aheads"),
                el("p", _ON_AHA),
                figures_of(groups.get("aha"), "aha.parquet", "how likely safe key sentences were"),
                el("h3", "Attention on U and on X"),
                el("p", _ON_ATTENTION),
                *_attention(groups),
                el("h3", "What the hidden states know"),
                el("p", _ON_PROBES),
                figures_of(groups.get("probes"), "separability.parquet", "separability by layer and step"),
            ],
        ),
        Section("chance", questions["chance"], [against_chance(found)]),
        Section("reading", "How to read this page", [Html(static("training_reading.html"))]),
        Section(
            "provenance", "Where the numbers come from", [page_text.provenance(manifest, training_text.PROVENANCE)]
        ),
    ]  # fmt: skip


def _losses(run: Run, groups: dict[str, Group]) -> list[Html | None]:
    if "losses" not in groups and "terms" not in groups:
        return [page_text.absent("steps.parquet", "the losses by step")]
    parts: list[Html | None] = [el("p", _ON_LOSSES, " ", _on_line(run.manifest))]
    if _filled(run.held_out) is None:
        parts.append(page_text.absent("held_out.parquet", "the losses on held-out prompts"))
    parts.append(el("h3", "Term by term"))
    parts += [
        figures_of(groups[name], "steps.parquet", "losses by step")
        for name in ("total", "terms", "losses")
        if name in groups
    ]
    if "optimizer" in groups:
        what = "the learning rate and the gradient’s norm"
        parts += [el("h3", "The optimizer"), figures_of(groups["optimizer"], "steps.parquet", what)]
    return parts


def _attention(groups: dict[str, Group]) -> list[Html]:
    if "attention" not in groups:
        return [page_text.absent("attention_by_layer.parquet", "attention by layer and step")]
    return [
        figures_of(groups["attention"], "attention_by_layer.parquet", "attention over all layers by step"),
        figures_of(groups["attention-layers"], "attention_by_layer.parquet", "attention by layer and step"),
    ]


def _groups(run: Run) -> dict[str, Group]:
    manifest, begins = run.manifest, _line(run.manifest)
    terms = training_page_figures.terms_of(manifest.get("settings") or {})
    chance = training_text.chance_of_head(manifest)
    groups = training_page_figures.loss_groups(run.steps, run.held_out, terms, begins, chance)
    if (steps := _filled(run.steps)) is not None:
        groups.append(training_page_figures.optimizer_group(steps, begins))
    if (aha := _filled(run.aha)) is not None:
        groups.append(training_page_figures.aha_group(aha, begins))
    if (by_layer := _filled(run.attention_by_layer)) is not None:
        groups += training_page_figures.attention_groups(by_layer, subset_names(conditions_in(manifest)), begins)
    if (separability := _filled(run.separability)) is not None:
        groups.append(training_page_figures.probe_group(separability, begins))
    return {group.name: group for group in groups if any(panel.variants for panel in group.panels)}


def _on_line(manifest: dict[str, Any]) -> str:
    """Where the auxiliary losses begin, in words."""
    schedule = manifest.get("schedule") or {}
    begins = schedule.get("auxiliary_from")
    if begins is None:
        return ""
    if begins >= schedule.get("steps", begins + 1):
        return "Language modelling alone was trained; other terms are measured, not trained."
    if begins == 0:
        return "The auxiliary losses count from the first step."
    return f"The auxiliary losses begin to count in step {begins + 1:,}, at the dashed line."


def _line(manifest: dict[str, Any]) -> int | None:
    """Where the line of the auxiliary losses stands; None where they count from the first step, or never."""
    schedule = manifest.get("schedule") or {}
    begins = schedule.get("auxiliary_from")
    return begins if begins and begins < schedule.get("steps", begins + 1) else None


def _filled(table: Table | None) -> Table | None:
    return None if table is None or table.empty else table
