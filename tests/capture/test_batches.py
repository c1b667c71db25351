"""Laws of batches: each encoding once, near equal lengths, cut at its end, and halves that are the whole."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import reference_forward
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_model, traces

from safekey_interp.capture.batches import Batch, plan_batches

lengths = st.lists(st.integers(1, 6000), max_size=60)


@given(lengths, st.none() | st.integers(1, 9), st.integers(1, 5000), st.integers(1, 12))
def test_a_plan_holds_each_row_once_and_keeps_its_limits(lengths, batch_size, max_tokens, max_rows):
    plan = plan_batches(lengths, batch_size=batch_size, max_tokens=max_tokens, max_rows=max_rows)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    for batch in plan:
        assert batch
        widths = [lengths[i] for i in batch]
        assert widths == sorted(widths, reverse=True), "longest first, so that memory fails at once or never"
        if batch_size is not None:
            assert len(batch) <= batch_size
        else:
            assert len(batch) <= max_rows
            assert len(batch) == 1 or widths[0] * len(batch) <= max_tokens
    flat = [lengths[i] for batch in plan for i in batch]
    assert flat == sorted(flat, reverse=True), "grouped by length"
    if batch_size is not None:
        assert len(plan) == -(-len(lengths) // batch_size)


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=7), st.integers(20, 200), st.integers(1, 4), st.integers(0, 60)
)
def test_no_other_cuts_cost_less(lengths, max_tokens, max_rows, cost):
    """Against every way to cut the sorted lengths."""

    def price(plan):
        return sum(len(batch) * max(batch) + cost for batch in plan)

    longest_first = sorted(lengths, reverse=True)
    allowed = []
    for cuts in product([False, True], repeat=len(lengths) - 1):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut]
        plan = [longest_first[a:b] for a, b in pairwise([0, *ends, len(lengths)])]
        if all(len(b) == 1 or (len(b) <= max_rows and len(b) * b[0] <= max_tokens) for b in plan):
            allowed.append(price(plan))
    found = plan_batches(lengths, max_tokens=max_tokens, max_rows=max_rows, cost=cost)
    assert price([[lengths[i] for i in batch] for batch in found]) == min(allowed)


@given(lengths)
def test_a_plan_depends_on_the_lengths_alone(lengths):
    assert plan_batches(lengths) == plan_batches(list(lengths))


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_cut_at_their_end_and_padded_on_one_side(side):
    encodings = reference_forward.encodings(tiny_model("llama"), traces())
    batch = Batch.of(encodings, pad_id=7, side=side)
    width = max(encoding.end for encoding in encodings)
    assert batch.input_ids.shape == (len(encodings), width)
    for row, (encoding, start) in enumerate(zip(encodings, batch.starts, strict=True)):
        assert torch.equal(batch.input_ids[row, start : start + encoding.end], encoding.input_ids[: encoding.end])
        padding = [*batch.input_ids[row, :start], *batch.input_ids[row, start + encoding.end :]]
        assert all(token == 7 for token in padding)
        assert (start == 0) if side == "right" else (start + encoding.end == width)
    inputs = batch.inputs("cpu")
    assert inputs["use_cache"] is False
    if side == "right":
        assert "attention_mask" not in inputs, "causality hides the padding by itself"
    else:
        assert torch.equal(inputs["attention_mask"].sum(-1), torch.tensor([encoding.end for encoding in encodings]))
        for row, start in enumerate(batch.starts):
            assert inputs["position_ids"][row, start:].tolist() == list(range(width - start))


def test_no_mask_where_nothing_is_padded():
    encoding = reference_forward.encodings(tiny_model("llama"), traces(1))[0]
    assert Batch.of([encoding, encoding], side="left").attention_mask is None
