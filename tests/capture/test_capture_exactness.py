"""Bar of exactness: masses equal eager's patterns and states equal ``hidden_states``, for every architecture."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import reference_forward
import torch
from tiny_models import ARCHITECTURES, WINDOW, tiny_model, traces

from safekey_interp.capture.batch_runner import measure_batch
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS, STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.places import Place
from safekey_interp.capture.recording import Captured, capture
from safekey_interp.models.model import Model

SINKS = {"gpt_oss"}


def run(model: Model, batch: Batch, request: CaptureRequest) -> Captured:
    with torch.no_grad(), capture(model, batch, request) as captured:
        model.hf(**batch.inputs(model.device))
    return captured


def own_attention(model: Model) -> str:
    """The function inside the attention hook: SDPA only where the class says that it supports it."""
    return "sdpa" if model.hf.config._attn_implementation != "eager" and model.hf._supports_sdpa else "eager"


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Model:
    return tiny_model(request.param)


@pytest.mark.parametrize("side", ["right", "left"])
def test_capture_equals_transformers(model: Model, side: str) -> None:
    encodings = reference_forward.encodings(model, traces())
    assert min(encoding.end for encoding in encodings) > 3 * WINDOW, "longer than the window"
    assert len({encoding.end for encoding in encodings}) > 1, "padding needed"
    captured = run(model, Batch.of(encodings, side=side), CaptureRequest())
    assert list(captured.attention) == list(range(model.n_layers))
    for row, encoding in enumerate(encodings):
        with torch.no_grad():
            eager = reference_forward.forward(model, encoding, attn="eager")
            own = reference_forward.forward(model, encoding, attn=own_attention(model), patterns=False)
        expected = reference_forward.masses(eager.patterns, encoding)
        for layer, answer in captured.attention.items():
            torch.testing.assert_close(answer.masses[row, ..., : len(KEY_SPANS)], expected[layer], atol=1e-5, rtol=0)
            totals = torch.stack(
                [eager.patterns[layer][:, list(encoding.positions(q))].sum(-1).mean(-1) for q in QUERY_SPANS], dim=-1
            )
            torch.testing.assert_close(answer.masses[row, ..., -1], totals, atol=1e-5, rtol=0)
        for site in reference_forward.checkable_sites(model.n_layers):
            for p, position in enumerate(STATE_POSITIONS):
                reference = reference_forward.state(own.hidden, encoding, site, position)
                assert (captured.states[site][row, p] - reference).norm() <= 1e-5 * reference.norm()


def test_the_last_resid_post_is_what_the_final_norm_reads(model: Model) -> None:
    """``hidden_states`` does not hold it: read at the input of the final norm, which is a hook of the test's own."""
    encoding = reference_forward.encodings(model, traces(1))[0]
    seen = []
    norms = [m for name, m in model.hf.get_decoder().named_children() if name == "norm"]
    handle = norms[0].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    try:
        captured = run(model, Batch.of([encoding]), CaptureRequest())
    finally:
        handle.remove()
    last = captured.states[Place(model.n_layers - 1, "resid_post")]
    for p, position in enumerate(STATE_POSITIONS):
        expected = seen[0][0, list(encoding.positions(position))].mean(0)
        assert (last[0, p] - expected).norm() <= 1e-5 * expected.norm()
    # A single token's state passes through the norm to that of ln_final.
    decision = STATE_POSITIONS.index("decision")
    with torch.no_grad():
        normed = norms[0](last[0, decision])
    torch.testing.assert_close(
        captured.states[Place(model.n_layers, "ln_final")][0, decision], normed, atol=1e-5, rtol=1e-5
    )


def test_entropy_and_token_weights_equal_the_pattern(model: Model) -> None:
    encodings = reference_forward.encodings(model, traces(3))
    captured = run(model, Batch.of(encodings, side="left"), CaptureRequest(states=False, token_weights=True))
    for row, encoding in enumerate(encodings):
        start = captured.batch.starts[row]
        with torch.no_grad():
            patterns = reference_forward.forward(model, encoding, attn="eager").patterns
        for layer, answer in captured.attention.items():
            for f, name in enumerate(QUERY_SPANS):
                rows = patterns[layer][:, list(encoding.positions(name))]
                assert answer.token_weights is not None
                torch.testing.assert_close(answer.token_weights[row, :, f, start:], rows.mean(1), atol=1e-5, rtol=0)
                assert not answer.token_weights[row, :, f, :start].any(), "nothing goes to padding"
                seen = rows / rows.sum(-1, keepdim=True)
                entropy = -torch.xlogy(seen, seen).sum(-1).mean(-1)
                torch.testing.assert_close(answer.entropy[row, :, f], entropy, atol=1e-4, rtol=1e-4)


