"""Sections of the page of a training run."""

from __future__ import annotations

from safekey_interp.reporting.findings.phrases import capital
from safekey_interp.reporting.labels import QUESTIONS
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages import training_facts as facts
from safekey_interp.reporting.pages import training_page_figures as plots
from safekey_interp.reporting.pages.attention_page_figures import subset_names
from safekey_interp.reporting.pages.page_layout import filled
from safekey_interp.reporting.pages.page_sections import page_section
from safekey_interp.reporting.pages.rendering import Html, render
from safekey_interp.reporting.pages.training_controls import lists_of
from safekey_interp.reporting.pages.training_page import TrainingPage

_TITLES = QUESTIONS["training"]


@page_section("training", name="trained", title=_TITLES["trained"], order=10)
def _trained(page: TrainingPage) -> Html:
    report = page.manifest.get("data_report")
    why = (page.manifest.get("way") or {}).get("why")
    return render(
        "training_page",
        "trained",
        data=report and facts.data_facts(report),
        settings=facts.setting_rows(page.manifest),
        why=why and f"{capital(why)}.",
    )


@page_section("training", name="fell", title=_TITLES["fell"], order=20)
def _fell(page: TrainingPage) -> Html:
    manifest, steps, held_out = page.manifest, filled(page.run.steps), filled(page.run.held_out)
    terms, chance = plots.terms_of(manifest.get("settings") or {}), facts.chance_of_head(manifest)
    groups = plots.loss_groups(steps, held_out, terms, _line(page), chance)
    losses = [group for group in groups if any(panel.variants for panel in group.panels)]
    optimizer = None if steps is None else plots.optimizer_group(steps, _line(page))
    what = "the learning rate and the gradient’s norm"
    return render(
        "training_page",
        "fell",
        auxiliary=facts.auxiliary_start(manifest),
        losses=[page.figures(group, "steps.parquet", "losses by step") for group in losses],
        has_held_out=held_out is not None,
        optimizer=optimizer and page.figures(optimizer, "steps.parquet", what),
    )


@page_section("training", name="moved", title=_TITLES["moved"], order=30)
def _moved(page: TrainingPage) -> Html:
    run, line = page.run, _line(page)
    aha, by_layer, separability = (filled(t) for t in (run.aha, run.attention_by_layer, run.separability))
    aha_group = None if aha is None else plots.aha_group(aha, line)
    attention = [] if by_layer is None else plots.attention_groups(by_layer, subset_names(page.conditions), line)
    whats = ("attention over all layers by step", "attention by layer and step")
    probes = None if separability is None else plots.probe_group(separability, line)
    file = "attention_by_layer.parquet"
    return render(
        "training_page",
        "moved",
        aha=page.figures(aha_group, "aha.parquet", "how likely safe key sentences were"),
        attention=[page.figures(group, file, what) for group, what in zip(attention, whats, strict=False)]
        or [page_text.absent(file, whats[1])],
        probes=page.figures(probes, "separability.parquet", "separability by layer and step"),
    )


@page_section("training", name="chance", title=_TITLES["chance"], order=40)
def _chance(page: TrainingPage) -> Html:
    return render("training_page", "chance", lists=lists_of(page.changes))


def _line(page: TrainingPage) -> int | None:
    """Where the line of the auxiliary losses stands; None where they count from the first step, or never."""
    start = facts.auxiliary_start(page.manifest)
    return start["step"] if start["kind"] == "later" else None
