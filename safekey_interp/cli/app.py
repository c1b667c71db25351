"""Entry point of the command line: the list of commands, and errors as one line with exit status 2."""

from __future__ import annotations

import gc
import os
import signal
import sys
from atexit import register as at_exit
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from safekey_interp.cli.invocation import Invocation
from safekey_interp.cli.smallest_effect import SmallestEffect, retold
from safekey_interp.display import one_line
from safekey_interp.errors import OnlyEstimated, RunError, SafekeyError
from safekey_interp.runs.processes import team
from safekey_interp.version import __version__

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM
"""Exit status of a program that a signal stopped."""


class _Interrupted(Exception):
    """Ctrl-C."""


class Terminated(SystemExit):
    """SIGTERM: a scheduler's end of a job, or a launcher that ends every process because one has ended."""


COMMANDS = {
    "explore": (
        "explore_command",
        "Open a page where a model writes, is read token by token, and goes on with something changed.",
    ),
    "probe": (
        "probe_command",
        "Find key sentences, what they attend to and what the states know; write a run folder with one page.",
    ),
    "compare": (
        "compare_command",
        "Give the same prompts to several models; write what they did, look at and know, with differences, and a page.",
    ),
    "eval": (
        "evaluate_command",
        "Have lm-evaluation-harness and inspect run benchmarks on models, and put their numbers on one page.",
    ),
    "generate": (
        "generate_command",
        "Have a model answer prompts; write a file of traces that can be resumed, extended and probed.",
    ),
    "segment": ("segment_command", "Find the understanding and the key sentence of each trace."),
    "intervene": (
        "intervene_command",
        "Change the model while it reads traces, or read it on the way, each beside a control.",
    ),
    "train": (
        "train_command",
        "Fine-tune with language modelling, the safety head and query-mask modelling; write a run folder.",
    ),
    "mcp": (
        "mcp_command",
        "Let an agent ask what runs found: a read-only MCP server over run folders.",
    ),
}
"""The module of each command, imported when the command is run or its help is asked for, and its help."""


class LazyGroup(TyperGroup):
    """A group that lists its commands without importing them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is run, in place of the entry that stands for it in the list."""
        name, entry, rest = super().resolve_command(ctx, args)
        return name, command_named(str(name)) if name in COMMANDS else entry, rest


app = typer.Typer(
    name="safekey-interp",
    cls=LazyGroup,
    help="Where a reasoning model turns safe or unsafe, what it looks at there, and what its states already know.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _name, (_, _help) in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


def command_named(name: str) -> Any:
    """A command with its options, its module imported."""
    if name not in COMMANDS:
        return typer.main.get_group(app).commands[name]
    module, help_text = COMMANDS[name]
    group = typer.main.get_group(import_module(f"safekey_interp.cli.{module}").app)
    command = next(iter(group.commands.values())) if len(group.commands) == 1 else group
    command.name, command.help = name, help_text
    return command


@app.command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, whatever command wrote it.")],
    *,
    smallest_effect: SmallestEffect = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing of the progress.")] = False,
) -> None:
    """Draw the page of a run folder again."""
    from safekey_interp.cli.shared import progress_bar
    from safekey_interp.reporting.report_file import write_report
    from safekey_interp.runs.run_folder import open_run

    opened = open_run(run)
    if not opened.is_complete:
        raise RunError(f"run {run}: not complete; the command that began it resumes it")
    with progress_bar(quiet=quiet) as bar:
        bar.stage("drawing the page", None)
        retold(opened, smallest_effect)
        page = write_report(opened.path)
    print(one_line(str(page)))


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
    if arguments is None:
        _collect_seldom()
    invoked = Invocation.of(list(sys.argv[1:] if arguments is None else arguments))
    try:
        signal.signal(signal.SIGTERM, _terminate)
        status = _status_of(invoked)
    except _Interrupted:
        _fail(f"stopped; {invoked.if_stopped}", _INTERRUPTED)
    except Terminated:
        _fail(f"stopped; {invoked.if_stopped}", _TERMINATED)
    except SafekeyError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", _INTERRUPTED)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(_usage(error))
    sys.exit(status)


def _collect_seldom() -> None:
    """Garbage collection of a process that runs one command: modules are looked through seldom, and not at the end."""
    gc.set_threshold(10_000, 20, 20)
    at_exit(gc.freeze)


def _status_of(invoked: Invocation) -> int:
    """Run a command, in every process that makes its run."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows a question mark for it, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    together, shared = team(), invoked.words[:1] in (["probe"], ["compare"], ["intervene"], ["train"])
    if not together.is_first:
        if not shared:
            return 0
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives
    if not together.is_alone:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a process that is gone fills pages
    with together if shared else nullcontext():
        return _run(invoked)


def _run(invoked: Invocation) -> int:
    """Run a command; a dry run ends in what the work would cost."""
    command = typer.main.get_command(app)
    try:
        status = command.main(args=invoked.words, prog_name="safekey-interp", standalone_mode=False, obj=invoked)
    except OnlyEstimated as end:
        for name, value in end.cost.rows():
            print(f"{name:<8}{one_line(value)}")
        return 0
    if status == _INTERRUPTED:  # how typer hands on Ctrl-C
        raise _Interrupted
    return status if isinstance(status, int) else 0


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


def _usage(error: Any) -> str:
    """What is wrong with the arguments of a command, and where the right ones are listed."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "safekey-interp"
    return f"{error.format_message().rstrip('.')}; see `{path} --help`"


def _fail(message: str, status: int = 2) -> NoReturn:
    if team().speaks:
        print(f"safekey-interp: {one_line(message)}", file=sys.stderr, flush=True)
    team().let_speak()
    sys.exit(status)
