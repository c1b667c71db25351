"""Which commands are there, and what does a mistake look like? One line on standard error, and exit status 2."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from safekey_interp.cli import (
    compare_command,
    evaluate_command,
    generate_command,
    intervene_command,
    probe_command,
    segment_command,
    train_command,
)
from safekey_interp.display import one_line
from safekey_interp.errors import RunError, SafekeyError
from safekey_interp.runs.processes import team
from safekey_interp.version import __version__

_STOPPED = 130
"""What a shell calls the exit status of an interrupted program."""


class _Stopped(Exception):
    """Ctrl-C, or a launcher that ends every process because one has ended."""


app = typer.Typer(
    name="safekey-interp",
    help="Where a reasoning model turns safe or unsafe, what it looks at there, and what its states already know.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("probe")(probe_command.probe)
app.command("compare")(compare_command.compare)
app.command("eval", cls=evaluate_command.SeveralValues)(evaluate_command.evaluate)
app.command("generate")(generate_command.generate)
app.command("segment")(segment_command.segment)
app.add_typer(intervene_command.app, name="intervene")
app.command("train")(train_command.train)


@app.command("report")
def report(run: Annotated[Path, typer.Argument(help="A run folder, whatever command wrote it.")]) -> None:
    """Draw the page of a run folder again."""
    from safekey_interp.reporting.report_file import write_report
    from safekey_interp.runs.run_folder import open_run

    opened = open_run(run)
    if not opened.is_complete:
        raise RunError(f"run {run}: not complete; the command that began it goes on with it")
    print(one_line(str(write_report(opened.path))))


@app.command("models")
def models() -> None:
    """List the models that load offline."""
    from safekey_interp.cli.shared import say
    from safekey_interp.models.checkpoints import offline_models

    for model in offline_models():
        say(f"{model.spec}: {model.what}", hang="  ")
        say("installed" if model.available else f"not installed; {model.remedy}", indent="  ")
    say("Any hub id in the local cache, saved folder or .gguf file of a causal model loads, too.")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"safekey-interp {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Mechanistic interpretability of safety in reasoning models."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; mistakes that the user can mend end in one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows a question mark for it, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    together, shared = team(), words[:1] in (["probe"], ["compare"], ["intervene"], ["train"])
    if not together.is_first:
        if not shared:
            sys.exit(0)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives
    if not together.is_alone:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a process that is gone fills pages
        # How launchers end the others when one process has ended; a run then says how it goes on.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with together if shared else nullcontext():
            status = command.main(args=words, prog_name="safekey-interp", standalone_mode=False, obj=words)
            if status == _STOPPED:  # how typer hands on Ctrl-C
                raise _Stopped
    except _Stopped:
        _fail("stopped; a run goes on from there when the same command is given again", _STOPPED)
    except SafekeyError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", _STOPPED)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(_usage(error))
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:
    """What is wrong with the words of a command, and where the right ones are listed."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "safekey-interp"
    return f"{error.format_message().rstrip('.')}; see `{path} --help`"


def _fail(message: str, status: int = 2) -> NoReturn:
    if team().speaks:
        print(f"safekey-interp: {one_line(message)}", file=sys.stderr, flush=True)
    team().let_speak()
    sys.exit(status)
