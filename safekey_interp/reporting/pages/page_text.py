"""What does the page say in words? The summary, what was left out, how to read it, and where the numbers come from."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any

from safekey_interp.data.conditions import Conditions
from safekey_interp.models.organism import CAVEAT, is_organism
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.finding import share
from safekey_interp.reporting.pages.html import Html, data, el, join, table

QUESTIONS = {
    "where": "Where does the model decide?",
    "what": "What does it look at there?",
    "knew": "What did it already know?",
    "chance": "Which of these would also be true by chance?",
}
RUNNING = "This run is not complete: the numbers below cover what was measured so far."
_PROVENANCE = {
    "model": "Model",
    "data": "Data",
    "settings": "Settings",
    "plan": "Batch plan",
    "versions": "Versions",
    "timings": "Seconds",
}


def header(manifest: dict[str, Any], traces: Table | None) -> Html:
    """Title, what the page is, and the facts of the run in one list."""
    model, source = manifest.get("model") or {}, manifest.get("data") or {}
    name = model.get("name") or model.get("spec") or "the model"
    measured = None if traces is None else int((traces["status"] == "measured").sum())
    count = f"{measured:,} measured of {len(traces):,}" if traces is not None and measured is not None else "unknown"
    facts = [
        ("Model", join(data(name), f", {model.get('n_layers', '?')} layers × {model.get('n_heads', '?')} heads")),
        ("Traces", join(count, " from ", data(", ".join(file_names(source.get("sources"))) or "an unnamed source"))),
    ]
    return opening(
        manifest,
        eyebrow="safekey-interp report",
        title=el("h1", "What ", data(name), " looks at when it decides"),
        facts=facts,
        lead=(
            "",
            ". The next sentence, ",
            ", decides: refuse or go ahead. This page shows what K attends to, what the hidden states know before K is "
            "written, and which of these numbers chance alone would give.",
        ),
        is_toy=is_organism(str(model.get("spec"))),
    )


def opening(
    manifest: Mapping[str, Any],
    *,
    eyebrow: str,
    title: Html,
    facts: Sequence[tuple[str, object]],
    lead: tuple[str, str, str],
    is_toy: bool,
    notices: Sequence[str] = (),
) -> Html:
    """The head of every page.

    Args:
        manifest: of the run: its date, command and status.
        eyebrow: which report this is.
        title: the heading.
        facts: terms and facts, before date and command.
        lead: what the lead says before the prompt, between U and K, and after K.
        is_toy: whether the organism is among the models.
        notices: what else must be known at once.
    """
    before, between, behind = lead
    command = manifest.get("command") or []
    listed = [
        *facts,
        ("Date", date_of(manifest.get("created"))),
        ("Command", el("code", data(command if isinstance(command, str) else shlex.join(map(str, command))))),
    ]
    words = el(
        "p",
        f"{before}A reasoning model answers a prompt ",
        mark("prompt", "X"),
        " by first saying what it understood, ",
        mark("understanding", "U"),
        between,
        mark("key_sentence", "K"),
        f"{behind} Everything is in this one file; it loads nothing.",
        class_="lead",
    )
    running = manifest.get("status") not in (None, "complete")
    return el(
        "header",
        el("p", eyebrow, class_="eyebrow"),
        el("div", el("div", title, words), anatomy(), class_="opening"),
        el("dl", *(el("div", el("dt", term), el("dd", fact)) for term, fact in listed), class_="facts"),
        el("p", CAVEAT, class_="notice") if is_toy else None,
        el("p", RUNNING, class_="notice") if running else None,
        *(el("p", notice, class_="notice") for notice in notices),
    )


def file_names(sources: Iterable[Any] | None) -> list[str]:
    """The page may go to others: where the files lay is for run.json."""
    return [PurePath(str(name)).name for name in sources or ()]


def summary(findings: dict[str, Any] | None, questions: Mapping[str, str] = QUESTIONS) -> Html:
    """The headline, and the findings under the question that each answers, in their order."""
    if not findings or not (findings.get("findings") or findings.get("headline")):
        return absent("findings.json", "the summary in words")
    blocks = []
    for key, question in questions.items():
        answers = [f for f in findings.get("findings") or [] if f.get("question") == key]
        items = [el("li", el("p", data(f.get("text", ""))), _evidence(f)) for f in answers]
        body = el("ul", *items) if items else el("p", "Nothing was found or measured on this.", class_="muted")
        blocks.append(el("div", el("h3", question), body, class_="answer"))
    headline = findings.get("headline")
    return join(el("p", data(headline), class_="headline") if headline else None, el("div", *blocks, class_="answers"))


def key_sentence_facts(traces: Table | None) -> Html:
    """How many key sentences were found, what they decide, and how sure the finder was."""
    if traces is None or traces.empty:
        return absent("traces.parquet", "how many key sentences were found")
    found = traces["key_sentence"].notna() & (traces["key_sentence"].astype(str) != "")
    outcomes = traces.loc[found, "aha"].value_counts()
    parts = [f"A key sentence was found in {int(found.sum()):,} of {len(traces):,} traces"]
    if len(outcomes):
        parts.append(": " + ", ".join(f"{int(n):,} {kind}" for kind, n in outcomes.items()))
    confidence = traces.loc[found, "confidence"].dropna()
    if len(confidence):
        parts.append(
            f". The finder’s confidence has median {confidence.median():.2f}; {(confidence < 0.5).mean():.0%} lie "
            "below 0.5"
        )
    families = ", ".join(f"{name} ({n:,})" for name, n in traces["family"].value_counts().items())
    answer = int((traces.loc[found, "region"] == "answer").sum())
    parts.append(f". Reasoning format: {families}")
    if answer:
        parts.append(f"; {answer:,} without reasoning, where U and K come from the answer")
    return el("p", data("".join(parts) + "."))


def outcome_table(traces: Table | None, conditions: Conditions) -> Html | None:
    """What K decides and whether U names the harm, by label and condition; None where neither is known."""
    if traces is None or traces.empty or "condition" not in traces.columns:
        return None
    decided = traces[traces["key_sentence"].notna() & (traces["status"] == "measured")]
    kinds = itertools.product(conditions.names or (None,), ("harmful", "benign"))
    rows: list[list[object]] = []
    for name, label in kinds:
        part = decided[decided["label"] == label]
        part = part if name is None else part[part["condition"] == name]
        if part.empty:
            continue
        stated = part[(part["aha"] != "safe") & part["hint"].notna()]
        named = _share(stated["hint"].astype(bool), stated["group"]) if len(stated) else "n/a"
        shares = [_share(part["aha"] == aha, part["group"]) for aha in ("safe", "unsafe", "neutral")]
        whose = f"{label} prompts" if name is None else f"{name}, {label} prompts"
        rows.append([data(whose), f"{len(part):,}", *shares, named])
    head = ["Traces", "n", "K turns safe", "K goes ahead", "K does neither", "U names harm where K is not safe"]
    return table(head, rows, caption="What K decides") if rows else None


def left_out(findings: dict[str, Any] | None, manifest: dict[str, Any], thinned: Iterable[str]) -> Html:
    """What was dropped and why, straddling tokens, layers without a pattern, and what this page itself left away."""
    rows: list[list[object]] = [
        [data(item.get("what", "")), data(item.get("why", "")), _int(item.get("n"))]
        for item in (findings or {}).get("left_out") or []
    ]
    parts: list[object] = [table(["What", "Why", "n"], rows, caption="Left out of the numbers")] if rows else []
    notes: list[object] = []
    surrogates = (manifest.get("data") or {}).get("n_surrogates")
    if surrogates:
        notes.append(f"Lone surrogates in the texts, replaced by U+FFFD one for one: {surrogates:,}.")
    notes += [note for note in thinned if note]
    body = parts or [el("p", "No trace and no measure was left out.")]
    return join(*body, el("ul", *(el("li", data(note)) for note in notes)))


def provenance(manifest: dict[str, Any], titles: Mapping[str, str] = _PROVENANCE) -> Html:
    """Everything that run.json says under the names of ``titles``, as tables of names and values."""
    parts = []
    for name, title in titles.items():
        rows: list[list[object]] = [
            [data(key), el("code", data(_shown(value)))] for key, value in (manifest.get(name) or {}).items()
        ]
        if rows:
            parts.append(table(["Name", "Value"], rows, caption=title))
    rest: list[list[object]] = [
        [data(key), el("code", data(_shown(manifest[key])))]
        for key in ("safekey_interp", "created", "seed", "status")
        if key in manifest
    ]
    return el("div", table(["Name", "Value"], rest, caption="Run") if rest else None, *parts, class_="provenance")


def absent(file: str, what: str) -> Html:
    """The one line that stands where a table is missing."""
    return el(
        "p", "Not shown: this run folder has no ", el("code", file), f", so {what} cannot be drawn.", class_="absent"
    )


def anatomy() -> Html:
    """One trace taken apart, so that a stranger knows what X, U and K are."""
    lines = (
        ("prompt", "X", "How can I make a phone ring forever as a prank?"),
        ("understanding", "U", "Okay, the user wants to make somebody’s phone ring without end."),
        ("key_sentence", "K", "Hmm, that could be harassment."),
    )
    parts = (
        el("p", mark(role, letter), el("span", text), class_=role.replace("_", "-")) for role, letter, text in lines
    )
    return el(
        "figure", *parts, el("figcaption", "A trace, taken apart. Does K look back at X, or at U?"), class_="anatomy"
    )


def mark(role: str, letter: str) -> Html:
    """The letter of a span in its colour."""
    return el("b", letter, class_=f"mark {role}")


def _evidence(finding: dict[str, Any]) -> Html:
    value, low, high = (finding.get(key) for key in ("value", "low", "high"))
    parts: list[object] = []
    if value is not None:
        interval = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
        parts.append(el("strong", f"{value:.3g}{interval}"))
    if finding.get("n") is not None:
        parts.append(f"n = {_int(finding['n'])}")
    if finding.get("control"):
        parts.append(join("control: ", data(finding["control"])))
    return el("p", *(join(" · " if i else "", part) for i, part in enumerate(parts)), class_="evidence")


def _share(flags: Table, groups: Table) -> str:
    number = share(flags, groups)
    return number.text(".0%") if number.is_sure else f"{number.value:.0%}"


def date_of(text: object) -> Html:
    """A moment in words; what is none, as it is."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return data(text or "unknown")
    return el("time", f"{when:%d %B %Y, %H:%M}".lstrip("0") + (f" {when:%Z}" if when.tzinfo else ""), datetime=text)


def _int(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        shown = ", ".join(_shown(item) for item in value[:40])
        return shown + (f", … ({len(value):,} in all)" if len(value) > 40 else "") or "none"
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
