"""Two-stage interventions: first-order estimates of all places rank them, exact passes measure the first ones.

    exact passes of a place = its own and those of all its controls

Where the exact passes of all places cost more than a budget, estimates are made of every place and of every draw of its
controls, which takes one forward and one backward pass a trace. By the size of their mean over traces, the first places
are measured exactly with all controls (as many as the budget pays, at least one), and some more without controls: the
next ones, and a few that are drawn at random, so that the rank correlation of estimates and exact effects is not that
of the first alone.

A place that was chosen among many because its estimate is the largest has no p of its own. p over all places is that of
the estimates, of which every draw of the control has as many as what is tested: the largest of each draw's, so that the
draws go through the same selection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from safekey_interp.errors import NothingMeasured
from safekey_interp.interventions.effect_metrics import find_subjects, readout_of
from safekey_interp.interventions.effects import tested_rows
from safekey_interp.interventions.intervention_record import Intervention, load_function
from safekey_interp.interventions.stages_record import Stages
from safekey_interp.segmentation.finder_registry import WITHOUT_MEMORY

if TYPE_CHECKING:
    from safekey_interp.capture.stream_settings import StreamSettings
    from safekey_interp.data.trace import Trace
    from safekey_interp.interventions.effect_metrics import Subject
    from safekey_interp.models.model import Model

STAGE, ESTIMATE, EXACT = "stage", "estimate", "exact"
"""The column that says how a row was measured, and its values."""
MOST_CONFIRMED = 5
"""Places that are confirmed by default, where the budget pays for them."""
N_EXACT, N_DRAWN = 5, 3
"""Places whose exact effect is measured at least, confirmed ones included, and further ones that are drawn."""
BUDGET = {"cpu": 1.2e14, "cuda": 1.2e16}
"""Floating-point operations of the exact passes, by kind of device: some ten minutes of two cores, or of one GPU."""
_N_READ = 8
_ESTIMATES = ("attribution", "effect")


class Chosen(NamedTuple):
    """Places that are measured exactly, each as values of the columns that tell places apart."""

    confirmed: list[tuple[Any, ...]]
    """With all controls."""
    checked: list[tuple[Any, ...]]
    """Without."""


def n_confirmed(
    intervention: Intervention,
    model: Model,
    traces: Sequence[Trace],
    options: Mapping[str, Any],
    settings: StreamSettings,
    *,
    asked: int | None,
) -> int | None:
    """How many places are confirmed; None where all are measured exactly, in one stage.

    Args:
        intervention: its record.
        model: the model.
        traces: all of them.
        options: complete.
        settings: how U and K are found.
        asked: how many the user wants; by the budget when None.
    """
    stages = intervention.stages
    if stages is None:
        return None
    n_places = load_function(stages.n_places)(model, options)
    if asked is None:
        affordable = int(_budget(model) // max(1.0, _cost_of_place(intervention, model, traces, options, settings)))
        asked = n_places if affordable >= n_places else max(1, min(MOST_CONFIRMED, affordable))
    return None if asked >= n_places else asked


def n_tokens(subject: Subject) -> int:
    """Tokens of one variant's passes: what all rows begin with, and what is behind it in each row."""
    rows = subject.rows
    n = max(0, min(row.start for row in rows) - 1)
    return n + sum(len(row.ids) - n - (row.reader is None) for row in rows)


def _budget(model: Model) -> float:
    return BUDGET.get(model.device.type, BUDGET["cuda"])


