"""What does every ``intervene`` command do once its options are read?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from safekey_interp.cli.shared import (
    check_choice,
    folder_name,
    loaded_model,
    page_of,
    parse_delimiters,
    progress_bar,
    say_findings,
)
from safekey_interp.models.organism import TRACES
from safekey_interp.runs.processes import team

if TYPE_CHECKING:
    from safekey_interp.measures.direction_record import Direction
    from safekey_interp.measures.probes import Probe

Options = dict[str, Any]
_READING = (
    "X is the prompt, U how the model restates it, K the key sentence after it. Brackets hold 95 % intervals over "
    "prompts. Safe key sentences less go-aheads: how much likelier the model finds sentences that turn safe than "
    "sentences that go ahead, in K's place."
)


def bank_in(file: Path | None) -> Any:
    """The key sentences of a file; None for none, which stands for the built-in ones."""
    if file is None:
        return None
    from safekey_interp.generation.key_sentence_bank import read_key_sentences

    return read_key_sentences(file)


def direction_in(file: Path) -> Direction:
    """The direction of a file."""
    from safekey_interp.measures.direction_record import Direction

    return Direction.load(file)


def probe_in(file: Path) -> Probe:
    """The probe of a file."""
    from safekey_interp.measures.probes import Probe

    return Probe.load(file)


def intervene(
    kind: str,
    ctx: typer.Context,
    options: Options,
    *,
    model: str,
    traces: list[str] | None,
    out: Path | None,
    no_report: bool,
    limit: int | None,
    delimiters: str | None,
    finder: str,
    device: str | None,
    dtype: str | None,
    revision: str | None,
    adapter: str | None,
    trust_remote_code: bool,
    max_length: int | None,
    seed: int,
    chunk: int,
    overwrite: bool,
    **fields: str | None,
) -> None:
    """Measure, draw and say; ``options`` are the intervention's, the others what every command takes."""
    from safekey_interp.data.trace_reader import read_traces
    from safekey_interp.runs.run_writer import check_out
    from safekey_interp.segmentation.segmenter import finder_names

    check_choice("--finder", finder, finder_names())
    marks = parse_delimiters(delimiters)
    folder = out or Path("runs") / f"{folder_name(model, traces)}-{kind}"
    if team().is_first:
        check_out(folder)
    source = read_traces(traces or TRACES, limit=limit, **fields).check()  # type: ignore[arg-type]
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
        from safekey_interp.experiments.intervene_run import run_intervention

        run = run_intervention(
            kind,  # type: ignore[arg-type]
            loaded,
            source,
            out=folder,
            finder=finder,
            delimiters=marks,
            max_length=max_length,
            seed=seed,
            chunk=chunk,
            overwrite=overwrite,
            command=["safekey-interp", *(ctx.obj or [])],
            progress=bar,
            **options,
        )
        if not team().is_first:
            return
        page = page_of(run, bar, wanted=not no_report)
    from safekey_interp.reporting.pages.intervention_text import QUESTIONS

    say_findings(run, page, titles=QUESTIONS, reading=_READING)
