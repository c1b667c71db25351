"""Table of every machine whose cost was measured, for RESULTS.md.

    python -m analysis.cost.machines [--add D/cost.json --name NAME] [--write]

``cost.json`` of ``python -m analysis.cost`` is kept under ``analysis/cost/measured/``, a file a machine; ``--add``
copies one there, ``--write`` puts the table of all into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cost.cost_page import made_checks, ratio_in_words, share_in_words, value_in_words
from analysis.cost.entries import ENTRIES
from analysis.tables import markdown, publish

MEASURED = Path(__file__).with_name("measured")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--add", type=Path, help="a cost.json to keep")
    parser.add_argument("--name", help="of the machine, in the name of its file")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md, too")
    options = parser.parse_args()
    if options.add:
        if not options.name:
            parser.error("--name: missing, expected the name of the machine beside --add")
        MEASURED.mkdir(exist_ok=True)
        (MEASURED / f"{options.name}.json").write_text(options.add.read_text(encoding="utf-8"), encoding="utf-8")
    publish({"cost": every_machine()}, write=options.write)


def every_machine() -> str:
    """Headings, tables and checks of all machines, as Markdown."""
    files = sorted(MEASURED.glob("*.json"))
    return "\n\n".join(one_machine(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def one_machine(results: Mapping[str, Any]) -> str:
    """One machine's numbers, as Markdown."""
    setup, machine = results["identity"]["setup"], results["machine"]
    checks = made_checks(results)
    right = sum(check["is_right"] for check in checks)
    rows = [
        {
            "entry": entry["name"],
            "the package": f"{entry['what']}: {value_in_words(entry)}",
            "baseline": f"{entry['baseline']}: {value_in_words(entry, 'baseline_value')}",
            "ratio": ratio_in_words(entry),
            "ratio of processor time": "" if entry["processor_ratio"] is None else f"{entry['processor_ratio']:.2f}",
            "rounds": entry["rounds"],
            "of the limit": share_in_words(entry),
        }
        for entry in results["entries"]
    ]
    about = (
        f"**{machine['device']}**: {setup['model']}, {setup['dtype']}, threads: {machine['threads']}, "
        f"sequences of {max(entry['length'] for entry in results['entries'])} tokens, load "
        f"{machine['load']}, torch {machine['torch']}, transformers {machine['transformers']}; "
        f"{right} of {len(checks)} checks of correctness right."
    )
    known = {entry["name"] for entry in results["entries"]}
    missing = [entry.name for entry in ENTRIES if entry.name not in known]
    after = [f"Not measured there: {', '.join(missing)}."] if missing else []
    return "\n\n".join([about, markdown(pd.DataFrame(rows)), *after])


if __name__ == "__main__":
    main()
