"""A batch's answers leave the device together: neither layers nor traces add a transfer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import reference_forward
import torch
from counted_transfers import Transfers
from other_architectures import small
from tiny_models import ARCHITECTURES, BASE, traces

from safekey_interp.capture.batch_memory import token_budget, tokens_in
from safekey_interp.capture.batch_runner import Measured, measure_batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.host_copy import to_host
from safekey_interp.capture.segment_attention import segment_attention
from safekey_interp.data.trace import TokenSpan
from safekey_interp.models.model import Model

BY_MASK = {"llama": (), "gemma3_text": ("sliding_attention", "full_attention"), "gpt_oss": ("sliding_attention",)}


def of_depth(architecture: str, n_layers: int) -> Model:
    """A tiny model of so many layers, whose kinds of attention take turns."""
    kinds = BY_MASK[architecture]
    options: dict[str, Any] = BASE | ARCHITECTURES[architecture] | {"num_hidden_layers": n_layers}
    if kinds:
        options["layer_types"] = [kinds[layer % len(kinds)] for layer in range(n_layers)]
    return small(architecture, options)


def transfers(model: Model, n_traces: int, request: CaptureRequest) -> Counter[str]:
    encodings = reference_forward.encodings(model, traces(n_traces))
    with Transfers() as counted:
        answers = measure_batch(model, encodings, request)
    assert all(isinstance(answer, Measured) for answer in answers)
    return counted.counts


@pytest.mark.parametrize("architecture", BY_MASK)
def test_neither_layers_nor_traces_add_a_transfer(architecture: str) -> None:
    request = CaptureRequest(token_weights=True)
    few = transfers(of_depth(architecture, 2), 1, request)
    assert few["cpu"] >= 1, "the answers come to memory somehow, so that the count is not blind"
    assert transfers(of_depth(architecture, 6), 5, request) == few


def test_a_causal_model_has_one_transfer_for_its_answers_and_one_for_its_mask() -> None:
    model = of_depth("llama", 4)
    encodings = reference_forward.encodings(model, traces(3))
    with Transfers() as plain, torch.inference_mode():
        model.hf(input_ids=torch.zeros((3, 20), dtype=torch.int64), use_cache=False)
    with Transfers() as counted:
        measure_batch(model, encodings, CaptureRequest())
    assert (counted.counts - plain.counts)["cpu"] <= 2
    assert counted.counts - plain.counts == Counter(cpu=(counted.counts - plain.counts)["cpu"])


def test_attention_between_segments_has_as_many_transfers_in_a_deeper_model() -> None:
    ids, segments = torch.arange(1, 21), [TokenSpan(0, 4), TokenSpan(4, 11), TokenSpan(11, 20)]
    counts = []
    for n_layers in (2, 6):
        with Transfers() as counted:
            segment_attention(of_depth("llama", n_layers), ids, segments)
        counts.append(counted.counts)
    assert counts[0] == counts[1]


def test_tensors_come_back_in_their_order_shape_and_value() -> None:
    tensors = [torch.randn(2, 3), torch.randn(0, 4), torch.tensor(2.5), torch.randn(5).bfloat16()]
    with Transfers() as counted:
        arrays = to_host(tensors)
    assert counted.counts["cpu"] == 1
    for tensor, array in zip(tensors, arrays, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensor.float().numpy())


def test_a_budget_fits_half_of_the_free_memory_and_grows_with_it() -> None:
    per_token = 300_000.0
    budgets = [tokens_in(free, per_token) for free in (2**28, 2**31, 2**34, 2**37, 2**40)]
    assert budgets == sorted(budgets)
    assert all(b & (b - 1) == 0 for b in budgets)
    for free, tokens in zip((2**31, 2**34), budgets[1:3], strict=True):
        assert tokens * per_token <= free / 2 < 2 * tokens * per_token or tokens == 1024
    assert tokens_in(2**33, per_token) == tokens_in(int(1.01 * 2**33), per_token)


def test_on_a_cpu_the_budget_is_not_measured() -> None:
    model = of_depth("llama", 1)
    with Transfers() as counted:
        assert token_budget(model) == token_budget(of_depth("llama", 2))
    assert not counted.counts
