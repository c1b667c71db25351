"""Paired tests of two models on the same prompts, and agreement of two judges on the same responses.

Models: the difference of two shares with its paired interval over groups, and an exact test that flips the sign of each
group's difference (McNemar's where a group is one prompt), of whether prompts that count for one model alone are as
often the first's as the second's. Judges: the share of equal labels, and Cohen's kappa, which subtracts the agreement
of two judges that label at random at their own rates:
kappa = (observed - expected) / (1 - expected). Tables are those of :mod:`safekey_interp.evaluation.judge_metrics`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from safekey_interp.data.conditions import FEW
from safekey_interp.errors import InputError
from safekey_interp.evaluation.judge_metrics import need
from safekey_interp.measures.intervals import (
    NOTHING,
    Groups,
    Interval,
    difference_of_shares,
    group_codes,
    share_interval,
    sign_flip_p,
    student,
)

if TYPE_CHECKING:
    import pandas as pd


def compare_models(
    judged: pd.DataFrame, *, first: str, second: str, counted: Collection[str], prompt_label: str | None = None
) -> pd.DataFrame:
    """How two models' shares of some labels differ on the same prompts.

    Args:
        judged: needs ``trace_id, group, prompt_label, model, label``.
        first: a model.
        second: another one.
        counted: labels that are counted, such as :data:`safekey_interp.evaluation.judge_metrics.REFUSING`.
        prompt_label: only prompts of this label; all when None.

    Returns:
        One row: ``first, second, value_first, value_second, difference`` (second minus first) with its interval
        ``low, high``; ``only_first, only_second`` (prompts that count for one model alone) and the exact ``p`` of
        flipped signs, NaN with several samples of a prompt; ``n_prompts``, and ``n_left_out`` of prompts that one model
        lacks or that have a response without a label.

    Raises:
        InputError: a column is missing, or no prompt is left.
    """
    import pandas as pd

    need(judged, ("trace_id", "group", "label", "model", "prompt_label"))
    rows: Any = judged[judged["model"].isin((first, second))]
    if prompt_label is not None:
        rows = rows[rows["prompt_label"] == prompt_label]
    rows = rows.assign(counts=rows["label"].isin(counted).astype(float).where(rows["label"].notna()))
    by_prompt = rows.groupby(["trace_id", "model"])["counts"].agg(["mean", "size", "count"]).unstack("model")
    n_all = len(by_prompt)
    if set(rows["model"]) == {first, second}:
        by_prompt = by_prompt[(by_prompt["size"] == by_prompt["count"]).all(axis=1)]
    if set(rows["model"]) != {first, second} or by_prompt.empty:
        models = ", ".join(sorted(map(str, set(judged["model"])))) or "no models"
        raise InputError(
            f"compare_models: got no prompt with labelled responses of both {first!r} and {second!r}, expected one at "
            f"least; the table has {models}"
        )
    groups = rows.groupby("trace_id")["group"].first()[by_prompt.index].tolist()
    shares, others = (by_prompt["mean"][model].to_numpy() for model in (first, second))
    interval = difference_of_shares((shares, groups), (others, groups))
    only_first = int(((shares == 1) & (others == 0)).sum())
    only_second = int(((shares == 0) & (others == 1)).sum())
    single = bool((by_prompt["size"] == 1).to_numpy().all())
    row = {
        "first": first,
        "second": second,
        "value_first": shares.mean(),
        "value_second": others.mean(),
        "difference": (others - shares).mean(),
        "low": interval.low,
        "high": interval.high,
        "only_first": only_first if single else np.nan,
        "only_second": only_second if single else np.nan,
        "p": sign_flip_p(others - shares, groups) if single else np.nan,
        "n_prompts": len(by_prompt),
        "n_left_out": n_all - len(by_prompt),
    }
    return pd.DataFrame([row])


def judge_agreement(judged: pd.DataFrame, *, first: str, second: str) -> pd.DataFrame:
    """How far two judges agree on the same responses: share of equal labels and Cohen's kappa.

    Args:
        judged: needs ``trace_id, group, judge, label``; ``model`` and ``sample`` tell responses to one prompt apart.
        first: a judge.
        second: another one.

    Returns:
        Two rows, ``agreement`` and ``kappa``: ``first, second, value, low, high`` (over groups), ``n`` responses
        and ``n_left_out`` of those that one judge did not label. Kappa is NaN when both judges use one
        label alone.

    Raises:
        InputError: a column is missing, a judge labels a response twice, or no response is labelled by both.
    """
    import pandas as pd

    need(judged, ("trace_id", "group", "label", "judge"))
    keys = [name for name in ("model", "trace_id", "sample") if name in judged]
    labels, other_labels = (_of_judge(judged, judge, keys) for judge in (first, second))
    joined: Any = labels.join(other_labels, how="outer", lsuffix="_1", rsuffix="_2")
    both = joined.dropna(subset=["label_1", "label_2"])
    if both.empty:
        raise InputError(
            f"judge_agreement: got no response labelled by both {first!r} and {second!r}, expected one at least"
        )
    names = sorted({*both["label_1"], *both["label_2"]})
    cell = both["label_1"].map(names.index) * len(names) + both["label_2"].map(names.index)
    groups = both["group_1"].tolist()
    same = (both["label_1"] == both["label_2"]).to_numpy(float)
    measures = {
        "agreement": (float(same.mean()), share_interval(same, groups)),
        "kappa": kappa_interval(np.eye(len(names) ** 2)[cell.to_numpy(int)], groups),
    }
    rows = []
    for measure, (value, interval) in measures.items():
        row = {"measure": measure, "first": first, "second": second, "value": value}
        rows.append({**row, **interval._asdict(), "n": len(both), "n_left_out": len(joined) - len(both)})
    return pd.DataFrame(rows)


def _of_judge(judged: Any, judge: str, keys: list[str]) -> Any:
    rows = judged[judged["judge"] == judge].set_index(keys)[["group", "label"]]
    if not rows.index.is_unique:
        raise InputError(
            f"judge_agreement: {judge!r} labels {rows.index[rows.index.duplicated()][0]} twice, expected once; give "
            "samples of a prompt numbers in the column sample"
        )
    return rows


def kappa_interval(cells: np.ndarray, groups: Groups) -> tuple[float, Interval]:
    """Cohen's kappa, of one-hot (response, label x label), with its interval over groups.

    One group in which the judges agree and one in which they differ are added; the variance is linearised over groups
    (Fleiss, Cohen & Everitt 1969).
    """
    codes, side = group_codes(groups), round(cells.shape[1] ** 0.5)
    tables = np.zeros((int(codes.max()) + 1, cells.shape[1]))
    np.add.at(tables, codes, cells)
    tables = tables.reshape(-1, side, side)
    value = _of_table(tables.sum(0))
    n = len(tables)
    if n < 2 * FEW or not np.isfinite(value):
        return value, NOTHING
    share = tables.sum(0) / tables.sum()
    # Half as the judges label, half evenly: a label that a few responses have not shown may be there.
    first, second = ((share.sum(axis) + 1 / side) / 2 for axis in (1, 0))
    alike, apart = np.diag((first + second) / 2), np.where(np.eye(side, dtype=bool), 0.0, np.outer(first, second))
    size = tables.sum() / n
    tables = np.concatenate([tables, [size * alike, size * apart / apart.sum()]])
    share = tables.sum(0) / tables.sum()
    rows, columns = share.sum(1), share.sum(0)
    observed, expected = np.trace(share), float(rows @ columns)
    centre = (observed - expected) / (1 - expected)
    # d kappa / d share of a cell
    slope = np.eye(side) / (1 - expected) - (1 - observed) / (1 - expected) ** 2 * (columns[:, None] + rows[None, :])
    slope -= (slope * share).sum()
    influence = (tables * slope).sum((1, 2)) / tables.sum()
    half = float(student(n - 1) * np.sqrt((n + 2) / (n + 1) * (influence**2).sum()))
    return value, Interval(max(-1.0, float(centre - half)), min(1.0, float(centre + half)))


def _of_table(table: np.ndarray) -> float:
    """Cohen's kappa of (label, label) counts; NaN when both judges use one label alone."""
    share = table / table.sum()
    observed, expected = np.trace(share), float(share.sum(1) @ share.sum(0))
    return float((observed - expected) / (1 - expected)) if expected < 1 - 1e-12 else float("nan")
