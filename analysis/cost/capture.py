"""Cost of reading attention, states and components in the forward pass: time and memory.

One sequence that ends with K; every way computes only the logits of the last position. Ways that return or keep whole
patterns run on a sequence whose patterns the memory holds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from analysis.cost.bench import Bench, free_memory
from analysis.cost.entry import Entry, Ways, forward_flops
from analysis.cost.timing import Way, peak_memory
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.places import Place
from safekey_interp.capture.recording import capture

_STREAM = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
_ATTENTION = CaptureRequest(states=False)
PLAIN = "plain forward (SDPA), logits of the last position"
"""The baseline of :func:`plain_forward`, in words."""
_K_D_U = "rows of K, the token before it and U, in all layers and heads"


def plain_forward(bench: Bench, batch: Batch) -> Way:
    """The forward pass alone."""

    def run() -> None:
        with torch.inference_mode():
            bench.model.hf(**batch.inputs(bench.model.device), logits_to_keep=1)

    return run


def captured_forward(bench: Bench, batch: Batch, request: CaptureRequest) -> Way:
    """The forward pass with a capture."""
    forward = plain_forward(bench, batch)

    def run() -> None:
        with capture(bench.model, batch, request):
            forward()

    return run


def _against_plain(make: Callable[[Bench], tuple[bool, CaptureRequest]]) -> Callable[[Bench], Ways]:
    def ways(bench: Bench) -> Ways:
        with_u, request = make(bench)
        batch = Batch.of([bench.encoding(bench.length, with_u=with_u)])
        flops = forward_flops(bench, bench.length)
        return Ways(captured_forward(bench, batch, request), plain_forward(bench, batch), flops=flops)

    return ways


def _components(bench: Bench) -> tuple[bool, CaptureRequest]:
    places = tuple(Place(layer, site) for layer in range(bench.model.n_layers) for site in _STREAM)
    return True, CaptureRequest(attention=False, places=places, positions=("decision",))


def _pattern_length(bench: Bench, copies: int) -> int:
    """Tokens whose patterns of all layers fit a third of the free memory."""
    n, width = bench.length, 2 * torch.finfo(bench.dtype).bits // 8 + 4
    while copies * bench.model.n_layers * bench.model.n_heads * n**2 * width > free_memory(bench.setup.device) / 3:
        n //= 2
    return n


def _against_eager(bench: Bench) -> Ways:
    batch = Batch.of([bench.encoding(_pattern_length(bench, 1))])

    def eager() -> None:
        hf = bench.model.hf
        before = hf.config._attn_implementation
        hf.set_attn_implementation("eager")
        try:
            with torch.inference_mode():
                hf(**batch.inputs(bench.model.device), logits_to_keep=1, output_attentions=True)
        finally:
            hf.set_attn_implementation(before)

    return Ways(captured_forward(bench, batch, _ATTENTION), eager)


def _against_transformer_lens(bench: Bench) -> Ways:
    import transformer_lens  # noqa: F401 (whoever has it not is told so)

    encoding = bench.encoding(_pattern_length(bench, 3))
    batch, bridge = Batch.of([encoding]), bench.model.bridge()
    rows = list(encoding.positions("key_sentence"))
    patterns = [name for name in bridge.hook_dict if name.endswith("attn.hook_pattern")]

    def read(pattern: torch.Tensor, hook: object) -> None:
        pattern[:, :, rows].mean(2)

    def bridged() -> None:
        with torch.inference_mode(), bridge.hooks(fwd_hooks=[(name, read) for name in patterns]):
            bridge(batch.input_ids.to(bench.model.device), return_type=None)

    return Ways(captured_forward(bench, batch, _ATTENTION), bridged)


ENTRIES = (
    Entry(
        name="capture-key",
        what="rows of K, in all layers and heads",
        baseline=PLAIN,
        ways=_against_plain(lambda bench: (False, _ATTENTION)),
    ),
    Entry(name="capture", what=_K_D_U, baseline=PLAIN, ways=_against_plain(lambda bench: (True, _ATTENTION))),
    Entry(
        name="capture-states",
        what=f"{_K_D_U}, and states of all layers",
        baseline=PLAIN,
        ways=_against_plain(lambda bench: (True, CaptureRequest())),
    ),
    Entry(
        name="capture-components",
        what="what attention and MLP of all layers add, and the stream between them, at the token before K",
        baseline=PLAIN,
        ways=_against_plain(_components),
    ),
    Entry(
        name="capture-against-output-attentions",
        what=_K_D_U,
        baseline="eager attention with output_attentions",
        ways=_against_eager,
    ),
    Entry(
        name="capture-against-transformer-lens",
        what=_K_D_U,
        baseline="TransformerBridge with a hook on hook_pattern of all layers",
        ways=_against_transformer_lens,
    ),
    Entry(
        name="memory-capture",
        what=f"{_K_D_U}: peak memory",
        baseline=f"{PLAIN}: peak memory",
        ways=_against_plain(lambda bench: (True, _ATTENTION)),
        meter=peak_memory,
    ),
    Entry(
        name="memory-against-output-attentions",
        what=f"{_K_D_U}: peak memory",
        baseline="eager attention with output_attentions: peak memory",
        ways=_against_eager,
        meter=peak_memory,
    ),
)