def _cost_of_place(
    intervention: Intervention,
    model: Model,
    traces: Sequence[Trace],
    options: Mapping[str, Any],
    settings: StreamSettings,
) -> float:
    """Floating-point operations of the exact passes of one place of all traces: two a parameter and token."""
    assert intervention.stages is not None
    some = list(traces[:: max(1, len(traces) // _N_READ)])
    if settings.finder not in WITHOUT_MEMORY:  # lengths are not worth an endpoint's answers
        settings = replace(settings, finder="rules")
    try:
        subjects, _ = find_subjects(model, some, readout_of(model, options.get("metric"), options["bank"]), settings)
    except NothingMeasured:
        return 0.0  # which the run says itself
    tokens = np.mean([n_tokens(subject) for subject in subjects]) * len(traces)
    n_parameters = sum(parameter.numel() for parameter in model.hf.parameters())
    return float(2 * n_parameters * tokens * load_function(intervention.stages.n_variants)(options))


def choose_places(estimates: pd.DataFrame, stages: Stages, n: int, *, seed: int) -> Chosen:
    """The places with the largest mean estimates, and some more.

    Args:
        estimates: table of the first stage, of all traces.
        stages: of the intervention.
        n: places to confirm.
        seed: of those that are drawn.
    """
    means = mean_effects(estimates, stages).abs().sort_values(ascending=False, kind="stable")
    order = [place if isinstance(place, tuple) else (place,) for place in means.index]
    first, rest = order[: max(n, N_EXACT)], order[max(n, N_EXACT) :]
    drawn = np.random.default_rng([seed, len(order)]).permutation(len(rest))[:N_DRAWN]
    return Chosen(first[:n], [*first[n:], *(rest[number] for number in sorted(drawn.tolist()))])


def in_two_stages(measure: Callable[..., pd.DataFrame], stages: Stages, n: int, *, seed: int) -> pd.DataFrame:
    """The table of both stages of all traces, in one go.

    Args:
        measure: an intervention's function with its arguments (``functools.partial``), but those of a stage.
        stages: of the intervention.
        n: places to confirm.
        seed: of those that are drawn.
    """
    estimates = measure(**stages.estimate)
    chosen = choose_places(estimates, stages, n, seed=seed)
    tables = [estimates.assign(**{STAGE: ESTIMATE})]
    for call in exact_calls(chosen, stages):
        tables.append(measure(**call).assign(**{STAGE: EXACT}))
    table = join_stages(pd.concat(tables, ignore_index=True))
    table.attrs["left_out"] = estimates.attrs["left_out"]
    return table


def exact_calls(chosen: Chosen, stages: Stages) -> list[dict[str, Any]]:
    """Arguments of each call of an intervention's function that the exact passes take."""
    with_controls = {**stages.exact, "only": chosen.confirmed}
    without = {**stages.exact, **stages.without_controls, "only": chosen.checked}
    return [with_controls, without] if chosen.checked else [with_controls]


def mean_effects(table: pd.DataFrame, stages: Stages) -> pd.Series:
    """Mean over traces at each place, of what is tested on the first metric; at several scales the largest of them."""
    tested = tested_rows(table)
    tested = tested.loc[tested["metric"] == tested["metric"].iloc[0]]
    value = next(name for name in _ESTIMATES if name in tested.columns and tested[name].notna().any())
    scale = ["scale"] if "scale" in tested.columns else []
    columns = [*stages.place(tested.columns), *scale]
    means: Any = tested.groupby(columns, sort=False, dropna=False, observed=True)[value].mean()
    if scale:
        largest = means.abs().groupby(level=list(range(len(columns) - 1)), sort=False).idxmax()
        means = means.loc[largest.tolist()].droplevel("scale")
    return means


def join_stages(table: pd.DataFrame) -> pd.DataFrame:
    """A table of both stages, one after the other, as it is kept.

    Where estimates have a column of their own (``attribution``), a row that was measured exactly takes it over, and
    stands for both.
    """
    if "attribution" not in table.columns:
        return table
    keys = [name for name in ("trace_id", "source_id", "donor_id", "layer", "component", "position", "control", "draw")]
    keys = [name for name in (*keys, "metric") if name in table.columns]
    estimates = table.loc[table[STAGE] == ESTIMATE].set_index(keys)["attribution"]
    exact = table.loc[table[STAGE] == EXACT].set_index(keys)
    exact["attribution"] = estimates.reindex(exact.index)
    order = {key: at for at, key in enumerate(table.loc[table[STAGE] == ESTIMATE, keys].itertuples(index=False))}
    rest = table.loc[table[STAGE] == ESTIMATE].set_index(keys)
    both = pd.concat([rest.loc[~rest.index.isin(exact.index)], exact])
    both = both.iloc[np.argsort([order.get(key, len(order)) for key in both.index], kind="stable")]
    return both.reset_index()[list(table.columns)]


def with_p_of_estimates(summary: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A summary whose exact rows have the p over all places of their estimates, and no p of a place chosen beforehand.

    Args:
        summary: of a table of both stages, from ``summarise_effects``.
        by: columns that tell its places apart.
    """
    keys = [*(name for name in by if name != STAGE), "subset", "control_kind"]
    exact = summary[STAGE] == EXACT
    estimates = summary.loc[~exact, [*keys, "p_value_over_all"]]
    p_values = summary[keys].merge(estimates, on=keys, how="left")["p_value_over_all"].to_numpy()
    over_all = np.where(exact & summary["excess"].isna(), np.nan, p_values)
    return summary.assign(p_value=summary["p_value"].where(~exact), p_value_over_all=over_all)


class Agreement(NamedTuple):
    """How estimates rank places beside the exact effects."""

    correlation: float
    """Spearman's, of the means over traces at the places that have both; NaN where one does not vary."""
    n: int
    """Those places."""


def rank_agreement(table: pd.DataFrame, stages: Stages) -> Agreement:
    """Rank correlation of estimates and exact effects, of a table of both stages."""
    exact = table.loc[table[STAGE] == EXACT]
    estimates = exact if "attribution" in table.columns else table.loc[table[STAGE] == ESTIMATE]
    measured = mean_effects(exact.drop(columns="attribution", errors="ignore"), stages)
    both = pd.concat([mean_effects(estimates, stages).rename("x"), measured.rename("y")], axis=1, join="inner")
    ranks = [rankdata(both[name].abs()) for name in ("x", "y")]
    varies = len(both) > 1 and all(np.ptp(each) > 0 for each in ranks)
    return Agreement(float(np.corrcoef(*ranks)[0, 1]) if varies else np.nan, len(both))
