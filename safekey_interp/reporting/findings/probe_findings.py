"""Findings on probes before K, beside shuffled labels and the words alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from safekey_interp.data.conditions import FEW
from safekey_interp.reporting.findings.effect_size import AUROC_GAIN, Verdict, smallest_of, verdict_of
from safekey_interp.reporting.findings.finding import AUROC, AUROC_OVER_LAYERS, LEVEL, Estimate, Finding, estimate
from safekey_interp.reporting.findings.phrases import Row, Table, capital, classes_of, site_of
from safekey_interp.reporting.labels import BUILT_IN_NAMES, Names
from safekey_interp.reporting.probe_rows import probe_rows

_GIVEN_AWAY = 0.55  # null AUROC from which on the design of the data tells the labels


class _Best(NamedTuple):
    """The best layer of one position."""

    row: Row
    words: Row | None
    """What the words alone reach there."""
    n_sites: int
    """Layers that it is the best of."""
    n_positions: int
    """Positions whose layers p is corrected for, too."""
    is_shown: bool
    """Whether it beats shuffled labels."""


def probes(table: Table | None, names: Names = BUILT_IN_NAMES) -> list[Finding]:
    """What a probe tells at the position before K, or where it does best."""
    best = _best(table, names)
    if table is None or not best:
        return []
    classes = classes_of(table, names)
    main = best[0]
    number = estimate(main.row, *AUROC_OVER_LAYERS)
    if not any(one.is_shown for one in best):
        text = f"Nowhere{names.before} is a linear probe shown to tell {classes}"
        text += f"; {names.place(main.row)}: AUROC {number.text('.2f')} ({site_of(main.row, main.n_sites)})."
        return [_finding(main, text, names)]
    verdict = "tells" if main.is_shown else "is not shown to tell"
    alone = "" if main.words is None else f"; the words alone reach {estimate(main.words, *AUROC).text('.2f')}"
    text = f"{capital(names.place(main.row))} a linear probe {verdict} {classes}: AUROC {number.text('.2f')} "
    text += f"({site_of(main.row, main.n_sites)}){alone}."
    if _size_of(number) == "too small":
        text = f"{text.removesuffix('.')}; too small to matter, within {smallest_of(AUROC_GAIN):g} of a coin toss."
        return [_finding(main, text, names)]
    clause = f"{capital(names.place(main.row))} a linear probe already tells {classes}: AUROC {number.text('.2f')}"
    clause += f" (n = {int(main.row['n']):,}; {_shuffled(main)}){alone}."
    return [_finding(main, text, names, clause if main.is_shown else "")]


def _size_of(number: Estimate) -> Verdict:
    """The verdict on an AUROC beside that of a coin toss."""
    return verdict_of(Estimate(*(part - 0.5 for part in number)), smallest_of(AUROC_GAIN))


def _shuffled(best: _Best) -> str:
    """What shuffled labels give."""
    return f"shuffled labels give {best.row['null_auroc_low']:.2f} to {best.row['null_auroc_high']:.2f}"


def other_probes(table: Table | None, names: Names = BUILT_IN_NAMES) -> list[Finding]:
    """At how many other positions before K a probe tells the classes, and where best."""
    best = _best(table, names)
    shown = [one for one in best[1:] if one.is_shown]
    if not shown:
        return []
    top = max(shown, key=lambda one: one.row["auroc"])
    number = estimate(top.row, *AUROC_OVER_LAYERS)
    text = f"Elsewhere{names.before}, probes tell them at {len(shown)} of {len(best) - 1} positions; "
    text += f"best {names.place(top.row)}: AUROC {number.text('.2f')} ({site_of(top.row, top.n_sites)})."
    return [_finding(top, text, names)]


def probe_chance(table: Table | None, names: Names = BUILT_IN_NAMES) -> list[Finding]:
    """Which of it shuffled labels, and the words alone, would give too."""
    best = _best(table, names)
    if not best:
        return []
    main = best[0]
    found = []
    p = main.row["p_value_over_all"]
    if np.isfinite(p):
        beaten = "does better than" if main.is_shown else "is not shown to do better than"
        between = f"{main.row['null_auroc_low']:.2f} to {main.row['null_auroc_high']:.2f}"
        text = f"Shuffled labels: the probe {names.place(main.row)} {beaten} these, which reach {between}"
        if len(best) > 1:
            others = f"those at {sum(one.is_shown for one in best[1:])} of the {len(best) - 1} other positions"
            text += f"; so do {others}" if main.is_shown else f"; {others} do"
        control = f"p = {p:.2g}{_over(main)}"
        facts = {"control": "shuffled labels", "n_shown": sum(one.is_shown for one in best), "n_positions": len(best)}
        shown = {"is_shown": main.is_shown, "facts": facts}
        found.append(Finding(question="chance", text=f"{text}.", n=int(main.row["n"]), control=control, **shown))
    if main.words is not None:
        states, words = estimate(main.row, *AUROC_OVER_LAYERS), estimate(main.words, *AUROC)
        verdict = {"above": "tell more than the words that were read", "below": "tell less than the words"}
        said = verdict.get(states.lies(words), "do not clearly tell more than the words that were read")
        text = f"Words alone: {names.place(main.row)} the states {said}: {states.text('.2f')} against "
        text += f"{words.text('.2f')}"
        clear = [one for one in best[1:] if one.words is not None and _beats_words(one)]
        if len(best) > 1:
            text += f"; they clearly tell more at {len(clear)} of the {len(best) - 1} other positions"
        control = "TF-IDF of the same words in the same folds; the states’ interval is that of the best of all layers"
        gain = states.value - words.value
        facts = {"control": "words alone", "states_lie": states.lies(words) or "unclear"}
        facts |= {"states": states.listed(), "words": words.listed(), "n_others_above": len(clear)}
        number = {"value": gain, "n": int(main.row["n"])}
        found.append(Finding(question="chance", text=f"{text}.", control=control, facts=facts, **number))
    return found


def _best(table: Table | None, names: Names) -> list[_Best]:
    """The best layer of each position before K; the one that was chosen beforehand, else the highest, comes first."""
    if table is None or table.empty:
        return []
    before = table.loc[~(table["after_the_fact"].astype(bool) & names.is_built_in) & table["auroc"].notna()]
    probes = probe_rows(before)
    words = before.loc[before["method"] == "text_tfidf"].drop_duplicates("position").set_index("position")
    n_positions = probe_rows(table.loc[table["auroc"].notna()])["position"].nunique()
    found = []
    for position, rows in probes.groupby("position", sort=False):
        row = rows.loc[rows["auroc"].idxmax()]
        is_shown = bool(row["n_groups"] >= FEW and row["p_value_over_all"] <= LEVEL)  # NaN is never shown
        found.append(
            _Best(row, words.loc[position] if position in words.index else None, len(rows), n_positions, is_shown)
        )
    return sorted(found, key=lambda one: (one.row["position"] != names.main, -one.row["auroc"]))


def _finding(best: _Best, text: str, names: Names, short: str = "") -> Finding:
    row = best.row
    p = row["p_value_over_all"]
    control = "none: too few prompts to shuffle labels"
    if np.isfinite(p):
        design = ", as the sizes of groups give labels away" if row["null_auroc_mean"] > _GIVEN_AWAY else ""
        control = f"{_shuffled(best)}{design}; p = {p:.2g}{_over(best)}"
    if row["label_by"] == "aha" and names.is_built_in:
        control += "; the finder uses U and X to read unsafe outcomes"
    number = estimate(row, *AUROC_OVER_LAYERS)
    facts = {"position": row["position"], "layer": int(row["layer"]), "n_layers": best.n_sites}
    facts |= {"words": None if best.words is None else estimate(best.words, *AUROC).listed()}
    about: dict[str, Any] = {"n": int(row["n"]), "is_shown": best.is_shown, "facts": facts}
    about |= {"verdict": _size_of(number)}
    return Finding(question="knew", text=text, control=control, short=short, **about, **number.fields())


def _over(best: _Best) -> str:
    """What p is corrected for."""
    of = [f"{n} {what}" for n, what in ((best.n_sites, "layers"), (best.n_positions, "positions")) if n > 1]
    return f" over {' and '.join(of)}" if of else ""


def _beats_words(best: _Best) -> bool:
    return estimate(best.row, *AUROC_OVER_LAYERS).lies(estimate(best.words, *AUROC)) == "above"
