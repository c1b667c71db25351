"""Commands that are attacked: what is typed, over which files, and what of their folder must come out the same.

Each works in a folder of its own, a copy of one that :func:`prepare` fills, so that all that it leaves is seen.
"""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pandas as pd
from safetensors import SafetensorError, safe_open

from safekey_interp.models import organism

_TRACES = ("--traces", "traces.jsonl")
_OUT = ("--out", "run", "--quiet", "--no-report")
_INTERVENTIONS = {
    "knockout": ("--by", "layer", "--no-aha", "--n-random", "2", "--n-dose", "1", "--n-donors", "1"),
    "edges": ("--top", "1", "--n-random", "2"),
    "patch": ("--layers", "1-2", "--position", "decision"),
    "paths": ("--sender", "3.mlp", "--sender", "2.head.1"),
    "direction": ("--n-random", "2", "--layers", "2", "--save"),
    "suppress": ("--n-random", "2", "--most", "3"),
    "lens": ("--layers", "0,-1"),
    "trajectory": ("--n-random", "2"),
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "probe": ("probe", *_TRACES, "--limit", "16", "--chunk", "4", "--examples", "2", "--out", "run", "--quiet"),
    "probe-generate": ("probe", "--prompts", "prompts.jsonl", "--generate", "--examples", "2", *_OUT),
    "stream": ("probe", *_TRACES, "--stream", "--stream-sample", "16", "--chunk", "4", "--examples", "2", *_OUT),
    "segment": ("segment", "traces.jsonl", "--out", "segmented.parquet", "--overwrite", "--quiet"),
    "generate": ("generate", "--prompts", "prompts.jsonl", "--out", "out.jsonl", "--max-new-tokens", "24", "--quiet"),
    **{kind: ("intervene", kind, *_TRACES, *words, *_OUT) for kind, words in _INTERVENTIONS.items()},
    "compare": ("compare", "organism:base", "organism:sft", "--traces", "prompts.jsonl", "--examples", "2", *_OUT),
    "eval": (
        *("eval", "--allow-unknown", "organism:base", "organism:sft", "--benchmarks", "lm-eval:easy", "lm-eval:other"),
        *("--python", "harness/python", *_OUT),
    ),
    "train": ("train", "recipe.yaml", "--quiet"),
    "report": ("report", "made", "--quiet"),
}
_CLOCKS = {"run.json", "out.settings.json", "generated.settings.json", "unit.json", "trainer_state.json", "sizes.json"}
"""Files that say when they were written; the page of a run repeats it."""


def prepare(folder: Path) -> None:
    """Fill a folder with what the commands read; ``made``, a finished run, is for the caller to make."""
    forms: dict[str, dict[str, organism.Trace]] = {}
    for trace in organism.read_shipped():
        forms.setdefault(trace.group, {}).setdefault(str(trace.meta["outcome"]), trace)
    mixed = islice((both for both in forms.values() if {"refused", "complied"} <= set(both)), 6)
    benign = islice((trace for trace in organism.read_shipped() if trace.label == "benign"), 6)
    rows = [organism.to_row(trace) for trace in (*(t for both in mixed for t in both.values()), *benign)]
    _write(folder / "traces.jsonl", rows)
    asked = {row["prompt"]: {name: row[name] for name in ("prompt", "label", "source")} for row in rows}
    _write(folder / "prompts.jsonl", list(asked.values()))
    recipe = "model: organism:base\ntraces: traces.jsonl\nout: run\nepochs: 2\nbatch_size: 4\nmicro_batch_size: 4\n"
    (folder / "recipe.yaml").write_text(recipe + "save_every: 2\nauxiliary_epochs: null\n")
    from fake_harness import install

    (folder / "harness").mkdir()
    install(folder / "harness")


def copy(template: Path, folder: Path) -> Path:
    """A folder as the template is, in place of what was there; the harness is the template's own."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
    return folder


def differences(whole: Path, other: Path) -> list[str]:
    """What differs between two folders but for what a clock said; nothing when they are the same."""
    names = [{str(path.relative_to(at)) for path in at.rglob("*")} - {"harness/asked"} for at in (whole, other)]
    told = [f"not there: {name}" for name in sorted(names[0] - names[1])]
    told += [f"left over: {name}" for name in sorted(names[1] - names[0])]
    return told + [f"differs: {name}" for name in sorted(names[0] & names[1]) if not _same(whole / name, other / name)]


def _same(one: Path, other: Path) -> bool:
    if one.is_dir() or one.name in _CLOCKS or one.read_bytes() == other.read_bytes():
        return True
    if one.suffix == ".parquet":
        try:
            tables = [pd.read_parquet(file) for file in (one, other)]
        except (OSError, ValueError):  # no whole Parquet
            return False
        return "seconds" in tables[0] and tables[0].drop(columns="seconds").equals(tables[1].drop(columns="seconds"))
    if one.suffix == ".safetensors":
        return _contents(one) == _contents(other)
    # A page is that of its run, which has a date and the seconds that were waited.
    return one.name == "report.html" and one.parent.name != "made"


def _contents(file: Path) -> object:
    """Tensors and metadata; safetensors writes the latter in an order that it draws."""
    try:
        with safe_open(file, framework="np") as opened:
            return opened.metadata(), {name: opened.get_tensor(name).tobytes() for name in sorted(opened.keys())}
    except (OSError, SafetensorError):
        return file.read_bytes()


def _write(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
