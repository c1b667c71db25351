"""Two-stage interventions: first-order estimates rank all places, exact passes screen the first and confirm the best.

    estimates of all places -> exact effects of the first -> exact effects and all controls of the best of these

Where the exact passes of all places cost more than a budget, estimates are made of every place and of every draw of its
controls, which takes one forward and one backward pass a trace. Then come two rounds of exact passes: without controls,
of the places whose estimates have the largest means over traces (and of a few that are drawn at random, so that the
rank correlation of estimates and exact effects is not that of the first alone); and with all controls, of the places
among these with the largest exact means, as many as the budget pays for and at least one. So an estimate has to be
right about which places are among the first, not about which is the first (successive halving).

A place that was chosen among many because its effect is the largest has no p of its own. p over all places is that of
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

from safekey_interp.errors import InputError, NothingMeasured
from safekey_interp.generation.batch_readings import packed
from safekey_interp.interventions.effect_metrics import find_subjects, readout_of
from safekey_interp.interventions.effects import tested_rows
from safekey_interp.interventions.intervention_record import Intervention, Stages, load_function
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
N_DRAWN = 3
"""Places that are screened beside the first, drawn at random."""
BUDGET = {"cpu": 1.2e14, "cuda": 1.2e16}
"""Floating-point operations of the exact passes, by kind of device: some ten minutes of two cores, or of one GPU."""
_N_READ = 8
_ESTIMATES = ("attribution", "effect")


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

    Raises:
        InputError: some are asked for, and with these options no estimate ranks places.
    """
    stages = intervention.stages
    if stages is None:
        return None
    n_places = load_function(stages.n_places)(model, options)
    if asked is not None and not n_places:
        raise InputError(
            f"confirm: got {asked}, but {intervention.name} with method {options['method']} does not rank places by "
            "estimates; leave confirm out, or take method both"
        )
    if asked is None:
        affordable = int(_budget(model) // max(1.0, _cost_of_place(intervention, model, traces, options, settings)))
        asked = n_places if affordable >= n_places else max(1, min(MOST_CONFIRMED, affordable))
    return None if asked >= n_places else asked


def n_tokens(subject: Subject) -> int:
    """Tokens of one variant's passes: what all rows begin with, and what is behind it, shared where it is equal."""
    n = max(0, min(row.start for row in subject.rows) - 1)
    return n + sum(len(tree.ids) for tree, _ in packed(subject.rows, n, together=True))


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


def n_screened(n: int) -> int:
    """Places whose exact effects are compared before ``n`` of them are confirmed, those that are drawn left out."""
    return 5 * n + 5


def places_to_screen(estimates: pd.DataFrame, stages: Stages, n: int, *, seed: int) -> list[tuple[Any, ...]]:
    """The places with the largest mean estimates, and some more that are drawn.

    Args:
        estimates: table of the first round, of all traces.
        stages: of the intervention.
        n: places to confirm.
        seed: of those that are drawn.

    Returns:
        Each as values of the columns that tell places apart.
    """
    order = _by_size(estimates, stages)
    first, rest = order[: n_screened(n)], order[n_screened(n) :]
    drawn = np.random.default_rng([seed, len(order)]).permutation(len(rest))[:N_DRAWN]
    return [*first, *(rest[number] for number in sorted(drawn.tolist()))]


def _by_size(table: pd.DataFrame, stages: Stages) -> list[tuple[Any, ...]]:
    means = mean_effects(table, stages).abs().sort_values(ascending=False, kind="stable")
    return [place if isinstance(place, tuple) else (place,) for place in means.index]


def next_call(rounds: Sequence[pd.DataFrame], stages: Stages, n: int, *, seed: int) -> dict[str, Any]:
    """Arguments of an intervention's function in the round behind some others.

    Args:
        rounds: their tables, of all traces; none before the first round.
        stages: of the intervention.
        n: places to confirm.
        seed: of those that are drawn.
    """
    if not rounds:
        return dict(stages.estimate)
    if len(rounds) == 1:
        return {**stages.exact, **stages.without_controls, "only": places_to_screen(rounds[0], stages, n, seed=seed)}
    return {**stages.exact, "only": _by_size(rounds[1], stages)[:n]}


ROUNDS = (ESTIMATE, EXACT, EXACT)
"""The stage of each round."""


def in_two_stages(measure: Callable[..., pd.DataFrame], stages: Stages, n: int, *, seed: int) -> pd.DataFrame:
    """The table of both stages of all traces, in one go.

    Args:
        measure: an intervention's function with its arguments (``functools.partial``), but those of a round.
        stages: of the intervention.
        n: places to confirm.
        seed: of those that are drawn.
    """
    rounds: list[pd.DataFrame] = []
    for stage in ROUNDS:
        rounds.append(measure(**next_call(rounds, stages, n, seed=seed)).assign(**{STAGE: stage}))
    table = join_stages(pd.concat(rounds, ignore_index=True))
    table.attrs["left_out"] = rounds[0].attrs["left_out"]
    return table


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
    """A table of both stages, one after the other, as it is kept: what was screened and then confirmed is there once.

    Where estimates have a column of their own (``attribution``), a row that was measured exactly takes it over, and
    stands for both.
    """
    keys = ("trace_id", "source_id", "donor_id", "direction", "scale", "layer", "component", "position")
    keys = [name for name in (*keys, "control", "draw", "metric") if name in table.columns]
    table = table.loc[~table.duplicated([*keys, STAGE], keep="last")].reset_index(drop=True)
    if "attribution" not in table.columns:
        return table
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
