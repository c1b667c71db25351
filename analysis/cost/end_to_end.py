"""Attention of real traces from text to the table, in float32 and bfloat16, against one trace at a time, eager, whole.

    python -m analysis.cost.end_to_end [--file ../shared/data/star1.jsonl] [--model smollm2] [--traces 300] [--block 60]

Each block of traces is measured by the reference's way (float32: one trace at a time, all attentions of the whole
trace) and by ``measure_attention`` in both data types, in an order that changes from block to block; the ratios are
medians over blocks. Then what bfloat16 changes: the masses of the table, absolute, and the states at the token before K
of the first block, as the Euclidean norm of the difference divided by that of the state in float32.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from analysis.cost.probe import one_at_a_time
from analysis.cost.timing import clock, interval
from analysis.tables import publish
from safekey_interp.capture.state_collection import collect_states
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.measures.attention import measure_attention
from safekey_interp.models.model import Model, load
from safekey_interp.segmentation.segmenter import segmented

_KEYS = ["trace_id", "layer", "head", "from_span", "to_span"]
_POSITION = "decision"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--file", default="../shared/data/star1.jsonl")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--traces", type=int, default=300)
    parser.add_argument("--block", type=int, default=60)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    quiet_libraries()
    whole, half = load(options.model, dtype=torch.float32), load(options.model, dtype=torch.bfloat16)
    with_spans = (
        trace
        for trace, found in segmented(read_traces(options.file))
        if found.understanding is not None and found.key_sentence is not None
    )
    traces = list(islice(with_spans, options.traces))
    blocks = [traces[at : at + options.block] for at in range(0, len(traces), options.block)]
    seconds: dict[str, list[float]] = {"reference": [], "float32": [], "bfloat16": []}
    changed: list[np.ndarray] = []
    for number, block in enumerate(blocks):
        tables: dict[str, Any] = {}
        ways = {
            "reference": partial(one_at_a_time, whole, block),
            "float32": lambda block=block, tables=tables: tables.update(float32=measure_attention(whole, block)),
            "bfloat16": lambda block=block, tables=tables: tables.update(bfloat16=measure_attention(half, block)),
        }
        if number == 0:
            for model in (whole, half):
                measure_attention(model, block[:2])
        for name in np.random.default_rng(number).permutation(list(ways)):
            seconds[name].append(clock(ways[name]).value)
        both = [tables[name].set_index(_KEYS)["mass"] for name in ("float32", "bfloat16")]
        changed.append((both[0] - both[1]).dropna().abs().to_numpy())
        print(
            f"block {number + 1} of {len(blocks)}: " + ", ".join(f"{n} {s[-1]:.1f} s" for n, s in seconds.items()),
            flush=True,
        )
    masses, states = np.concatenate(changed), _changed_states(whole, half, blocks[0])
    publish({"end-to-end": _report(seconds, masses, states, len(traces))}, write=options.write)


def _changed_states(whole: Model, half: Model, traces: list[Trace]) -> np.ndarray:
    """(layer, trace) relative change of the states."""
    read = [collect_states(model, traces, positions=[_POSITION])[0] for model in (whole, half)]
    rows = []
    for index in range(len(read[0].layers)):
        one, other = (states.matrix(index, _POSITION).astype(np.float64) for states in read)
        rows.append(np.linalg.norm(one - other, axis=1) / np.linalg.norm(one, axis=1))
    return np.array(rows)


def _report(seconds: dict[str, list[float]], masses: np.ndarray, states: np.ndarray, n: int) -> str:
    lines, reference = [], seconds["reference"]
    for name in ("float32", "bfloat16"):
        middle, low, high = interval(np.array(reference) / np.array(seconds[name]))
        lines.append(
            f"- {name}: {n} traces in {sum(seconds[name]):.0f} s against {sum(reference):.0f} s one at a time in "
            f"float32: {middle:.2f} x as fast [{low:.2f}, {high:.2f}], {len(reference)} blocks"
        )
    layer = np.nanmax(np.nanmedian(states, axis=1))
    lines.append(
        f"- bfloat16 changes an attention mass by {masses.mean():.4f} on the mean, {np.quantile(masses, 0.99):.4f} at "
        f"the 99th percentile, {masses.max():.3f} at most; a state at the token before K by {np.nanmedian(states):.3f} "
        f"of its norm (median; {layer:.3f} in the layer with the largest; {np.nanmax(states):.3f} at most)"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
