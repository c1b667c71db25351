"""Laws of the rows recomputed from query and key: softmax, mask, softcap, sink, entropy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekey_interp.capture.attention_rows import mean_pattern_rows, mean_rows, row_mask

BATCH, HEADS, KV_HEADS, LENGTH, WIDTH = 2, 4, 2, 9, 8


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(BATCH, HEADS, LENGTH, WIDTH, generator=generator)
    key = torch.randn(BATCH, KV_HEADS, LENGTH, WIDTH, generator=generator)
    rows = torch.tensor([[3, 4, 8], [2, 5, 2]])  # the last row of the second is a spare of weight 0
    weights = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]])
    return query, key, rows, weights


def literal_pattern(query, key, visible, *, softcap=None, sink=None, bias=None, scaling=WIDTH**-0.5):
    scores = query @ key.repeat_interleave(HEADS // KV_HEADS, dim=1).transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    scores = scores.masked_fill(~visible, -torch.inf)
    if sink is None:
        return scores.softmax(-1)
    column = sink.view(1, -1, 1, 1).expand(BATCH, HEADS, LENGTH, 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]


def causal() -> torch.Tensor:
    return torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril().expand(BATCH, 1, -1, -1)


OPTIONS = {
    "plain": {},
    "softcap": {"softcap": 1.5},
    "sink": {"s_aux": torch.tensor([-1.0, 0.0, 1.0, 3.0])},
    "bias": {"position_bias": torch.randn(1, HEADS, LENGTH, LENGTH, generator=torch.Generator().manual_seed(9))},
    "softcap and sink": {"softcap": 2.0, "s_aux": torch.tensor([0.0, 0.0, 1.0, -3.0])},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("mask", ["none", "bool", "additive"])
def test_mean_rows_equal_a_literal_softmax(options, mask):
    query, key, rows, weights = inputs()
    visible = causal()
    given_mask = {
        "none": None,
        "bool": visible,
        "additive": torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min),
    }[mask]
    found = mean_rows(
        query, key, rows, weights, row_mask(given_mask, rows, LENGTH, LENGTH), options=options, scaling=WIDTH**-0.5
    )
    pattern = literal_pattern(
        query,
        key,
        visible,
        softcap=options.get("softcap"),
        sink=options.get("s_aux"),
        bias=options.get("position_bias"),
    )
    by_pattern = mean_pattern_rows(pattern, rows, weights)
    torch.testing.assert_close(found.weights, by_pattern.weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.entropy, by_pattern.entropy, atol=1e-5, rtol=0)
    # And by hand for one span: the mean of two rows.
    expected = pattern[0, :, [3, 4]].mean(1)
    torch.testing.assert_close(found.weights[0, :, 0], expected, atol=1e-6, rtol=0)
    seen = pattern[0, :, 8] / pattern[0, :, 8].sum(-1, keepdim=True)
    torch.testing.assert_close(found.entropy[0, :, 1], -torch.xlogy(seen, seen).sum(-1), atol=1e-5, rtol=0)


def test_a_mask_with_a_bias_of_its_own_counts():
    """An ALiBi-like additive mask is more than what is seen."""
    query, key, rows, weights = inputs()
    slope = -torch.arange(LENGTH).flip(0).float().expand(BATCH, HEADS, LENGTH, LENGTH) * 0.3
    additive = slope.masked_fill(~causal(), torch.finfo(torch.float32).min)
    mask = row_mask(additive, rows, LENGTH, LENGTH)
    assert mask.bias is not None
    found = mean_rows(query, key, rows, weights, mask, options={}, scaling=WIDTH**-0.5)
    expected = mean_pattern_rows(literal_pattern(query, key, causal(), bias=slope), rows, weights)
    torch.testing.assert_close(found.weights, expected.weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_infinite_masks_see_as_finite_ones_do(dtype):
    rows = torch.tensor([[1, 4], [0, 8]])
    for never in (-torch.inf, torch.finfo(dtype).min):
        mask = torch.zeros(BATCH, 1, LENGTH, LENGTH, dtype=dtype).masked_fill(~causal(), never)
        assert torch.equal(row_mask(mask, rows, LENGTH, LENGTH).visible, row_mask(None, rows, LENGTH, LENGTH).visible)
        assert row_mask(mask, rows, LENGTH, LENGTH).bias is None


def test_a_mask_longer_than_the_keys_is_cut():
    rows = torch.tensor([[1], [2]])
    mask = torch.ones(1, 1, LENGTH, LENGTH + 5, dtype=torch.bool)
    assert row_mask(mask, rows, LENGTH, LENGTH).visible.shape == (BATCH, 1, 1, LENGTH)


def test_keys_before_the_queries_are_seen():
    """With a cache there are more keys than queries; a missing mask is causal from the end."""
    rows = torch.tensor([[0, 1]])
    visible = row_mask(None, rows, 2, 5).visible
    assert visible[0, 0].tolist() == [[True, True, True, True, False], [True, True, True, True, True]]


@given(st.integers(0, 10_000), st.floats(0.01, 200.0))
def test_rows_are_distributions_however_sharp(seed, sharpness):
    query, key, rows, weights = inputs(seed)
    found = mean_rows(query, key, rows, weights, row_mask(None, rows, LENGTH, LENGTH), options={}, scaling=sharpness)
    assert found.weights.min() >= 0
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(BATCH, HEADS, 2), atol=1e-5, rtol=0)
    sees = (row_mask(None, rows, LENGTH, LENGTH).visible.sum(-1).float().log() * 1.0).expand(BATCH, HEADS, -1)
    highest = torch.einsum("bfr,bhr->bhf", weights, sees)
    assert (found.entropy >= -1e-3).all(), "entropy of a sharp row is 0, up to rounding of large scores"
    assert (found.entropy <= highest + 1e-3).all(), "at most log of the keys in sight"


def test_a_sink_takes_from_the_mass_and_not_from_the_entropy():
    query, key, rows, weights = inputs()
    mask = row_mask(None, rows, LENGTH, LENGTH)
    without = mean_rows(query, key, rows, weights, mask, options={}, scaling=1.0)
    weak, strong = (
        mean_rows(query, key, rows, weights, mask, options={"s_aux": torch.full((HEADS,), value)}, scaling=1.0)
        for value in (-50.0, 50.0)
    )
    torch.testing.assert_close(weak.weights, without.weights)
    assert strong.weights.sum(-1).max() < 1e-6
    torch.testing.assert_close(strong.entropy, without.entropy)
