"""Speed of knockout by layer against a loop over traces and layers, with a check of the numbers.

    python analysis/cost/knockout.py [--model organism] [--traces F] [--n 100] [--to understanding] [--rounds 5]

Both measure, for each trace and layer, K's log-probability with a span hidden, with a random quarter, half and three
quarters of it hidden, and without knockout; both start from traces. The loop runs each whole sequence up to
the end of K through the model, one after another, with the same knockout. Rounds are interleaved; the ratio is taken
within a round, its median has a bootstrap interval.
"""

from __future__ import annotations

import argparse
from itertools import islice

import numpy as np
import torch
from capture import interleaved, interval

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.likelihood import with_own_sentence
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.knockout_plan import DOSES
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import TRACES
from safekey_interp.segmentation.segmenter import segmented


def by_loop(model: Model, traces: list[Trace], to_span: str) -> np.ndarray:
    """(trace, layer, 4) changes of K's log-probability: the span, and one part of each share."""
    effects = np.zeros((len(traces), model.n_layers, 1 + len(DOSES)))
    with torch.inference_mode(), evaluating(model.hf):
        for number, (trace, segmentation) in enumerate(segmented(traces)):
            row = with_own_sentence(model, trace, segmentation)
            plain = _logprob(model, row)
            for layer in range(model.n_layers):
                for which, dose in enumerate((None, *DOSES)):
                    cut = Cut(
                        trace_id=row.encoding.trace_id,
                        queries=tuple(range(row.start, len(row.ids))),
                        keys=tuple(row.encoding.positions(to_span)),
                        layers=frozenset({layer}),
                        draw=None if dose is None else 0,
                        dose=dose,
                    )
                    with knocked_out(model, Knockout([cut], n_heads=model.n_heads)):
                        effects[number, layer, which] = _logprob(model, row) - plain
    return effects


def _logprob(model: Model, row: Continuation) -> float:
    n = row.n_tokens
    logits = model.hf(input_ids=row.ids[None].to(model.device), use_cache=False, logits_to_keep=n + 1).logits[0, :-1]
    targets = row.ids[row.start :, None].to(logits.device)
    return float(logits.float().log_softmax(-1).gather(-1, targets).double().mean())


def ours(model: Model, traces: list[Trace], to_span: str) -> np.ndarray:
    """The same by the package."""
    table = knockout(model, traces, to_span=to_span, by="layer", aha=False, controls=("dose",), n_dose=1)
    return table["effect"].to_numpy().reshape(len(traces), model.n_layers, 1 + len(DOSES))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="organism")
    parser.add_argument("--traces", default=str(TRACES))
    parser.add_argument("--n", type=int, default=100, help="traces")
    parser.add_argument("--to", default="understanding", help="the span that is hidden")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    quiet_libraries()
    model = load(options.model)
    both = (pair for pair in segmented(read_traces(options.traces)) if pair[1].understanding and pair[1].key_sentence)
    pairs = list(islice(both, options.n))
    traces = [trace for trace, _ in pairs]
    tokens = np.median([len(with_own_sentence(model, trace, segmentation).ids) for trace, segmentation in pairs])
    results: dict[str, np.ndarray] = {}

    def loop() -> None:
        results["loop"] = by_loop(model, traces, options.to)

    def package() -> None:
        results["knockout"] = ours(model, traces, options.to)

    times = interleaved({"loop": loop, "knockout": package}, options.rounds)
    furthest = float(np.abs(results["loop"] - results["knockout"]).max())
    assert furthest < 1e-3, f"the two differ by {furthest}"
    ratio, low, high = interval(np.array(times["loop"]) / np.array(times["knockout"]))
    print(
        f"{model.name}, {len(traces)} traces (median {tokens:.0f} tokens to the end of K), {model.n_layers} layers, K "
        f"to {options.to}: loop {np.median(times['loop']):.1f} s, knockout {np.median(times['knockout']):.1f} s; "
        f"{ratio:.1f} x [{low:.1f}, {high:.1f}], {options.rounds} rounds; largest difference {furthest:.1e} nats"
    )


if __name__ == "__main__":
    main()
