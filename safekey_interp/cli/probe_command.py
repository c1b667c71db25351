"""``safekey-interp probe``: from a file of traces to a run folder, a page and a summary in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safekey_interp.cli.options import (
    Adapter,
    By,
    Delimiters,
    Device,
    Dtype,
    Finder,
    GroupField,
    IdField,
    LabelField,
    Limit,
    LongestToKey,
    ModelName,
    NoReport,
    Overwrite,
    PromptField,
    ResponseField,
    Revision,
    Seed,
    Traces,
    TrustRemoteCode,
)
from safekey_interp.cli.shared import (
    check_choice,
    folder_name,
    loaded_model,
    page_of,
    parse_batch_size,
    parse_delimiters,
    parse_layers,
    progress_bar,
    say_findings,
)
from safekey_interp.errors import InputError
from safekey_interp.models.organism import TRACES
from safekey_interp.runs.processes import team

if TYPE_CHECKING:
    from safekey_interp.data.trace_reader import TraceSource
    from safekey_interp.display import Progress
    from safekey_interp.models.model import Model

_READING = (
    "X is the prompt, U how the model restates it, K the key sentence after it. Brackets hold 95 % intervals over "
    "prompts. AUROC: 0.5 is a coin toss, 1 is perfect."
)


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
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of an answer. Default: 512, or as many as fit.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/MODEL or runs/MODEL-TRACES.")] = None,
    layers: Annotated[str | None, typer.Option(help="Layers, such as 0-5,12,-1. Default: all.")] = None,
    batch_size: Annotated[str, typer.Option(help="Traces a forward pass, or auto.")] = "auto",
    max_length: LongestToKey = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    adapter: Adapter = None,
    finder: Finder = "rules",
    delimiters: Delimiters = None,
    backend: Annotated[str, typer.Option(help="hf (fast) or bridge (TransformerLens).")] = "hf",
    label_by: Annotated[str, typer.Option(help="Separability by the file's label, or by each trace's aha.")] = "label",
    by: By = "source",
    prompt_field: PromptField = None,
    response_field: ResponseField = None,
    label_field: LabelField = None,
    group_field: GroupField = None,
    id_field: IdField = None,
    seed: Seed = 0,
    limit: Limit = None,
    examples: Annotated[int, typer.Option(min=0, help="Traces shown token by token.")] = 40,
    chunk: Annotated[
        int | None,
        typer.Option(min=1, help="Traces between two points from which a killed run goes on. Default: 32 to 256."),
    ] = None,
    states: Annotated[bool, typer.Option("--states", help="Keep the hidden states in the run folder.")] = False,
    no_report: NoReport = False,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Find key sentences, what they attend to and what the states know; write a run folder with one page."""
    # Cheap checks come before the seconds that the libraries and the model take.
    from safekey_interp.data.trace_reader import read_traces
    from safekey_interp.runs.run_writer import check_generated, check_out
    from safekey_interp.segmentation.segmenter import finder_names

    check_choice("--backend", backend, ("hf", "bridge"))
    check_choice("--label-by", label_by, ("label", "aha"))
    check_choice("--finder", finder, finder_names())
    numbers, size, marks = parse_layers(layers), parse_batch_size(batch_size), parse_delimiters(delimiters)
    _check_prompts(prompts, traces, generate=generate, max_new_tokens=max_new_tokens)
    folder = out or Path("runs") / folder_name(model, prompts or traces)
    if team().is_first:
        check_out(folder)
        if generate:
            check_generated(folder, overwrite=overwrite)
    source = read_traces(
        prompts or traces or TRACES,
        prompt_field=prompt_field,
        response_field=response_field,
        label_field=label_field,
        group_field=group_field,
        id_field=id_field,
        limit=limit,
    ).check()
    team().gather()  # so that what one process refuses is known before the others load a model
    with progress_bar() as bar:
        loaded = loaded_model(
            model,
            bar,
            device=device,
            dtype=dtype,
            revision=revision,
            adapter=adapter,
            trust_remote_code=trust_remote_code,
        )
        from safekey_interp.experiments.probe_run import run_probe

        if generate:
            source = _answered(loaded, source, folder, max_new_tokens, bar, overwrite=overwrite)
        run = run_probe(
            loaded,
            source,
            out=folder,
            layers=numbers,
            finder=finder,
            delimiters=marks,
            batch_size=size,  # type: ignore[arg-type]
            max_length=max_length,
            backend=backend,  # type: ignore[arg-type]
            label_by=label_by,  # type: ignore[arg-type]
            by=None if by == "none" else by,
            seed=seed,
            n_examples=examples,
            keep_states=states,
            chunk=chunk,
            overwrite=overwrite,
            command=["safekey-interp", *(ctx.obj or [])],
            progress=bar,
        )
        if not team().is_first:
            return
        page = page_of(run, bar, wanted=not no_report)
    from safekey_interp.reporting.labels import QUESTIONS

    say_findings(run, page, titles=QUESTIONS["probe"], reading=_READING)


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
) -> TraceSource:
    """The traces that the model makes of prompts, kept in the run folder; what is there is not asked again."""
    from safekey_interp.data.trace_reader import read_traces
    from safekey_interp.generation.local_engine import LocalEngine
    from safekey_interp.generation.requests import Request
    from safekey_interp.generation.response_run import write_responses
    from safekey_interp.generation.sampling import Sampling
    from safekey_interp.runs.run_writer import GENERATED

    if team().is_first:
        write_responses(
            LocalEngine(model),
            (Request(trace=trace) for trace in prompts),
            out=folder / GENERATED,
            sampling=Sampling(max_new_tokens=max_new_tokens),
            about={"prompts": list(prompts.names), "prompts_sha256": prompts.sha256},
            overwrite=overwrite,
            progress=bar,
        )
    team().gather()
    return read_traces(folder / GENERATED).check()
