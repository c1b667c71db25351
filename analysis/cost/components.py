"""Time of reading components and heads of every layer in the forward pass, against a plain forward.

    python analysis/cost/components.py [--length 2048] [--repeats 9] [--model smollm2]

One sequence that ends with K: a plain SDPA forward, and the same while what attention and MLP add, the stream before,
between and behind them, the heads' z, or what every head adds to the stream is read in all layers, at ``decision`` and
at all default positions. Each computes only the logits of the last position. Rounds are interleaved, ratios are within
a round, and their median has a bootstrap interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from capture import encoding, interleaved, interval

from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.places import Place
from safekey_interp.capture.recording import capture
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.models.model import Model, load

STREAM = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
POSITIONS = {"decision": ("decision",), f"{len(STATE_POSITIONS)} positions": STATE_POSITIONS}


def forwards(model: Model, length: int) -> dict[str, Callable[[], object]]:
    """Each way as a function without arguments."""
    batch = Batch.of([encoding(model, length, with_u=True)])
    heads = tuple(f"head.{number}" for number in range(model.n_heads))

    def plain() -> None:
        model.hf(**batch.inputs(model.device), logits_to_keep=1)

    def reading(request: CaptureRequest) -> Callable[[], object]:
        def run() -> None:
            with capture(model, batch, request):
                plain()

        return run

    ways: dict[str, Callable[[], object]] = {"plain forward, SDPA": plain}
    for where, positions in POSITIONS.items():
        for what, sites in (("all components", STREAM), ("z of all heads", heads), ("outputs of all heads", heads)):
            places = tuple(Place(layer, site) for layer in range(model.n_layers) for site in sites)
            head = "output" if "outputs" in what else "z"
            request = CaptureRequest(attention=False, positions=positions, places=places, head=head)
            ways[f"{what}, {where}"] = reading(request)
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    quiet_libraries()
    model = load(options.model)
    with torch.inference_mode():
        times = interleaved(forwards(model, options.length), options.repeats)
    first, *_ = times
    print(f"{model.name}, {options.length} tokens, {options.repeats} rounds, {torch.get_num_threads()} threads")
    print(f"{'way':<36}{'median s':>9}{'x plain':>9}{'95 % interval':>18}")
    for way, seconds in times.items():
        ratio, low, high = interval(np.asarray(seconds) / np.asarray(times[first]))
        print(f"{way:<36}{np.median(seconds):>9.2f}{ratio:>9.3f}{f'{low:.3f} to {high:.3f}':>18}")


if __name__ == "__main__":
    main()
