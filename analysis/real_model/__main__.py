"""Study of a trained SmolLM2: gate, pilot, runs, audit, verdicts, adapters.

    python -m analysis.real_model --gate --data DIR --out DIR
    python -m analysis.real_model --pilot --data DIR --out DIR
    python -m analysis.real_model --run --data DIR --out DIR [--share 1/2]
    python -m analysis.real_model --report [--data DIR --out DIR] [--write]

The design is in ``REAL_STUDY.md``; DIR of ``--data`` is the folder of public prompts and traces that its README
describes, DIR of ``--out`` that of the runs. ``--report`` reads the results that ship, or with ``--out`` the cells that
are done there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.real_model.real_study_choice import begin_with, save_pilot
from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import ANSWER_LIMIT, GRID, SHIPPED
from analysis.script_errors import or_one_line
from analysis.study_queue import begin, print_again, read_share

ACTIONS = {
    "gate": "make the training traces, and see whether the style of U passes",
    "cost": "measure a few passes, and what the design costs by them",
    "pilot": "go or no-go, and the settings, on development prompts",
    "run": "fine-tune, ask and measure what is not done yet",
    "report": "verdicts and tables of the results so far",
    "save": "ship what the pilot found and the results of --out by request, without texts",
    "audit": "draw answers for the hand audit and write its sheet",
    "audited": "the finder's agreement with the filled sheet",
    "commands": "print the interventions' commands on the trained models",
    "interventions": "tables of what these commands found",
    "ship": "put both adapters of --out into the repository",
}
_NEED_NO_RUNS = ("report",)
_NEED_NO_DATA = ("report", "audited", "interventions")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.real_model", description=(__doc__ or "").split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    for name, words in ACTIONS.items():
        what.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=words)
    what.add_argument("--again", type=int, metavar="N", help="run N random cells of --out again and compare the bits")
    what.add_argument("--make", choices=sorted(SHIPPED), help="make the adapter of smollm2:NAME on this machine")
    parser.add_argument("--data", type=Path, help="folder of the public prompts and traces")
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--share", default="1/1", help="of --run: 1/2 takes every other cell, and 2/2 the others")
    parser.add_argument("--threads", type=int, default=1, help="of --pilot and --make; --run has one a process")
    parser.add_argument("--seed", type=int, default=0, help="of --again's draw")
    parser.add_argument(
        "--write", action="store_true", help="put the tables of --report or --interventions into RESULTS.md"
    )
    options = parser.parse_args()
    action = options.action or ("make" if options.make else "again")
    if action == "make" and _is_shipped(options.make):
        options.out, options.data = options.out or Path(), options.data or Path()
    if options.out is None and action not in _NEED_NO_RUNS:
        parser.error("--out: expected the folder of the runs")
    if options.data is None and (action not in _NEED_NO_DATA or (action == "report" and options.out)):
        parser.error("--data: expected the folder of prompts and traces")
    or_one_line("analysis.real_model", lambda: _do(action, options))


def _is_shipped(name: str) -> bool:
    from analysis.real_model.real_study_shipping import is_shipped

    return is_shipped(name)


def _do(action: str, options: argparse.Namespace) -> None:
    """What was asked for; each imports what it needs."""
    study = Study(options.out or Path(), options.data)
    if options.out is not None:
        begin_with(study.out)
    if action in ("gate", "cost", "pilot", "run", "again", "make"):
        begin(options.threads if action in ("pilot", "make") else 1)
    if action == "gate":
        _gate(study)
    elif action in ("cost", "run", "again"):
        _queue(action, study, options)
    elif action == "pilot":
        from analysis.real_model.real_study_pilot import pilot

        print(pilot(study))
    elif action in ("report", "save"):
        _results(action, study, options)
    elif action in ("audit", "audited"):
        from analysis.real_model.real_study_audit import read_sheet, write_sheet

        print(write_sheet(study) if action == "audit" else read_sheet(study.out))
    elif action == "commands":
        from analysis.real_model.real_study_interventions import commands

        print("\n".join(commands(study)))
    elif action == "interventions":
        from analysis.real_model.real_study_interventions import interventions
        from analysis.tables import publish

        publish(interventions(study.out), write=options.write)
    else:
        from analysis.real_model.real_study_shipping import make_adapter, ship_adapters

        print(make_adapter(options.make, study) if action == "make" else f"{ship_adapters(study):,} bytes")


def _gate(study: Study) -> None:
    from analysis.real_model.real_study_gate import style

    for share in dict.fromkeys(setting.wrapped for setting in GRID):
        setting = next(setting for setting in GRID if setting.wrapped == share)
        found = style(study.traces(setting))
        aurocs = f"U without the request {found.frame:.3f}, U {found.whole:.3f}, prompt {found.prompt:.3f}"
        print(f"wrapped share {share:g}: AUROC of words of {aurocs}")
        tokens = study.base().tokenizer
        lengths = [
            len(tokens(trace.response, add_special_tokens=False)["input_ids"]) for trace in study.traces(setting)
        ]
        within = (
            f"{limit} tokens {sum(n <= limit for n in lengths) / len(lengths):.3f}" for limit in (60, ANSWER_LIMIT)
        )
        print(f"responses that end within {', '.join(within)}")


def _queue(action: str, study: Study, options: argparse.Namespace) -> None:
    from analysis.real_model.real_study_queue import again, cost, work_off

    if action == "cost":
        print(cost(study))
    elif action == "run":
        work_off(study, read_share(options.share))
    else:
        sys.exit(not print_again(again(study, options.again, options.seed)))


def _results(action: str, study: Study, options: argparse.Namespace) -> None:
    from analysis.real_model.real_study_report import report
    from analysis.real_model.real_study_results import gather, read, save, with_words
    from analysis.real_model.real_study_selection import save_selection
    from analysis.tables import publish

    if action == "save":
        print(f"{save_pilot(study.out)} runs of the pilot")
        save_selection(*study.selection)
        if (study.out / "chosen.json").is_file():
            save(with_words(gather(study), study))
    else:
        publish(report(read() if options.out is None else gather(study)), write=options.write)


if __name__ == "__main__":
    main()