def test_rows_sum_to_one_less_what_a_sink_takes(model: Model) -> None:
    captured = run(model, Batch.of(reference_forward.encodings(model, traces())), CaptureRequest(states=False))
    totals = torch.stack([answer.masses[..., -1] for answer in captured.attention.values()])
    if model.hf.config.model_type in SINKS:
        assert (totals < 1).all()
        assert totals.min() < 0.99
    else:
        torch.testing.assert_close(totals, torch.ones_like(totals), atol=1e-5, rtol=0)


def test_uniform_mass_by_brute_force(model: Model) -> None:
    """Counted from the patterns: what a row gives any weight to is what it sees."""
    encodings = reference_forward.encodings(model, traces(3))
    captured = run(model, Batch.of(encodings), CaptureRequest(states=False))
    kinds = getattr(model.config, "layer_types", None) or [None] * model.n_layers
    for row, encoding in enumerate(encodings):
        for layer, answer in captured.attention.items():
            windowed = kinds[layer] == "sliding_attention" or model.config.model_type == "mistral"
            for f, query_span in enumerate(QUERY_SPANS):
                for t, key_span in enumerate(KEY_SPANS):
                    shares = []
                    for q in encoding.positions(query_span):
                        sees = range(max(0, q - WINDOW + 1) if windowed else 0, q + 1)
                        shares.append(sum(k in sees for k in encoding.positions(key_span)) / len(sees))
                    assert answer.keys.uniform[row, f, t] == pytest.approx(np.mean(shares), abs=1e-6)


def test_a_trace_alone_equals_itself_in_a_batch(model: Model) -> None:
    encodings = reference_forward.encodings(model, traces())
    together = measure_batch(model, encodings, CaptureRequest())
    for encoding, entry in zip(encodings, together, strict=True):
        alone = measure_batch(model, [encoding], CaptureRequest())[0]
        for name in ("mass", "total", "random", "matched", "uniform", "entropy", "n_random", "n_q", "n_k"):
            a, b = getattr(alone.attention, name), getattr(entry.attention, name)
            np.testing.assert_allclose(a, b, atol=1e-5, rtol=0, err_msg=name)
        scale = np.linalg.norm(alone.states, axis=-1, keepdims=True)
        assert (np.abs(alone.states - entry.states) <= 1e-5 * scale).all()


def test_some_layers_are_the_same_rows_of_all(model: Model) -> None:
    encodings = reference_forward.encodings(model, traces(2))
    last = model.layer_numbers([-1])
    every = measure_batch(model, encodings, CaptureRequest(token_weights=True))
    some = measure_batch(model, encodings, CaptureRequest(token_weights=True, layers=last))
    for a, b in zip(every, some, strict=True):
        np.testing.assert_array_equal(a.attention.mass[-1:], b.attention.mass)
        np.testing.assert_array_equal(a.token_weights[-1:], b.token_weights)
        np.testing.assert_array_equal(a.states[-2:], b.states)  # the last layer and the final norm


def test_bfloat16_is_close(model: Model) -> None:
    encodings = reference_forward.encodings(model, traces(2))
    exact = measure_batch(model, encodings, CaptureRequest())
    rough = Model(copy.deepcopy(model.hf).to(torch.bfloat16), model.tokenizer, spec="rough")
    entries = measure_batch(rough, encodings, CaptureRequest())
    captured = run(rough, Batch.of(encodings), CaptureRequest(states=False))
    for row, encoding in enumerate(encodings):
        with torch.no_grad():
            patterns = [
                pattern.float() for pattern in reference_forward.forward(rough, encoding, attn="eager").patterns
            ]
        for layer, answer in captured.attention.items():
            expected = reference_forward.masses(patterns, encoding)[layer]
            assert (answer.masses[row, ..., : len(KEY_SPANS)] - expected).abs().max() < 0.1
    for a, b in zip(exact, entries, strict=True):
        assert b.attention.mass.dtype == np.float32
        np.testing.assert_allclose(b.attention.total, a.attention.total, atol=0.05)
        assert np.abs(a.attention.mass - b.attention.mass).mean() < 0.03


def test_a_layer_order_of_ones_own_is_kept() -> None:
    model = tiny_model("llama")
    encodings = reference_forward.encodings(model, traces(1))
    straight = measure_batch(model, encodings, CaptureRequest(layers=(0, 2)))[0]
    crossed = measure_batch(model, encodings, CaptureRequest(layers=(2, 0)))[0]
    np.testing.assert_array_equal(straight.states[[1, 0, 2]], crossed.states)
    np.testing.assert_array_equal(straight.attention.mass[[1, 0]], crossed.attention.mass)


def test_nothing_after_the_key_sentence_matters() -> None:
    model = tiny_model("mistral")
    trace = traces(1)[0]
    longer = replace(trace, response=trace.response + " And so on, and so on.")
    (a,), (b,) = (
        measure_batch(model, reference_forward.encodings(model, [t]), CaptureRequest()) for t in (trace, longer)
    )
    np.testing.assert_array_equal(a.attention.mass, b.attention.mass)
    np.testing.assert_array_equal(a.states, b.states)
