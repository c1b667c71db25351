"""Index page of all figures: each question with the paper's claim, our verdict and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.paper.claims_page import Beside
from analysis.paper.export import PICTURES, Shown, between, document, write_text
from analysis.paper.html_elements import Html, data, el, join, table
from analysis.paper.questions import Kept

TITLE = "Figures of the analysis"


def save_index(folder: Path, answers: Sequence[Kept], claims: Sequence[Beside], source: str) -> Path:
    """Write ``index.html``.

    Args:
        folder: where the figures lie.
        answers: what is kept of each question.
        claims: every claim with our rows; those without rows are left out.
        source: which models, data and seed.
    """
    measured_claims = [claim for claim in claims if len(claim.ours)]
    page: list[Html] = [el("h1", TITLE), el("p", data(source), class_="muted")]
    if measured_claims:
        page += [el("h2", "What the paper claims, and what these figures say"), _verdicts(measured_claims)]
    for answer in answers:
        question = answer.question
        page.append(el("h2", f"{question.number}. {question.title}", id=question.name))
        if answer.why_not:
            page.append(el("p", data(f"Not drawn: {answer.why_not}"), class_="muted"))
        for claim in measured_claims:
            if claim.claim.id[0] == str(question.number):
                page += _beside(claim)
        for sheet in answer.sheets:
            page += _figure(folder, sheet)
    index = folder / "index.html"
    write_text(index, document(TITLE, page, scripts=()))
    return index


def _verdicts(claims: Sequence[Beside]) -> Html:
    rows: list[list[object]] = []
    for claim, _, _, verdicts, _ in claims:
        link = el("a", f"{claim.id}. {claim.says}", href=f"#{claim.id}")
        rows.append([link, join(*(el("div", data(verdict)) for verdict in verdicts))])
    head = ["claim", "verdict by the strongest evidence"]
    return table(head, rows, caption="The rule, and the order of evidence, were written before and stand in CLAIMS.md.")


def _beside(beside: Beside) -> list[Html]:
    claim, ours, evidence, verdicts, commands = beside
    facts = {"Where": claim.where, "There": claim.theirs}
    if any("toy model" in verdict for verdict in verdicts):
        facts["Built in, in the toy model"] = claim.built_in
    terms = [piece for name, text in facts.items() if text for piece in (el("dt", name), el("dd", data(text)))]
    return [
        el("h3", f"{claim.id}. {claim.says}", id=claim.id),
        el("dl", *terms, el("dt", "Again"), *(el("dd", el("code", command)) for command in commands)),
        _told(evidence, f"Claim {claim.id}: evidence, the strongest first"),
        _told(ours, f"Claim {claim.id}, measured"),
    ]


def _told(words: Any, caption: str) -> Html:
    rows: list[list[object]] = [[data(str(cell)) for cell in row] for row in words.itertuples(index=False)]
    return table(list(map(str, words.columns)), rows, caption=caption)


def _figure(folder: Path, sheet: Shown) -> list[Html]:
    parts = [el("h3", el("a", sheet.title, href=f"{sheet.name}.html")), el("p", data(sheet.caption))]
    if (folder / f"{sheet.name}.svg").is_file():
        picture = el("img", src=f"{sheet.name}.svg", alt=sheet.title, width=sheet.width)
        parts.append(el("p", el("a", picture, href=f"{sheet.name}.html")))
    names = [f"{name}.csv" for name in sheet.numbers] + [f"{sheet.name}.{ending}" for ending in PICTURES]
    there = [el("a", name, href=name) for name in names if (folder / name).is_file()]
    return [*parts, el("p", *between(there, " · "))]
