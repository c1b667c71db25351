"""Agreement and speed of the finder `rules`.

    python analysis/validation/rules_finder.py ANNOTATIONS.jsonl [TRACES.jsonl]

Prints the agreement with two annotators on the two thirds of the file used for development and, separately, on the
held-out third; then the traces segmented per second on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from safekey_interp.data.trace import Trace
from safekey_interp.evaluation.segmentation_agreement import compare, is_held_out, read_annotations
from safekey_interp.segmentation.segmenter import segment_all

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("traces", type=Path, nargs="?", help="JSONL with id, prompt, response, to measure the speed on")
    parser.add_argument("--finder", default="rules")
    parser.add_argument("--development-only", action="store_true", help="leave the held-out third unread")
    options = parser.parse_args()
    annotations = read_annotations(options.annotations)
    parts = {"development two thirds": [a for a in annotations if not is_held_out(a.trace.trace_id)]}
    if not options.development_only:
        parts["held-out third"] = [a for a in annotations if is_held_out(a.trace.trace_id)]
        parts["whole file"] = annotations
    for name, part in parts.items():
        report = compare(segment_all((a.trace for a in part), finder=options.finder), part)
        print(f"{options.finder}, {name} ({len(part)} traces)\n{report}\n")
    if options.traces:
        rate, n = traces_a_second(options.traces, options.finder)
        print(f"{rate:,.0f} traces a second on one core (best of {REPEATS}, {n} traces of {options.traces.name})")


def traces_a_second(path: Path, finder: str) -> tuple[float, int]:
    """Processor time of this process, best of several, whole responses in memory."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    traces = [Trace(trace_id=str(row["id"]), prompt=row["prompt"], response=row["response"]) for row in rows]
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _segmentation in segment_all(traces, finder=finder):
            pass
        times.append(time.process_time() - start)
    return len(traces) / min(times), len(traces)


if __name__ == "__main__":
    main()
