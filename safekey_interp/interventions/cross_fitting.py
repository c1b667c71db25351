"""Cross-fitting of directions over folds of requests.

Traces are split into folds of whole groups (:mod:`safekey_interp.measures.folds`). Directions fitted on all folds but
one steer the traces of that one, so that every trace is steered once, by directions that know neither it nor another
form of its request. States are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.class_labels import LabelBy, class_pair
from safekey_interp.data.span_checks import PartOf, span_names_of
from safekey_interp.data.trace_list import as_traces
from safekey_interp.errors import InputError
from safekey_interp.interventions.directions import read_classes
from safekey_interp.interventions.steering import steer
from safekey_interp.measures.control_directions import N_DRAWS, orthogonal_contrasts, shuffled_columns
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.folds import make_plan, positive_class, why_not

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


class Fold(NamedTuple):
    """Traces, and directions that do not know their requests."""

    traces: list[Trace]
    """In their order."""
    directions: list[Direction]
    """Fitted on the other folds, one a layer."""


class CrossFit(NamedTuple):
    """Traces in folds of whole groups, and each fold's directions."""

    folds: list[Fold]
    """Every trace of either class is in one."""
    directions: list[Direction]
    """Fitted on all of them: for other traces than these."""
    left_out: dict[str, str]
    """Why the other traces are in none."""


def fit_folds(
    model: Model,
    traces: Sequence[Trace],
    settings: StreamSettings = StreamSettings(),
    *,
    fit_layers: Sequence[int] | None = None, fit_position: str = "decision", label_by: LabelBy = "label",
    n_folds: int = 5, n_controls: int = N_DRAWS, seed: int = 0,
) -> CrossFit:  # fmt: skip
    """Directions for each fold of the requests, fitted on the others.

    Args:
        model: and ``traces``, ``fit_layers`` … ``n_folds``: as in :func:`steer_held_out`.
        settings: how they are segmented, encoded and batched.
        n_controls: control directions of each kind. A shuffle of the labels is one of all folds, so that each fold's
            directions of one number belong together.
        seed: of the folds and controls.

    Raises:
        InputError: a class has too few groups, or what ``fit_directions`` refuses.
    """
    traces = list(as_traces(traces))
    classes = read_classes(model, traces, settings, layers=fit_layers, position=fit_position, label_by=label_by)
    names = class_pair(classes.labels, label_by)
    code = positive_class(classes.labels, names)
    rows = np.flatnonzero(~np.isnan(code))
    groups = [trace.group for trace in classes.traces]
    reason = why_not(code[rows] == 1, [groups[row] for row in rows.tolist()], names)
    plan = None if reason else make_plan(rows, code, groups, seed=seed, n_folds=n_folds)
    if plan is None or plan.n_folds == 0:
        raise InputError(f"directions on held-out requests: {reason or 'no split gives every fold both classes'}")
    left_out = dict(classes.states.left_out)
    left_out |= {classes.traces[row].trace_id: "of neither class" for row in np.flatnonzero(np.isnan(code)).tolist()}
    drawn = {"n_controls": n_controls, "seed": seed}
    names = [groups[row] for row in rows.tolist()]
    labels = shuffled_columns(plan.positive, names, n_controls, seed, plan.fold)
    shuffled = orthogonal_contrasts(plan.positive, labels)  # of all folds, whose directions are read together
    folds = []
    for fold in range(plan.n_folds):
        others = plan.fold != fold
        directions = classes.directions(rows[others], shuffled=shuffled[others], **drawn)
        folds.append(Fold([classes.traces[row] for row in rows[~others].tolist()], directions))
    return CrossFit(folds, classes.directions(rows, shuffled=shuffled, **drawn), left_out)


def steer_held_out(
    model: Model,
    traces: Sequence[Trace],
    *,
    fit_layers: Sequence[int] | None = None, fit_position: str = "decision", label_by: LabelBy = "label",
    n_folds: int = 5, n_random: int = N_DRAWS, seed: int = 0,
    finder: str = "rules", delimiters: tuple[str, str] | None = None, **options: Any,
) -> pd.DataFrame:  # fmt: skip
    """Fit directions on some requests and steer the others with them, until all were steered.

    Args:
        model: and ``finder``, ``delimiters``: see :mod:`safekey_interp.interventions`.
        traces: of both classes, of at least five groups each.
        fit_layers: layers whose states directions are fitted on, one each; all when None.
        fit_position: where these are read.
        label_by: a column with two values, as for ``fit_directions``.
        n_folds: folds wanted; fewer when a class has fewer groups.
        n_random: control directions of each kind a direction, of its norm; fewer of shuffled labels where the requests
            allow no more.
        seed: of folds and control directions.
        **options: of :func:`~safekey_interp.interventions.steering.steer`: ``mode``, ``scales``, ``layers``,
            ``controls`` …

    Returns:
        The table of :func:`~safekey_interp.interventions.steering.steer`, in the traces' order, with the column
        ``fold``.

    Raises:
        InputError: a class has too few groups, or what ``steer`` and ``fit_directions`` refuse.
    """
    finding: dict[str, Any] = {"finder": finder, "delimiters": delimiters}
    places: dict[str, Any] = {"fit_layers": fit_layers, "fit_position": fit_position, "label_by": label_by}
    traces = list(as_traces(traces))
    fitted = fit_folds(
        model, traces, StreamSettings(**finding), n_folds=n_folds, n_controls=n_random, seed=seed, **places
    )
    left_out = dict(fitted.left_out)
    tables = []
    for number, fold in enumerate(fitted.folds):
        of_fold = PartOf(fold.traces, span_names_of(traces))
        table = steer(model, of_fold, fold.directions, n_random=n_random, seed=seed, **finding, **options)
        left_out |= table.attrs["left_out"]
        tables.append(table.assign(fold=number))
    order = {trace.trace_id: at for at, trace in enumerate(traces)}
    table = pd.concat(tables, ignore_index=True)
    table = table.sort_values("trace_id", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    table.attrs["left_out"] = left_out
    return table
