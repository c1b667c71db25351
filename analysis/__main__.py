"""Figures, data and claims of the paper's analysis.

    python -m analysis [--out D] [--models A B …] [--traces FILE] [--only 3 attention …] [--jobs N] [--write]

Gives each model the same prompts and answers seven questions (:mod:`analysis.paper.questions`). Writes for each figure
a page without network access, its data as CSV, and PNG, SVG and PDF where a browser is installed; ``claims.csv`` and
``CLAIMS.md``, the paper's claims with our evidence; and ``index.html``. The same models, prompts and seed give the same
CSVs. A killed command resumes when it is given again. ``--dry-run`` checks ``paper.yaml``, the requirements for the
paper's released models.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from safekey_interp.cli.shared import progress_bar, quiet_libraries
from safekey_interp.display import one_line
from safekey_interp.errors import InputError, RunError, SafekeyError
from safekey_interp.models.organism import TRACES, is_organism
from safekey_interp.progress import in_time
from safekey_interp.runs.run_folder import Run, open_run
from safekey_interp.runs.storage import remove_leftovers, sha256_of, try_writing
from safekey_interp.version import __version__

MODELS = ("organism:base", "organism:sft", "organism:safekey")
_STOPPED = 130
_PART = "--part"
"""Answer the questions and no more: what the command gives to processes of its own."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw figures; mistakes that the user can mend end in one line and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _options(words)
        if options.dry_run:
            from analysis.paper.config import check

            print(check())
        else:
            _draw(options, words)
    except SafekeyError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("stopped; the same command resumes", _STOPPED)


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m analysis", description="Draw the figures of the paper's analysis.")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the figures; made when absent. "
        "Default: figures")  # fmt: skip
    parser.add_argument("--models", nargs="+", help="hub ids, folders, .gguf files or built-in names: what the others "
        "came from first, then SFT, then SafeKey. Default: the three organisms")  # fmt: skip
    parser.add_argument("--traces", nargs="+", help="files of prompts. Default: those that come with the organism; "
        "where no model is one, those of examples/traces.jsonl, plain and in wrappers")  # fmt: skip
    parser.add_argument("--max-new-tokens", type=int, help="most tokens of an answer. Default: 512; 160 where all "
        "models are SmolLM2, whose training has short answers")  # fmt: skip
    parser.add_argument("--run", type=Path, help="draw what a finished run of probe has, instead of asking models")
    parser.add_argument("--only", nargs="+", help="questions, by number (1 to 7) or name; all by default")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="questions at once. Default: 2")
    parser.add_argument("--seed", type=int, help="seed of every draw. Default: 0")
    parser.add_argument("--overwrite", action="store_true", help="delete runs of other settings that are in the folder")
    parser.add_argument("--write", action="store_true", help="put the verdicts into analysis/CLAIMS.md, too, where "
        "those of the other kind of models stay: organisms, or SmolLM2 and its trainings")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="check paper.yaml and say what it would take")
    parser.add_argument(_PART, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.write:
        from analysis.paper.shipped_claims import kind_of

        options.kind = kind_of(options.models or MODELS)
    if options.run and (options.models or options.traces or (options.seed, options.max_new_tokens) != (None, None)):
        raise InputError("--run: got --models, --traces, --seed or others, too; expected either a run or what to ask")
    if options.max_new_tokens is not None and options.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens: got {options.max_new_tokens}, expected at least 1")
    if options.jobs < 1:
        raise InputError(f"--jobs: got {options.jobs}, expected at least 1")
    options.questions = _questions(options.only, of_run=options.run is not None)
    return options


def _questions(only: Sequence[str] | None, *, of_run: bool) -> list[Any]:
    from analysis.paper.questions import OF_A_RUN, QUESTIONS

    if only is None:
        return [question for question in QUESTIONS if not of_run or question.name in OF_A_RUN]
    names = {key: question for question in QUESTIONS for key in (str(question.number), question.name)}
    for word in only:
        if word not in names:
            known = ", ".join(f"{question.number} {question.name}" for question in QUESTIONS)
            raise InputError(f"--only: got {word!r}, expected some of {known}")
    chosen = {names[word].number for word in only}
    return [question for question in QUESTIONS if question.number in chosen]


def _draw(options: argparse.Namespace, words: list[str]) -> None:
    out: Path = options.out
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        try_writing(out)
        remove_leftovers(out)
        with progress_bar() as bar:
            bar.stage("loading the libraries", None)
            quiet_libraries()
            bench = _bench(options, bar)
            identity = _identity(bench, options)
            answers = _answered(bench, identity, options, words)
        if not options.part:
            index = _finish(bench, answers, identity, options)
            print(one_line(str(index)))
    except SafekeyError:
        if is_new and out.is_dir():
            _remove_empty(out)  # as if nothing had been asked
        raise
    except OSError as error:
        raise RunError(f"out {out}: cannot be written: {error.strerror or error}") from error


def _bench(options: argparse.Namespace, bar: Any) -> Any:
    from analysis.paper.models import Bench

    if options.run:
        return Bench.of_run(options.out, _known(options.run))
    from analysis.paper.default_prompts import default_prompts
    from analysis.real_model.real_study_design import ANSWER_LIMIT
    from safekey_interp.data.trace_reader import read_traces

    models = options.models or list(MODELS)
    is_toy = any(map(is_organism, models))
    source = read_traces(options.traces or (str(TRACES) if is_toy else default_prompts())).check()
    limit = options.max_new_tokens
    if limit is None and all(model.partition(":")[0] == "smollm2" for model in models):
        limit = ANSWER_LIMIT
    seed = options.seed or 0
    return Bench(
        options.out,
        models,
        source,
        seed=seed,
        overwrite=options.overwrite,
        progress=bar,
        is_made=options.part,
        max_new_tokens=limit,
    )


def _known(path: Path) -> Run:
    run = open_run(path)
    if not run.is_complete:
        raise RunError(f"run {path}: not complete; the command that began it goes on with it")
    return run


def _identity(bench: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What the answers depend on."""
    if options.run:
        [run] = bench.probes.values()
        return {"run": sha256_of(run.path / "run.json"), "version": __version__}
    manifest = bench.comparison.manifest
    weights = [(model.get("model") or {}).get("weights_sha256") for model in manifest["models"]]
    return {"models": list(bench.specs), "weights": weights, "comparison": manifest["identity"], "version": __version__}


def _answered(bench: Any, identity: Mapping[str, Any], options: argparse.Namespace, words: list[str]) -> list[Any]:
    """Each question's answer, those that are missing made by as many processes as were asked for."""
    from analysis.paper import questions

    missing = [question for question in options.questions if questions.kept(options.out, question, identity) is None]
    if options.jobs == 1 or len(missing) < 2:
        for question in missing:
            questions.make(bench, question, identity)
    else:
        asked = ", ".join(str(question.number) for question in missing)
        bench.progress.say(
            f"questions {asked}, {options.jobs} at once; each line below begins with its question's name"
        )
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda question: _in_a_process(question, words, bench.progress.say), missing))
    return [questions.kept(options.out, question, identity) for question in options.questions]


