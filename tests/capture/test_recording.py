"""The context manager: gradients, nesting, and nothing left behind, whatever happens inside."""

from __future__ import annotations

import copy

import pytest
import reference_forward
import torch
from tiny_models import ARCHITECTURES, tiny_model, traces

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS, STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.places import Place
from safekey_interp.capture.recording import Captured, capture
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model


class Interrupt(Exception):
    pass


def own_copy(architecture: str) -> Model:
    model = tiny_model(architecture)
    return Model(copy.deepcopy(model.hf), model.tokenizer, spec=model.spec)


def readout(captured: Captured, n_layers: int) -> torch.Tensor:
    """One number of all that was captured, weighted so that no two parts cancel."""
    parts = []
    for layer in range(n_layers):
        answer = captured.attention[layer]
        weights = torch.linspace(-1, 1, answer.masses[..., : len(KEY_SPANS)].numel()).view(
            answer.masses[..., : len(KEY_SPANS)].shape
        )
        parts.append((answer.masses[..., : len(KEY_SPANS)] * weights).sum())
        parts.append(answer.entropy.sum())
    for site in reference_forward.checkable_sites(n_layers):
        values = captured.states[site]
        parts.append((values * torch.linspace(-1, 1, values.numel()).view(values.shape)).sum())
    return torch.stack(parts).sum()


def literal_readout(model: Model, encoding: reference_forward.Encoding) -> torch.Tensor:
    forward = reference_forward.forward(model, encoding, attn="eager")
    parts = []
    for layer in range(model.n_layers):
        values = reference_forward.masses([forward.patterns[layer]], encoding)
        parts.append((values * torch.linspace(-1, 1, values.numel()).view(values.shape)).sum())
        for name in QUERY_SPANS:
            rows = forward.patterns[layer][:, list(encoding.positions(name))]
            seen = rows / rows.sum(-1, keepdim=True)
            # Clamped, since the logarithm of a key out of sight has no gradient.
            parts.append(-(seen * seen.clamp(min=1e-30).log()).sum(-1).mean(-1).sum())
    for site in reference_forward.checkable_sites(model.n_layers):
        values = torch.stack([reference_forward.state(forward.hidden, encoding, site, p) for p in STATE_POSITIONS])[
            None
        ]
        parts.append((values * torch.linspace(-1, 1, values.numel()).view(values.shape)).sum())
    return torch.stack(parts).sum()


def gradients(model: Model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.hf.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_equal_those_of_a_literal_computation(architecture: str, checkpointing: bool) -> None:
    """Also under gradient checkpointing, where every layer runs twice."""
    model = own_copy(architecture)
    model.hf.set_attn_implementation("eager")
    encoding = reference_forward.encodings(model, traces(1))[0]
    expected = literal_readout(model, encoding)
    expected.backward()
    by_hand = gradients(model)
    model.hf.zero_grad(set_to_none=True)
    if checkpointing:
        model.hf.train()
        model.hf.gradient_checkpointing_enable()
    batch = Batch.of([encoding])
    with capture(model, batch, CaptureRequest(), grad=True) as captured:
        model.hf(**batch.inputs(model.device))
        value = readout(captured, model.n_layers)
        value.backward()
    torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-5)
    ours = gradients(model)
    assert ours.keys() == by_hand.keys()
    for name, gradient in by_hand.items():
        assert (ours[name] - gradient).norm() <= 1e-4 * max(gradient.norm(), 1e-3), name
    assert any(gradient.abs().max() > 0 for gradient in ours.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpointing_gives_the_same_numbers(architecture: str) -> None:
    model = own_copy(architecture)
    batch = Batch.of(reference_forward.encodings(model, traces(3)), side="left")
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            model.hf.train()
            model.hf.gradient_checkpointing_enable()
        with capture(model, batch, CaptureRequest(), grad=True) as captured:
            logits = model.hf(**batch.inputs(model.device)).logits
            if checkpointing:
                logits.float().sum().backward()
        results.append(captured)
    plain, checkpointed = results
    for layer in range(model.n_layers):
        torch.testing.assert_close(plain.attention[layer].masses, checkpointed.attention[layer].masses)
    for site, state in plain.states.items():
        torch.testing.assert_close(state, checkpointed.states[site])


def test_reentrant_checkpointing_is_refused_where_gradients_are_wanted() -> None:
    """It would lose them without a word: the layers run without gradients first."""
    model = own_copy("llama")
    batch = Batch.of(reference_forward.encodings(model, traces(1)))
    model.hf.train()
    model.hf.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ModelError, match="use_reentrant"), capture(model, batch, CaptureRequest(), grad=True):
        pass
    with torch.no_grad(), capture(model, batch, CaptureRequest()) as captured:
        model.hf(**batch.inputs("cpu"))
    assert len(captured.attention) == model.n_layers, "measuring needs none"


