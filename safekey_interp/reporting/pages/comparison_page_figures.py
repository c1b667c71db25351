"""Figures of the page of a comparison."""

from __future__ import annotations

from safekey_interp.data.conditions import PROMPTS_OF, Conditions
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.labels import MEASURES, POSITIONS_COMPARED, SPAN_LETTERS, SUBSETS
from safekey_interp.reporting.pages.comparison_rows import tick
from safekey_interp.reporting.pages.probe_page_figures import Choice, Group, known, panel_of

_SHARES = (
    *("attack_success", "suite_attack_success", "strongreject_score", "over_refusal", "refusal", "aha"),
    *("dormant_signal", "names_harm"),
)
_SUBSETS = {"all": SUBSETS["all"], **PROMPTS_OF}


def share_group(table: Table, names: list[str], conditions: Conditions) -> Group:
    """Shares of traces by subset, a panel a measure."""
    words = SUBSETS | conditions.words()
    panels = []
    for measure in _SHARES:
        here = [name for name in words if name in set(table.loc[table["measure"] == measure, "subset"])]
        subsets = {name: tick(words[name], measure) for name in here}
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


def attention_group(table: Table, names: list[str]) -> Group:
    """Attention on U and X over the distance-matched baseline, all layers and heads together."""
    there = known(table.loc[table["measure"] == "lift_over_matched", "subset"], _SUBSETS)
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


def auroc_group(table: Table, names: list[str]) -> Group:
    """AUROC of the states beside that of the words."""
    panel = panel_of("auroc", "States beside words", (), lambda _: figures.auroc_by_model.spec(table, names=names))
    return Group(name="knew", choices=(), panels=(panel,))


def attention_layers_group(by_layer: Table, names: list[str]) -> Group:
    """Attention over the distance-matched baseline by layer."""
    rows = Choice(name="from", label="Rows of", options=ROWS)
    traces = Choice(name="subset", label="Traces", options=known(by_layer["subset"], _SUBSETS))
    panels = [
        panel_of(
            f"layers-{span}",
            f"On {letter} by layer",
            (rows, traces),
            lambda picked, span=span: figures.lift_layers_by_model.spec(
                by_layer, from_span=picked["from"], to_span=span, subset=picked["subset"], names=names
            ),
        )
        for span, letter in SPAN_LETTERS.items()
    ]
    return Group(name="layers", choices=(rows, traces), panels=tuple(panels))


def auroc_layers_group(separability: Table, names: list[str]) -> Group:
    """AUROC by layer."""
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
    return Group(name="probe-layers", choices=(), panels=tuple(panels))
