"""What does a direction do on requests that it was not fitted on?

Traces are split into folds of whole groups (:mod:`safekey_interp.folds`). Directions fitted on all folds but one steer
the traces of that one, so that every trace is steered once, by directions that know neither it nor another form of its
request. States are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from safekey_interp.errors import InputError
from safekey_interp.folds import make_plan, positive_class, why_not
from safekey_interp.interventions.directions import read_classes
from safekey_interp.interventions.steering import steer

if TYPE_CHECKING:
    from safekey_interp.models import Model
    from safekey_interp.trace import Trace


def steer_held_out(
    model: Model,
    traces: Sequence[Trace],
    *,
    fit_layers: Sequence[int] | None = None,
    fit_position: str = "decision",
    label_by: str = "label",
    n_folds: int = 5,
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
        seed: of folds and random directions.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        **options: of :func:`~safekey_interp.interventions.steering.steer`: ``mode``, ``scales``, ``layers`` …

    Returns:
        The table of :func:`~safekey_interp.interventions.steering.steer`, in the traces' order, with the column
        ``fold``. ``attrs["left_out"]`` maps the other traces to their reasons.

    Raises:
        InputError: a class has too few groups, or what ``steer`` and ``fit_directions`` refuse.
    """
    found = read_classes(
        model,
        traces,
        layers=fit_layers,
        position=fit_position,
        label_by=label_by,
        finder=finder,
        delimiters=delimiters,
    )
    code = positive_class(found.labels, label_by)
    rows = np.flatnonzero(~np.isnan(code))
    groups = [trace.group for trace in found.traces]
    reason = why_not(code[rows] == 1, [groups[row] for row in rows.tolist()], label_by)
    plan = None if reason else make_plan(rows, code, groups, seed=seed, n_folds=n_folds)
    if plan is None or plan.n_folds == 0:
        raise InputError(f"steering of held-out requests: {reason or 'no split gives every fold both classes'}")
    measured = {trace.trace_id for trace in found.traces}
    left_out = {trace.trace_id: "it cannot be measured" for trace in traces if trace.trace_id not in measured}
    left_out |= {found.traces[row].trace_id: "of neither class" for row in np.flatnonzero(np.isnan(code)).tolist()}
    tables = []
    for fold in range(plan.n_folds):
        directions = found.directions(rows[plan.fold != fold])
        held_out = [found.traces[row] for row in rows[plan.fold == fold].tolist()]
        table = steer(model, held_out, directions, seed=seed, finder=finder, delimiters=delimiters, **options)
        left_out |= table.attrs["left_out"]
        tables.append(table.assign(fold=fold))
    order = {found.traces[row].trace_id: at for at, row in enumerate(rows.tolist())}
    table = pd.concat(tables, ignore_index=True)
    table = table.sort_values("trace_id", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    table.attrs["left_out"] = left_out
    return table
