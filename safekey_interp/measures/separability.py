"""Separability of two classes of traces (harmful and benign, or any two) in the hidden states, beyond their words.

For each layer and position, out-of-fold scores (folds of whole groups, :mod:`safekey_interp.measures.folds`) of an
estimator (:mod:`safekey_interp.measures.estimators`; by default a logistic probe on standardised states) and of the
difference of class means on states as they are, and one row per position for the same estimator on the words of the
same span (:mod:`safekey_interp.measures.text_baseline`, layer -1). Per row:

- ``auroc``, ``tpr_at_1fpr`` and ``tpr_at_5fpr`` (:mod:`safekey_interp.measures.auroc`), with 95 % intervals over groups
  (:mod:`safekey_interp.measures.auroc_intervals`). Scores are held fixed: the interval speaks of new prompts, not of
  new probes.
- ``brier`` and ``ece`` of out-of-fold probabilities (:mod:`safekey_interp.measures.calibration`), of the rows as they
  are; ``undefined`` says why one of these or ``tpr_at_5fpr`` is NaN.
- ``fisher_ratio``, (μ₁ − μ₀)² / (σ₁² + σ₀²) of out-of-fold scores, without sign: on the LDA axis (``logistic``) or own.
- ``silhouette`` (Rousseeuw 1987) of the classes in standardised states, Euclidean distance, no fit to labels.
- ``null_auroc_*`` and ``p_value`` = (1 + #null >= observed) / (1 + #null) (Phipson & Smyth 2010) under labels
  shuffled by group. Of the estimator ``logistic``, the ridge classifier is compared with itself; every other is
  compared with itself.
- ``p_value_over_layers``: the same for the best of all layers of the position (maximum statistic, Westfall & Young
  1993), and ``auroc_low_over_layers``, ``auroc_high_over_layers``: the layers' intervals at once; use them for a layer
  that was picked because it is best.
- ``p_value_over_all``: corrected for all layers of all positions (step-down over joint draws,
  :mod:`safekey_interp.measures.best_layers`).

The question is SafeKey's (Zhou et al. 2025, arXiv 2505.16186): the signal is there before the key sentence, dormant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.class_labels import LabelBy, class_pair
from safekey_interp.measures.best_layers import AmongAll
from safekey_interp.measures.estimator_names import EstimatorName
from safekey_interp.measures.estimators import estimator_of
from safekey_interp.measures.folds import Plan, Planner, positive_class
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
from safekey_interp.measures.layer_scores import Cell, describe, measure_states, score_texts

if TYPE_CHECKING:
    import pandas as pd

    from safekey_interp.capture.batch_runner import Backend
    from safekey_interp.capture.feature_maps import FeatureMap
    from safekey_interp.capture.state_array import StateArray
    from safekey_interp.capture.streaming import BatchSize
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

COLUMNS = (
    *("position", "after_the_fact", "layer", "site", "method", "auroc", "auroc_low", "auroc_high"),
    *("tpr_at_1fpr", "tpr_low", "tpr_high", "fisher_ratio", "silhouette"),
    *("null_auroc_mean", "null_auroc_low", "null_auroc_high", "p_value", "p_value_over_layers"),
    *("auroc_low_over_layers", "auroc_high_over_layers", "p_value_over_all"),
    *("n", "n_harmful", "n_benign", "n_groups", "n_folds", "seed", "label_by", "note"),
    *("positive_class", "negative_class", "estimator"),
    *("tpr_at_5fpr", "tpr_at_5fpr_low", "tpr_at_5fpr_high", "brier", "brier_low", "brier_high", "ece", "ece_bins"),
    "undefined",
)
COORDINATE_COLUMNS = ("trace_id", "position", "layer", "site", "label", "lda", "pc1", "pc2", "fold")


class SeparabilityResult(NamedTuple):
    """Tables of one measurement."""

    table: pd.DataFrame
    """One row per position, layer and method; columns :data:`COLUMNS`. ``positive_class`` and ``negative_class`` are
    the classes' names; ``n_harmful`` and ``n_benign`` count their rows, whatever they are called."""
    coordinates: pd.DataFrame
    """One row per position, layer and trace: ``lda`` (out of fold, standardised in its fold), ``pc1``, ``pc2``,
    ``fold`` (in which ``lda`` was scored; missing where the rows could not be split)."""
    left_out: list[LeftOut]
    """What was not measured and why."""
    among_all: list[AmongAll]
    """What ``p_value_over_all`` comes from, row by row; it can be joined with that of other positions."""


