"""The control for distance: exact where attention is distance alone, and equal to the sum written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_model, traces

from safekey_interp.capture import KEY_SPANS, QUERY_SPANS, Batch, CaptureRequest, measure_batch
from safekey_interp.capture.distances import find_distances, matched_mass, on_device
from safekey_interp.capture.keysets import query_rows
from safekey_interp.encoding import Encoding
from safekey_interp.models import Model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def encodings(model: Model) -> list[Encoding]:
    return [model.encode(trace) for trace in traces(4)]


def control(encodings: list[Encoding], pattern_of: object, side: str = "right") -> np.ndarray:
    """The control of a made pattern, (batch, query_span, key_span)."""
    batch = Batch.of(encodings, side=side)  # type: ignore[arg-type]
    rows = query_rows(batch.encodings, batch.starts)
    width = batch.input_ids.shape[1]
    pattern = np.zeros((len(encodings), 1, rows.index.shape[1], width), np.float32)
    for b, start in enumerate(batch.starts):
        for r, q in enumerate(rows.index[b]):
            for k in range(start, q + 1):
                pattern[b, 0, r, k] = pattern_of(q - start, k - start)  # type: ignore[operator]
    distances = find_distances(batch.encodings, batch.starts, rows)
    return matched_mass(torch.as_tensor(pattern), *on_device(distances, CPU))[:, 0].numpy()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("query", ["key_sentence", "decision"])
@pytest.mark.parametrize("span", ["understanding", "prompt", "key_sentence"])
def test_attention_that_is_distance_alone_is_explained_whole(
    encodings: list[Encoding], query: str, span: str, side: str
) -> None:
    def falls_off(q: int, k: int) -> float:
        return 0.5 / (1 + q - k)

    found = control(encodings, falls_off, side)
    for b, encoding in enumerate(encodings):
        pairs = [(q, k) for q in encoding.positions(query) for k in encoding.positions(span) if 0 < k <= q]
        value = found[b, QUERY_SPANS.index(query), KEY_SPANS.index(span)]
        if not pairs:
            assert np.isnan(value)
            continue
        deepest = max(encoding.positions("understanding"))
        reached = [pair for pair in pairs if pair[0] - pair[1] < deepest]
        expected = sum(falls_off(*pair) for pair in reached) / len(encoding.positions(query))
        assert value == pytest.approx(expected * len(pairs) / len(reached), rel=1e-5)


def test_it_is_what_the_understanding_gives_at_the_same_distances(model: Model, encodings: list[Encoding]) -> None:
    encoding = encodings[2]
    [measured] = measure_batch(model, [encoding], CaptureRequest(states=False))
    with torch.inference_mode():
        batch = Batch.of([encoding])
        before = model.hf.config._attn_implementation
        model.hf.set_attn_implementation("eager")
        attentions = model.hf(**batch.inputs("cpu"), output_attentions=True).attentions
        model.hf.set_attn_implementation(before)
    references = list(encoding.positions("understanding"))
    assert len(references) <= 32, "the law below reads every row of U"
    for layer, pattern in enumerate(attentions):
        total = torch.zeros(pattern.shape[1])
        for q in encoding.positions("key_sentence"):
            for k in encoding.positions("understanding"):
                at = [pattern[0, :, r, r - (q - k)] for r in references if r - (q - k) >= 1]
                total += torch.stack(at).mean(0)
        expected = (total / len(encoding.positions("key_sentence"))).numpy()
        found = measured.attention.matched[
            layer, :, QUERY_SPANS.index("key_sentence"), KEY_SPANS.index("understanding")
        ]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_content_shows_as_what_distance_does_not_explain(encodings: list[Encoding]) -> None:
    """K alone looks at U: U's own rows do not, so the control stays small."""
    encoding = encodings[1]
    u, k = set(encoding.positions("understanding")), set(encoding.positions("key_sentence"))
    found = control([encoding], lambda q, key: 0.9 / len(u) if q in k and key in u else 0.001)
    value = found[0, QUERY_SPANS.index("key_sentence"), KEY_SPANS.index("understanding")]
    assert value < 0.1


def test_no_understanding_no_control(encodings: list[Encoding], model: Model) -> None:
    trace = traces(1)[0].with_(response="<think>\nI must refuse, this could hurt people. Then.\n</think>\nNo.")
    encoding = model.encode(trace)
    if encoding.spans["understanding"] is None:
        assert np.isnan(control([encoding], lambda q, k: 0.01)).all()


def test_from_the_understanding_there_is_none(encodings: list[Encoding]) -> None:
    assert np.isnan(control(encodings, lambda q, k: 0.01)[:, QUERY_SPANS.index("understanding")]).all()
