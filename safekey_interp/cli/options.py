"""Options that several commands have, each with its words once."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str | None, typer.Option(help="cuda, mps, cpu, or auto for several cards.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Adapter = Annotated[str | None, typer.Option(help="PEFT adapter to merge.")]
Finder = Annotated[str, typer.Option(help="How key sentences are found: rules, given, llm.")]
Delimiters = Annotated[str | None, typer.Option(help="Marks of the reasoning: OPENING,CLOSING.")]
PromptField = Annotated[str | None, typer.Option(help="Column of the prompt.")]
ResponseField = Annotated[str | None, typer.Option(help="Column of the response.")]
LabelField = Annotated[str | None, typer.Option(help="Column of the label.")]
GroupField = Annotated[str | None, typer.Option(help="Column that ties twins.")]
IdField = Annotated[str | None, typer.Option(help="Column of the trace's id.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every draw.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Read no more traces than this.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="Do not draw the page.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete a run that is in the folder.")]
Temperature = Annotated[float, typer.Option(help="0 for the likeliest token each time.")]
TopP = Annotated[float, typer.Option(help="Draw from the likeliest tokens of this much probability.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with a hub model.")]
LongestToKey = Annotated[int | None, typer.Option(min=2, help="Most tokens up to the end of the key sentence.")]
By = Annotated[str, typer.Option(help="Column that tells conditions apart: source, a name found in meta, or none.")]
ModelName = Annotated[str, typer.Option(help="Hub id, folder, .gguf file, or a name that `models` lists.")]
Traces = Annotated[
    list[str] | None,
    typer.Option(
        help="File of traces (JSONL, JSON, CSV, Parquet), glob, or -; may be given several times. "
        "Default: the organism's own."
    ),
]
