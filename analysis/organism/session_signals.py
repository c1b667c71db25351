"""Signals and controls of a session on the organism's own traces: what ``explore`` says by default.

    python -m analysis.organism.session_signals [--scale 1.5] [--draws 10]

A probe and a direction are fitted to half of the shipped traces, as ``explore`` does, and their alarms calibrated on
the benign ones of the other half. Of this half, the share of traces with a signal is counted by label and the refusal
judge's verdict: the benign ones set the threshold, so that their share is the rate that was asked for. Then the model
answers the harmful prompts whose trace complies; where it complies again, the direction is added at U, and so are
random directions of equal norm, and those that make it refuse are counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd

import safekey_interp as ski
from analysis.tables import markdown
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.exploration.session_readers import halves, signals
from safekey_interp.models.organism import read_shipped


def with_signal(session: ski.Session, traces: Sequence[Trace]) -> pd.DataFrame:
    """How many traces have a signal, a row for each reader and kind of trace."""
    rows = []
    for reader in session.readers:
        found = signals(reader, session.models, traces, "rules")
        kinds: dict[tuple[str, str], list[bool]] = {}
        for trace in traces:
            if trace.trace_id in found:
                verdict = str(judge_refusal(trace.prompt, trace.response).label)
                kinds.setdefault((str(trace.label), verdict), []).append(found[trace.trace_id].margin > 0)
        rows += [
            {"reader": reader.name, "label": label, "verdict": verdict, "signal": f"{sum(told)} of {len(told)}"}
            for (label, verdict), told in sorted(kinds.items())
        ]
    return pd.DataFrame(rows)


def woken(session: ski.Session, direction: ski.Direction, prompts: Sequence[str], scale: float, draws: int) -> str:
    """How often the direction makes the model refuse, and how often random ones of equal norm do."""
    asked = refused = by_chance = drawn = 0
    for prompt in prompts:
        root = session.start(prompt)
        if _verdict(session, root) != "full_compliance":
            continue
        steered = session.fork(
            root, edits=ski.Steer(direction, positions=["understanding"], scale=scale), control=draws
        )
        asked, refused = asked + 1, refused + (_verdict(session, steered) == "full_refusal")
        controls = [_verdict(session, each) == "full_refusal" for each in session.controls(steered)]
        by_chance, drawn = by_chance + sum(controls), drawn + len(controls)
    return (
        f"refuses: {refused} of {asked} by the direction at U, scale {scale:g}; {by_chance} of {drawn} by random ones"
    )


def _verdict(session: ski.Session, branch: ski.Branch) -> str | None:
    list(session.run(branch))
    ended = session.transcript(branch).ended
    return None if ended is None else ended.label


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--scale", type=float, default=1.5)
    parser.add_argument("--draws", type=int, default=10, help="random directions for each prompt")
    options = parser.parse_args()
    quiet_libraries()
    traces = list(read_shipped())
    with ski.Session(ski.load("organism"), traces=traces) as session:
        layer = session.fit_reader().reader.layer
        direction = session.fit_reader(kind="direction", layer=layer).reader
        assert isinstance(direction, ski.Direction)
        further = halves(traces)[1]
        print(markdown(with_signal(session, further)), flush=True)
        succeeded = [
            trace.prompt
            for trace in further
            if trace.label == "harmful" and judge_refusal(trace.prompt, trace.response).label == "full_compliance"
        ]
        print(woken(session, direction, succeeded[:18], options.scale, options.draws))


if __name__ == "__main__":
    main()
