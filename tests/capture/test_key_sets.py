"""Laws of the key sets: what the columns are, what a random set may hold, and that chance is seeded by the trace."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_forward
import torch
from tiny_models import WINDOW, tiny_model, traces

from safekey_interp.capture.batch_runner import measure_batch
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS, CaptureRequest
from safekey_interp.capture.key_sets import KeyWeights, key_weights, query_rows
from safekey_interp.models.encoding import Encoding


@pytest.fixture(scope="module")
def encodings() -> list[Encoding]:
    return reference_forward.encodings(tiny_model("llama"), traces())


def causal(rows: np.ndarray, n_keys: int, window: int | None = None, start: int = 0) -> np.ndarray:
    keys = np.arange(n_keys)
    visible = (keys <= rows[..., None]) & (keys >= start)
    return visible if window is None else visible & (keys > rows[..., None] - window)


def weights_of(
    encodings: list[Encoding], *, seed: int = 0, n_random: int = 20, window: int | None = None, side: str = "right"
) -> KeyWeights:
    batch = Batch.of(encodings, side=side)
    rows = query_rows(encodings, batch.starts)
    visible = np.stack(
        [causal(rows.index[b], batch.input_ids.shape[1], window, start) for b, start in enumerate(batch.starts)]
    )
    return key_weights(encodings, batch.starts, rows, visible, n_random=n_random, seed=seed)


def column(key_span: str) -> int:
    """The random control of a key span."""
    return len(KEY_SPANS) + KEY_SPANS.index(key_span)


def test_query_rows_hold_each_row_once_with_its_share(encodings: list[Encoding]) -> None:
    for side in ("right", "left"):
        batch = Batch.of(encodings, side=side)
        rows = query_rows(encodings, batch.starts)
        for b, encoding in enumerate(encodings):
            for f, name in enumerate(QUERY_SPANS):
                positions = [p + batch.starts[b] for p in encoding.positions(name)]
                chosen = rows.index[b][rows.weights[b, f] > 0]
                assert chosen.tolist() == positions
                assert rows.weights[b, f].sum() == pytest.approx(1)
                assert rows.counts[b, f] == len(positions)


def test_span_columns_mark_the_spans_and_the_last_is_ones(encodings: list[Encoding]) -> None:
    keys = weights_of(encodings)
    assert keys.weights.shape[-1] == 2 * len(KEY_SPANS) + 1
    assert (keys.weights[..., -1] == 1).all()
    for b, encoding in enumerate(encodings):
        for t, name in enumerate(KEY_SPANS):
            for f in range(len(QUERY_SPANS)):
                assert np.flatnonzero(keys.weights[b, f, :, t]).tolist() == list(encoding.positions(name))


@pytest.mark.parametrize("window", [None, WINDOW, 30])
def test_random_sets_lie_where_they_may(encodings: list[Encoding], window: int | None) -> None:
    """As many, outside the tested span and the first token, seen by every row; fewer where fewer are in sight."""
    keys = weights_of(encodings, window=window)
    for b, encoding in enumerate(encodings):
        for f, query_span in enumerate(QUERY_SPANS):
            rows = list(encoding.positions(query_span))
            seen = set(range(0 if window is None else max(0, max(rows) - window + 1), min(rows) + 1)) - {0}
            for t, key_span in enumerate(KEY_SPANS):
                tested = set(encoding.positions(key_span))
                candidates = seen - tested
                shares = keys.weights[b, f, :, column(key_span)]
                held = set(np.flatnonzero(shares).tolist())
                n = min(len(tested), len(candidates))
                assert held <= candidates
                assert keys.n_random[b, f, t] == n
                assert shares.sum() == pytest.approx(n, abs=1e-4), "every draw holds as many keys"
                assert shares.max() <= 1 + 1e-6
                if n == len(candidates):
                    assert held == candidates


def test_chance_is_seeded_by_the_trace_and_not_by_its_batch(encodings: list[Encoding]) -> None:
    together = weights_of(encodings, seed=3)
    for side in ("right", "left"):
        batch = weights_of([encodings[4], encodings[2]], seed=3, side=side)
        start = encodings[4].end - encodings[2].end if side == "left" else 0
        n = encodings[2].end
        np.testing.assert_array_equal(batch.weights[1, :, start : start + n], together.weights[2, :, :n])
    np.testing.assert_array_equal(weights_of(encodings, seed=3).weights, together.weights)
    other = weights_of(encodings, seed=4).weights
    assert not np.array_equal(other, together.weights)
    first, second = (together.weights[b, 0, :40, column("understanding")] for b in (0, 3))
    assert not np.array_equal(first, second), "two traces of the same layout have draws of their own"


def test_the_expectation_of_random_is_even(encodings: list[Encoding]) -> None:
    keys = weights_of(encodings[:1], n_random=20_000)
    shares = keys.weights[0, 0, :, column("prompt")]
    held = shares[shares > 0]
    n = keys.n_random[0, 0, KEY_SPANS.index("prompt")]
    assert held == pytest.approx(np.full(len(held), n / len(held)), abs=0.02)


def test_random_mass_of_even_attention_is_the_uniform_mass(encodings: list[Encoding]) -> None:
    """A model that attends evenly: a random set of n keys gets n / seen, and the control equals the uniform mass."""
    model = tiny_model("llama")
    projections = [layer.self_attn.q_proj.weight for layer in model.hf.get_decoder().layers]
    before = [weight.detach().clone() for weight in projections]
    try:
        with torch.no_grad():
            for weight in projections:
                weight.zero_()
        entries = measure_batch(model, encodings, CaptureRequest(states=False))
    finally:
        with torch.no_grad():
            for weight, old in zip(projections, before, strict=True):
                weight.copy_(old)
    for entry in entries:
        arrays = entry.attention
        broad = np.broadcast_to(arrays.uniform[:, None], arrays.mass.shape)
        np.testing.assert_allclose(arrays.mass, broad, atol=1e-5)
        # Also the random set of as many keys as the span: all are seen by all rows.
        for f in range(len(QUERY_SPANS)):
            rows = list(entry.encoding.positions(QUERY_SPANS[f]))
            each = np.mean([1 / (q + 1) for q in rows])
            expected = np.where(arrays.n_random[:, f] > 0, arrays.n_random[:, f] * each, np.nan)
            np.testing.assert_allclose(arrays.random[:, 0, f], expected, atol=1e-5)
            np.testing.assert_allclose(arrays.even_key[:, f], each, atol=1e-6)
        np.testing.assert_allclose(
            arrays.entropy[..., 1], math.log(entry.encoding.positions("decision")[0] + 1), atol=1e-4
        )


def test_uniform_is_zero_out_of_sight(encodings: list[Encoding]) -> None:
    keys = weights_of(encodings, window=4)
    assert (keys.uniform[:, 0, KEY_SPANS.index("prompt")] == 0).all()
    assert (keys.uniform[:, 0, KEY_SPANS.index("first_token")] == 0).all()
    assert (keys.uniform[:, 0, KEY_SPANS.index("key_sentence")] > 0.5).all()
