"""Page of claims and verdicts, CLAIMS.md, and the rows of the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.paper.claims import CLAIMS, Claim
from analysis.paper.verdicts import command
from analysis.tables import markdown
from safekey_interp.runs.storage import write_aside

TOY = "(toy model)"
ROLES = {"decides": "", "weaker": "weaker evidence: ", "beside": "another reading: "}
NOT_MEASURED, NO_INTERVAL = "not measured", "too few groups for an interval"
_HEAD = """\
# What the paper's analysis claims, and what our figures say

Written by `python -m analysis`; not edited by hand. Claims, their evidence from the strongest to the weakest, and the
smallest effect of interest of each stand in [claims.yaml](paper/claims.yaml), the rule in
[verdicts.py](paper/verdicts.py); both were written before the figures were drawn. SafeKey: Zhou et al. 2025, arXiv
2505.16186.

- *supports*: the interval excludes 0 and the estimate is at least the smallest effect of interest, in the claimed
  direction
- *contradicts*: the same in the other direction
- *no effect of interest*: the whole interval lies within the smallest effect of interest on either side of 0
- *cannot tell*: anything else

The strongest evidence that has an interval gives a claim's verdict; weaker evidence and other readings of the claim
stand below it and are labelled. Verdicts are given uncorrected, and by Holm over the claims of a model where that
changes them. *Built in*: the toy's grammar or training makes the claim true there, so that its rows test the method and
not the claim."""
_SUMMARY = "verdict by the strongest evidence (after Holm)"


class Beside(NamedTuple):
    """A claim, theirs beside ours."""

    claim: Claim
    """What the paper says."""
    ours: pd.DataFrame
    """A row a measurement: evidence, model, estimate, n, control, verdicts, in words; none where it was not run."""
    evidence: pd.DataFrame
    """A row an evidence that was measured: what its contrast, interval and smallest effect of interest are."""
    verdicts: list[str]
    """Of the strongest evidence: ``MODEL: VERDICT``."""
    commands: list[str]
    """What measures it again, for each kind of models."""


def write_claims(file: Path, table: pd.DataFrame) -> None:
    """Write CLAIMS.md from the rows of ``claims.csv``: first all verdicts, then each claim with its evidence.

    Args:
        file: where to.
        table: rows as :func:`analysis.paper.verdicts.as_table` makes them; a claim without any is listed as not run.
    """
    entries = beside_theirs(table, mark="*")
    summary = [
        [
            f"[{entry.claim.id}](#{entry.claim.id})",
            entry.claim.says + _whose(entry.claim),
            "<br>".join(entry.verdicts) or "not run",
        ]
        for entry in entries
    ]
    parts = [_HEAD, markdown(pd.DataFrame(summary, columns=["claim", "says", _SUMMARY]))]
    for entry in entries:
        claim = entry.claim
        facts = {
            "Where": claim.where,
            "There": claim.theirs,
            "Built in": _sentence(claim),
            "Again": ", ".join(f"`{command}`" for command in entry.commands),
        }
        parts += [
            f'<a id="{claim.id}"></a>\n\n## {claim.id}. {claim.says}{_whose(claim)}',
            "\n".join(f"- **{name}:** {text}" for name, text in facts.items() if text),
        ]
        parts += [markdown(entry.evidence), markdown(entry.ours)] if len(entry.ours) else ["Not run."]
    write_aside(file, lambda path: path.write_text("\n\n".join(parts) + "\n", encoding="utf-8"))


def beside_theirs(table: pd.DataFrame, *, mark: str = "") -> list[Beside]:
    """Every claim with what the rows of ``claims.csv`` say of it; verdicts stand between two of ``mark``."""
    entries = []
    for claim in CLAIMS:
        rows: Any = table[table["claim"] == claim.id]
        decide = rows[rows["role"] == "decides"]
        verdicts = [f"{row['model']}: {verdict_in_words(row, mark)}" for _, row in decide.iterrows()]
        commands = list(dict.fromkeys(rows["command"])) or [command(claim.id)]
        entries.append(Beside(claim, _ours(rows, mark), _evidence(rows), verdicts, commands))
    return entries


def in_lines(table: pd.DataFrame) -> list[str]:
    """A line for each verdict of the strongest evidence: claim, model, verdict, and the size that it goes by.

    Args:
        table: rows as :func:`analysis.paper.verdicts.as_table` makes them.
    """
    lines = []
    decide: Any = table[table["role"] == "decides"]
    for _, row in decide.iterrows():
        against = f"smallest effect of interest {row['smallest']:g}"
        control = f"; control {row['control_value']}" if row["control_value"] else ""
        lines.append(
            f"{row['claim']} {row['model']}: {verdict_in_words(row)}: {_estimate(row)} ({against}; n = {row['n']}, "
            f"{row['n_groups']} groups{control})"
        )
    return lines


def verdict_in_words(row: Any, mark: str = "") -> str:
    """``supports, after Holm cannot tell, built in (toy model)``."""
    if row["role"] == "unmeasured":
        return NOT_MEASURED if np.isnan(row["value"]) else NO_INTERVAL
    parts = [f"{mark}{row['verdict']}{mark}"]
    if row["role"] == "decides" and row["verdict_holm"] != row["verdict"]:
        parts.append(f"after Holm {mark}{row['verdict_holm']}{mark}")
    if row["built_in"] and row["verdict"] != "cannot tell":
        parts.append("built in")
    return ROLES[row["role"]] + ", ".join(parts) + (f" {TOY}" if row["toy"] else "")


def _whose(claim: Claim) -> str:
    return " (our claim, not the paper's)" if claim.ours else ""


def _sentence(claim: Claim) -> str:
    return f"in the toy model: {claim.built_in}" if claim.built_in else ""


def _evidence(rows: Any) -> pd.DataFrame:
    columns = ["evidence", "what is measured", "against", "interval", "smallest effect of interest"]
    shown = []
    for _, row in rows.drop_duplicates("evidence").iterrows():
        interval = f"{row['level']}, over {row['over']}"
        smallest = f"{row['smallest']:g} {row['unit']}"
        shown.append([row["evidence"], row["contrast"], row["control"], interval, smallest])
    return pd.DataFrame(shown, columns=columns)


def _ours(rows: Any, mark: str) -> pd.DataFrame:
    shown = []
    for _, row in rows.iterrows():
        note = "; ".join(str(part) for part in (row["control_value"], row["note"]) if isinstance(part, str) and part)
        size = f"{row['n']} ({row['n_groups']} groups)"
        p = "; ".join(
            f"{words} {_p(row[name])}" for words, name in (("p", "p"), ("Holm", "p_holm")) if np.isfinite(row[name])
        )
        verdict = verdict_in_words(row, mark)
        shown.append([row["evidence"], row["model"], _estimate(row), p, size, note, verdict])
    return pd.DataFrame(shown, columns=["evidence", "model", "estimate", "p", "n", "control, notes", "verdict"])


def _estimate(row: Any) -> str:
    """``+0.120 [+0.080, +0.160] of traces``."""
    if not np.isfinite(row["value"]):
        return "not measured"
    sure = np.isfinite([row["low"], row["high"]]).all()
    return f"{row['value']:+.3f}" + (f" [{row['low']:+.3f}, {row['high']:+.3f}] {row['unit']}" if sure else "")


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"
