"""Study over many toys: pilot, power, runs, verdicts.

    python -m analysis.replication --report [--out DIR] [--write]
    python -m analysis.replication --run --out DIR [--share 1/2]
    python -m analysis.replication --save --out DIR
    python -m analysis.replication --again 3 --out DIR
    python -m analysis.replication --pilot --out DIR
    python -m analysis.replication --power

``--report`` prints the verdicts of the results that ship, or with ``--out`` of the cells that are done there, however
many; ``--write`` puts them into RESULTS.md. ``--run`` does what is not done yet; ``--save`` ships the results of whole
bases by request, and ``--run`` goes on behind what ships, in a new clone, too; ``--again`` runs random cells anew and
compares the bits. The design is in ``TOY_STUDY.md``. The earlier replication, on two bases, is
``python -m analysis.replication.run``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from analysis.script_errors import or_one_line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.replication", description=(__doc__ or "").split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--report", action="store_true", help="verdicts and tables of the results so far")
    what.add_argument("--run", action="store_true", help="pre-train, fine-tune, ask and measure what is not done yet")
    what.add_argument("--save", action="store_true", help="ship the results of --out by request")
    what.add_argument("--again", type=int, metavar="N", help="run N random cells of --out again and compare the bits")
    what.add_argument("--pilot", action="store_true", help="choose the settings on development bases and wrappers")
    what.add_argument("--power", action="store_true", help="power of the design, by simulation from earlier parts")
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--share", default="1/1", help="of --run: 1/2 takes every other base, and 2/2 the others")
    parser.add_argument("--seed", type=int, default=0, help="of --again's draw and of --power's simulation")
    parser.add_argument("--write", action="store_true", help="put --report's tables into RESULTS.md")
    options = parser.parse_args()
    if options.out is None and (options.save or not (options.report or options.power)):
        parser.error("--out: expected the folder of the runs")
    or_one_line("analysis.replication", lambda: _do(options))


def _do(options: argparse.Namespace) -> None:
    if options.run or options.again or options.pilot:
        from analysis.replication.toy_study_queue import again, work_off
        from analysis.study_queue import begin, print_again, read_share

        begin()
        if options.run:
            work_off(options.out, *read_share(options.share))
        elif options.pilot:
            from analysis.replication.toy_study_pilot import pilot

            print(pilot(options.out))
        else:
            sys.exit(not print_again(again(options.out, options.again, options.seed)))
    elif options.power:
        from analysis.replication.toy_study_power import power

        print(power(options.seed))
    else:
        _results(options)


def _results(options: argparse.Namespace) -> None:
    from analysis.replication.toy_study_report import report
    from analysis.replication.toy_study_results import SHIPPED, gather, read, save
    from analysis.tables import publish

    results = read() if options.out is None else gather(options.out)
    if options.save and options.out is not None:
        save(results.of(results.bases))
        if (options.out / "pilot.md").is_file():
            shutil.copy(options.out / "pilot.md", SHIPPED / "toy_study_pilot.md")
    else:
        publish(report(results), write=options.write)


if __name__ == "__main__":
    main()
