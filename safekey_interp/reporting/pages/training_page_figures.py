"""Figures of the page of a training run: losses, key sentences, attention and probes over the steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.aha_figures import WHOSE
from safekey_interp.reporting.figures.attention_snapshot_figures import largest_lift_of
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.figures.training_figures import TERMS, Column, Term
from safekey_interp.reporting.labels import POSITIONS, SPANS
from safekey_interp.reporting.pages.attention_page_figures import ROWS
from safekey_interp.reporting.pages.page_layout import filled
from safekey_interp.reporting.pages.probe_page_figures import Choice, Group, known, panel_of

MOST_SNAPSHOTS = 48
"""More snapshots than this are no wider than a few pixels each, and would swell the page."""
WEIGHTS: dict[Term, str] = {"head": "head_weight", "query_mask": "query_mask_weight", "key": "key_weight"}
"""The setting that weighs each auxiliary term."""


def terms_of(settings: dict[str, Any]) -> list[Term]:
    """The terms that count in a run's loss: language modelling, and what has a weight; the sum first, where it is one.

    Args:
        settings: those of ``run.json``; a weight that they lack counts.
    """
    weighed: list[Term] = [term for term, name in WEIGHTS.items() if settings.get(name, 1.0 if term != "key" else 0.0)]
    first: list[Term] = ["total", "lm"] if weighed else ["lm"]
    return [*first, *weighed]


def loss_groups(
    steps: Table | None, held_out: Table | None, terms: list[Term], auxiliary_from: int | None, chance: float | None
) -> list[Group]:
    """A panel for each term; the total stands alone where the others pair up.

    Args:
        steps: the run's ``steps``.
        held_out: the run's ``held_out``.
        terms: from :func:`terms_of`.
        auxiliary_from: steps done when the auxiliary losses begin to count.
        chance: the head's loss of a guess from the classes' shares.
    """
    tables = [filled(table) for table in (steps, held_out)]
    panels = [
        panel_of(
            f"loss-{term}",
            TERMS[term].title,
            (),
            lambda _, term=term: figures.loss_by_step.spec(
                *tables, term=term, auxiliary_from=auxiliary_from, chance=chance if term == "head" else None
            ),
        )
        for term in terms
    ]
    drawn = tuple(panel for panel in panels if panel.variants)
    if len(drawn) % 2 == 0:
        return [Group(name="losses", choices=(), panels=drawn)]
    return [Group(name="total", choices=(), panels=drawn[:1]), Group(name="terms", choices=(), panels=drawn[1:])]


def optimizer_group(steps: Table, auxiliary_from: int | None) -> Group:
    """The learning rate and the norm of the gradient."""
    titles: dict[Column, str] = {"learning_rate": "Learning rate", "grad_norm": "Gradient norm"}
    panels = (
        panel_of(
            column.replace("_", "-"),
            title,
            (),
            lambda _, column=column: figures.optimizer_by_step.spec(
                steps, column=column, auxiliary_from=auxiliary_from
            ),
        )
        for column, title in titles.items()
        if column in steps.columns
    )
    return Group(name="optimizer", choices=(), panels=tuple(panels))


def aha_group(aha: Table, auxiliary_from: int | None) -> Group:
    """Safe against compliant key sentences by label, and each by itself."""
    subsets = known(aha["subset"], WHOSE)
    lines = [name for name in ("harmful", "benign") if name in subsets] or list(subsets)
    choices = (Choice(name="subset", label="Traces (second plot)", options=subsets),)
    both = panel_of(
        "aha-difference",
        "Safe minus compliant key sentences",
        (),
        lambda _: figures.aha_by_step.spec(aha, subsets=lines, auxiliary_from=auxiliary_from),
    )
    apart = panel_of(
        "aha-apart",
        "Each by itself",
        choices,
        lambda picked: figures.aha_apart.spec(aha, subset=picked["subset"], auxiliary_from=auxiliary_from),
    )
    return Group(name="aha", choices=choices, panels=(both, apart))


def attention_groups(by_layer: Table, names: dict[str, str], auxiliary_from: int | None) -> list[Group]:
    """Attention over its distance-matched baseline, by step and by layer; ``names`` are the subsets in words."""
    few, note = few_snapshots(by_layer, "attention_by_layer.parquet")
    froms = known(by_layer["from_span"], {name: ROWS[name] for name in ("key_sentence", "decision")})
    onto = known(by_layer["to_span"], {name: SPANS[name] for name in ("understanding", "prompt")})
    subsets = known(by_layer["subset"], names)
    rows = Choice(name="from", label="Rows of", options=froms)
    traces = Choice(name="subset", label="Traces", options=subsets)
    choices = (rows, Choice(name="to", label="Attention on", options=onto), traces)
    limit = largest_lift_of(by_layer)
    together = panel_of(
        "attention-steps",
        "All layers together, by step",
        (rows, traces),
        lambda picked: figures.lift_over_steps.spec(
            by_layer, from_span=picked["from"], subset=picked["subset"], auxiliary_from=auxiliary_from
        ),
    )

    def picks(picked: dict[str, Any]) -> dict[str, Any]:
        return {"from_span": picked["from"], "to_span": picked["to"], "subset": picked["subset"]}

    over = panel_of(
        "attention-map",
        "By layer and step",
        choices,
        lambda picked: figures.lift_by_step.spec(few, **picks(picked), limit=limit, auxiliary_from=auxiliary_from),
    )
    ends = panel_of(
        "attention-ends",
        "First and last snapshot, by layer",
        choices,
        lambda picked: figures.lift_before_after.spec(by_layer, **picks(picked)),
    )
    return [
        Group(name="attention", choices=(rows, traces), panels=(together,)),
        Group(name="attention-layers", choices=choices, panels=(over, ends), note=note),
    ]


def probe_group(separability: Table, auxiliary_from: int | None) -> Group:
    """AUROC by layer and step, and at the first and the last snapshot beside its controls."""
    few, note = few_snapshots(separability, "separability.parquet")
    positions = known(separability["position"], POSITIONS)
    default = "decision" if "decision" in positions else next(iter(positions))
    choices = (Choice(name="position", label="Position", options=positions, default=default),)
    over = panel_of(
        "auroc-map",
        "By layer and step",
        choices,
        lambda picked: figures.auroc_by_step.spec(few, position=picked["position"], auxiliary_from=auxiliary_from),
    )
    ends = panel_of(
        "auroc-ends",
        "First and last snapshot, by layer",
        choices,
        lambda picked: figures.auroc_before_after.spec(separability, position=picked["position"]),
    )
    return Group(name="probes", choices=choices, panels=(over, ends), note=note)


def few_snapshots(table: Table, file: str) -> tuple[Table, str]:
    """At most :data:`MOST_SNAPSHOTS` snapshots, the first and the last among them, and a sentence about the others."""
    steps = np.unique(table["step"])
    if len(steps) <= MOST_SNAPSHOTS:
        return table, ""
    kept = steps[np.linspace(0, len(steps) - 1, MOST_SNAPSHOTS).round().astype(int)]
    note = (
        f"To keep the page small, the map shows {MOST_SNAPSHOTS} of {len(steps)} snapshots; the others are in {file}."
    )
    return table[table["step"].isin(kept)], note
