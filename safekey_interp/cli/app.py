"""Which commands are there, and what does a mistake look like? One line on standard error, and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from safekey_interp.cli import models, probe, report, segment
from safekey_interp.errors import SafekeyError
from safekey_interp.version import __version__

app = typer.Typer(
    name="safekey-interp",
    help="Find the sentence where a reasoning model turns safe or unsafe, what it looks at, and what the states already know.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("probe")(probe.probe)
app.command("segment")(segment.segment)
app.command("report")(report.report)
app.command("models")(models.models)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"safekey-interp {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and stop."),
) -> None:
    """Mechanistic interpretability of safety in reasoning models."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; mistakes that the user can mend end in one line and exit status 2."""
    command = typer.main.get_command(app)
    try:
        status = command.main(
            args=list(arguments) if arguments is not None else None, prog_name="safekey-interp", standalone_mode=False
        )
    except SafekeyError as error:
        _fail(str(error))
    except typer.Abort:
        _fail("stopped", status=130)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from the last whole chunk", status=130)
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter would complain once more at exit.
        sys.stdout = None
        sys.exit(141)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(str(error.format_message()))  # type: ignore[attr-defined]
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int = 2) -> None:
    print(f"safekey-interp: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
