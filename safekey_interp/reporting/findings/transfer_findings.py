"""Findings on transfer: a probe fitted on one condition and tested on another, beside the words alone.

At the position before K, which was chosen beforehand, else at the one where it does best.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from safekey_interp.data.conditions import FEW, Conditions
from safekey_interp.reporting.findings.finding import AUROC, AUROC_OVER_LAYERS, LEVEL, Finding, estimate
from safekey_interp.reporting.findings.phrases import Row, Table, capital, classes_of, site_of
from safekey_interp.reporting.labels import BUILT_IN_NAMES, Names
from safekey_interp.reporting.probe_rows import probe_rows

_TOLD = 2  # pairs that are told one by one


class _Pair(NamedTuple):
    """Fitted on one condition, tested on another, in the layer where that goes best."""

    row: Row
    at_home: Row | None
    """The same layer, fitted on the tested condition itself."""
    words: Row | None
    """What the words alone reach, fitted and tested in the same way."""
    n_sites: int
    """Layers that it is the best of."""
    n_pairs: int
    """Pairs that p is corrected for."""

    @property
    def names(self) -> list[str]:
        """Fitted on, tested on."""
        return [str(self.row["fitted_on"]), str(self.row["tested_on"])]

    @property
    def is_shown(self) -> bool:
        """Whether it beats shuffled labels; NaN never does."""
        return bool(self.row["n_groups"] >= FEW and self.row["p_value_over_all"] <= LEVEL)

    @property
    def beside_words(self) -> str:
        """``above`` or ``below`` what the words reach; empty when neither is clear."""
        return "" if self.words is None else estimate(self.row, *AUROC_OVER_LAYERS).lies(estimate(self.words, *AUROC))


def transfers(table: Table | None, conditions: Conditions, names: Names = BUILT_IN_NAMES) -> list[Finding]:
    """Each pair of two conditions; of more, how many carry over, and where most and least."""
    pairs = _pairs(table, conditions, names)
    if table is None or not pairs:
        return []
    classes = classes_of(table, names)
    if len(pairs) <= _TOLD:
        told = [_one(pair, classes, names) for pair in pairs]
        first = next((number for number, finding in enumerate(told) if finding.short), 0)
        return [replace(finding, short=finding.short * (number == first)) for number, finding in enumerate(told)]
    shown = [pair for pair in pairs if pair.is_shown]
    ordered = sorted(pairs, key=lambda pair: pair.row["auroc"])
    ends = [
        f"{_from_to(pair)} {estimate(pair.row, *AUROC_OVER_LAYERS).text('.2f')}" for pair in (ordered[-1], ordered[0])
    ]
    text = f"{capital(names.place(ordered[0].row))}, probes fitted on one condition are shown to tell {classes} of "
    text += f"another in {len(shown)} of {len(pairs)} pairs; best {ends[0]}, worst {ends[1]} (AUROC)."
    control = f"shuffled labels, at their own best layer; p over {len(pairs)} pairs; n is the worst's"
    facts = {"n_shown": len(shown), "n_pairs": len(pairs), "best": ordered[-1].names, "worst": ordered[0].names}
    return [Finding(question="knew", text=text, n=int(ordered[0].row["n"]), control=control, facts=facts)]


def transfer_chance(table: Table | None, conditions: Conditions, names: Names = BUILT_IN_NAMES) -> list[Finding]:
    """Whether the words alone carry over, too."""
    pairs = [pair for pair in _pairs(table, conditions, names) if pair.words is not None]
    if not pairs:
        return []
    n_more = sum(pair.beside_words == "above" for pair in pairs)
    if len(pairs) > _TOLD:
        text = f"Words alone, across conditions: the states clearly tell more in {n_more} of {len(pairs)} pairs."
    else:
        verdict = {"above": "tell more", "below": "tell less", "": "do not clearly tell more"}
        told = [
            f"{_from_to(pair)} the states {verdict[pair.beside_words]} ({pair.row['auroc']:.2f} against "
            f"{estimate(pair.words, *AUROC).text('.2f')})"
            for pair in pairs
        ]
        text = f"Words alone, across conditions: {'; '.join(told)}."
    control = "TF-IDF fitted and tested in the same folds; the states’ interval is that of the best of all layers"
    facts = {"n_above": n_more, "n_pairs": len(pairs)}
    facts |= {"states_lie": {" → ".join(pair.names): pair.beside_words or "unclear" for pair in pairs}}
    return [Finding(question="chance", text=text, n=int(pairs[0].row["n"]), control=control, facts=facts)]


def _one(pair: _Pair, classes: str, names: Names) -> Finding:
    row = pair.row
    number = estimate(row, *AUROC_OVER_LAYERS)
    is_reversed = not pair.is_shown and number.is_sure and number.high < 0.5
    verdict = f"tells {classes}" if pair.is_shown else f"is not shown to tell {classes}"
    if is_reversed:
        verdict = f"takes {classes} the wrong way round"
    beside = []
    if pair.at_home is not None:
        beside.append(f"; fitted on {row['tested_on']} traces there, {estimate(pair.at_home, *AUROC).text('.2f')}")
    if pair.words is not None:
        beside.append(f"; the words alone reach {estimate(pair.words, *AUROC).text('.2f')}")
    text = f"{capital(names.place(row))}, a probe fitted on {row['fitted_on']} traces alone {verdict} among "
    text += f"{row['tested_on']} traces: AUROC {number.text('.2f')} ({site_of(row, pair.n_sites)}){''.join(beside)}."
    p = row["p_value_over_all"]
    control = f"{int(row['n_fitted']):,} fitted; no prompt is on both sides"
    if np.isfinite(p):
        between = f"{row['null_auroc_low']:.2f} to {row['null_auroc_high']:.2f}"
        of = [f"{n} {what}" for n, what in ((pair.n_sites, "layers"), (pair.n_pairs, "pairs")) if n > 1]
        over = f" over {' and '.join(of)}" if of else ""
        control = f"shuffled labels give {between}; p = {p:.2g}{over}; {control}"
    short = f"A probe fitted on {row['fitted_on']} traces alone tells {classes} among {row['tested_on']} traces"
    short = f"{short}{names.before}: AUROC {number.text('.2f')} (n = {int(row['n']):,}){''.join(beside)}."
    short = short if pair.is_shown else ""
    at_home, words = (None if r is None else estimate(r, *AUROC).listed() for r in (pair.at_home, pair.words))
    facts = {"fitted_on": row["fitted_on"], "tested_on": row["tested_on"], "layer": int(row["layer"])}
    facts |= {"is_reversed": is_reversed, "at_home": at_home, "words": words}
    about: dict[str, Any] = {"n": int(row["n"]), "is_shown": pair.is_shown, "facts": facts}
    return Finding(question="knew", text=text, control=control, short=short, **about, **number.fields())


def _from_to(pair: _Pair) -> str:
    return f"from {pair.row['fitted_on']} to {pair.row['tested_on']}"


def _pairs(table: Table | None, conditions: Conditions, names: Names) -> list[_Pair]:
    """Pairs of different conditions, in the conditions' order."""
    if table is None or table.empty:
        return []
    rows = table.loc[~(table["after_the_fact"].astype(bool) & names.is_built_in) & table["auroc"].notna()]
    fitted_rows = probe_rows(rows)
    across = fitted_rows.loc[fitted_rows["fitted_on"] != fitted_rows["tested_on"]]
    if across.empty:
        return []
    there = set(across["position"])
    position = names.main if names.main in there else across.loc[across["auroc"].idxmax(), "position"]
    rows, fitted_rows, across = (part.loc[part["position"] == position] for part in (rows, fitted_rows, across))
    order = {name: number for number, name in enumerate(conditions.names)}
    ordered = sorted(
        set(zip(across["fitted_on"], across["tested_on"], strict=True)),
        key=lambda pair: [order.get(name, len(order)) for name in pair],
    )
    found = []
    for fitted, tested in ordered:
        mine = across.loc[(across["fitted_on"] == fitted) & (across["tested_on"] == tested)]
        row = mine.loc[mine["auroc"].idxmax()]
        at_home = fitted_rows.loc[
            (fitted_rows["fitted_on"] == tested)
            & (fitted_rows["tested_on"] == tested)
            & (fitted_rows["layer"] == row["layer"])
            & (fitted_rows["site"] == row["site"])
        ]
        words = rows.loc[
            (rows["fitted_on"] == fitted) & (rows["tested_on"] == tested) & (rows["method"] == "text_tfidf")
        ]
        found.append(_Pair(row, _first(at_home), _first(words), len(mine), len(ordered)))
    return found


def _first(rows: Table) -> Row | None:
    return rows.iloc[0] if len(rows) else None
