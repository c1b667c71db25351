"""``safekey-interp probe``: from a file of traces to a run folder, a page and a summary in words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from safekey_interp.cli.shared import (
    parse_batch_size,
    parse_delimiters,
    parse_layers,
    progress_bar,
    quiet_libraries,
    say,
)
from safekey_interp.errors import InputError

if TYPE_CHECKING:
    from safekey_interp.runs import Run

_TITLES = {
    "where": "Where does the model decide?",
    "what": "What does it look at there?",
    "knew": "What did it already know?",
    "chance": "What would also be true by chance?",
}


def probe(
    model: str = typer.Option("smollm2", help="Hub id, folder, .gguf file, or a name that `models` lists."),
    traces: list[str] = typer.Option([], help="File of traces (JSONL, JSON, CSV, Parquet), glob, or - for standard input."),
    out: Path | None = typer.Option(None, help="Run folder. Default: runs/MODEL-TRACES."),
    layers: str | None = typer.Option(None, help="Layers, such as 0-5,12,-1. Default: all."),
    batch_size: str = typer.Option("auto", help="Traces a forward pass, or auto."),
    max_length: int | None = typer.Option(None, min=2, help="Most tokens up to the end of the key sentence."),
    device: str | None = typer.Option(None, help="cuda, mps, cpu, or auto for several cards."),
    dtype: str | None = typer.Option(None, help="float32, bfloat16, float16."),
    revision: str | None = typer.Option(None, help="Branch, tag or commit of a hub model."),
    adapter: str | None = typer.Option(None, help="PEFT adapter to merge."),
    finder: str = typer.Option("rules", help="How key sentences are found: rules, given, llm."),
    delimiters: str | None = typer.Option(None, help="Marks of the reasoning: OPENING,CLOSING."),
    backend: str = typer.Option("hf", help="hf (fast) or bridge (TransformerLens)."),
    label_by: str = typer.Option("label", help="Separability by the file's label, or by each trace's aha."),
    prompt_field: str | None = typer.Option(None, help="Column of the prompt."),
    response_field: str | None = typer.Option(None, help="Column of the response."),
    label_field: str | None = typer.Option(None, help="Column of the label."),
    group_field: str | None = typer.Option(None, help="Column that ties twins."),
    seed: int = typer.Option(0, help="Seed of every draw."),
    limit: int | None = typer.Option(None, min=1, help="Read no more traces than this."),
    examples: int = typer.Option(40, min=0, help="Traces shown token by token."),
    states: bool = typer.Option(False, "--states", help="Keep the hidden states in the run folder."),
    no_report: bool = typer.Option(False, "--no-report", help="Do not draw the page."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Delete a run that is in the folder."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with a hub model."),
) -> None:
    """Find key sentences, what they attend to and what the states know; write a run folder with one page."""
    if not traces:
        raise InputError("--traces: missing, expected a file of traces (JSONL, JSON, CSV, Parquet), a glob, or -")
    _check_choice("--backend", backend, ("hf", "bridge"))
    _check_choice("--label-by", label_by, ("label", "aha"))
    numbers, size, marks = parse_layers(layers), parse_batch_size(batch_size), parse_delimiters(delimiters)
    # Cheap checks come before the seconds that the libraries and the model take.
    from safekey_interp.checkpoints import resolve
    from safekey_interp.datasets import read_traces
    from safekey_interp.runs import check_out

    folder = out or Path("runs") / _folder_name(model, traces)
    check_out(folder)
    source = read_traces(
        traces if len(traces) > 1 else traces[0],
        prompt_field=prompt_field,
        response_field=response_field,
        label_field=label_field,
        group_field=group_field,
        limit=limit,
    ).check()
    quiet_libraries()
    resolve(model)
    from safekey_interp.models import load
    from safekey_interp.probing import run_probe

    loaded = load(
        model,
        device=device,
        dtype=dtype,
        revision=revision,
        adapter=adapter,
        **({"trust_remote_code": True} if trust_remote_code else {}),
    )
    with progress_bar() as bar:
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
            seed=seed,
            limit=limit,
            n_examples=examples,
            keep_states=states,
            overwrite=overwrite,
            command=["safekey-interp", *sys.argv[1:]],
            progress=bar,
        )
        page = None
        if not no_report:
            from safekey_interp.report import write_report

            if bar:
                bar.stage("drawing the page", None)
            page = write_report(run.path)
    print_summary(run, page)


def print_summary(run: Run, page: Path | None) -> None:
    """What was found, in words of at most 80 columns."""
    manifest, findings = run.manifest, run.findings
    model, data = manifest["model"], manifest["data"]
    say(f"{model['name']} on {', '.join(Path(name).name for name in data['sources'])}: {data['n_read']:,} traces read.")
    for question, title in _TITLES.items():
        mine = [f for f in findings.get("findings", []) if f["question"] == question]
        if not mine:
            continue
        print(f"\n{title}")
        for finding in mine[:4]:
            say(finding["text"], indent="  - ", hang="    ")
            say(f"n = {finding['n']:,}; control: {finding['control']}", indent="    ")
    left_out: list[dict[str, Any]] = findings.get("left_out", [])
    if left_out:
        print("\nLeft out")
        for entry in left_out[:6]:
            say(f"{entry['what']} ({entry['n']:,}): {entry['why']}", indent="  - ", hang="    ")
    seconds = sum((manifest.get("timings") or {}).values())
    print()
    say(f"{page or run.path} ({seconds:.0f} s)")


def _folder_name(model: str, traces: list[str]) -> str:
    first = "stdin" if traces[0] == "-" else Path(traces[0]).stem
    return re.sub(r"[^\w.-]+", "-", f"{Path(model).name}-{first}").strip("-") or "run"


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{option}: got {value!r}, expected {' or '.join(choices)}")
