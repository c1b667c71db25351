"""Command ``safekey-interp compare``: the same prompts through several models or checkpoints, and how these differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from safekey_interp.cli.options import Details, NoReport, Overwrite, Started, progress_of, with_options
from safekey_interp.cli.run_summary import say_run
from safekey_interp.cli.shared import (
    page_of,
    quiet_libraries,
    run_options,
    traces_of,
)
from safekey_interp.cli.smallest_effect import SmallestEffect, retold
from safekey_interp.data.reading_settings import GroupedReadingSettings
from safekey_interp.errors import InputError
from safekey_interp.experiments.experiment_settings import ComparisonSettings
from safekey_interp.generation.sampling_settings import DecodingSettings, Sampling
from safekey_interp.models.load_settings import LoadSettings
from safekey_interp.models.organism import TRACES
from safekey_interp.runs.processes import team
from safekey_interp.runs.settings import option_values

app = typer.Typer()
_READING = (
    "X is the prompt, U how a model restates it, K the key sentence after it. Brackets hold 95 % intervals over "
    "prompts; differences are on the same prompts."
)
_SHOWN = 6
"""Findings of a question, and reasons for leaving out, that ``--details`` prints."""


@app.command()
@with_options
def compare(
    ctx: typer.Context,
    *,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B [C...]",
            help="Hub ids, folders, .gguf files, names that `models` lists, or folders of finished runs: of `probe` "
            "for its traces, of `train` for its model. With --series, the base alone, or none.",
            show_default=False,
        ),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Checkpoints of one training: a pattern of folders, in quotes ('run/checkpoint-*'), or revisions of "
            "a hub model (owner/name@step512,step1000).",
        ),
    ] = None,
    traces: Annotated[
        list[str] | None,
        typer.Option(
            help="File of prompts or traces, whose responses are not read; may be given several times. Default: the "
            "organism's own; with runs of `probe` alone, the first one's."
        ),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="A benchmark's file as its authors publish it, known by its columns or by NAME (xstest, strongreject, "
            "jailbreakbench, harmbench, wildjailbreak, wildchat, multi-turn); may be given several times.",
        ),
    ] = None,
    rubric: Annotated[
        bool,
        typer.Option(
            "--rubric",
            help="Have an endpoint grade answers to StrongREJECT by its rubric; it stands in SAFEKEY_LLM_BASE_URL, "
            "SAFEKEY_LLM_MODEL and SAFEKEY_LLM_API_KEY.",
        ),
    ] = False,
    guard: Annotated[
        str | None,
        typer.Option(help="Guard model (Llama Guard, WildGuard) that judges the suites judged by a classifier."),
    ] = None,
    guard_template: Annotated[
        Path | None,
        typer.Option(help="File with the guard's own text, {prompt} and {response} in it, as WildGuard's card has it."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/A-B-C.")] = None,
    decoding: DecodingSettings,
    settings: ComparisonSettings,
    loading: LoadSettings,
    reading: GroupedReadingSettings,
    starting: Started,
    no_report: NoReport = False,
    overwrite: Overwrite = False,
    details: Details = False,
    smallest_effect: SmallestEffect = None,
) -> None:
    """Run the comparison and print its summary."""
    # Cheap checks come before the seconds that the libraries and the models take.
    from safekey_interp.data.suites import suite_files
    from safekey_interp.endpoint import Endpoint
    from safekey_interp.experiments.compare_judges import SuiteJudges
    from safekey_interp.models.model_series import compared_models
    from safekey_interp.runs.run_writer import check_out

    if settings.keep_responses and decoding.max_new_tokens is not None:
        raise InputError("--max-new-tokens: nothing is generated with --keep-responses; give one of the two")
    judges = SuiteJudges(
        rubric=Endpoint.from_environment() if rubric else None,
        guard=guard,
        guard_template=_text_of(guard_template),
    )
    sides = compared_models(models or (), series)
    called = [side.folder for side in sides] if series is None else [series]
    folder = out or Path("runs") / (re.sub(r"[^\w.]+", "-", "-".join(called))[:120].strip("-.") or "compare")
    if team().is_first:
        check_out(folder)
    source = None
    if traces or suite or not all(side.run for side in sides):
        files = [*(traces or []), *suite_files(suite or [])]
        source = traces_of(files or TRACES, reading, settings.delimiters, seed=settings.seed)
    team().gather()  # so that what one process refuses is known before the others load a model
    with progress_of(starting) as bar:
        quiet_libraries()
        from safekey_interp.experiments.compare_run import run_comparison

        run = run_comparison(
            models or (),
            source,
            series=series,
            sampling=Sampling(**decoding.to_dict(), seed=settings.seed),
            judges=judges,
            load_options=loading.to_dict(),
            allow_unknown=starting.allow_unknown,
            **run_options(ctx, folder, bar, overwrite=overwrite),
            **option_values(settings),
        )
        if not team().is_first:
            return
        run = retold(run, smallest_effect)
        page = page_of(run, bar, wanted=not no_report)
    from safekey_interp.reporting.labels import QUESTIONS

    titles = QUESTIONS["comparison" if series is None else "series"]
    say_run(ctx, run, page, titles=titles, reading=_READING, details=details, shown=_SHOWN)


def _text_of(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--guard-template {file}: cannot be read: {error}") from None
