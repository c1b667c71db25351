"""Contradictions between CLAIMS.md and the tables of RESULTS.md.

    python -m analysis.paper.consistency

Two kinds of comparison. The *same* contrast (claims 6a to 6c and that of the study that a row is of) must have the same
verdict: shown in the claimed direction is "supports", shown in the other "contradicts", excluded beyond the margin "no
effect of interest", open "cannot tell". A shown difference below the smallest effect of interest, and one whose
simultaneous interval says less than Holm's procedure, may have a weaker verdict. A *related* number (the same
difference on other prompts, or in one model pair) must not be an effect of interest in the direction opposite to the
verdict. Exit status 1 with a line for each contradiction.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.paper.claims import BY_ID
from analysis.paper.claims_page import NO_INTERVAL, NOT_MEASURED, ROLES
from analysis.tables import RESULTS

CLAIMS = Path(__file__).parents[1] / "CLAIMS.md"
CONTRASTS = {"6a": ("DPSH", "SFT"), "6b": ("QMM", "SFT"), "6c": ("both", "DPSH")}
STUDIES = {
    "replication": "replication-contrasts",
    "many toys": "toy-study-complied",
    "trained SmolLM2": "real-study-safe",
}
"""Table of RESULTS.md that has the contrasts, by the name of the evidence."""
_NUMBER = r"[-−+]?\d*\.?\d+"


class StatedVerdict(NamedTuple):
    """One row of CLAIMS.md."""

    claim: str
    """The claim's id."""
    evidence: str
    """The evidence's name."""
    model: str
    """Whose."""
    decides: bool
    """Whether its verdict is the claim's."""
    verdict: str
    """Uncorrected."""


class Related(NamedTuple):
    """A number of RESULTS.md that speaks of a claim."""

    claim: str
    """The claim's id."""
    evidence: str
    """The evidence whose sign and smallest effect of interest hold for it."""
    model: str
    """What a row's model must contain to be compared, beside "organism"; empty for any organism."""
    value: float
    """The difference, in the evidence's unit."""
    where: str
    """Which table and row."""


def contradictions(claims: str, results: str) -> list[str]:
    """One line for each verdict of CLAIMS.md that a table of RESULTS.md contradicts.

    Args:
        claims: text of CLAIMS.md.
        results: text of RESULTS.md.

    Raises:
        ValueError: a table, or a claim that is compared, is not there.
    """
    stated = list(read_claims(claims))
    missing = {*CONTRASTS, "2a", "3a", "3b", "3c", "4a", "4b"} - {verdict.claim for verdict in stated}
    if missing:
        raise ValueError(f"CLAIMS.md: no rows of {', '.join(sorted(missing))}")
    return [*_same(stated, results), *_opposite(stated, results)]