def measure_separability(
    model: Model | StateArray,
    traces: Sequence[Trace],
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    label_by: LabelBy = "label",
    estimator: EstimatorName | Any = "logistic",
    features: FeatureMap | None = None,
    n_permutations: int = 200,
    seed: int = 0,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    backend: Backend = "hf",
) -> pd.DataFrame:
    """How separable the two classes are in the model's states, per layer and position, with intervals and controls.

    Args:
        model: from ``load`` or ``from_hf``, or these traces' states from ``states`` or ``vllm_states``.
        traces: prompts with responses, or prompts alone (prompt positions).
        layers: layers to read; all by default.
        positions: positions to read; all by default.
        label_by: a column with two values: ``label`` (the file's), ``aha`` (each trace's own outcome; positions before
            the key sentence only), ``source``, or a name in ``meta`` (``correct``, ``meta.language``). Which value is
            positive: :mod:`safekey_interp.data.class_labels`.
        estimator: ``logistic``, ``mass_mean``, ``lda``, or a scikit-learn classifier
            (:mod:`safekey_interp.measures.estimators`), which is fitted once for each fold and shuffle.
        features: probe these in place of hidden states, at the one layer that they are of: ``read_sae``'s latents.
        n_permutations: label shuffles.
        seed: of draws of rows, folds and shuffles.
        batch_size: traces per forward pass.
        max_length: traces with more tokens are left out; ``finder`` finds their key sentences.
        delimiters: marks of the reasoning; the known families' when None.
        backend: ``hf`` (fast) or ``bridge`` (TransformerLens).

    Returns:
        Columns :data:`COLUMNS`; empty when nothing could be measured. ``attrs["left_out"]`` says what was not, and why.

    Raises:
        SafekeyError: no trace can be read, an option is unknown, or the column does not have two values.
    """
    settings = StreamSettings(
        finder=finder, delimiters=delimiters, batch_size=batch_size, max_length=max_length, backend=backend
    )
    estimator_of(estimator, seed)  # another is refused before the forward passes
    data = ProbeData.collect(model, traces, label_by, settings, layers=layers, positions=positions, features=features)
    options: Any = {"label_by": label_by, "estimator": estimator, "n_permutations": n_permutations, "seed": seed}
    return Separability.of(data, **options).measure(data.states)


