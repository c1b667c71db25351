"""Transfer of probes between conditions, such as fitted on plain prompts and tested on wrapped ones.

For each layer and position, an estimator (by default a logistic probe) is fitted on the rows of condition A in all
folds but one, and scores the rows of condition B in that fold. Folds are of whole groups
(:mod:`safekey_interp.measures.folds`), and the same for every pair, so that no prompt, nor a wrapped form of it, is
ever on both sides, and A tested on A stands beside A tested on B. One row per position and pair for the words of the
same span, fitted and tested in the same way (layer -1). Per row:

- ``auroc`` on the rows of B (:mod:`safekey_interp.measures.auroc`), with a 95 % interval over B's groups, scores held
  fixed (:mod:`safekey_interp.measures.auroc_intervals`). Below 0.5 the direction is turned round.
- ``null_auroc_*`` and ``p_value`` under labels shuffled by group, of both sides alike, for the estimator fitted anew
  for each shuffle (the ridge classifier in place of the logistic probe); ``p_value_over_layers`` and
  ``auroc_*_over_layers`` for the best of all layers, as in :mod:`safekey_interp.measures.separability`;
  ``p_value_over_all`` for all layers and pairs of different conditions of the position, those with themselves apart.

Pairs: all of at most three conditions; of more, each with itself, and the most frequent with each other, both ways.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.class_labels import LabelBy, class_pair
from safekey_interp.data.conditions import Conditions, condition_of, conditions_of
from safekey_interp.measures.condition_pairs import Design, Designer, pairs_of
from safekey_interp.measures.estimator_names import EstimatorName
from safekey_interp.measures.estimators import Estimator, SpaceOf, estimator_of
from safekey_interp.measures.folds import positive_class
from safekey_interp.measures.layer_loop import (
    LayerResult,
    LeftOut,
    ProbeData,
    StatesLike,
    choose,
    table_rows,
    without_circular,
    workers_for,
)
from safekey_interp.measures.layer_scores import (
    Cell,
    auroc_figures,
    out_of_fold,
    ranked_of,
    scored_by_fold,
    states_space,
)

if TYPE_CHECKING:
    import pandas as pd

    from safekey_interp.capture.batch_runner import Backend
    from safekey_interp.capture.state_array import StateArray
    from safekey_interp.capture.streaming import BatchSize
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

COLUMNS = (
    *("position", "after_the_fact", "layer", "site", "method", "by", "fitted_on", "tested_on"),
    *("auroc", "auroc_low", "auroc_high", "null_auroc_mean", "null_auroc_low", "null_auroc_high"),
    *(
        "p_value",
        "p_value_over_layers",
        "auroc_low_over_layers",
        "auroc_high_over_layers",
        "p_value_over_all",
        "n_fitted",
        "n_groups_fitted",
        "n",
        "n_harmful",
        "n_benign",
        "n_groups",
    ),
    *("n_folds", "seed", "label_by", "note", "positive_class", "negative_class", "estimator"),
)
_ALIKE = ("method", "fitted_on", "tested_on")


class TransferResult(NamedTuple):
    """Table of one measurement."""

    table: pd.DataFrame
    """One row per position, layer, method and pair; columns :data:`COLUMNS`. ``n`` and ``n_groups`` count what was
    tested; ``n_harmful`` and ``n_benign`` the rows of the positive and the negative class, whatever they are called."""
    left_out: list[LeftOut]
    """What was not measured and why."""


def measure_transfer(
    model: Model | StateArray,
    traces: Sequence[Trace],
    *,
    by: str = "source",
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    label_by: LabelBy = "label",
    estimator: EstimatorName | Any = "logistic",
    n_permutations: int = 200,
    seed: int = 0,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    backend: Backend = "hf",
) -> pd.DataFrame:
    """How well a probe fitted on the traces of one condition tells the classes among those of another.

    Args:
        model: from ``load`` or ``from_hf``, or these traces' states from ``states`` or ``vllm_states``.
        traces: prompts with responses, or prompts alone (prompt positions).
        by: the column that tells conditions apart: ``source``, or a name in ``meta``. At most six conditions count,
            of at least ten groups each; of more than three, pairs are each with itself, and the most frequent with
            each other.
        layers: these and the following as for :func:`~safekey_interp.measures.separability.measure_separability`.
        positions: positions to read.
        label_by: a column with two values.
        estimator: a name, or a scikit-learn classifier.
        n_permutations: label shuffles.
        seed: of folds and shuffles.
        batch_size: traces per forward pass.
        max_length: most tokens.
        finder: how key sentences are found.
        delimiters: marks of the reasoning.
        backend: who runs the forward passes.

    Returns:
        Columns :data:`COLUMNS`; empty when there is nothing to compare. ``attrs["left_out"]`` says what was not
        measured, and why.

    Raises:
        SafekeyError: no trace can be read, an option is unknown, or the column does not have two values.
    """
    settings = StreamSettings(
        finder=finder, delimiters=delimiters, batch_size=batch_size, max_length=max_length, backend=backend
    )
    estimator_of(estimator, seed)  # another is refused before the forward passes
    data = ProbeData.collect(model, traces, label_by, settings, layers=layers, positions=positions)
    conditions = conditions_of(data.traces, by)
    condition = [condition_of(trace, by) for trace in data.traces]
    about: Any = {"conditions": conditions, "label_by": label_by, "estimator": estimator, "seed": seed}
    about["n_permutations"] = n_permutations
    result = transfer_table(data.states, data.labels, data.groups, condition, data.texts, **about)
    gone = [LeftOut(row["what"], row["why"], row["n"]) for row in conditions.left_out]
    result.table.attrs["left_out"] = [str(reason) for reason in [*gone, *result.left_out]]
    return result.table


def transfer_table(
    states: StatesLike,
    labels: Sequence[str | None],
    groups: Sequence[str],
    condition: Sequence[str | None],
    texts: Mapping[str, Sequence[str | None]],
    *,
    conditions: Conditions,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    label_by: LabelBy = "label",
    estimator: EstimatorName | Any = "logistic",
    seed: int = 0,
    n_folds: int = 5,
    n_permutations: int = 200,
    max_rows: int | None = 1_000,
    n_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TransferResult:
    """Transfer of probes between conditions in collected states, with its controls.

    Args as for :class:`~safekey_interp.measures.separability.Separability` and its ``tables``, and:

    Args:
        condition: condition of each trace; those that ``conditions`` does not tell apart are left out.
        conditions: which conditions are told apart.
        n_folds: folds wanted; fewer when a class of a condition has fewer groups.
        max_rows: beyond it whole groups are drawn, classes and conditions alike, and ``note`` says so; None for all.

    Returns:
        Table and reasons; NaN wherever a number is undefined (``note`` says why).

    Raises:
        InputError: lengths differ, a layer or position is unknown, or the labels are not of two classes.
    """
    import pandas as pd

    per_trace = {"labels": labels, "groups": groups, "condition": condition}
    per_trace |= {f"texts of {name}": words for name, words in texts.items()}
    indices, wanted = choose(states, per_trace, layers=layers, positions=positions)
    sizes = {"n_folds": n_folds, "n_permutations": n_permutations, "max_rows": max_rows}
    fitted = estimator_of(estimator, seed)
    classes = class_pair(labels, label_by)
    positive = positive_class(labels, classes)
    designer = Designer(positive, groups, condition, names=conditions.names, classes=classes, seed=seed, sizes=sizes)
    whole = designer.design(designer.eligible)
    if whole.plan is None:
        return TransferResult(pd.DataFrame([], columns=list(COLUMNS)), whole.left_out() if conditions.names else [])
    designer.narrow(whole.part)
    wanted, circular = without_circular("transfer", wanted, label_by, int(designer.eligible.sum()))
    about = {"seed": seed, "label_by": label_by, "by": conditions.by}
    about |= {"positive_class": classes.positive, "negative_class": classes.negative, "estimator": fitted.name}
    cells_of: dict[tuple[int, tuple[str | None, ...]], list[Cell]] = {}

    def measure_words(present: np.ndarray, words: Sequence[str | None], _: str) -> tuple[list[Cell], list[LeftOut]]:
        design = designer.design(present)
        if design.plan is None:
            return [], []
        read = tuple(words[row] for row in design.plan.rows.tolist())
        if (id(design.plan), read) not in cells_of:  # several positions have read the same words
            place = {"layer": -1, "site": "text", "method": "text_tfidf"}
            space_of = fitted.words([str(text) for text in read])
            cells_of[id(design.plan), read] = _pairs(space_of, fitted, design, place)
        return cells_of[id(design.plan), read], []

    measure = partial(_measure_layer, states=states, designer=designer, estimator=fitted)
    sharing: Any = {"alike": _ALIKE, "n_workers": n_workers or workers_for(len(labels)), "progress": progress}
    sharing["family"] = lambda row: str((row["position"], row["method"], row["fitted_on"] == row["tested_on"]))
    rows, _, more = table_rows(wanted, indices, measure, measure_words, texts, **sharing)
    table = pd.DataFrame([row | about for row in rows], columns=list(COLUMNS))
    return TransferResult(table, [*whole.left_out(), *circular, *more])


def _measure_layer(
    position: str, index: int, *, states: StatesLike, designer: Designer, estimator: Estimator
) -> LayerResult:
    site = states.layers[index]
    matrix = np.asarray(states.matrix(index, position))
    present = designer.eligible & np.isfinite(matrix).all(1)
    design = designer.design(present)
    left_out = design.left_out(f" at {position}")
    if design.plan is None:
        return LayerResult(site.layer, present, [], left_out)
    place = {"layer": site.layer, "site": site.site, "method": estimator.name}
    cells = _pairs(states_space(estimator, matrix[design.plan.rows]), estimator, design, place)
    return LayerResult(site.layer, present, cells, left_out)


def _pairs(space_of: SpaceOf, estimator: Estimator, design: Design, place: dict[str, Any]) -> list[Cell]:
    """A row of the table for each pair of conditions; one fit of each condition scores all others."""
    plan = design.plan
    assert plan is not None
    cells = []
    for fitted, tested in itertools.groupby(pairs_of(list(design.part)), key=lambda pair: pair[0]):
        raw = out_of_fold(space_of, plan, estimator, design.rows_of[fitted])
        for _, name in tested:
            part, rows = design.part[name], design.rows_of[name]
            scored = scored_by_fold(type(raw)(*(scores[rows] for scores in raw)), part)
            n_positive = int(part.positive.sum())
            ranked = ranked_of(scored, part)
            row = place | {"fitted_on": fitted, "tested_on": name} | auroc_figures(scored, ranked)
            row |= {"n_fitted": len(design.part[fitted].rows), "n_groups_fitted": design.part[fitted].n_groups}
            row |= {"n": len(part.rows), "n_harmful": n_positive, "n_benign": len(part.rows) - n_positive}
            row |= {"n_groups": part.n_groups, "n_folds": plan.n_folds, "note": "; ".join(plan.notes)}
            cells.append(Cell(row, scored, part, ranked, plan))
    return cells
