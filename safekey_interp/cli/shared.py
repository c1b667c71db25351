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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from safekey_interp.display import one_line
from safekey_interp.errors import InputError, OnlyEstimated
from safekey_interp.progress import Progress
from safekey_interp.runs.processes import team

if TYPE_CHECKING:
    from typer import Context

    from safekey_interp.data.reading_settings import ReadingSettings
    from safekey_interp.data.trace_reader import TraceSource
    from safekey_interp.models.model import Model
    from safekey_interp.runs.run_folder import Run

_RANGE = re.compile(r"(-?[0-9]{1,5})(?:-([0-9]{1,5}))?")
_COLUMNS = 80


def quiet_libraries() -> None:
    """Keep other libraries' warnings and progress bars out of the output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.set_verbosity_error()
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


def if_stopped(ctx: Context, remedy: str) -> None:
    """From now on, what the user is told after Ctrl-C or SIGTERM."""
    if ctx.obj:
        ctx.obj.if_stopped = remedy


def run_options(ctx: Context, out: Path, bar: Progress, *, overwrite: bool) -> dict[str, Any]:
    """Keywords of every run: its folder, what the user typed, and the bar."""
    return {"out": out, "overwrite": overwrite, "command": typed(ctx), "progress": bar}


def page_of(run: Run, bar: Progress, *, wanted: bool) -> Path | None:
    """The page of a run, drawn when it is wanted and not there yet; None when there is none.

    Raises:
        OnlyEstimated: a dry run found the run complete, so that nothing is left to do.
    """
    if bar.is_dry:
        from safekey_interp.capture.pass_cost import NOTHING

        raise OnlyEstimated(NOTHING)
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
