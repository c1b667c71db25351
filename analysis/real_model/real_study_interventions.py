"""Interventions on the trained SmolLM2s that ship: calls of the package's own commands on their own answers.

    python -m analysis.real_model --commands --data ../shared/data --out runs/real-study | bash
    python -m analysis.real_model --interventions --out runs/real-study --write

For ``smollm2:sft`` and ``smollm2:safekey``, so that anybody can repeat them: X and U hidden from K; states of the
plain, refused form of a request put into its wrapped form; the heads through which the token before K reads U, the top
ones together; and waking the signal at inference, a direction added while the model answers, which is compared with
training it. Each command makes a run folder with controls and resumes. The traces are the model's own answers to the
tests, greedy (``interventions/NAME-PART.jsonl``): all of them, for pairs of a plain and a wrapped form; and one wrapped
answer a request for everything else, since intervals are over requests. Heads are ranked on harmful requests alone;
elsewhere there are as many of either label.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import ANSWER_LIMIT, SHIPPED
from analysis.real_model.real_study_job import answered
from analysis.tables import interval, markdown, rows_of, where
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.interventions.effects import TESTED, default_rows
from safekey_interp.interventions.knockout_summary import CONTRAST, EFFECT
from safekey_interp.measures.intervals import mean_interval
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import to_row
from safekey_interp.runs.run_folder import Run, open_run
from safekey_interp.runs.storage import write_aside

_WAKING = (
    f"direction --generate --position decision --n-folds 2 --controls shuffled_labels --max-new-tokens {ANSWER_LIMIT}"
)
_LABELS = ("harmful", "benign")
_SHARES = (("malformed", "all"), *(("refused", label) for label in _LABELS))
"""What the table of a direction shows of the answers, and of which requests."""


class Command(NamedTuple):
    """A command and the traces that it reads."""

    traces: str
    words: str


COMMANDS = {
    "knockout": Command(
        "wrapped", "knockout --to-span prompt --to-span understanding --limit 32 --n-random 19 --n-dose 1 --n-donors 2"
    ),
    "patch": Command("all", "patch --position decision --position understanding --limit 192"),
    "edges": Command("harmful", "edges --limit 24 --top 1 --top 4 --top 16 --n-random 19"),
    "waking": Command("wrapped", f"{_WAKING} --n-random 19 --scale 0 --scale 0.4"),
    "waking-scales": Command("wrapped", f"{_WAKING} --n-random 1 --scale 0 --scale 0.2 --scale 0.7 --scale 1"),
}
"""By name, what follows ``safekey-interp intervene``, but for model and folder. With 19 draws the least p is .05."""


def commands(study: Study, load: Callable[[str], Model] = load) -> list[str]:
    """The commands, a line each; writes the traces that they read, unless they are there.

    Args:
        study: its prompts and its folder of runs.
        load: loads a model by its name.

    Raises:
        InputError: an adapter is not there.
    """
    lines = []
    for name in SHIPPED:
        files = {part: _folder(study.out) / f"smollm2-{name}-{part}.jsonl" for part in ("all", "wrapped", "harmful")}
        if not all(file.is_file() for file in files.values()):
            asked = [trace for trace in study.prompts.tests if trace.source != "xstest"]
            responses = answered(load(f"smollm2:{name}"), asked)
            write_answers([trace.with_(response=text) for trace, text in zip(asked, responses, strict=True)], files)
        for what, command in COMMANDS.items():
            about = f"--model smollm2:{name} --traces {shlex.quote(str(files[command.traces]))}"
            out = shlex.quote(str(_run(study.out, name, what)))
            lines.append(f"safekey-interp intervene {command.words} {about} --out {out}")
    return lines


def write_answers(traces: Sequence[Trace], files: Mapping[str, Path]) -> None:
    """Answers as files of traces: all; one wrapped of each request, as many of either label; all harmful ones of
    these."""
    one = {label: one_of_each(trace for trace in traces if trace.label == label) for label in _LABELS}
    fewest = min(map(len, one.values()))
    wrapped = [trace for some in one.values() for trace in some[:fewest]]
    for part, some in {"all": traces, "wrapped": wrapped, "harmful": one["harmful"]}.items():
        text = "".join(json.dumps(to_row(trace)) + "\n" for trace in some)
        files[part].parent.mkdir(parents=True, exist_ok=True)
        write_aside(files[part], lambda aside, text=text: aside.write_text(text, encoding="utf-8"))


def one_of_each(traces: Iterable[Trace], seed: int = 0) -> list[Trace]:
    """One wrapped trace of each request, in an order of requests that is drawn: that of the wrapper that the requests
    before it have least often, so that any first part has requests of all sources and of each wrapper as many."""
    forms: dict[str, list[Trace]] = {}
    for trace in traces:
        if trace.source == "wrapped":
            forms.setdefault(trace.group, []).append(trace)
    used: Counter[str] = Counter()
    chosen = []
    for group in np.random.default_rng(seed).permutation(list(forms)):
        trace = min(forms[group], key=lambda trace: used[trace.meta["wrapper"]])
        used[trace.meta["wrapper"]] += 1
        chosen.append(trace)
    return chosen


def _folder(out: Path) -> Path:
    return out / "interventions"


def _run(out: Path, name: str, what: str) -> Path:
    return _folder(out) / f"smollm2-{name}-{what}"


def interventions(out: Path) -> dict[str, str]:
    """Tables of the commands' run folders that are complete, for RESULTS.md.

    Args:
        out: the study's folder of runs.

    Raises:
        InputError: none is.
    """
    made: dict[str, list[dict[str, str]]] = {}
    for name in SHIPPED:
        for what in COMMANDS:
            folder = _run(out, name, what)
            if not folder.is_dir() or not (run := open_run(folder)).is_complete:
                continue
            table, lines = _TABLES[what]
            made.setdefault(f"real-study-{table}", []).extend(
                {"model": f"smollm2:{name}"} | line for line in lines(run)
            )
    if not made:
        raise InputError(f"{_folder(out)}: no complete run; `--commands` prints what makes them")
    return {name: markdown(pd.DataFrame(lines).fillna("")) for name, lines in made.items()}


def _summary(run: Run) -> Any:
    return run.summary


def _n(row: Any) -> str:
    return f"{row['n']} ({row['n_groups']})"


def _beside(row: Any, name: str) -> str:
    return "–" if pd.isna(row[name]) else interval(row, name, "+.2f")


def _knockout(run: Run) -> Iterator[dict[str, str]]:
    for label in _LABELS:
        rows = where(_summary(run), metric="difference", subset=label, dose=1.0)
        for span in ("prompt", "understanding"):
            [row] = rows_of(where(default_rows(rows), to_span=span, measure=EFFECT))
            [contrast] = rows_of(where(rows, to_span=span, measure=CONTRAST))
            yield {
                "requests": label,
                "K may not see": span,
                "hidden": interval(row, form="+.2f"),
                "as many random keys": f"{_beside(row, 'control')} (n {row['n_with_control']})",
                "hidden minus random keys": _beside(row, "excess"),
                "another request's in place, other label's minus same label's": interval(contrast, form="+.2f"),
                "n (requests)": _n(row),
            }


def _patch(run: Run) -> Iterator[dict[str, str]]:
    exact = where(_summary(run), subset="all", measure=EFFECT)
    measured = exact[exact["control_kind"] != TESTED]
    own = where(measured, metric="key_sentence").set_index(["layer", "position"])
    pairs: Any = run.effects
    pairs = where(pairs, control=TESTED, metric="difference").drop_duplicates("trace_id")
    gap = interval(mean_interval(pairs[["gap"]].to_numpy(float), list(pairs["group"])).estimate(), form="+.2f")
    for row in rows_of(where(measured, metric="difference").sort_values("excess", ascending=False, key=abs)):
        yield {
            "plain minus wrapped form": gap,
            "states of the plain form at": row["position"],
            "layer": str(row["layer"]),
            "put into the wrapped form": interval(row, form="+.2f"),
            "another request's states": interval(row, "control", "+.2f"),
            "own minus another request's": interval(row, "excess", "+.2f"),
            "the same of the trace's own K": interval(own.loc[(row["layer"], row["position"])], "excess", "+.2f"),
            "n (requests)": _n(row),
        }


def _edges(run: Run) -> Iterator[dict[str, str]]:
    rows = where(_summary(run), metric="difference", subset="all")
    [whole] = rows_of(where(rows, measure=EFFECT, cut="all"))
    effects, shares = (where(rows, cut="top", measure=measure) for measure in (EFFECT, "share"))
    yield {
        "heads": f"all {whole['n_heads']}",
        "U hidden in them": interval(whole, form="+.2f"),
        "n (requests)": _n(whole),
    }
    for row, share in zip(rows_of(effects), rows_of(shares), strict=True):
        yield {
            "heads": f"top {row['n_heads']}",
            "U hidden in them": interval(row, form="+.2f"),
            "random heads": interval(row, "control", "+.2f"),
            "p": f"{row['p_value']:.3f}",
            "share of all heads' effect": "–" if whole["low"] < 0 < whole["high"] else interval(share),
            "n (requests)": _n(row),
        }


def _waking(run: Run) -> Iterator[dict[str, str]]:
    rows = default_rows(where(_summary(run), condition="all"))
    for row in rows_of(rows[rows["scale"] != 0]):
        if (row["metric"], row["subset"]) in _SHARES:
            yield {
                "answers": f"{row['metric']}, {row['subset']}",
                "scale": f"{row['scale']:g}",
                "as the model is": f"{row['unedited']:.2f}",
                "direction added": interval(row),
                "shuffled labels": f"{interval(row, 'control')} ({row['n_controls']})",
                "p": f"{row['p_value']:.3f}" if row["n_controls"] > 1 else "",
                "n (requests)": _n(row),
            }


_TABLES: dict[str, tuple[str, Callable[[Run], Iterator[dict[str, str]]]]] = {
    "knockout": ("knockout", _knockout),
    "patch": ("patching", _patch),
    "edges": ("edges", _edges),
    "waking": ("waking", _waking),
    "waking-scales": ("waking", _waking),
}
"""By command, the table that its run is a part of, and its lines."""