def test_without_grad_nothing_stays_in_the_graph() -> None:
    model = own_copy("llama")
    batch = Batch.of(reference_forward.encodings(model, traces(2)))
    with capture(model, batch, CaptureRequest(token_weights=True)) as captured:
        loss = model.hf(**batch.inputs(model.device)).logits.sum()
    assert loss.requires_grad, "the model's own graph is left alone"
    for answer in captured.attention.values():
        assert not answer.masses.requires_grad
        assert not answer.token_weights.requires_grad
    assert not any(state.requires_grad for state in captured.states.values())


def test_a_capture_changes_no_logit() -> None:
    for architecture in ARCHITECTURES:
        model = tiny_model(architecture)
        batch = Batch.of(reference_forward.encodings(model, traces(3)))
        with torch.no_grad():
            before = model.hf(**batch.inputs("cpu")).logits
            with capture(model, batch, CaptureRequest()):
                during = model.hf(**batch.inputs("cpu")).logits
            after = model.hf(**batch.inputs("cpu")).logits
        torch.testing.assert_close(during, before, atol=1e-4, rtol=1e-4, msg=architecture)
        assert torch.equal(before, after)


def test_nested_captures_both_answer() -> None:
    model = tiny_model("gemma3_text")
    batch = Batch.of(reference_forward.encodings(model, traces(3)))
    outer_request = CaptureRequest(layers=(0, 2))
    inner_request = CaptureRequest(layers=(1, 2), states=False, token_weights=True)
    with torch.no_grad():
        with capture(model, batch, CaptureRequest()) as alone:
            model.hf(**batch.inputs("cpu"))
        with capture(model, batch, outer_request) as outer:
            with capture(model, batch, inner_request) as inner:
                model.hf(**batch.inputs("cpu"))
            # The outer one still answers after the inner one has gone.
            first = dict(outer.attention)
            model.hf(**batch.inputs("cpu"))
    assert set(outer.attention) == {0, 2}
    assert set(inner.attention) == {1, 2}
    for layer in (0, 2):
        assert outer.attention[layer] is not first[layer], "the second forward overwrote it"
        torch.testing.assert_close(outer.attention[layer].masses, alone.attention[layer].masses, atol=0, rtol=0)
    for layer in (1, 2):
        torch.testing.assert_close(inner.attention[layer].masses, alone.attention[layer].masses, atol=0, rtol=0)
    assert inner.states == {}
    torch.testing.assert_close(outer.states[Place(2, "resid_post")], alone.states[Place(2, "resid_post")])


