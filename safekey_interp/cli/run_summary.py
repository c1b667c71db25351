"""Summary of a run in a terminal: five labelled lines, and with ``--details`` every finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.cli.shared import say
from safekey_interp.models.organism import TOY, is_organism

if TYPE_CHECKING:
    from typer import Context

    from safekey_interp.runs.run_folder import Run

_LABEL = 10
"""Columns of a line's label."""
_MOST_NAMES = 4
"""More models are named by the first and the last."""


def say_run(
    ctx: Context,
    run: Run,
    page: Path | None,
    *,
    titles: Mapping[str, str],
    reading: str,
    details: bool,
    shown: int = 5,
    found: Mapping[str, Any] | None = None,
) -> None:
    """What a run found, in lines of at most 80 columns: its summary, and where the page lies.

    Args:
        ctx: of the command.
        run: with findings.
        page: its page; None for none.
        titles: each question that findings answer, with its title, in order.
        reading: what the words mean.
        details: also every finding with its n and control, what was left out, and notes.
        shown: the most findings of a question, and reasons for leaving out, that are printed.
        found: its findings; those that lie in it when None.
    """
    findings = run.findings if found is None else found
    lines = [(str(line["label"]), str(line["text"])) for line in findings.get("summary") or []]
    # A run of an earlier version has the headline alone.
    lines = lines or [("Read", str(findings.get("headline") or "nothing was found"))]
    lines[0] = (lines[0][0], ". ".join([lines[0][1].rstrip("."), *_read_as(run.manifest)]) + ".")
    say_lines(_of_what(run.manifest), lines)
    if details:
        print()
        say(reading)
        for question, title in titles.items():
            answers = [finding for finding in findings.get("findings", []) if finding["question"] == question]
            say_question(answers, title, shown=shown)
        say_left_out(findings.get("left_out", []), shown=shown)
        for note in ["", *(findings.get("notes") or [])]:
            print() if not note else say(note)
    say_end(ctx, page or run.path, is_page=page is not None)


def say_lines(about: str, lines: Sequence[tuple[str, str]]) -> None:
    """Lines of a summary, each with its label; ``about`` begins the first."""
    for number, (label, text) in enumerate(lines):
        start = f"{about} " if number == 0 else ""
        say(f"{start}{text}", indent=f"{label:<{_LABEL}}", hang=" " * _LABEL)


def say_end(ctx: Context, path: Path, *, is_page: bool) -> None:
    """Where the page lies, or the run without one, and the seconds that the user waited."""
    waited = f" ({ctx.obj.seconds:.0f} s)" if ctx.obj else ""
    say(f"{path}{waited}", indent=f"{'Page' if is_page else 'Run':<{_LABEL}}", hang=" " * _LABEL)


def _of_what(manifest: Mapping[str, Any]) -> str:
    """Which models read which files."""
    models = [(one.get("name"), one.get("model") or one) for one in manifest.get("models") or [manifest["model"]]]
    called = [str(name or record.get("name")) for name, record in models]
    names = ", ".join(called) if len(called) <= _MOST_NAMES else f"{called[0]} to {called[-1]}"
    sources = ", ".join(Path(name).name for name in (manifest.get("data") or {}).get("sources") or [])
    toy = f" {TOY}" if any(is_organism(str(record.get("spec"))) for _, record in models) else ""
    return f"{names}{f' on {sources}' if sources else ''}.{toy}"


def _read_as(manifest: Mapping[str, Any]) -> list[str]:
    """What was read as what in the user's own files."""
    from safekey_interp.models.organism import TRACES

    data = manifest.get("data") or {}
    return [] if data.get("sources") == [str(TRACES)] else list(data.get("read_as") or [])


def say_question(findings: Sequence[Mapping[str, Any]], title: str | None = None, *, shown: int) -> None:
    """What answers one question, each with its number of traces and its control; nothing where nothing does.

    Args:
        findings: as they stand in findings.json.
        title: the question; None prints none.
        shown: the most that are printed.
    """
    if not findings:
        return
    if title:
        print(f"\n{title}")
    control = ""
    for finding in findings[:shown]:
        same, control = finding.get("control", "") == control, finding.get("control", "")
        say(finding["text"], indent="  - ", hang="    ")
        n = finding.get("n") or "unknown"
        beside = "; the same control" if same else f"; control: {control}"
        say(f"n = {n if isinstance(n, str) else f'{n:,}'}{beside if control else ''}", indent="    ")
    _say_more(len(findings), shown)


def say_left_out(entries: Sequence[Mapping[str, Any]], *, shown: int) -> None:
    """What was left out and why, as it stands in findings.json; nothing where nothing was."""
    if not entries:
        return
    print("\nLeft out")
    for entry in entries[:shown]:
        n = f" (n = {entry['n']:,})" if entry.get("n") else ""
        say(f"{entry['what']}{n}: {entry['why']}", indent="  - ", hang="    ")
    _say_more(len(entries), shown)


def _say_more(n: int, shown: int) -> None:
    if n > shown:
        say(f"and {n - shown} more in findings.json", indent="    ")
