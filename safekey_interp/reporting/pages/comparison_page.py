"""In which order does the page of a comparison tell its story? What they did, look at, knew; then each prompt."""

from __future__ import annotations

from typing import Any

from safekey_interp.data.conditions import PROMPTS_OF, Conditions, conditions_in
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.labels import MEASURES, POSITIONS_COMPARED, SPAN_LETTERS, SUBSETS
from safekey_interp.reporting.pages import benchmark_text, comparison_text, page_text
from safekey_interp.reporting.pages.benchmark_text import Beside, beside
from safekey_interp.reporting.pages.figure_embedding import embed
from safekey_interp.reporting.pages.html import Html, el, island, join
from safekey_interp.reporting.pages.page_layout import Frame, Section, figures_of, static
from safekey_interp.reporting.pages.probe_page_figures import Choice, Group, known, panel_of
from safekey_interp.reporting.pages.training_text import public
from safekey_interp.runs.run_folder import Run

_SHARES = (
    *("attack_success", "suite_attack_success", "strongreject_score", "over_refusal", "refusal", "aha"),
    *("dormant_signal", "names_harm"),
)
_OF_LOOKS = {"all": SUBSETS["all"], **PROMPTS_OF}
_ON_LOOKS = (
    "What each model gives to U and to X from the token before K, whose row decides, and from K, divided by what "
    "tokens at the same distances get in the same layer and head; of each model’s own responses."
)
_ON_PROBES = (
    "A probe reads each model’s states and must tell the classes apart on prompts that it never saw. It counts only as "
    "far as it beats the words alone."
)


def render(run: Run) -> str:
    """The whole page as text."""
    manifest = public(run.manifest)
    names = [str(model.get("name")) for model in manifest.get("models") or []]
    groups = _groups(run, names, conditions_in(manifest))
    frame = Frame(
        title=f"{', '.join(names) or 'Models'} on the same prompts · safekey-interp",
        header=comparison_text.header(manifest, names),
        scripts=("plots.js", "steps.js"),
        version=manifest.get("safekey_interp", ""),
    )
    benchmarks = beside(run.evaluation, names)
    sections = _sections(run, manifest, groups, names, benchmarks)
    drawn = [*groups.values(), *([benchmarks.group] if benchmarks.group else [])]
    return frame.page(sections, island("figures-data", embed(drawn)))


def _sections(
    run: Run,
    manifest: dict[str, Any],
    groups: dict[str, Group],
    names: list[str],
    benchmarks: Beside,
) -> list[Section]:
    questions = comparison_text.QUESTIONS
    conditions = conditions_in(manifest)
    layers = [
        figures_of(groups[name], "attention_by_layer.parquet", "attention by layer")
        for name in ("layers",)
        if name in groups
    ]
    probes = [
        figures_of(groups[name], "separability.parquet", "AUROC by layer")
        for name in ("probe-layers",)
        if name in groups
    ]
    able = Section("benchmarks", benchmark_text.QUESTIONS["benchmarks"], benchmarks.shown)
    left_out = [*((run.findings or {}).get("left_out") or []), *benchmarks.left_out]
    return [
        Section("summary", "In short", [page_text.summary(run.findings, questions)]),
        Section(
            "did",
            questions["did"],
            [
                el("p", comparison_text.KEPT) if manifest.get("settings", {}).get("keep_responses") else None,
                figures_of(groups.get("did"), "comparison.parquet", "shares by model"),
            ],
        ),
        Section(
            "what",
            questions["what"],
            [
                el("p", _ON_LOOKS),
                figures_of(groups.get("looks"), "comparison.parquet", "attention by model"),
                *layers,
            ],
        ),
        Section(
            "knew",
            questions["knew"],
            [
                el("p", _ON_PROBES),
                figures_of(groups.get("knew"), "comparison.parquet", "AUROC by model"),
                *probes,
            ],
        ),
        *([able] if benchmarks.shown else []),
        Section(
            "table",
            "Every number",
            [comparison_text.everything(run.comparison, names, conditions), *benchmarks.numbers],
        ),
        Section("sides", "Side by side", comparison_text.side_by_side(run.side_by_side)),
        Section("left-out", "What was left out", [page_text.left_out({"left_out": left_out}, manifest, ())]),
        Section("reading", "How to read this page", [Html(static("comparison_reading.html"))]),
        Section(
            "provenance",
            "Where the numbers come from",
            [join(*comparison_text.provenance(manifest), *benchmarks.provenance)],
        ),
    ]  # fmt: skip


def _groups(run: Run, names: list[str], conditions: Conditions) -> dict[str, Group]:
    table, groups = run.comparison, []
    if table is not None and len(table):
        groups += [_did(table, names, conditions), _looks(table, names), _knew(table, names)]
    if (by_layer := run.attention_by_layer) is not None and len(by_layer):
        rows = Choice(name="from", label="Rows of", options=ROWS)
        subsets = known(by_layer["subset"], _OF_LOOKS)
        traces = Choice(name="subset", label="Traces", options=subsets)
        panels = [
            panel_of(
                f"layers-{span}",
                f"On {SPAN_LETTERS[span]} by layer",
                (rows, traces),
                lambda picked, span=span: figures.lift_layers_by_model.spec(
                    by_layer, from_span=picked["from"], to_span=span, subset=picked["subset"], names=names
                ),
            )
            for span in SPAN_LETTERS
        ]
        groups.append(Group(name="layers", choices=(rows, traces), panels=tuple(panels)))
    if (separability := run.separability) is not None and len(separability):
        panels = [
            panel_of(
                f"auroc-{position}",
                f"A probe {where}, by layer",
                (),
                lambda _, position=position: figures.auroc_layers_by_model.spec(
                    separability, position=position, names=names
                ),
            )
            for position, where in POSITIONS_COMPARED.items()
        ]
        groups.append(Group(name="probe-layers", choices=(), panels=tuple(panels)))
    return {group.name: group for group in groups if any(panel.variants for panel in group.panels)}


def _did(table: Table, names: list[str], conditions: Conditions) -> Group:
    words = SUBSETS | conditions.words()
    panels = []
    for measure in _SHARES:
        here = [name for name in words if name in set(table.loc[table["measure"] == measure, "subset"])]
        subsets = {name: comparison_text.tick(words[name], measure) for name in here}
        panels.append(
            panel_of(
                f"share-{measure.replace('_', '-')}",
                MEASURES[measure],
                (),
                lambda _, measure=measure, subsets=subsets: figures.share_by_model.spec(
                    table, measure=measure, subsets=subsets, names=names
                ),
            )
        )
    return Group(name="did", choices=(), panels=tuple(panels))


def _looks(table: Table, names: list[str]) -> Group:
    there = known(table.loc[table["measure"] == "lift_over_matched", "subset"], _OF_LOOKS)
    traces = Choice(name="subset", label="Traces", options=there)
    panels = [
        panel_of(
            f"looks-{row.replace('_', '-')}",
            f"Attention of {words}, all layers and heads",
            (traces,),
            lambda picked, row=row: figures.lift_by_model.spec(
                table, position=row, subset=picked["subset"], names=names
            ),
        )
        for row, words in ROWS.items()
    ]
    return Group(name="looks", choices=(traces,), panels=tuple(panels))


def _knew(table: Table, names: list[str]) -> Group:
    panel = panel_of("auroc", "States beside words", (), lambda _: figures.auroc_by_model.spec(table, names=names))
    return Group(name="knew", choices=(), panels=(panel,))