class Separability:
    """Separability of two classes of given traces, for any states of these: folds and text scores are made once."""

    def __init__(
        self,
        labels: Sequence[str | None],
        groups: Sequence[str],
        texts: Mapping[str, Sequence[str | None]],
        *,
        label_by: LabelBy = "label",
        seed: int = 0,
        n_folds: int = 5,
        n_permutations: int = 200,
        max_rows: int | None = 1_000,
        estimator: EstimatorName | Any = "logistic",
    ) -> None:
        """Give each trace its class, group and texts.

        Args:
            labels: class name of each trace; None (and ``neutral`` outcomes) are left out.
            groups: group of each trace; folds, shuffles and intervals keep groups whole.
            texts: for each position, what was read up to it; None where a trace has no such text.
            label_by: the column that the labels come from.
            seed: of draws of rows, folds and shuffles.
            n_folds: folds wanted; fewer when a class has fewer groups.
            n_permutations: label shuffles; p-values are no smaller than 1 / (1 + n_permutations).
            max_rows: beyond it whole groups are drawn, both classes alike, and ``note`` says so; None for all rows.
            estimator: of :mod:`safekey_interp.measures.estimators`: a name, or a scikit-learn classifier.

        Raises:
            InputError: the labels are not of two classes, or the estimator is no classifier.
        """
        self._labels, self._texts, self._label_by = labels, texts, label_by
        self._estimator = estimator_of(estimator, seed)
        self._per_trace = {"labels": labels, "groups": groups}
        self._per_trace |= {f"texts of {name}": words for name, words in texts.items()}
        classes = class_pair(labels, label_by)
        positive = positive_class(labels, classes)
        sizes = {"n_folds": n_folds, "n_permutations": n_permutations, "max_rows": max_rows}
        self._planner = Planner(positive, [str(group) for group in groups], classes, seed=seed, sizes=sizes)
        self._labelled = ~np.isnan(positive)
        self._about = {"seed": seed, "label_by": label_by}
        self._about |= {"positive_class": classes.positive, "negative_class": classes.negative}
        self._of_words: dict[tuple[int, tuple[str, ...]], Cell] = {}

    @classmethod
    def of(cls, data: ProbeData, **options: Any) -> Separability:
        """Of collected data."""
        return cls(data.labels, data.groups, data.texts, **options)

    def measure(self, states: StatesLike) -> pd.DataFrame:
        """The table alone; ``attrs["left_out"]`` says what was not measured, and why."""
        result = self.tables(states)
        result.table.attrs["left_out"] = [str(reason) for reason in result.left_out]
        return result.table

    def tables(
        self,
        states: StatesLike,
        *,
        layers: Sequence[int] | None = None,
        positions: Sequence[str] | None = None,
        n_workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SeparabilityResult:
        """Tables of any states of the traces.

        Args:
            states: hidden states; a row that is not finite is left out of its cell.
            layers: layers wanted; all by default.
            positions: positions wanted; all by default.
            n_workers: layers side by side; the cores, or one for few traces, when None; changes no number.
            progress: called with (cells done, cells in all).

        Returns:
            Tables and reasons; NaN wherever a number is undefined (``note`` says why).

        Raises:
            InputError: lengths differ, or a layer or position is unknown.
        """
        import pandas as pd

        indices, wanted = choose(states, self._per_trace, layers=layers, positions=positions)
        n_labelled, nothing = int(self._labelled.sum()), (_frame([], COLUMNS), _frame([], COORDINATE_COLUMNS))
        if isinstance(reason := self._planner.plan(self._labelled), str):
            return SeparabilityResult(*nothing, [LeftOut("separability", reason, n_labelled)], [])
        wanted, circular = without_circular("separability", wanted, self._label_by, n_labelled)
        coordinates: dict[tuple[str, int], pd.DataFrame] = {}
        measure = partial(self._measure_layer, states=states, coordinates=coordinates)
        workers = n_workers or workers_for(len(self._labels))
        sharing: Any = {"n_workers": workers, "progress": progress, "family": lambda row: row["method"]}
        rows, among_all, left_out = table_rows(wanted, indices, measure, self._measure_words, self._texts, **sharing)
        ordered = [coordinates[place] for place in product(wanted, indices) if place in coordinates]
        joined = pd.concat(ordered, ignore_index=True) if ordered else nothing[1]
        rows = [row | self._about for row in rows]
        return SeparabilityResult(_frame(rows, COLUMNS), joined, [*circular, *left_out], among_all)

    def _measure_layer(
        self, position: str, index: int, *, states: StatesLike, coordinates: dict[tuple[str, int], pd.DataFrame]
    ) -> LayerResult:
        site = states.layers[index]
        matrix = np.asarray(states.matrix(index, position))
        present = self._labelled & np.isfinite(matrix).all(1)
        plan = self._planner.plan(present)
        if isinstance(plan, str):
            reasons = [LeftOut(f"separability at {position}", plan, int(present.sum()))]
            return LayerResult(site.layer, present, [], reasons)
        place = {"position": position, "layer": site.layer, "site": site.site}
        cells, columns = measure_states(matrix[plan.rows], plan, place, self._estimator)
        fold = plan.fold.astype(object) if plan.n_folds else [None] * len(plan.fold)
        names = {"trace_id": _pick(states.trace_ids, plan), "label": _pick(self._labels, plan)}
        rows = _frame(names | columns | {"fold": fold}, COORDINATE_COLUMNS)
        coordinates[position, index] = rows.astype({"fold": "Int64"})
        return LayerResult(site.layer, present, cells, [])

    def _measure_words(
        self, present: np.ndarray, words: Sequence[str | None], position: str
    ) -> tuple[list[Cell], list[LeftOut]]:
        plan = self._planner.plan(present)
        if isinstance(plan, str):
            return [], [LeftOut(f"text baseline at {position}", plan, int(present.sum()))]
        read = tuple(_pick(words, plan))
        if (id(plan), read) not in self._of_words:  # several positions have read the same words
            place = {"layer": -1, "site": "text", "method": "text_tfidf", "silhouette": np.nan}
            place |= {"estimator": self._estimator.name}
            self._of_words[id(plan), read] = describe(place, score_texts(read, plan, self._estimator), plan)
        return [self._of_words[id(plan), read]], []


def separability_table(
    states: StatesLike,
    labels: Sequence[str | None],
    groups: Sequence[str],
    texts: Mapping[str, Sequence[str | None]],
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    n_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> SeparabilityResult:
    """Separability of two classes in collected states, with its controls.

    Arguments as for :class:`Separability`, whose ``options`` they are, and :meth:`Separability.tables`.
    """
    about: Any = {"layers": layers, "positions": positions, "n_workers": n_workers, "progress": progress}
    return Separability(labels, groups, texts, **options).tables(states, **about)


def _pick(values: Sequence[Any], plan: Plan) -> list[Any]:
    return [values[row] for row in plan.rows.tolist()]


def _frame(rows: Any, columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))
