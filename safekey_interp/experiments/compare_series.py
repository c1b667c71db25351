"""Table of a series of checkpoints: each measure of a comparison by step of training, its controls, and its change.

A row of a measure has ``control`` NA; rows with a ``control`` are what that measure is held against at the same step:

    benign prompts               of harmful prompts' K that turns safe, and of U's that name the harm
    distance-matched baseline    of attention: 1, since the lift is a ratio to it
    words alone                  of AUROC: a classifier of the words of the same span
    shuffled labels              of AUROC: what the probe reaches when labels are shuffled by group, median over layers

``change`` is the number minus that of the first step, on the prompts that both have, with an interval over groups that
takes the traces of both together. Steps are not tested against one another, and nothing is corrected for their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.probe_rows import estimator_in

if TYPE_CHECKING:
    import pandas as pd

_WHERE = ("measure", "subset", "position", "to_span")
_CHANGES = {"change": "value", "change_low": "low", "change_high": "high", "change_p": "p"}
COLUMNS = {
    "step": "Int64",
    **dict.fromkeys(("model", *_WHERE, "control"), "string"),
    **dict.fromkeys(("estimate", "low", "high"), "float64"),
    **dict.fromkeys(("n", "n_groups"), "Int64"),
    **dict.fromkeys(_CHANGES, "float64"),
}
"""Columns of ``series`` and their types. ``change*`` are NA at the first step and of controls."""
BENIGN, MATCHED, WORDS, SHUFFLED = "benign prompts", "distance-matched baseline", "words alone", "shuffled labels"
_OF_BENIGN = {"aha": "aha", "dormant_signal": "names_harm"}
_ALONE = ("auroc_words",)
"""Measures of ``comparison`` that are controls and nothing else."""


def series_table(comparison: Table, separability: Table | None, steps: Mapping[str, int]) -> pd.DataFrame:
    """The measures of a series by step.

    Args:
        comparison: of its models, with differences from the first.
        separability: that of the models' runs with ``model``; None where nothing was probed.
        steps: of each model its step, in order.

    Returns:
        :data:`COLUMNS`; a row a step, measure and control.
    """
    import pandas as pd

    rows = [row for name, step in steps.items() for row in _of_step(comparison, separability, name, step)]
    table: Any = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(COLUMNS)


def _of_step(comparison: Table, separability: Table | None, name: str, step: int) -> Iterator[dict[str, Any]]:
    single = comparison[comparison["other"].isna() & (comparison["model"] == name)]
    changes = comparison[(comparison["other"] == name).fillna(False)].set_index(list(_WHERE))
    for _, row in single[~single["measure"].isin(_ALONE)].iterrows():
        place = {key: row[key] for key in _WHERE}
        about = {"step": step, "model": name, **place}
        key = tuple(place.values())
        change = changes.loc[[key]].iloc[0] if key in changes.index else {}
        moved = {column: change[of] for column, of in _CHANGES.items()} if len(change) else {}
        yield about | _numbers(row) | moved
        for control, numbers in _controls(single, separability, name, row):
            yield about | {"control": control} | numbers


def _controls(single: Table, separability: Table | None, name: str, row: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    measure = row["measure"]
    if measure in _OF_BENIGN and row["subset"] == "harmful":
        benign = single[(single["measure"] == _OF_BENIGN[measure]) & (single["subset"] == "benign")]
        yield from ((BENIGN, _numbers(each)) for _, each in benign.iterrows())
    if measure == "lift_over_matched":
        yield MATCHED, {"estimate": 1.0, "n": row["n"], "n_groups": row["n_groups"]}
    if measure in ("auroc", "auroc_best"):
        words = single[(single["measure"] == "auroc_words") & (single["position"] == row["position"])]
        yield from ((WORDS, _numbers(each)) for _, each in words.iterrows())
        if separability is not None:
            yield from _shuffled(separability[separability["model"] == name], row["position"])


def _shuffled(separability: Table, position: str) -> Iterator[tuple[str, dict[str, Any]]]:
    columns = ["null_auroc_mean", "null_auroc_low", "null_auroc_high"]
    rows = separability[separability["position"] == position].dropna(subset=columns)
    rows = rows[rows["method"] == estimator_in(rows)] if len(rows) else rows
    if len(rows):
        mean, low, high = rows[columns].median()
        sizes = {size: int(rows[size].iloc[0]) for size in ("n", "n_groups")}
        yield SHUFFLED, {"estimate": mean, "low": low, "high": high, **sizes}


def _numbers(row: Any) -> dict[str, Any]:
    return {"estimate": row["value"], **{name: row[name] for name in ("low", "high", "n", "n_groups")}}


def pairs_of(names: Sequence[str], *, from_first: bool) -> list[tuple[str, str]]:
    """The pairs of models whose differences are wanted: the first with each of the others, or all."""
    firsts = range(1 if from_first else len(names))
    return [(names[one], other) for one in firsts for other in names[one + 1 :]]
