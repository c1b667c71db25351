"""Comparison of the tables of two commits, byte by byte.

    python -m analysis.validation.same_tables BEFORE [AFTER] [--out runs/same_tables] [--only probe knockout ...]

Takes the files of both commits out of git, runs the same commands with each (the default ``probe``, ``intervene
knockout --limit 80``, ``intervene patch``, ``compare`` of the three organisms, ``train`` for 20 steps with snapshots,
``python -m analysis --only 3``), and compares every table, CSV file and file of weights that they leave. A table whose
bytes differ is compared column by column. ``AFTER`` is the working tree unless it is named. A killed command resumes.
Exits with status 1 where values differ in a column that both have.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

import pandas as pd
from safetensors.numpy import load_file

from analysis.tables import markdown
from safekey_interp.runs.storage import sha256_of

ROOT = Path(__file__).parents[2]
CLI = ("-m", "safekey_interp")
TRAIN = (
    *("model=organism:base", "traces={traces}", "max_steps=20", "batch_size=32", "micro_batch_size=16"),
    *("learning_rate=3e-4", "auxiliary_epochs=null", "probe_every=10"),
)
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "probe": (*CLI, "probe", "--out", "{out}"),
    "knockout": (*CLI, "intervene", "knockout", "--limit", "80", "--out", "{out}"),
    "patch": (*CLI, "intervene", "patch", "--out", "{out}"),
    "train": (*CLI, "train", *TRAIN, "out={out}"),
    "compare": (*CLI, "compare", "organism:base", "organism:sft", "organism:safekey", "--out", "{out}"),
    "analysis": ("-m", "analysis", "--only", "3", "--out", "{out}"),
}
"""Each command with ``{out}`` for its folder and ``{traces}`` for the traces that come with the package."""
SUFFIXES = (".parquet", ".csv", ".safetensors")
"""Files that are compared."""
TIMES = {"seconds"}
"""Columns that are measured anew in each run."""


def main() -> None:
    """Run what was asked for; print one row a file."""
    parser = argparse.ArgumentParser(description="Are the tables of two commits the same, byte by byte?")
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", help="another; the working tree when left out")
    parser.add_argument("--out", type=Path, default=Path("runs/same_tables"))
    parser.add_argument("--only", nargs="+", choices=tuple(COMMANDS), default=tuple(COMMANDS))
    options = parser.parse_args()
    revisions = {"before": options.before, "after": options.after}
    sides = {name: _sources(revision, options.out) for name, revision in revisions.items()}
    for command in options.only:
        for name, sources in sides.items():
            _run(command, sources, options.out / name / command)
    rows = [row for command in options.only for row in compared(options.out, command)]
    print(markdown(pd.DataFrame(rows, columns=["command", "file", "bytes", "difference"])))
    if any("values of" in row[-1] or "missing" in row for row in rows):
        sys.exit(1)


def _sources(revision: str | None, out: Path) -> Path:
    """The files of a commit; the working tree where none is named."""
    if revision is None:
        return ROOT
    digest = subprocess.run(
        ["git", "rev-parse", "--verify", f"{revision}^{{commit}}"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    folder = (out / "sources" / digest).resolve()
    if not folder.is_dir():
        packed = subprocess.run(["git", "archive", digest], cwd=ROOT, check=True, capture_output=True).stdout
        aside = folder.with_name(f".{digest}.aside")
        with tarfile.open(fileobj=BytesIO(packed)) as files:
            files.extractall(aside, filter="data")
        aside.rename(folder)
    return folder


def _run(command: str, sources: Path, folder: Path) -> None:
    (traces,) = sources.glob("safekey_interp/**/traces.jsonl")
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = [word.format(out=folder.resolve(), traces=traces) for word in COMMANDS[command]]
    environment = os.environ | {"PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    subprocess.run([sys.executable, *words], cwd=sources, env=environment, check=True, stdout=subprocess.DEVNULL)
    print(f"{folder}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def compared(out: Path, command: str) -> Iterator[tuple[str, str, str, str]]:
    """One row a file that either side has: command, file, whether its bytes are the same, what differs."""
    sides = [_files(out / side / command) for side in ("before", "after")]
    for file in sorted(sides[0] | sides[1]):
        paths = [out / side / command / file for side in ("before", "after")]
        if not all(path.is_file() for path in paths):
            present = "before" if paths[0].is_file() else "after"
            yield command, file, "missing", f"only {present}"
        elif sha256_of(paths[0]) == sha256_of(paths[1]):
            yield command, file, "same", ""
        else:
            yield command, file, "differ", _difference(*paths)


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in SUFFIXES}


def _difference(before: Path, after: Path) -> str:
    if before.suffix == ".safetensors":
        old, new = load_file(before), load_file(after)
        same = old.keys() == new.keys() and all(old[name].tobytes() == new[name].tobytes() for name in old)
        return "the layout of the file" if same else "values of weights"
    read = pd.read_parquet if before.suffix == ".parquet" else pd.read_csv
    old, new = read(before), read(after)
    changes = [f"column {name} removed" for name in old.columns if name not in new.columns]
    changes += [f"column {name} added" for name in new.columns if name not in old.columns]
    shared = [name for name in old.columns if name in new.columns]
    if len(old) != len(new):
        return "; ".join([*changes, f"values of all columns: {len(old):,} rows before, {len(new):,} after"])
    unequal = [name for name in shared if name not in TIMES and not old[name].equals(new[name])]
    changes += [f"values of {name}" for name in unequal]
    return "; ".join(changes) or "times, or the layout of the file"


if __name__ == "__main__":
    main()
