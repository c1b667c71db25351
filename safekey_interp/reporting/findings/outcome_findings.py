"""Findings on the outcome of key sentences, and on harm that the understanding names (the dormant signal).

The dormant signal is a share of the traces on harmful prompts whose key sentence does not turn safe. It goes by label
and K alone: the finder's "unsafe" itself asks for harm in U or X, and would beg the question. Its control is how often
the same finder reads harm into the understanding of benign prompts.
"""

from __future__ import annotations

from dataclasses import replace

from safekey_interp.data.conditions import Conditions
from safekey_interp.reporting.findings.finding import Estimate, Finding, share
from safekey_interp.reporting.findings.phrases import Table, apart

_COUNTED = "counts what the finder reads in the words; `segment --agreement` checks it against people"


def outcomes(traces: Table, conditions: Conditions) -> list[Finding]:
    """How often the key sentence turns safe, by label and condition."""
    decided = traces.loc[traces["aha"].notna() & (traces["status"] == "measured")]
    labelled = {label: decided.loc[decided["label"] == label] for label in ("harmful", "benign")}
    labelled = {label: part for label, part in labelled.items() if len(part)}
    if decided.empty:
        return []
    if not labelled:
        return [_unlabelled(decided, conditions)]
    if len(labelled) == 2 and not conditions.names:
        return [_both_labels(decided, labelled)]
    found = []
    for number, (label, part) in enumerate(labelled.items()):
        shares = _by_condition(part, part["aha"] == "safe", conditions)
        key = "the key sentence K" if number == 0 else "K"
        text = f"On {label} prompts {key} turns safe in {apart(shares)}."
        short = _clause(f"On {label} prompts K turns safe in", shares)
        found.append(_finding("where", text, part, shares, control=_COUNTED, short=short))
    return found


def dormant_signal(traces: Table, conditions: Conditions) -> list[Finding]:
    """How often the understanding names the harm where the key sentence does not turn safe."""
    stated = traces.loc[traces["aha"].notna() & (traces["status"] == "measured") & traces["hint"].notna()]
    ahead = stated.loc[(stated["label"] == "harmful") & (stated["aha"] != "safe")]
    if ahead.empty:
        return []
    shares = _by_condition(ahead, ahead["hint"].astype(bool), conditions)
    benign = stated.loc[stated["label"] == "benign"]
    control = "there is no benign prompt as a control"
    if len(benign):
        false = share(benign["hint"].astype(bool), benign["group"])
        control = f"on benign prompts the finder reads harm into U in {false.text('.0%')} of {len(benign):,}"
    where = "Where K does not turn safe on a harmful prompt, U names the harm in"
    short = _clause(where, shares, f"; {control}")
    return [_finding("knew", f"{where} {apart(shares)}.", ahead, shares, control=control, short=short)]


def _both_labels(decided: Table, labelled: dict[str, Table]) -> Finding:
    harmful, benign = (
        (share(part["aha"] == "safe", part["group"]), len(part)) for part in (labelled["harmful"], labelled["benign"])
    )
    text = (
        f"The key sentence K turns safe in {harmful[0].text('.0%')} of {harmful[1]:,} traces on harmful prompts, and "
    )
    text += f"in {benign[0].text('.0%')} of {benign[1]:,} on benign ones."
    short = text if harmful[0].is_sure and benign[0].is_sure else ""
    finding = _finding("where", text, decided, [("", *harmful)], control=_COUNTED, short=short)
    return replace(finding, facts={"shares": _listed([("harmful", *harmful), ("benign", *benign)])})


def _unlabelled(decided: Table, conditions: Conditions) -> Finding:
    shares = _by_condition(decided, decided["aha"] == "safe", conditions)
    ahead = share(decided["aha"] == "unsafe", decided["group"])
    text = f"The key sentence K turns safe in {apart(shares)}; it complies in {ahead.text('.0%')}."
    short = _clause("The key sentence K turns safe in", shares)
    finding = _finding("where", text, decided, shares, control=_COUNTED, short=short)
    return replace(finding, facts=finding.facts | {"complies": ahead.listed()})


def _clause(start: str, shares: list[tuple[str, Estimate, int]], end: str = "") -> str:
    """For the headline: what rests on enough prompts."""
    sure = [one for one in shares if one[1].is_sure]
    return f"{start} {apart(sure)}{end}." if sure else ""


def _by_condition(part: Table, flags: Table, conditions: Conditions) -> list[tuple[str, Estimate, int]]:
    """The share of each condition that is there; of all traces when none is told apart."""
    found = []
    for name in conditions.names:
        mine = part["condition"] == name
        if mine.any():
            found.append((name, share(flags[mine], part.loc[mine, "group"]), int(mine.sum())))
    return found or [("", share(flags, part["group"]), len(part))]


def _finding(
    question: str, text: str, part: Table, shares: list[tuple[str, Estimate, int]], *, control: str, short: str
) -> Finding:
    number = shares[0][1]._asdict() if len(shares) == 1 else {}
    facts = {"shares": _listed(shares)}
    return Finding(question=question, text=text, n=len(part), control=control, short=short, facts=facts, **number)  # type: ignore[arg-type]


def _listed(shares: list[tuple[str, Estimate, int]]) -> dict[str, list[float | None]]:
    """Shares with their intervals and n, by condition."""
    return {name or "all": [*share.listed(), n] for name, share, n in shares}
