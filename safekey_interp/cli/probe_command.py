"""Command ``safekey-interp probe``: from a file of traces to a run folder, a page and a summary in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safekey_interp.cli.options import (
    Details,
    ModelName,
    NoReport,
    Overwrite,
    Started,
    Traces,
    option,
    progress_of,
    with_options,
)
from safekey_interp.cli.run_summary import say_run
from safekey_interp.cli.shared import (
    folder_name,
    loaded_model,
    page_of,
    run_options,
    traces_of,
)
from safekey_interp.cli.smallest_effect import SmallestEffect, retold
from safekey_interp.data.reading_settings import GroupedReadingSettings
from safekey_interp.errors import InputError
from safekey_interp.experiments.experiment_settings import ProbeSettings
from safekey_interp.generation.sampling_settings import Sampling
from safekey_interp.models.checkpoints import check_revision
from safekey_interp.models.load_settings import CheckpointSettings
from safekey_interp.models.organism import TRACES
from safekey_interp.runs.processes import team
from safekey_interp.runs.settings import option_values

if TYPE_CHECKING:
    from safekey_interp.data.trace_reader import TraceSource
    from safekey_interp.models.model import Model
    from safekey_interp.progress import Progress

app = typer.Typer()
_READING = (
    "X is the prompt, U how the model restates it, K the key sentence after it. Brackets hold 95 % intervals over "
    "prompts. AUROC: 0.5 is a coin toss, 1 is perfect."
)
_READING_OWN = "Brackets hold 95 % intervals over prompts. AUROC: 0.5 is a coin toss, 1 is perfect."


@app.command()
@with_options
def probe(
    ctx: typer.Context,
    *,
    model: ModelName = "organism",
    traces: Traces = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(help="File of prompts without traces, with --generate; may be given several times."),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Have the model answer the prompts first; keeps them in the run folder.")
    ] = False,
    max_new_tokens: Annotated[int | None, option(Sampling, "max_new_tokens")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/MODEL or runs/MODEL-TRACES.")] = None,
    settings: ProbeSettings,
    loading: CheckpointSettings,
    reading: GroupedReadingSettings,
    starting: Started,
    no_report: NoReport = False,
    overwrite: Overwrite = False,
    details: Details = False,
    smallest_effect: SmallestEffect = None,
) -> None:
    """Run the probe and print its summary."""
    # Cheap checks come before the seconds that the libraries and the model take.
    from safekey_interp.runs.run_writer import check_generated, check_out

    is_recipe = settings.spans.is_recipe  # refuses what does not go together
    _check_prompts(prompts, traces, generate=generate, max_new_tokens=max_new_tokens)
    if generate and settings.stream:
        raise InputError("--generate, --stream: got both, expected one; stream the file of a run of generate")
    check_revision(model, loading.revision)
    folder = out or Path("runs") / folder_name(model, prompts or traces)
    if team().is_first:
        check_out(folder)
        if generate:
            check_generated(folder, overwrite=overwrite)
    how: Any = {"seed": settings.seed, "stream": settings.stream}
    source = traces_of(prompts or traces or TRACES, reading, settings.delimiters, **how)
    team().gather()  # so that what one process refuses is known before the others load a model
    with progress_of(starting) as bar:
        loaded = loaded_model(model, bar, **loading.to_dict())
        from safekey_interp.experiments.probe_run import run_probe

        if generate:
            about = {"overwrite": overwrite, "allow_unknown": starting.allow_unknown}
            source = _answered(loaded, source, folder, max_new_tokens, bar, **about)
        options = run_options(ctx, folder, bar, overwrite=overwrite)
        options["allow_unknown"] = starting.allow_unknown
        run = run_probe(loaded, source, **options, **option_values(settings))
        if not team().is_first:
            return
        run = retold(run, smallest_effect)
        page = page_of(run, bar, wanted=not no_report)
    from safekey_interp.reporting.labels import QUESTIONS

    kind, meaning = ("probe", _READING) if is_recipe else ("spans", _READING_OWN)
    say_run(ctx, run, page, titles=QUESTIONS[kind], reading=meaning, details=details)


def _check_prompts(
    prompts: list[str] | None, traces: list[str] | None, *, generate: bool, max_new_tokens: int | None
) -> None:
    if prompts and not generate:
        raise InputError("--prompts: holds no traces to probe; add --generate to have the model answer them first")
    if generate and not prompts:
        raise InputError("--generate: no prompts to answer; name their file with --prompts")
    if prompts and traces:
        raise InputError("--prompts, --traces: got both, expected one; traces hold their responses already")
    if max_new_tokens is not None and not generate:
        raise InputError("--max-new-tokens: nothing is generated; add --generate, and --prompts with a file")


def _answered(
    model: Model,
    prompts: TraceSource,
    folder: Path,
    max_new_tokens: int | None,
    bar: Progress | None,
    *,
    overwrite: bool,
    allow_unknown: bool,
) -> TraceSource:
    """The traces that the model makes of prompts, kept in the run folder; what is there is not asked again."""
    from safekey_interp.data.trace_reader import read_traces
    from safekey_interp.generation.local_engine import LocalEngine
    from safekey_interp.generation.requests import Request
    from safekey_interp.generation.response_run import write_responses
    from safekey_interp.runs.run_writer import GENERATED

    if team().is_first:
        write_responses(
            LocalEngine(model),
            (Request(trace=trace) for trace in prompts),
            out=folder / GENERATED,
            sampling=Sampling(max_new_tokens=max_new_tokens),
            about={"prompts": list(prompts.names), "prompts_sha256": prompts.sha256},
            allow_unknown=allow_unknown,
            overwrite=overwrite,
            progress=bar,
        )
    team().gather()
    return prompts.changes_of(read_traces(folder / GENERATED)).check()
