"""Calibration of the probes on the page of a probe run: Brier score and ECE in each position's best layer.

Beside them the Brier score of the classes' shares, q (1 − q), which a probe must fall below, and that of the words
alone; and the share of the positive class found at 5 % false positives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from safekey_interp.reporting.figures.figure_numbers import with_interval
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.labels import BUILT_IN_NAMES, Names, known_first, layer_name
from safekey_interp.reporting.probe_rows import probe_rows

_BRIER = ("brier", "brier_low", "brier_high")
_TPR = ("tpr_at_5fpr", "tpr_at_5fpr_low", "tpr_at_5fpr_high")


def calibration(separability: Table | None, names: Names = BUILT_IN_NAMES) -> dict[str, Any] | None:
    """Rows of the table: position, layer, and the numbers there.

    Args:
        separability: the run's ``separability``.
        names: words for positions.

    Returns:
        ``bins`` of the ECE and ``rows``, each position in the layer of its highest AUROC; None where the table has no
        such columns (of earlier versions), or no probe an AUROC.
    """
    if separability is None or not {*_BRIER, *_TPR, "ece"} <= set(separability.columns):
        return None
    probes = probe_rows(separability).dropna(subset=["auroc"])
    if probes.empty:
        return None
    order = list(known_first(separability["position"].dropna(), names.positions))
    first = probes["label_by"].iloc[0]
    rows = []
    for (label_by, position), part in sorted(
        probes.groupby(["label_by", "position"], sort=False, observed=True),
        key=lambda item: (item[0][0] != first, item[0][0], order.index(str(item[0][1]))),
    ):
        best = part.loc[part["auroc"].idxmax()]
        mine = (separability["label_by"] == label_by) & (separability["position"] == position)
        words = separability[mine & (separability["method"] == "text_tfidf")].head(1)
        shares = best["n_harmful"] * best["n_benign"] / (best["n_harmful"] + best["n_benign"]) ** 2
        place = names.position(str(position)) + f", by {label_by}" * (label_by != first)
        of_words = _text(words.iloc[0], *_BRIER) if len(words) else "n/a"
        numbers = [_text(best, *_TPR), _text(best, *_BRIER), f"{shares:.3f}", of_words, _text(best, "ece")]
        rows.append([place, layer_name(best), *numbers])
    return {"bins": int(probes["ece_bins"].iloc[0]), "rows": rows}


def _text(row: Table, *columns: str) -> str:
    """A number with its interval, if any; an estimator without probabilities has neither Brier score nor ECE."""
    value, *ends = (float(row[name]) for name in columns)
    return with_interval(value, *(ends or [np.nan] * 2)) if np.isfinite(value) else "n/a"
