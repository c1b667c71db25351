"""Cost of interventions: one pass under an edit, and knockout by layer against a loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from analysis.cost.bench import Bench
from analysis.cost.capture import PLAIN, plain_forward
from analysis.cost.entry import Entry, Ways, forward_flops
from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import Edit, edited

_SPAN = "understanding"
_TRACES, _LAYERS = 2, 3


def _against_plain(block: Callable[[Bench, Batch], Callable[[], AbstractContextManager[object]]]):
    def ways(bench: Bench) -> Ways:
        batch = Batch.of([bench.encoding(bench.length)])
        forward, enter = plain_forward(bench, batch), block(bench, batch)

        def ours() -> None:
            with enter():
                forward()

        return Ways(ours, forward, flops=forward_flops(bench, bench.length))

    return ways


def _hidden(bench: Bench, batch: Batch) -> Callable[[], AbstractContextManager[object]]:
    encoding = batch.encodings[0]
    cut = Cut(
        trace_id=encoding.trace_id,
        queries=tuple(encoding.positions("key_sentence")),
        keys=tuple(encoding.positions(_SPAN)),
        layers=frozenset(range(bench.model.n_layers)),
    )
    return lambda: knocked_out(bench.model, Knockout([cut], n_heads=bench.model.n_heads))


def _edits(bench: Bench, edit: Edit, layers: range) -> Callable[[], AbstractContextManager[object]]:
    return lambda: edited(bench.model, {Place(layer, "resid_post"): edit for layer in layers})


def _ablated(bench: Bench, batch: Batch) -> Callable[[], AbstractContextManager[object]]:
    direction = torch.nn.functional.normalize(torch.randn(bench.model.d_model), dim=0)
    direction = direction.to(bench.model.device, bench.model.dtype)
    return _edits(
        bench, lambda states: states - (states @ direction)[..., None] * direction, range(bench.model.n_layers)
    )


def _patched(bench: Bench, batch: Batch) -> Callable[[], AbstractContextManager[object]]:
    at = batch.encodings[0].positions("decision")[0]
    source = torch.randn(bench.model.d_model).to(bench.model.device, bench.model.dtype)
    where = (torch.arange(bench.length) == at)[None, :, None].to(bench.model.device)
    middle = bench.model.n_layers // 2
    return _edits(bench, lambda states: torch.where(where, source, states), range(middle, middle + 1))


def _by_layer(bench: Bench) -> Ways:
    from safekey_interp.generation.likelihood import with_own_sentence
    from safekey_interp.interventions.attention_knockout import knockout
    from safekey_interp.interventions.knockout_plan import DOSES
    from safekey_interp.segmentation.segmenter import segmented

    model = bench.model
    pairs = [pair for pair in segmented(bench.traces(64)) if pair[1].understanding and pair[1].key_sentence][:_TRACES]
    traces = [trace for trace, _ in pairs]
    layers = sorted({round(i * (model.n_layers - 1) / (_LAYERS - 1)) for i in range(_LAYERS)})

    def ours() -> None:
        knockout(model, traces, to_span=_SPAN, by="layer", layers=layers, aha=False, controls=("dose",), n_dose=1)

    def logits(row) -> None:
        ids = row.ids[None].to(model.device)
        n = row.n_tokens + 1
        model.hf(input_ids=ids, use_cache=False, logits_to_keep=n).logits[0].float().log_softmax(-1)

    def loop() -> None:
        with torch.inference_mode(), evaluating(model.hf):
            for pair in pairs:
                row = with_own_sentence(model, *pair)
                logits(row)
                for layer in layers:
                    for dose in (None, *DOSES):
                        cut = Cut(
                            trace_id=row.encoding.trace_id,
                            queries=tuple(range(row.start, len(row.ids))),
                            keys=tuple(row.encoding.positions(_SPAN)),
                            layers=frozenset({layer}),
                            draw=None if dose is None else 0,
                            dose=dose,
                        )
                        with knocked_out(model, Knockout([cut], n_heads=model.n_heads)):
                            logits(row)

    return Ways(ours, loop)


ENTRIES = (
    Entry(
        name="knockout",
        what="a forward pass in which K does not see U, in all layers",
        baseline=PLAIN,
        ways=_against_plain(_hidden),
    ),
    Entry(
        name="ablation",
        what="a forward pass with a direction removed from the states of all layers and tokens",
        baseline=PLAIN,
        ways=_against_plain(_ablated),
    ),
    Entry(
        name="patch",
        what="a forward pass with the state of one token in one layer replaced",
        baseline=PLAIN,
        ways=_against_plain(_patched),
    ),
    Entry(
        name="knockout-by-layer",
        what=f"knockout of U by layer with its doses, {_TRACES} traces, {_LAYERS} layers, from traces to the table",
        baseline="a loop with one forward pass for each trace, layer and dose",
        ways=_by_layer,
    ),
)