@pytest.mark.parametrize(
    ("request_", "runs"),
    [
        (CaptureRequest(layers=(0,), states=False), {0: False, 1: False, 2: False}),
        (CaptureRequest(layers=(0, 1), attention=False), {0: True, 1: True, 2: False}),
        (CaptureRequest(layers=(1,)), {0: True, 1: True, 2: False}),
        (CaptureRequest(), {0: True, 1: True, 2: True}),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt_oss"])
def test_a_pass_that_may_stop_ends_when_it_has_answered(
    architecture: str, request_: CaptureRequest, runs: dict[int, bool]
) -> None:
    """``runs``: which layers run to their end."""
    model = own_copy(architecture)
    batch = Batch.of(reference_forward.encodings(model, traces(3)))
    ended: set[int] = set()
    for number, layer in enumerate(model.hf.get_decoder().layers):
        layer.register_forward_hook(lambda *_, number=number: ended.add(number))
    hooks = reference_forward.hook_counts(model.hf)
    with torch.inference_mode():
        with capture(model, batch, request_) as whole:
            model.hf(**batch.inputs("cpu"))
        assert len(ended) == model.n_layers
        ended.clear()
        with capture(model, batch, request_, stop=True) as stopped:
            model.hf(**batch.inputs("cpu"))
    assert {number for number in runs if number in ended} == {number for number, ran in runs.items() if ran}
    assert stopped.attention.keys() == whole.attention.keys()
    for layer, answer in whole.attention.items():
        assert torch.equal(answer.masses, stopped.attention[layer].masses)
    assert stopped.states.keys() == whole.states.keys()
    assert all(torch.equal(state, stopped.states[site]) for site, state in whole.states.items())
    assert reference_forward.hook_counts(model.hf) == hooks


@pytest.mark.parametrize("before", ["eager", "sdpa", "flash_attention_2", "flex_attention"])
@pytest.mark.parametrize("fails", [False, True])
def test_hooks_are_gone_and_the_attention_function_is_back(before: str, fails: bool) -> None:
    model = own_copy("qwen3")
    config = model.hf.get_decoder().config
    config._attn_implementation = before  # as a model loaded with it would have it
    batch = Batch.of(reference_forward.encodings(model, traces(2)))
    hooks = reference_forward.hook_counts(model.hf)
    try:
        with torch.no_grad(), capture(model, batch, CaptureRequest()) as captured:
            assert reference_forward.hook_counts(model.hf) != hooks
            model.hf(**batch.inputs("cpu"))
            if fails:
                raise Interrupt
    except Interrupt:
        pass
    assert len(captured.attention) == model.n_layers
    assert reference_forward.hook_counts(model.hf) == hooks
    assert config._attn_implementation == before


def test_hooks_are_gone_after_a_failure_inside_the_model() -> None:
    model = own_copy("llama")
    batch = Batch.of(reference_forward.encodings(model, traces(2)))

    def fail(*_: object) -> None:
        raise Interrupt

    handle = model.hf.get_decoder().layers[1].register_forward_hook(fail)
    hooks = reference_forward.hook_counts(model.hf)
    with pytest.raises(Interrupt), capture(model, batch, CaptureRequest()), capture(model, batch, CaptureRequest()):
        model.hf(**batch.inputs("cpu"))
    assert reference_forward.hook_counts(model.hf) == hooks
    assert model.hf.config._attn_implementation == "sdpa"
    handle.remove()
    with torch.no_grad(), capture(model, batch, CaptureRequest()) as captured:
        model.hf(**batch.inputs("cpu"))
    assert len(captured.attention) == model.n_layers, "and it works again"


def test_two_batches_in_one_model_do_not_mix() -> None:
    model = tiny_model("mistral")
    one, other = (
        Batch.of(reference_forward.encodings(model, traces(2))),
        Batch.of(reference_forward.encodings(model, traces(5)[2:])),
    )
    with torch.no_grad():
        with capture(model, other, CaptureRequest()) as expected:
            model.hf(**other.inputs("cpu"))
        with capture(model, one, CaptureRequest()):
            model.hf(**one.inputs("cpu"))
        with capture(model, other, CaptureRequest()) as again:
            model.hf(**other.inputs("cpu"))
    for layer in range(model.n_layers):
        assert torch.equal(expected.attention[layer].masses, again.attention[layer].masses)


def test_evaluating_puts_every_module_back() -> None:
    model = own_copy("llama").hf
    model.train()
    model.lm_head.eval()
    before = {name: module.training for name, module in model.named_modules()}
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(Interrupt), evaluating(model):
        raise Interrupt
    assert {name: module.training for name, module in model.named_modules()} == before