def _in_a_process(question: Any, words: list[str], say: Callable[[str], object]) -> None:
    """Answer a question in a process of its own, and say what it says."""
    begun = time.perf_counter()
    # Of an option that is given twice, the last counts; with _PART nothing is written over, and no claims are.
    command = [sys.executable, "-m", "analysis", *words, "--only", question.name, "--jobs", "1", _PART]
    last = "it said nothing"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in filter(None, map(str.strip, process.stderr)):
            last = line
            say(f"{question.name}: {line}")
    if process.returncode:
        raise RunError(f"{question.name}: {last.removeprefix('analysis: ')}")
    say(f"{question.name}: answered, {in_time(time.perf_counter() - begun)}")


def _finish(bench: Any, answers: list[Any], identity: Mapping[str, Any], options: argparse.Namespace) -> Path:
    """Index, claims.csv and CLAIMS.md, from what is kept of every question that was ever answered here."""
    import pandas as pd

    from analysis.paper import claims_page, questions, shipped_claims, verdicts
    from analysis.paper.export import write_text
    from analysis.paper.index import save_index

    out: Path = options.out
    stored = [questions.kept(out, question, identity) for question in questions.QUESTIONS]
    all_answers = [answer for answer in stored if answer]
    if not any(answer.sheets for answer in answers):
        raise RunError("; ".join(answer.why_not for answer in answers))
    for answer in answers:
        for sheet in answer.sheets:
            shown = pd.DataFrame(sheet.table)
            print(f"\n{one_line(sheet.title)}\n{one_line(sheet.table_caption)}\n{shown.to_string(index=False)}")
        if answer.why_not:
            print(f"\n{answer.question.name}: not drawn: {one_line(answer.why_not)}")
    print()
    for why in dict.fromkeys(answer.no_pictures for answer in answers if answer.no_pictures):
        print(one_line(why))
    measured = [measured for answer in all_answers for measured in answer.measured]
    table = verdicts.as_table(measured, options.models or ())
    claims = claims_page.beside_theirs(table)
    if not options.run:
        write_text(out / "claims.csv", shipped_claims.in_csv(table))
        claims_page.write_claims(out / "CLAIMS.md", table)
        if options.write:
            shipped_claims.ship(table, options.kind)
        for line in claims_page.in_lines(table):
            print(one_line(line))
    drawn = (sheet.source for answer in all_answers for sheet in answer.sheets)
    source = next(drawn) if options.run else bench.source()
    return save_index(out, all_answers, [] if options.run else claims, source)


def _remove_empty(out: Path) -> None:
    """Delete folders of ``out`` that hold nothing, itself included."""
    for folder in sorted((path for path in [out, *out.rglob("*")] if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _fail(message: str, status: int) -> NoReturn:
    print(f"analysis: {one_line(message)}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