def read_claims(text: str) -> Iterator[StatedVerdict]:
    """Rows of CLAIMS.md that have a verdict."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        claim = section.partition(".")[0]
        for row in tables_in(section):
            if row.get("verdict", NOT_MEASURED) in (NOT_MEASURED, NO_INTERVAL):
                continue
            verdict = re.search(r"\*([^*]+)\*", row["verdict"])
            if verdict is None:
                raise ValueError(f"CLAIMS.md: {claim}: no verdict in {row['verdict']!r}")
            decides = not any(words and row["verdict"].startswith(words) for words in ROLES.values())
            yield StatedVerdict(claim, row["evidence"], row["model"], decides, verdict[1])


def tables_in(text: str) -> Iterator[dict[str, str]]:
    """Rows of Markdown tables, by the heads of their columns."""
    head: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not head:
            head = cells
        elif not set(line) <= set("|-: "):
            yield dict(zip(head, cells, strict=True))


def table_of(results: str, name: str) -> list[dict[str, str]]:
    """Rows of a named table of RESULTS.md.

    Raises:
        ValueError: it is not there, or empty.
    """
    section = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- end -->", results, flags=re.DOTALL)
    rows = list(tables_in(section[1])) if section else []
    if not rows:
        raise ValueError(f"RESULTS.md: no table {name}, expected it between its marks")
    return rows


def _same(stated: list[StatedVerdict], results: str) -> Iterator[str]:
    for evidence, table in STUDIES.items():
        verdicts = [verdict for verdict in stated if verdict.evidence == evidence and verdict.claim in CONTRASTS]
        contrasts = {}
        for row in table_of(results, table) if verdicts else []:
            first, second = re.split(r" (?:−|-|minus) ", row["contrast"])
            contrasts[first, second] = row
        for verdict in verdicts:
            pair = CONTRASTS[verdict.claim]
            if pair not in contrasts:
                raise ValueError(f"RESULTS.md: {table}: no row {pair[0]} minus {pair[1]}")
            row = contrasts[pair]
            if verdict.verdict not in _allowed(row, BY_ID[verdict.claim].by(evidence), table):
                difference = next(cell for name, cell in row.items() if name.startswith("difference"))
                yield (
                    f"claim {verdict.claim} ({verdict.model}): CLAIMS.md says {verdict.verdict!r}, {table}'s contrast "
                    f"{pair[0]} minus {pair[1]} is {row['verdict']!r} at {difference}"
                )


def _allowed(row: dict[str, str], by: Any, table: str) -> set[str]:
    """Verdicts of a claim that go with a study's contrast."""
    cell = next(cell for name, cell in row.items() if name.startswith("difference"))
    value, *bounds = (float(number.replace("−", "-")) for number in re.findall(_NUMBER, cell))
    if row["verdict"].startswith("shown"):
        wanted = {"supports" if np.sign(value) == by.expects else "contradicts"}
        if abs(value) <= by.smallest:  # the table rounds to two places
            wanted |= {"cannot tell", "no effect of interest"}
        return wanted | ({"cannot tell"} if bounds and bounds[0] <= 0 <= bounds[1] else set())
    if row["verdict"].startswith("excluded"):
        within = all(abs(bound) < by.smallest for bound in bounds)
        return {"no effect of interest"} | (set() if within else {"cannot tell"})
    if row["verdict"].startswith("open"):
        return {"cannot tell"}
    raise ValueError(f"RESULTS.md: {table}: unknown verdict {row['verdict']!r}")


def _opposite(stated: list[StatedVerdict], results: str) -> Iterator[str]:
    for number in _related(results):
        by = BY_ID[number.claim].by(number.evidence)
        if not abs(number.value) >= by.smallest:
            continue
        opposite = "contradicts" if np.sign(number.value) == by.expects else "supports"
        for verdict in stated:
            # A row of another reading is compared with that reading's numbers alone.
            same = verdict.evidence == number.evidence or (verdict.decides and not by.beside)
            same = same and "organism" in verdict.model
            if verdict.claim == number.claim and same and number.model in verdict.model and verdict.verdict == opposite:
                yield (
                    f"claim {verdict.claim}, {verdict.evidence} ({verdict.model}): CLAIMS.md says {verdict.verdict!r}, "
                    f"and {number.where} has {number.value:+.3f} {by.unit}"
                )


def _related(results: str) -> Iterator[Related]:
    yield from _of_attention(table_of(results, "organism-attention"))
    yield from _of_mechanism(table_of(results, "replication-mechanism"))
    yield from _of_comparison(table_of(results, "organism-comparison"))
    yield from _of_knockout(table_of(results, "organism-knockout"))


def _of_attention(rows: list[dict[str, str]]) -> Iterator[Related]:
    """Means over kinds of prompts, weighted by traces: X against U for 3a, SafeKey against SFT for 3b."""
    numbers: Any = pd.DataFrame(
        {
            "from": row["from"],
            "model": row["model"],
            "prompts": row["prompts"],
            "apart": _first_number(row["to X"]) - _first_number(row["to U"]),
            "over": np.log(_first_number(_cell(row, "U / distance"))),
            "n": float(row["n"]),
        }
        for row in rows
    )
    for reader, evidence in (("K", "mass"), ("the token before K", "token before K")):
        for model in ("sft", "safekey"):
            rows_of_model = numbers[(numbers["from"] == reader) & (numbers["model"] == model)]
            value = float(np.average(rows_of_model["apart"], weights=rows_of_model["n"]))
            yield Related("3a", evidence, model, value, f"organism-attention, {model}, from {reader}")
    for reader, evidence in (("the token before K", "pair"), ("K", "K's own tokens")):
        over = {name: part for name, part in numbers[numbers["from"] == reader].groupby("model")}
        apart = over["safekey"].set_index("prompts")["over"] - over["sft"].set_index("prompts")["over"]
        value = float(np.average(apart, weights=over["sft"].set_index("prompts")["n"].reindex(apart.index)))
        yield Related("3b", evidence, "", value, f"organism-attention, from {reader} (last layer)")


