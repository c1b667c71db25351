"""Latents of a sparse autoencoder that differ between two classes of traces, ranked, with intervals and corrected p.

Of latent j at a position, averaged over the position's tokens, with the class means over traces:

    difference_j = mean(positive) − mean(negative)

- ``difference_low`` and ``difference_high``: a 95 % interval over groups (:mod:`safekey_interp.measures.intervals`), of
  that latent alone.
- ``p_value_over_latents``: two-sided, under labels shuffled by group, corrected for every latent that varies over the
  position's traces (step-down max-T, :mod:`safekey_interp.measures.step_down`); latents are ranked by the same
  statistic, the difference over the spread of its shuffles. ``p_value_over_all``: times the number of positions
  (Bonferroni).
- ``active_harmful`` and ``active_benign``: share of the traces of each class with the latent above 0.

Whether all latents together tell the classes apart, and more than the words alone, is asked by
:func:`~safekey_interp.measures.separability.measure_separability` with ``features``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from safekey_interp.capture.feature_states import FeatureStates
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.class_labels import LabelBy, class_pair
from safekey_interp.measures.folds import Plan, Planner, positive_class
from safekey_interp.measures.intervals import difference_of_ratios
from safekey_interp.measures.layer_loop import AFTER_THE_FACT, LeftOut, ProbeData, choose, without_circular
from safekey_interp.measures.layer_scores import labellings_of
from safekey_interp.measures.step_down import LEVEL, standardised, step_down_p_values

if TYPE_CHECKING:
    import pandas as pd

    from safekey_interp.capture.batch_runner import Backend
    from safekey_interp.capture.streaming import BatchSize
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model
    from safekey_interp.models.sparse_autoencoder import SparseAutoencoder

COLUMNS = (
    *("position", "after_the_fact", "layer", "site", "rank", "latent"),
    *("difference", "difference_low", "difference_high", "mean_harmful", "mean_benign"),
    *("active_harmful", "active_benign", "p_value_over_latents", "p_value_over_all"),
    *("n_active", "n_different", "n", "n_harmful", "n_benign", "n_groups"),
    *("seed", "label_by", "positive_class", "negative_class", "note"),
)
N_LATENTS = 20
"""Latents that the table has of each position."""


class LatentEffects(NamedTuple):
    """Latents that differ most."""

    table: pd.DataFrame
    """One row per position and latent, those that differ most; columns :data:`COLUMNS`. ``n_active`` latents are
    not the same in all traces at the position, of which ``n_different`` have p ≤ 0.05 over latents."""
    left_out: list[LeftOut]
    """What was not measured and why."""


def measure_latents(
    model: Model,
    traces: Sequence[Trace],
    sae: SparseAutoencoder,
    *,
    positions: Sequence[str] | None = None,
    label_by: LabelBy = "label",
    n_latents: int = N_LATENTS,
    n_permutations: int = 200,
    seed: int = 0,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    backend: Backend = "hf",
) -> pd.DataFrame:
    """The latents of an SAE that differ most between two classes of traces, at each position.

    Args:
        model: from ``load`` or ``from_hf``: the one that the SAE was trained on.
        traces: prompts with responses, or prompts alone (prompt positions).
        sae: from ``read_sae``.
        positions: positions to read; the built-in ones by default.
        label_by: a column with two values, as for ``measure_separability``.
        n_latents: rows of each position.
        n_permutations: label shuffles; p is no smaller than 1 / (1 + n_permutations).
        seed: of draws of rows and shuffles.
        batch_size: traces per forward pass.
        max_length: traces with more tokens are left out.
        finder: how key sentences are found.
        delimiters: marks of the reasoning; the known families' when None.
        backend: ``hf`` (fast) or ``bridge`` (TransformerLens).

    Returns:
        Columns :data:`COLUMNS`, differences in the unit of the latents; empty when nothing could be measured.
        ``attrs["left_out"]`` says what was not, and why.

    Raises:
        SafekeyError: no trace can be read, the SAE is of another model, or the column does not have two values.
    """
    settings = StreamSettings(
        finder=finder, delimiters=delimiters, batch_size=batch_size, max_length=max_length, backend=backend
    )
    data = ProbeData.collect(model, traces, label_by, settings, positions=positions, features=sae)
    about: Any = {"label_by": label_by, "n_latents": n_latents, "n_permutations": n_permutations, "seed": seed}
    assert isinstance(data.states, FeatureStates)
    found = latent_effects(data.states, data.labels, data.groups, **about)
    found.table.attrs["left_out"] = [str(reason) for reason in found.left_out]
    return found.table


def latent_effects(
    states: FeatureStates,
    labels: Sequence[str | None],
    groups: Sequence[str],
    *,
    positions: Sequence[str] | None = None,
    label_by: LabelBy = "label",
    n_latents: int = N_LATENTS,
    n_permutations: int = 200,
    seed: int = 0,
    max_rows: int | None = 1_000,
) -> LatentEffects:
    """The same of collected latents.

    Args:
        states: latents of traces.
        labels: class name of each trace; None (and ``neutral`` outcomes) are left out.
        groups: group of each trace; shuffles and intervals keep groups whole.
        positions: positions wanted; all by default. p is corrected for all that there are.
        label_by: the column that the labels come from.
        n_latents: rows of each position.
        n_permutations: label shuffles.
        seed: of draws of rows and shuffles.
        max_rows: beyond it whole groups are drawn, both classes alike, and ``note`` says so; None for all rows.

    Raises:
        InputError: the labels are not of two classes, lengths differ, or a position is unknown.
    """
    import pandas as pd

    per_trace: dict[str, Sequence[object]] = {"labels": labels, "groups": groups}
    _, wanted = choose(states, per_trace, layers=None, positions=positions)
    classes = class_pair(labels, label_by)
    positive = positive_class(labels, classes)
    sizes = {"n_folds": 5, "n_permutations": n_permutations, "max_rows": max_rows}
    planner = Planner(positive, [str(group) for group in groups], classes, seed=seed, sizes=sizes)
    labelled = ~np.isnan(positive)
    wanted, left_out = without_circular("latents", wanted, label_by, int(labelled.sum()))
    place = {"layer": states.layers[0].layer, "site": states.layers[0].site, "seed": seed, "label_by": label_by}
    place |= {"positive_class": classes.positive, "negative_class": classes.negative}
    rows: list[dict[str, Any]] = []
    for position in wanted:
        numbers, matrix = states.active(position)
        present = labelled & np.isfinite(matrix).all(1)
        plan = planner.plan(present)
        if isinstance(plan, str):
            left_out.append(LeftOut(f"latents at {position}", plan, int(present.sum())))
            continue
        about = place | {"position": position, "after_the_fact": position in AFTER_THE_FACT}
        found = _rows(matrix[plan.rows].astype(np.float64), numbers, plan, n_latents, len(states.positions))
        rows += [about | row for row in found]
    return LatentEffects(pd.DataFrame(rows, columns=list(COLUMNS)), left_out)


def _rows(
    matrix: Float[np.ndarray, "n active"], numbers: np.ndarray, plan: Plan, n_latents: int, n_positions: int
) -> list[dict[str, Any]]:
    """Rows of one position, the largest standardised difference first."""
    varies = np.ptp(matrix, axis=0) > 0
    matrix, numbers = matrix[:, varies], numbers[varies]
    labellings = labellings_of(plan)
    n_positive = int(plan.positive.sum())
    counts = {"n": len(matrix), "n_harmful": n_positive, "n_benign": len(matrix) - n_positive}
    weights = labellings / labellings.sum(0) - ~labellings / (~labellings).sum(0)
    differences = weights.T @ matrix
    size, p = np.abs(differences[0]), np.full(len(numbers), np.nan)
    if len(differences) > 1:
        size = standardised(differences)[0]
        p = step_down_p_values(differences[0], differences[1:])
    counts |= {"n_active": len(numbers), "n_different": int((p <= LEVEL).sum())}
    rows = []
    for rank, column in enumerate(np.lexsort((numbers, -size))[:n_latents], 1):
        values = matrix[:, column]
        yes, no = plan.positive.astype(float), (~plan.positive).astype(float)
        difference, interval = difference_of_ratios((values * no, no), (values * yes, yes), plan.codes)
        rows.append(
            {
                "rank": rank,
                "latent": int(numbers[column]),
                "difference": difference,
                "difference_low": interval.low,
                "difference_high": interval.high,
                "mean_harmful": values[plan.positive].mean(),
                "mean_benign": values[~plan.positive].mean(),
                "active_harmful": (values[plan.positive] > 0).mean(),
                "active_benign": (values[~plan.positive] > 0).mean(),
                "p_value_over_latents": p[column],
                "p_value_over_all": np.minimum(1.0, n_positions * p[column]),
                "n_groups": plan.n_groups,
                "note": "; ".join(plan.notes),
                **counts,
            }
        )
    return rows
