"""Probes of compared models before K, read from each model's own run of ``probe``.

``separability`` has the AUROC of the logistic probe at each layer, but not its scores, and a paired difference needs
the scores of each trace. The run keeps those along the probe's LDA axis (``coordinates``; out of fold, standardised
within their fold), so ``auroc`` here is theirs: within the folds that the run has stored, as everywhere
(:mod:`safekey_interp.measures.auroc`); and the median over layers, so that no layer is picked. ``auroc_best`` is the
logistic probe at its best layer, with interval and p over layers, and ``auroc_words`` the words of the same span alone;
both as ``separability`` has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from safekey_interp.data.class_labels import class_pair
from safekey_interp.measures.auroc_intervals import Ranked, rank
from safekey_interp.measures.folds import make_plan
from safekey_interp.measures.intervals import group_codes
from safekey_interp.reporting.findings.finding import AUROC, AUROC_OVER_LAYERS

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run

POSITIONS = ("understanding", "decision")
"""Mean over U, and the last token before K."""


class Scores(NamedTuple):
    """Out-of-fold scores of one position."""

    trace_ids: list[str]
    """The traces."""
    groups: list[str]
    """Their groups."""
    positive: np.ndarray
    """(trace) bool: of the positive class."""
    fold: np.ndarray
    """(trace) the fold in which each was scored."""
    values: np.ndarray
    """(trace, layer)."""

    def shared_with(self, other: Scores) -> Scores:
        """Those of the traces that another model's scores have too, in the order of their ids."""
        place = {trace_id: row for row, trace_id in enumerate(self.trace_ids)}
        rows = [place[trace_id] for trace_id in sorted(set(self.trace_ids) & set(other.trace_ids))]
        ids, groups = ([names[row] for row in rows] for names in (self.trace_ids, self.groups))
        return Scores(ids, groups, self.positive[rows], self.fold[rows], self.values[rows])


class Knowledge(NamedTuple):
    """Scores and best layers of one model's probes."""

    scores: dict[str, Scores]
    """By position; none where nothing could be separated."""
    best: list[dict[str, Any]]
    """Rows of ``auroc_best`` and ``auroc_words``."""


def knowledge_of(run: Run) -> Knowledge:
    """Scores and best layers of a run of ``probe``, at :data:`POSITIONS`."""
    return Knowledge(dict(_scores(run)), list(_best(run)))


def median_layer(scores: Scores) -> Ranked:
    """AUROC, median over layers, with what each group adds to the error of the layer (or the two) in the middle."""
    codes = group_codes(scores.groups)
    layers = [rank(column, scores.positive, scores.fold, codes) for column in scores.values.T]
    order = np.argsort([layer.value for layer in layers], kind="stable")
    middle = [layers[place] for place in order[(len(order) - 1) // 2 : len(order) // 2 + 1]]
    return Ranked(
        float(np.mean([layer.value for layer in middle])),
        np.mean([layer.influence for layer in middle], axis=0),
        middle[0].n_least,
    )


def _scores(run: Run) -> Iterator[tuple[str, Scores]]:
    columns = ["trace_id", "position", "layer", "site", "label", "lda", "fold"]
    table: Any = run.table("coordinates", columns=columns, filters=[("position", "in", POSITIONS)])
    about: Any = run.table("traces", columns=["trace_id", "group"])
    if table is None or about is None:
        return
    by = run.manifest["settings"]["label_by"]
    positive_class = class_pair(table["label"].astype(str).unique(), by).positive
    group_of = dict(zip(about["trace_id"], about["group"], strict=True))
    for position in POSITIONS:
        rows = table[table["position"].astype(str) == position].dropna(subset=["lda"])
        if rows.empty:
            continue
        wide = rows.pivot_table(index="trace_id", columns=["layer", "site"], values="lda", observed=True).dropna()
        traces = rows.drop_duplicates("trace_id").set_index("trace_id")
        traces = traces[traces.index.isin(wide.index)]  # in the order in which the run split them
        positive = traces["label"].astype(str).eq(positive_class).to_numpy()
        ids = [str(trace_id) for trace_id in traces.index]
        groups = [str(group_of[name]) for name in ids]
        if "fold" in traces:
            fold = traces["fold"].to_numpy(int)
        else:  # a run folder from before folds were stored
            seed = int(run.manifest["seed"])
            fold = make_plan(np.arange(len(ids)), positive.astype(float), groups, seed=seed).fold
        yield position, Scores(ids, groups, positive, fold, wide.loc[traces.index].to_numpy(float))


def _best(run: Run) -> Iterator[dict[str, Any]]:
    table: Any = run.separability
    if table is None:
        return
    for position in POSITIONS:
        rows = table[(table["position"] == position) & table["auroc"].notna()]
        methods = {"auroc_best": "logistic", "auroc_words": "text_tfidf"}
        for measure, method in methods.items():
            of_method = rows[rows["method"] == method]
            if of_method.empty:
                continue
            row = of_method.loc[of_method["auroc"].idxmax()]
            bounds = AUROC_OVER_LAYERS if measure == "auroc_best" else AUROC
            names = dict(zip(("value", "low", "high"), bounds, strict=True)) | {"n": "n", "n_groups": "n_groups"}
            numbers = {name: row[column] for name, column in names.items()}
            p = row["p_value_over_layers"] if measure == "auroc_best" else np.nan
            yield {"measure": measure, "subset": "all", "position": position, **numbers, "p": p}
