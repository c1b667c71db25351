"""What does a direction do on requests that it was not fitted on?

Traces are split into folds of whole groups (:mod:`safekey_interp.measures.folds`). Directions fitted on all folds but
one steer the traces of that one, so that every trace is steered once, by directions that know neither it nor another
form of its request. States are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.errors import InputError
from safekey_interp.interventions.directions import read_classes
from safekey_interp.interventions.steering import steer
from safekey_interp.measures.control_directions import N_DRAWS, shuffled_columns
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.folds import make_plan, positive_class, why_not

if TYPE_CHECKING:
    from safekey_interp.data.conditions import LabelBy
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


class Fold(NamedTuple):
    """Traces, and directions that do not know their requests."""

    traces: list[Trace]
    """In their order."""
    directions: list[Direction]
    """Fitted on the other folds, one a layer."""


class HeldOut(NamedTuple):
    """Traces in folds of whole groups."""

    folds: list[Fold]
    """Every trace of either class is in one."""
    directions: list[Direction]
    """Fitted on all of them: for other traces than these."""
    left_out: dict[str, str]
    """Why the other traces are in none."""


def fit_held_out(
    model: Model,
    traces: Sequence[Trace],
    *,
    fit_layers: Sequence[int] | None = None,
    fit_position: str = "decision",
    label_by: LabelBy = "label",
    n_folds: int = 5,
    n_controls: int = N_DRAWS,
    seed: int = 0,
    **options: Any,
) -> HeldOut:
    """Directions for each fold of the requests, fitted on the others.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: of both classes, of at least five groups each.
        fit_layers: layers whose states directions are fitted on, one each; all when None.
        fit_position: where these are read.
        label_by: ``label`` (harmful is positive) or ``aha`` (an unsafe K is positive).
        n_folds: folds wanted; fewer when a class has fewer groups.
        n_controls: control directions of each kind. A shuffle of the labels is one of all folds, so that each fold's
            directions of one number belong together.
        seed: of the folds and controls.
        **options: of :func:`~safekey_interp.capture.hidden_states.collect_states`: ``finder``, ``max_length`` …

    Raises:
        InputError: a class has too few groups, or what ``fit_directions`` refuses.
    """
    found = read_classes(model, traces, layers=fit_layers, position=fit_position, label_by=label_by, **options)
    code = positive_class(found.labels, label_by)
    rows = np.flatnonzero(~np.isnan(code))
    groups = [trace.group for trace in found.traces]
    reason = why_not(code[rows] == 1, [groups[row] for row in rows.tolist()], label_by)
    plan = None if reason else make_plan(rows, code, groups, seed=seed, n_folds=n_folds)
    if plan is None or plan.n_folds == 0:
        raise InputError(f"directions on held-out requests: {reason or 'no split gives every fold both classes'}")
    measured = {trace.trace_id for trace in found.traces}
    left_out = {trace.trace_id: "it cannot be measured" for trace in traces if trace.trace_id not in measured}
    left_out |= {found.traces[row].trace_id: "of neither class" for row in np.flatnonzero(np.isnan(code)).tolist()}
    drawn = {"n_controls": n_controls, "seed": seed}
    names = [groups[row] for row in rows.tolist()]
    shuffled = shuffled_columns(plan.positive, names, n_controls, seed, plan.fold)
    folds = []
    for fold in range(plan.n_folds):
        others = plan.fold != fold
        directions = found.directions(rows[others], shuffled=shuffled[others], **drawn)
        folds.append(Fold([found.traces[row] for row in rows[~others].tolist()], directions))
    return HeldOut(folds, found.directions(rows, shuffled=shuffled, **drawn), left_out)


def steer_held_out(
    model: Model,
    traces: Sequence[Trace],
    *,
    fit_layers: Sequence[int] | None = None,
    fit_position: str = "decision",
    label_by: LabelBy = "label",
    n_folds: int = 5,
    n_random: int = N_DRAWS,
    seed: int = 0,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Fit directions on some requests and steer the others with them, until all were steered.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: of both classes, of at least five groups each.
        fit_layers: layers whose states directions are fitted on, one each; all when None.
        fit_position: where these are read.
        label_by: ``label`` (harmful is positive) or ``aha`` (an unsafe K is positive).
        n_folds: folds wanted; fewer when a class has fewer groups.
        n_random: control directions of each kind a direction, of its norm.
        seed: of folds and control directions.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        **options: of :func:`~safekey_interp.interventions.steering.steer`: ``mode``, ``scales``, ``layers``,
            ``controls`` …

    Returns:
        The table of :func:`~safekey_interp.interventions.steering.steer`, in the traces' order, with the column
        ``fold``. ``attrs["left_out"]`` maps the other traces to their reasons.

    Raises:
        InputError: a class has too few groups, or what ``steer`` and ``fit_directions`` refuse.
    """
    about = {"finder": finder, "delimiters": delimiters}
    places = {"fit_layers": fit_layers, "fit_position": fit_position, "label_by": label_by}
    found = fit_held_out(model, traces, n_folds=n_folds, n_controls=n_random, seed=seed, **places, **about)
    left_out = dict(found.left_out)
    tables = []
    for number, fold in enumerate(found.folds):
        table = steer(model, fold.traces, fold.directions, n_random=n_random, seed=seed, **about, **options)
        left_out |= table.attrs["left_out"]
        tables.append(table.assign(fold=number))
    order = {trace.trace_id: at for at, trace in enumerate(traces)}
    table = pd.concat(tables, ignore_index=True)
    table = table.sort_values("trace_id", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    table.attrs["left_out"] = left_out
    return table
