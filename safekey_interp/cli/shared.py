"""Helpers of commands: quiet libraries, a progress bar in a terminal and none elsewhere, lines of 80 columns.

What a file says (ids, names, texts) may hold anything; :func:`say` prints it by the rule of
:func:`~safekey_interp.display.printable`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from safekey_interp.display import Progress, one_line
from safekey_interp.errors import InputError, OnlyEstimated
from safekey_interp.models.organism import TOY, is_organism
from safekey_interp.runs.processes import team

if TYPE_CHECKING:
    from typer import Context

    from safekey_interp.data.reading_settings import ReadingSettings
    from safekey_interp.data.trace_reader import TraceSource
    from safekey_interp.models.model import Model
    from safekey_interp.runs.run_folder import Run

_RANGE = re.compile(r"(-?[0-9]{1,5})(?:-([0-9]{1,5}))?")
_COLUMNS = 80
_LABEL = 10
"""Columns of a line's label."""


def quiet_libraries() -> None:
    """Keep other libraries' warnings and progress bars out of the output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.disable_progress_bar()


def parse_layers(text: str | None, option: str = "--layers") -> list[int] | None:
    """``0-5,12,-1`` as numbers; None for all.

    Raises:
        InputError: anything else.
    """
    if text is None:
        return None
    numbers: list[int] = []
    for piece in text.split(","):
        match = _RANGE.fullmatch(piece.strip())
        if match is None:
            raise InputError(f"{option}: got {text!r}, expected numbers and ranges, such as 0-5,12,-1")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"{option}: got {piece.strip()}, an empty range; expected the smaller number first")
        numbers += range(first, last + 1)
    return numbers


def parse_delimiters(text: str | None) -> tuple[str, str] | None:
    """``<a>,</a>`` as a pair.

    Raises:
        InputError: no pair.
    """
    if text is None:
        return None
    opening, comma, closing = text.partition(",")
    if not (opening and comma and closing):
        raise InputError(f"--delimiters: got {text!r}, expected the opening and the closing mark as OPENING,CLOSING")
    return opening, closing


def traces_of(
    files: Any, reading: ReadingSettings, delimiters: tuple[str, str] | None = None, **how: Any
) -> TraceSource:
    """The traces of files, with the spans that the command looks for, read once; says what was read as what.

    Those of a stream are left unread.

    Args:
        files: as :func:`~safekey_interp.data.trace_reader.read_traces` takes them.
        reading: columns and spans.
        delimiters: marks of the reasoning, for finders.
        **how: ``seed`` and ``stream`` of ``read_traces``.
    """
    from safekey_interp.data.trace_reader import read_traces

    source = _searched(read_traces(files, **reading.fields, **how), reading, delimiters, reads=not how.get("stream"))
    if team().is_first and sys.stderr.isatty():  # elsewhere in the summary alone: a refusal is one line
        say_reading(source.notes, sys.stderr)
    return source


def say_reading(notes: Iterable[str], stream: TextIO | None = None) -> None:
    """What was read as what, and which columns were left; on standard output when ``stream`` is None."""
    for note in notes:
        say(note, stream=stream)


def _searched(
    source: TraceSource, reading: ReadingSettings, delimiters: tuple[str, str] | None, *, reads: bool
) -> TraceSource:
    if not (reading.spans or reading.prompt_spans):
        return source.check() if reads else source
    from safekey_interp.segmentation.finder_registry import WITHOUT_MEMORY
    from safekey_interp.segmentation.span_search import find_spans, finders_of

    with team().after_first(not finders_of(reading.spans) <= set(WITHOUT_MEMORY)):
        found = find_spans(source, reading.spans, prompt=reading.prompt_spans, delimiters=delimiters)
        return found.check() if reads else found


class _DryRun(Progress):
    """Progress of a dry run, which ends where the work would start."""

    is_dry = True

    def starts(self, estimate: Callable[[], Any]) -> NoReturn:
        """Estimate, and end the run.

        Raises:
            OnlyEstimated: with the cost.
        """
        self.stage("estimating", None)
        raise OnlyEstimated(estimate())


def progress_bar(*, quiet: bool = False, dry_run: bool = False) -> Progress:
    """The progress of a command; hidden in all processes but the first, and where it is to be quiet.

    Raises:
        InputError: a dry run of several processes.
    """
    if dry_run and not team().is_alone:
        raise InputError(f"--dry-run: got {team().world_size} processes, expected one; start it without the launcher")
    return (_DryRun if dry_run else Progress)(is_hidden=quiet or not team().is_first)


def loaded_model(model: str, bar: Progress, **options: Any) -> Model:
    """The model that a command names; the bar says so, the libraries say nothing. ``options`` are those of ``load``."""
    bar.stage("loading the model", None)
    quiet_libraries()
    from safekey_interp.models.model import load

    return load(model, **options)


def typed(ctx: Context) -> list[str]:
    """The command as the user typed it, for the record of a run."""
    return ["safekey-interp", *(ctx.obj.words if ctx.obj else [])]


def run_options(ctx: Context, out: Path, bar: Progress, *, overwrite: bool) -> dict[str, Any]:
    """Keywords of every run: its folder, what the user typed, and the bar."""
    return {"out": out, "overwrite": overwrite, "command": typed(ctx), "progress": bar}


def page_of(run: Run, bar: Progress, *, wanted: bool) -> Path | None:
    """The page of a run, drawn when it is wanted and not there yet; None when there is none."""
    page = run.path / "report.html"
    if wanted and not page.is_file():
        from safekey_interp.reporting.report_file import write_report

        bar.stage("drawing the page", None)
        write_report(run.path)
    return page if page.is_file() else None


def folder_name(model: str, traces: list[str] | None) -> str:
    """What a run folder is called unless the user says: after the model and the first file of traces."""
    names = [Path(model).name]
    if traces:
        names.append("stdin" if traces[0] == "-" else Path(traces[0]).stem)
    return re.sub(r"[^\w.-]+", "-", "-".join(names)).strip("-.") or "run"


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
    lines[1:1] = [("Data", note) for note in _read_as(run.manifest)]
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
    names = ", ".join(str(name or record.get("name")) for name, record in models)
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


def say(text: str, *, indent: str = "", hang: str | None = None, stream: TextIO | None = None) -> None:
    """Print a sentence, wrapped to the terminal and never wider than 80 columns.

    Args:
        text: the sentence.
        indent: before its first line.
        hang: before the others, as wide as ``indent``; ``indent`` when None.
        stream: standard output when None.
    """
    width = max(20, min(_COLUMNS, shutil.get_terminal_size().columns))
    for number, line in enumerate(_wrapped(one_line(text), width - len(indent))):
        print(f"{indent if number == 0 or hang is None else hang}{line}", file=stream)


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Lines of at most ``width`` columns; many scripts take two columns a character."""
    from rich.cells import cell_len, chop_cells

    line = ""
    for word in text.split(" "):
        for piece in chop_cells(word, width) if cell_len(word) > width else [word]:
            if line and cell_len(line) + 1 + cell_len(piece) > width:
                yield line
                line = ""
            line = f"{line} {piece}" if line else piece
    if line:
        yield line
