"""Command ``safekey-interp eval``: benchmarks by the harnesses of others, on one page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from safekey_interp.cli.options import Details, NoReport, Overwrite, Started, progress_of, with_options
from safekey_interp.cli.run_summary import say_run
from safekey_interp.cli.shared import (
    quiet_libraries,
    run_options,
)
from safekey_interp.cli.smallest_effect import SmallestEffect, retold
from safekey_interp.evaluation.benchmarks.catalogue import NAMED
from safekey_interp.evaluation.benchmarks.commands import BenchmarkSettings

app = typer.Typer()
_READING = "Numbers of the harnesses, with 95 % intervals from their standard errors."
_SHOWN = 12
"""Findings, and reasons for leaving out, that ``--details`` prints."""


class SeveralValues(TyperCommand):
    """A command in which ``--benchmarks A B`` is ``--benchmarks A --benchmarks B``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before every word that follows it, up to the next option."""
        words: list[str] = []
        repeats = False
        for word in args:
            if word.startswith("-"):
                repeats = word == "--benchmarks"
                words += [] if repeats else [word]
            else:
                words += ["--benchmarks", word] if repeats else [word]
        # The option without a word is a mistake that click tells of where nothing follows.
        is_bare = "--benchmarks" in args and "--benchmarks" not in words
        return super().parse_args(ctx, [*words, "--benchmarks"] if is_bare else words)


@app.command(cls=SeveralValues)
@with_options
def evaluate(
    ctx: typer.Context,
    *,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Hub ids, folders, .gguf files, names that `models` lists, or folders that `train` wrote.",
            show_default=False,
        ),
    ],
    benchmarks: Annotated[
        list[str],
        typer.Option(
            metavar="NAME...",
            help=f"One or more of {', '.join(benchmark.name for benchmark in NAMED)}, or any task of the harnesses: "
            "lm-eval:TASK, inspect:TASK.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; that of a finished comparison shows the numbers on its page. Default: runs/MODEL-eval."
        ),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python of another environment, in which the harnesses are installed.")
    ] = None,
    settings: BenchmarkSettings,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Minutes after which a benchmark of a model is given up.")
    ] = None,
    starting: Started,
    no_report: NoReport = False,
    overwrite: Overwrite = False,
    details: Details = False,
    smallest_effect: SmallestEffect = None,
) -> None:
    """Run the benchmarks and print their summary."""
    # Cheap checks come before the seconds that the libraries take.
    from safekey_interp.evaluation.benchmarks.catalogue import benchmarks_of
    from safekey_interp.models.model_list import named_models

    benchmarks_of(benchmarks)
    sides = named_models(models, at_least=1)
    name = re.sub(r"-{2,}", "-", "-".join(side.folder for side in sides))[:120]
    folder = out or Path("runs") / f"{name}-eval"
    with progress_of(starting) as bar:
        quiet_libraries()
        from safekey_interp.experiments.benchmark_run import run_benchmarks

        run = run_benchmarks(
            models,
            benchmarks,
            settings=settings,
            python=python,
            allow_unknown=starting.allow_unknown,
            timeout=None if timeout is None else 60 * timeout,
            **run_options(ctx, folder, bar, overwrite=overwrite),
        )
        run, page = retold(run, smallest_effect), None
        if not no_report:
            from safekey_interp.reporting.report_file import write_report

            bar.stage("drawing the page", None)
            page = write_report(folder)
    from safekey_interp.reporting.labels import QUESTIONS

    titles = QUESTIONS["benchmarks"]
    say_run(ctx, run, page, titles=titles, reading=_READING, details=details, shown=_SHOWN)
