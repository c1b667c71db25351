"""Interventions on the trained SmolLM2s that ship: calls of the package's own commands on their own answers.

    python -m analysis.real_model --commands --data ../shared/data --out runs/real-study | bash

For ``smollm2:sft`` and ``smollm2:safekey``, so that anybody can repeat them: X and U hidden from K; states of the
plain, refused form of a request put into its wrapped form; the heads through which the token before K reads U, the top
ones together; and waking the signal at inference, a direction added while the model answers, which is compared with
training it. Each command makes a run folder with controls and resumes. The traces (``causes/NAME.jsonl``) are the
model's own answers to the tests, greedy, as many as each command's limit takes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import ANSWER_LIMIT, SHIPPED
from analysis.real_model.real_study_job import answered
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import to_row
from safekey_interp.runs.storage import write_aside

_WAKING = (
    "direction --generate --position decision --n-folds 2 --controls shuffled_labels "
    f"--max-new-tokens {ANSWER_LIMIT} --limit 96"
)
COMMANDS = {
    "knockout": "knockout --to-span prompt --to-span understanding --limit 24 --n-random 4 --n-donors 2",
    "patch": "patch --position decision --position understanding --limit 192",
    "edges": "edges --limit 24 --top 1 --top 4 --top 16 --n-random 19",
    "waking": f"{_WAKING} --n-random 19 --scale 0 --scale 0.4",
    "waking-scales": f"{_WAKING} --n-random 1 --scale 0 --scale 0.2 --scale 0.7 --scale 1",
}
"""What follows ``safekey-interp intervene``, but for model, traces and folder. 19 draws are the fewest of which none goes
as far with a chance of .05."""


def commands(study: Study, load: Callable[[str], Model] = load) -> list[str]:
    """The commands, a line each; writes the traces that they read, unless they are there.

    Args:
        study: its prompts and its folder of runs.
        load: loads a model by its name.

    Raises:
        InputError: an adapter is not there.
    """
    lines = []
    for name in (f"smollm2:{name}" for name in SHIPPED):
        traces = study.out / "causes" / f"{name.replace(':', '-')}.jsonl"
        if not traces.is_file():
            _write_answers(load(name), study, traces)
        for what, words in COMMANDS.items():
            out = traces.with_name(f"{traces.stem}-{what}")
            about = f"--model {name} --traces {shlex.quote(str(traces))}"
            lines.append(f"safekey-interp intervene {words} {about} --out {shlex.quote(str(out))}")
    return lines


def _write_answers(model: Model, study: Study, file: Path) -> None:
    """A model's answers to plain and wrapped requests as traces that the package reads: both labels and both sources in
    turn, so that any first part of the file has some of each."""
    asked = [trace for trace in study.prompts.tests if trace.source != "xstest"]
    turns: dict[tuple[str | None, str | None], int] = {}
    rows = []
    for trace, response in zip(asked, answered(model, asked), strict=True):
        kind = trace.label, trace.source
        turns[kind] = turns.get(kind, 0) + 1
        rows.append((turns[kind], to_row(trace.with_(response=response))))
    lines = [json.dumps(row) + "\n" for _, row in sorted(rows, key=lambda pair: pair[0])]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_aside(file, lambda aside: aside.write_text("".join(lines), encoding="utf-8"))