def _of_mechanism(rows: list[dict[str, str]]) -> Iterator[Related]:
    """Means over runs, both losses against SFT: over layers for attention, the median layer for AUROC."""
    by_measure: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        by_measure.setdefault(row["measure"], []).append((_first_number(row["SFT"]), _first_number(row["both"])))
    wanted = {
        ("3b", "runs"): "understanding, over_distance",
        ("4a", "transfer, runs"): "decision, plain to wrapped",
        ("4b", "transfer, runs"): "understanding, plain to wrapped",
    }
    for (claim, evidence), measure in wanted.items():
        if measure not in by_measure:
            raise ValueError(f"RESULTS.md: replication-mechanism: no row {measure!r}")
        sft, both = np.array(by_measure[measure]).T
        value = np.log(both.mean() / sft.mean()) if claim == "3b" else np.median(both) - np.median(sft)
        yield Related(claim, evidence, "", float(value), f"replication-mechanism, {measure}")


def _of_comparison(table: list[dict[str, str]]) -> Iterator[Related]:
    """The three organisms on their own answers."""
    by_title = {row["measure"]: row for row in table}
    models = ("organism:sft", "organism:safekey")
    for model in models:
        harmful = by_title["U names the harm, where a harmful prompt is answered in full"][model]
        benign = by_title["U names harm (benign prompts)"][model]
        value = _first_number(harmful) - _first_number(benign)
        yield Related("2a", "own answers", model, value, f"organism-comparison, {model}")
    title = "attention of the token before K on U, ×"
    rows = [row for name, row in by_title.items() if name.startswith(title)]
    if len(rows) < 2:
        raise ValueError(f"RESULTS.md: organism-comparison: expected rows {title!r} of harmful and of benign prompts")
    before, after = (np.mean([np.log(_first_number(row[model])) for row in rows]) for model in models)
    yield Related("3b", "pair", "", float(after - before), f"organism-comparison, {title} the distance baseline")
    for claim, where in (("4a", "at the token before K"), ("4b", "over U")):
        row = by_title[f"AUROC {where}, median over layers"]
        value = _first_number(row[models[1]]) - _first_number(row[models[0]])
        yield Related(claim, "AUROC", "", value, f"organism-comparison, AUROC {where}")


def _of_knockout(rows: list[dict[str, str]]) -> Iterator[Related]:
    """U of a benign request in place, minus that of another harmful one, where a harmful prompt is refused."""
    refused = [row for row in rows if row["K may not see"] == "understanding" and row["case"].endswith(", refused")]
    if not refused:
        raise ValueError("RESULTS.md: organism-knockout: no row of U on refused prompts")
    for row in refused:
        where = f"organism-knockout, {row['model']}, {row['case']}"
        yield Related("3c", "resampled U", row["model"], _first_number(row["other minus same"]), where)


def _cell(row: dict[str, str], beginning: str) -> str:
    """The first cell whose column's name begins so."""
    names = [name for name in row if name.startswith(beginning)]
    if not names:
        raise ValueError(f"RESULTS.md: no column {beginning!r}, expected it among {', '.join(row)}")
    return row[names[0]]


def _first_number(cell: str) -> float:
    number = re.match(rf"\s*({_NUMBER})", cell)
    if number is None:
        raise ValueError(f"RESULTS.md: got {cell!r}, expected a number")
    return float(number[1].replace("−", "-"))


def main() -> None:
    messages = contradictions(CLAIMS.read_text(encoding="utf-8"), RESULTS.read_text(encoding="utf-8"))
    print("\n".join(messages) or "CLAIMS.md and the tables of RESULTS.md agree")
    sys.exit(bool(messages))


if __name__ == "__main__":
    main()
