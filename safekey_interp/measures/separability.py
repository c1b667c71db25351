"""How well do the hidden states tell harmful from benign (or unsafe from safe), beyond the words of the same span?

For each layer and position, out-of-fold scores (folds of whole groups, :mod:`safekey_interp.measures.folds`) of a
logistic probe on standardised states and of the difference of class means on states as they are
(:mod:`safekey_interp.measures.linear_probes`), and one row per position for the words of the same span
(:mod:`safekey_interp.measures.text_baseline`, layer -1). Per row:

- ``auroc`` and ``tpr_at_1fpr`` (:mod:`safekey_interp.measures.auroc`), with 95 % intervals over groups
  (:mod:`safekey_interp.measures.auroc_intervals`). Scores are held fixed: the interval speaks of new prompts, not of
  new probes.
- ``fisher_ratio``, (μ₁ − μ₀)² / (σ₁² + σ₀²) of out-of-fold scores: along the LDA axis (row ``logistic``), the
  difference of means, or the text score. It has no sign: read it beside ``auroc``.
- ``silhouette`` (Rousseeuw 1987) of the two classes in standardised states, Euclidean distance, nothing fitted to
  labels.
- ``null_auroc_*`` and ``p_value`` = (1 + #null >= observed) / (1 + #null) (Phipson & Smyth 2010) under labels
  shuffled by group. Rows ``logistic`` and ``text_tfidf`` compare the ridge classifier with itself, ``diff_of_means``
  compares itself.
- ``p_value_over_layers``: the same for the best of all layers of the position (maximum statistic, Westfall & Young
  1993), and ``auroc_low_over_layers``, ``auroc_high_over_layers``: the layers' intervals at once; use them for a layer
  that was picked because it is best.

The question is SafeKey's (Zhou et al. 2025, arXiv 2505.16186): the signal is there before the key sentence, dormant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from safekey_interp.measures.folds import Plan, Planner, positive_class
from safekey_interp.measures.layer_loop import (
    AFTER_THE_FACT,
    LeftOut,
    StatesLike,
    choose,
    class_names,
    each_position,
    said_once,
    without_circular,
)
from safekey_interp.measures.layer_scores import Cell, Scored, best_of_layers, describe, measure_states, score_texts
from safekey_interp.measures.text_baseline import span_texts

if TYPE_CHECKING:
    import pandas as pd

    from safekey_interp.capture.batch_runner import Backend
    from safekey_interp.capture.streaming import BatchSize
    from safekey_interp.data.conditions import LabelBy
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

COLUMNS = (
    *("position", "after_the_fact", "layer", "site", "method", "auroc", "auroc_low", "auroc_high"),
    *("tpr_at_1fpr", "tpr_low", "tpr_high", "fisher_ratio", "silhouette"),
    *("null_auroc_mean", "null_auroc_low", "null_auroc_high", "p_value", "p_value_over_layers"),
    *("auroc_low_over_layers", "auroc_high_over_layers"),
    *("n", "n_harmful", "n_benign", "n_groups", "n_folds", "seed", "label_by", "note"),
)
COORDINATE_COLUMNS = ("trace_id", "position", "layer", "site", "label", "lda", "pc1", "pc2")


class SeparabilityResult(NamedTuple):
    """Tables of one measurement."""

    table: pd.DataFrame
    """One row per position, layer and method; columns :data:`COLUMNS`. By outcome, ``n_harmful`` counts unsafe."""
    coordinates: pd.DataFrame
    """One row per position, layer and trace: ``lda`` (out of fold, standardised in its fold), ``pc1``, ``pc2``."""
    left_out: list[LeftOut]
    """What was not measured and why."""


def measure_separability(
    model: Model,
    traces: Sequence[Trace],
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    label_by: LabelBy = "label",
    seed: int = 0,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    backend: Backend = "hf",
) -> pd.DataFrame:
    """How separable the two classes are in the model's states, per layer and position, with intervals and controls.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: prompts with responses, or prompts alone (prompt positions).
        layers: layers to read; all by default.
        positions: positions to read; all by default.
        label_by: ``label`` (the file's) or ``aha`` (each trace's own outcome; positions before the key sentence only).
        seed: of draws of rows, folds and shuffles.
        batch_size: traces per forward pass.
        max_length: traces with more tokens are left out.
        finder: how key sentences are found.
        delimiters: marks of the reasoning; the known families' when None.
        backend: ``hf`` (fast) or ``bridge`` (TransformerLens).

    Returns:
        Columns :data:`COLUMNS`; empty when nothing could be measured. ``attrs["left_out"]`` says what was not, and why.

    Raises:
        SafekeyError: no trace can be read, or an option is unknown.
    """
    from safekey_interp.capture.hidden_states import collect_states

    class_names((), (), label_by)  # an unknown way of labelling is refused before the forward passes
    states, kept, segmentations = collect_states(
        model,
        traces,
        layers=layers,
        positions=positions,
        batch_size=batch_size,
        max_length=max_length,
        finder=finder,
        delimiters=delimiters,
        backend=backend,
    )
    result = separability_table(
        states,
        class_names(kept, segmentations, label_by),
        [trace.group for trace in kept],
        span_texts(kept, segmentations),
        label_by=label_by,
        seed=seed,
    )
    result.table.attrs["left_out"] = [str(reason) for reason in result.left_out]
    return result.table


def separability_table(
    states: StatesLike,
    labels: Sequence[str | None],
    groups: Sequence[str],
    texts: Mapping[str, Sequence[str | None]],
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    label_by: LabelBy = "label",
    seed: int = 0,
    n_folds: int = 5,
    n_permutations: int = 200,
    max_rows: int | None = 1_000,
    n_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SeparabilityResult:
    """Separability of two classes in collected states, with its controls.

    Args:
        states: hidden states; a row that is not finite is left out of its cell.
        labels: class name of each trace of ``states``; None (and ``neutral`` outcomes) are left out.
        groups: group of each trace; folds, shuffles and intervals keep groups whole.
        texts: for each position, what was read up to it; None where a trace has no such text.
        layers: layers wanted; all by default.
        positions: positions wanted; all by default.
        label_by: ``label`` or ``aha``.
        seed: of draws of rows, folds and shuffles.
        n_folds: folds wanted; fewer when a class has fewer groups.
        n_permutations: label shuffles; p-values are no smaller than 1 / (1 + n_permutations).
        max_rows: beyond it whole groups are drawn, both classes alike, and ``note`` says so; None for all rows.
        n_workers: layers measured side by side; by default the cores, at most eight. Changes no number.
        progress: called with (cells done, cells in all).

    Returns:
        Tables and reasons; NaN wherever a number is undefined (``note`` says why).

    Raises:
        InputError: lengths differ, or a layer, position, label or way of labelling is unknown.
    """
    import pandas as pd

    per_trace = {"labels": labels, "groups": groups, **{f"texts of {name}": words for name, words in texts.items()}}
    indices, wanted = choose(states, per_trace, layers=layers, positions=positions)
    positive = positive_class(labels, label_by)
    labelled = ~np.isnan(positive)
    about = {"seed": seed, "label_by": label_by}
    sizes = {"n_folds": n_folds, "n_permutations": n_permutations, "max_rows": max_rows}
    planner = Planner(positive, [str(group) for group in groups], label_by, seed=seed, sizes=sizes)
    if isinstance(reason := planner.plan(labelled), str):
        nothing = [LeftOut("separability", reason, int(labelled.sum()))]
        return SeparabilityResult(_frame([], COLUMNS), _frame([], COORDINATE_COLUMNS), nothing)
    wanted, left_out = without_circular("separability", wanted, label_by, int(labelled.sum()))
    rows: list[dict[str, Any]] = []
    coordinates: list[pd.DataFrame] = []
    scored_words: dict[tuple[int, tuple[str, ...]], Scored] = {}
    measure = partial(_measure_layer, states=states, labelled=labelled, planner=planner)
    for position, measured in each_position(wanted, indices, measure, n_workers=n_workers, progress=progress):
        left_out += said_once((layer.number, layer.left_out) for layer in measured)
        cells = [cell for layer in measured for cell in layer.cells]
        for layer in measured:
            if layer.cells:
                plan = layer.cells[0].plan
                names = {"trace_id": _pick(states.trace_ids, plan), "label": _pick(labels, plan)}
                coordinates.append(pd.DataFrame(names | layer.coordinates, columns=list(COORDINATE_COLUMNS)))
        words = texts.get(position)
        if words is not None and cells:
            plan = planner.plan(measured[0].present & np.array([text is not None for text in words]))
            if isinstance(plan, str):
                left_out.append(LeftOut(f"text baseline at {position}", plan, int(measured[0].present.sum())))
            else:
                key = (id(plan), tuple(_pick(words, plan)))
                if key not in scored_words:  # several positions have read the same words
                    scored_words[key] = score_texts(key[1], plan)
                place = {"layer": -1, "site": "text", "method": "text_tfidf", "silhouette": np.nan}
                cells.append(describe(_at(position) | place, scored_words[key], plan))
        rows += [row | about for row in best_of_layers(cells)]
    joined = pd.concat(coordinates, ignore_index=True) if coordinates else _frame([], COORDINATE_COLUMNS)
    return SeparabilityResult(_frame(rows, COLUMNS), joined, left_out)


def _pick(values: Sequence[Any], plan: Plan) -> list[Any]:
    return [values[row] for row in plan.rows.tolist()]


class _Layer(NamedTuple):
    """What one layer gave at one position."""

    number: int
    present: np.ndarray
    cells: list[Cell]
    coordinates: dict[str, Any]
    left_out: list[LeftOut]


def _measure_layer(position: str, index: int, *, states: StatesLike, labelled: np.ndarray, planner: Planner) -> _Layer:
    site = states.layers[index]
    matrix = np.asarray(states.matrix(index, position))
    present = labelled & np.isfinite(matrix).all(1)
    plan = planner.plan(present)
    if isinstance(plan, str):
        return _Layer(site.layer, present, [], {}, [LeftOut(f"separability at {position}", plan, int(present.sum()))])
    place = _at(position) | {"layer": site.layer, "site": site.site}
    cells, coordinates = measure_states(matrix[plan.rows], plan, place)
    return _Layer(site.layer, present, cells, coordinates, [])


def _at(position: str) -> dict[str, Any]:
    return {"position": position, "after_the_fact": position in AFTER_THE_FACT}


def _frame(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))
