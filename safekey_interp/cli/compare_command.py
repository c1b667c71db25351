"""``safekey-interp compare``: the same prompts through several models, one page and one table of how they differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safekey_interp.cli.options import (
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
    NoReport,
    Overwrite,
    PromptField,
    ResponseField,
    Seed,
    Temperature,
    TopP,
    TrustRemoteCode,
)
from safekey_interp.cli.shared import (
    check_choice,
    page_of,
    parse_batch_size,
    parse_delimiters,
    progress_bar,
    quiet_libraries,
    say,
    say_end,
    say_left_out,
    say_question,
)
from safekey_interp.errors import InputError
from safekey_interp.models.organism import CAVEAT, TRACES, is_organism
from safekey_interp.runs.processes import team

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run

_READING = (
    "X is the prompt, U how a model restates it, K the key sentence after it. Brackets hold 95 % intervals over "
    "prompts; differences are on the same prompts."
)
_SHOWN = 6
"""Findings of a question, and reasons for leaving out, that the summary prints."""


def compare(
    ctx: typer.Context,
    *,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C...]",
            help="Hub ids, folders, .gguf files, names that `models` lists, or folders of finished runs: of `probe` "
            "for its traces, of `train` for its model.",
            show_default=False,
        ),
    ],
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
    keep_responses: Annotated[
        bool, typer.Option("--keep-responses", help="Give every model the traces' own responses: only probes differ.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of an answer. Default: 512, or as many as fit.")
    ] = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    batch_size: Annotated[str, typer.Option(help="Traces a forward pass of the probes, or auto.")] = "auto",
    max_length: LongestToKey = None,
    device: Device = None,
    dtype: Dtype = None,
    finder: Finder = "rules",
    delimiters: Delimiters = None,
    label_by: Annotated[str, typer.Option(help="AUROC of the file's label, or of each trace's aha.")] = "label",
    by: By = "source",
    prompt_field: PromptField = None,
    response_field: ResponseField = None,
    label_field: LabelField = None,
    group_field: GroupField = None,
    id_field: IdField = None,
    seed: Seed = 0,
    limit: Limit = None,
    examples: Annotated[int, typer.Option(min=0, help="Prompts shown side by side.")] = 12,
    no_report: NoReport = False,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Give the same prompts to several models; write what they did, look at and know, with differences, and a page."""
    # Cheap checks come before the seconds that the libraries and the models take.
    from safekey_interp.data.suites import suite_files
    from safekey_interp.data.trace_reader import read_traces
    from safekey_interp.endpoint import Endpoint
    from safekey_interp.experiments.compare_judges import SuiteJudges
    from safekey_interp.models.model_list import sides_of
    from safekey_interp.runs.run_writer import check_out
    from safekey_interp.segmentation.segmenter import finder_names

    check_choice("--label-by", label_by, ("label", "aha"))
    check_choice("--finder", finder, finder_names())
    size, marks = parse_batch_size(batch_size), parse_delimiters(delimiters)
    if keep_responses and max_new_tokens is not None:
        raise InputError("--max-new-tokens: nothing is generated with --keep-responses; give one of the two")
    judges = SuiteJudges(
        rubric=Endpoint.from_environment() if rubric else None,
        guard=guard,
        guard_template=_text_of(guard_template),
    )
    sides = sides_of(models)
    folder = out or Path("runs") / (re.sub(r"-{2,}", "-", "-".join(side.folder for side in sides))[:120] or "compare")
    if team().is_first:
        check_out(folder)
    source = None
    if traces or suite or not all(side.run for side in sides):
        source = read_traces(
            [*(traces or []), *suite_files(suite or [])] or TRACES,
            prompt_field=prompt_field,
            response_field=response_field,
            label_field=label_field,
            group_field=group_field,
            id_field=id_field,
            limit=limit,
        ).check()
    team().gather()  # so that what one process refuses is known before the others load a model
    with progress_bar() as bar:
        quiet_libraries()
        from safekey_interp.experiments.compare_run import run_comparison
        from safekey_interp.generation.sampling import Sampling

        run = run_comparison(
            models,
            source,
            out=folder,
            sampling=Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed),
            keep_responses=keep_responses,
            finder=finder,
            delimiters=marks,
            batch_size=size,  # type: ignore[arg-type]
            max_length=max_length,
            label_by=label_by,  # type: ignore[arg-type]
            by=None if by == "none" else by,
            seed=seed,
            n_examples=examples,
            judges=judges,
            load_options={"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code},
            overwrite=overwrite,
            command=["safekey-interp", *(ctx.obj or [])],
            progress=bar,
        )
        if not team().is_first:
            return
        page = page_of(run, bar, wanted=not no_report)
    _print_summary(run, page)


def _text_of(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--guard-template {file}: cannot be read: {error}") from None


def _print_summary(run: Run, page: Path | None) -> None:
    """What was found, in words of at most 80 columns."""
    from safekey_interp.reporting.labels import QUESTIONS

    manifest, findings = run.manifest, run.findings
    models: list[dict[str, Any]] = manifest["models"]
    say(f"{', '.join(one['name'] for one in models)}: {manifest['data']['n_read']:,} prompts.")
    if any(is_organism(str((one.get("model") or {}).get("spec"))) for one in models):
        say(CAVEAT)
    say(_READING)
    for question, title in QUESTIONS["comparison"].items():
        say_question([one for one in findings.get("findings", []) if one["question"] == question], title, shown=_SHOWN)
    say_left_out(findings.get("left_out", []), shown=_SHOWN)
    say_end(run, page)
