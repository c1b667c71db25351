"""Which figures does the paper's analysis have, and how are they drawn again?

    python -m analysis --out D [--model organism] [--traces FILE] [--run FOLDER] [--only attention representations]

Draws each from one probe run, which is made in ``D/run`` when none is given, and continued when it is there. Writes
for each figure a page that loads nothing, the numbers that are drawn as CSV, PNG and SVG where a browser is, and
``D/index.html``. Same model, traces and seed: same CSVs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from safekey_interp.cli.shared import plain, progress_bar, quiet_libraries
from safekey_interp.errors import InputError, RunError, SafekeyError
from safekey_interp.organism import TRACES
from safekey_interp.runs import Run, open_run
from safekey_interp.storage import remove_leftovers, try_writing

FIGURES = ("attention", "representations")
"""What ``--only`` takes, in the order of the index."""
_STOPPED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw figures; mistakes that the user can mend end in one line and exit status 2."""
    try:
        _draw(_options(arguments))
    except SafekeyError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on with the run", _STOPPED)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m analysis", description="Draw the figures of the paper's analysis from one probe run."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures; made when absent")
    parser.add_argument("--model", help="hub id, folder, .gguf file, or a built-in name. Default: organism")
    parser.add_argument("--traces", help="file of traces, or glob. Default: those that come with the organism")
    parser.add_argument("--run", type=Path, help="draw a run that is there instead of probing")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=FIGURES, help="figures; all by default")
    parser.add_argument("--seed", type=int, help="seed of every draw of the run. Default: 0")
    parser.add_argument("--overwrite", action="store_true", help="delete a run of other settings that is in the folder")
    options = parser.parse_args(arguments)
    if options.run and (options.model or options.traces or options.seed is not None):
        raise InputError("--run: got --model, --traces or --seed, too; expected either a run or what to probe")
    return options


def _draw(options: argparse.Namespace) -> None:
    out: Path = options.out
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        try_writing(out)
        remove_leftovers(out)
        run = _known(options.run) if options.run else _probed(options)
        index = _save(run, [name for name in FIGURES if name in options.only], out)
    except SafekeyError:
        if is_new and out.is_dir() and not any(out.iterdir()):
            out.rmdir()  # as if nothing had been asked
        raise
    except OSError as error:
        raise RunError(f"out {out}: cannot be written: {error.strerror or error}") from error
    print(plain(str(index)))


def _known(path: Path) -> Run:
    run = open_run(path)
    if not run.is_complete:
        raise RunError(f"run {path}: not complete; the command that began it goes on with it")
    return run


def _probed(options: argparse.Namespace) -> Run:
    """The run in the output folder, made or continued."""
    from safekey_interp.datasets import read_traces

    source = read_traces(options.traces or str(TRACES)).check()
    with progress_bar() as bar:
        if bar:
            bar.stage("loading the model", None)
        quiet_libraries()
        from safekey_interp.models import load
        from safekey_interp.probing import run_probe

        model = load(options.model or "organism")
        command = ["python", "-m", "analysis", *map(str, sys.argv[1:])]
        out, seed = options.out / "run", options.seed or 0
        return run_probe(model, source, out=out, seed=seed, overwrite=options.overwrite, command=command, progress=bar)


def _save(run: Run, names: Sequence[str], out: Path) -> Path:
    from analysis import fig_attention, fig_representations
    from analysis.saving import Sheet, save_index, save_pictures, save_sheet

    draw: dict[str, Callable[[Run], Sheet]] = {
        "attention": fig_attention.draw,
        "representations": fig_representations.draw,
    }
    sheets: list[Sheet] = []
    absent: dict[str, str] = {}
    for name in names:
        try:
            sheets.append(draw[name](run))
        except RunError as error:
            absent[name] = str(error)
    if not sheets:
        raise RunError("; ".join(absent.values()))
    for sheet in sheets:
        save_sheet(out, sheet)
        print(f"\n{plain(sheet.title)}\n{plain(sheet.table_caption)}\n{sheet.table.to_string(index=False)}")
    print()
    why = save_pictures(out, sheets)
    for line in (why, *(f"{name}: not drawn: {reason}" for name, reason in absent.items())):
        if line:
            print(plain(line))
    return save_index(out, sheets, absent)


def _fail(message: str, status: int) -> NoReturn:
    print(f"analysis: {plain(message)}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
