"""A batch becomes arrays whatever goes wrong: memory, numbers that are not finite, spans that are absent."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import reference_forward
import torch
from tiny_models import ARCHITECTURES, tiny_model, traces

from safekey_interp.capture.batch_runner import Backend, LeftOut, Measured, measure_batch
from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS, STATE_POSITIONS, CaptureRequest
from safekey_interp.models.model import Model


@contextmanager
def no_room_for(model: Model, more_than: int, error: Exception, *, tokens: bool = False) -> Iterator[list[int]]:
    """Fail like an allocator in the second layer, for batches of more rows (or tokens) than that."""
    seen: list[int] = []

    def fail(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        size = hidden.shape[0] * (hidden.shape[1] if tokens else 1)
        seen.append(hidden.shape[0])
        if size > more_than:
            raise error

    layer = model.hf.get_decoder().layers[1]
    handle = layer.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.88 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_the_batch(error: Exception) -> None:
    model = tiny_model("llama")
    encodings = reference_forward.encodings(model, traces())
    expected = measure_batch(model, encodings, CaptureRequest())
    with no_room_for(model, 2, error) as sizes:
        entries = measure_batch(model, encodings, CaptureRequest())
    assert sizes == [5, 2, 3, 1, 2]
    for a, b in zip(expected, entries, strict=True):
        assert a.encoding is b.encoding, "in the order given"
        np.testing.assert_allclose(a.attention.mass, b.attention.mass, atol=1e-5)
        np.testing.assert_array_equal(a.attention.n_random, b.attention.n_random)


def test_a_trace_that_fits_nowhere_is_named_and_left_out() -> None:
    model = tiny_model("llama")
    encodings = reference_forward.encodings(model, traces())
    longest = max(encoding.end for encoding in encodings)
    with no_room_for(model, longest - 1, OUT_OF_MEMORY[0], tokens=True):
        entries = measure_batch(model, encodings, CaptureRequest())
    for entry in entries:
        if entry.encoding.end == longest:
            assert isinstance(entry, LeftOut)
            assert entry.reason == f"out of memory at {longest} tokens, alone in its batch"
        else:
            assert isinstance(entry, Measured)


def test_other_errors_pass_through_and_leave_nothing_behind() -> None:
    model = tiny_model("llama")
    hooks = reference_forward.hook_counts(model.hf)
    encodings = reference_forward.encodings(model, traces(2))
    with no_room_for(model, 0, RuntimeError("shapes do not match")), pytest.raises(RuntimeError, match="shapes"):
        measure_batch(model, encodings, CaptureRequest())
    assert reference_forward.hook_counts(model.hf) == hooks


@pytest.mark.parametrize("backend", ["hf", "bridge"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_trace_with_numbers_that_are_not_finite_is_left_out_alone(architecture: str, backend: Backend) -> None:
    model = tiny_model(architecture)
    model = Model(copy.deepcopy(model.hf), model.tokenizer, spec=model.spec)
    texts = traces()
    texts[2] = texts[2].with_(prompt=texts[2].prompt + " \x07")
    encodings = reference_forward.encodings(model, texts)
    of_others = {token for i in (0, 1, 3, 4) for token in encodings[i].input_ids.tolist()}
    bad = (set(encodings[2].input_ids.tolist()) - of_others).pop()
    expected = measure_batch(model, encodings, CaptureRequest(), backend=backend)
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[bad] = torch.nan
    entries = measure_batch(model, encodings, CaptureRequest(), backend=backend)
    assert [isinstance(entry, LeftOut) for entry in entries] == [False, False, True, False, False]
    assert "not finite (first at resid_post of layer 0)" in entries[2].reason
    for i in (0, 1, 3, 4):
        np.testing.assert_allclose(entries[i].attention.mass, expected[i].attention.mass, atol=1e-5)
        scale = np.linalg.norm(expected[i].states, axis=-1, keepdims=True)
        assert (np.abs(entries[i].states - expected[i].states) <= 1e-5 * scale).all()
    attention_alone = measure_batch(model, encodings, CaptureRequest(states=False), backend=backend)
    # A sliding window may keep the first layer's rows from seeing it.
    assert re.search(r"attention is not finite \(first at layer [01]\)", attention_alone[2].reason)


def test_a_prompt_alone_has_states_of_its_prompt_and_no_attention() -> None:
    model = tiny_model("llama")
    alone = traces(1)[0].with_(response="")
    whole = traces(1)[0]
    encodings = [
        model.encode(alone, reference_forward.segmentation(alone)),
        model.encode(whole, reference_forward.segmentation(whole)),
    ]
    prompt_only, both = measure_batch(model, encodings, CaptureRequest())
    assert not prompt_only.attention.n_q.any()
    assert np.isnan(prompt_only.attention.mass).all()
    for p, name in enumerate(STATE_POSITIONS):
        expected = name in ("prompt", "prompt_end")
        assert np.isfinite(prompt_only.states[:, p]).all() == expected
        assert np.isnan(prompt_only.states[:, p]).all() != expected
        if expected:
            np.testing.assert_allclose(prompt_only.states[:, p], both.states[:, p], rtol=1e-3, atol=1e-4)


def test_absent_spans_are_undefined_and_the_others_are_not() -> None:
    """No understanding: the first sentence is the key sentence already."""
    model = tiny_model("llama")
    trace = traces(1)[0].with_(response="Hmm, no. I will not.")
    encoding = model.encode(trace, reference_forward.segmentation(trace, None, "Hmm, no."))
    arrays = measure_batch(model, [encoding], CaptureRequest())[0].attention
    assert arrays.n_q.tolist() == [len(encoding.positions("key_sentence")), 1, 0]
    u = KEY_SPANS.index("understanding")
    assert arrays.n_k[u] == 0
    for values in (arrays.mass, arrays.random, arrays.matched):
        assert np.isnan(values[:, :, :, u]).all()
        assert np.isnan(values[:, :, QUERY_SPANS.index("understanding")]).all()
    for values in (arrays.mass, arrays.random):
        assert np.isfinite(values[:, :, :2, [0, 2]]).all()
    assert np.isnan(arrays.matched).all(), "the control for distance comes from the rows of U"
    assert (arrays.n_random[:, 0, [0, 2, 3]] > 0).all()


def test_the_first_token_may_lie_in_the_prompt() -> None:
    from tokenizers_in_memory import BARE, with_template

    model = tiny_model("llama")
    bare = Model(model.hf, with_template(model.tokenizer, BARE), spec="bare")
    trace = traces(1)[0]
    encoding = bare.encode(trace, reference_forward.segmentation(trace))
    assert 0 in encoding.positions("prompt")
    assert encoding.spans["template"] is None
    arrays = measure_batch(bare, [encoding], CaptureRequest())[0].attention
    assert arrays.holds_first.tolist() == [True, False, False, True, False]
    with torch.no_grad():
        expected = reference_forward.masses(
            reference_forward.forward(bare, encoding, attn="eager").patterns, encoding
        ).numpy()
    here = [0, 1, 3, 4]
    np.testing.assert_allclose(arrays.mass[..., here], expected[..., here], atol=1e-5)
    assert np.isnan(arrays.mass[..., 2]).all()
