"""An edit changes what a forward pass by hand says, the identity changes no bit, and hooks leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import reference_forward
import torch
from other_architectures import HYBRIDS, OTHERS, small
from tiny_models import ARCHITECTURES, BASE, tiny_model

from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.layer_parts import layer_parts
from safekey_interp.capture.places import COMPONENTS, Place
from safekey_interp.capture.residual_edits import Edit, edited
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model

IDS, OTHER = torch.arange(3, 33).reshape(2, 15), torch.arange(50, 80).reshape(2, 15)
LAST = 2
SEQUENTIAL = [*ARCHITECTURES, "gpt2", "granite", "olmo2"]
PARALLEL = ["gpt_neox", "phi", "cohere2"]


class Interrupt(Exception):
    pass


@lru_cache
def model_of(architecture: str) -> Model:
    if architecture in ARCHITECTURES:
        return tiny_model(architecture)
    options = OTHERS[architecture] | ({"residual_multiplier": 0.22} if architecture == "granite" else {})
    return small(architecture, options)


def places_of(model: Model, components: tuple[str, ...] = COMPONENTS, layer: int = 1) -> list[Place]:
    own = [Place(model.n_layers if name == "ln_final" else layer, name) for name in components]
    return [*own, Place(layer, "head.2")]


def logits(model: Model, ids: torch.Tensor, edits: dict[Place, Edit] | None = None) -> torch.Tensor:
    with torch.no_grad(), edited(model, edits or {}):
        return model.hf(input_ids=ids, use_cache=False).logits


def read(model: Model, ids: torch.Tensor, places: list[Place]) -> dict[Place, torch.Tensor]:
    seen: dict[Place, torch.Tensor] = {}

    def reading(place: Place) -> Edit:
        def see(states: torch.Tensor) -> None:
            seen[place] = states.clone()

        return see

    logits(model, ids, {place: reading(place) for place in places})
    return seen


def layer_by_hand(model: Model, number: int, x: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a sequential layer gives, its modules called one by one; ``given`` are what takes a component's place."""
    layer: Any = find_layout(model.hf).layers[number]
    heads = layer_parts(model.hf)[number].heads
    gemma = hasattr(layer, "pre_feedforward_layernorm")
    assert heads is not None
    attn = given.get("projected", heads.projection(given["head"].flatten(2)))
    if gemma:
        attn = layer.post_attention_layernorm(attn)
    mid = given.get("resid_mid", x + given.get("attn_out", attn))
    mlp = layer.mlp(layer.pre_feedforward_layernorm(mid) if gemma else layer.post_attention_layernorm(mid))
    mlp = mlp[0] if isinstance(mlp, tuple) else mlp
    if gemma:
        mlp = layer.post_feedforward_layernorm(mlp)
    return given.get("resid_post", mid + given.get("mlp_out", mlp))


@pytest.mark.parametrize("site", [*(name for name in COMPONENTS if name not in ("resid_pre", "ln_final")), "head.2"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "phi3", "gpt_oss"])
def test_anothers_value_gives_what_a_forward_by_hand_gives(architecture: str, site: str) -> None:
    model = model_of(architecture)
    place = Place(LAST, site)
    needed = [Place(LAST, name) for name in ("resid_pre", "head", "attn_out", "mlp_out")]
    own, foreign = read(model, IDS, needed), read(model, OTHER, [place])[place]
    given = {"head": own[Place(LAST, "head")]}
    if place.head is None:
        given[site] = foreign
    else:
        given["head"][:, :, place.head] = foreign
    with torch.no_grad():
        expected = layer_by_hand(model, LAST, own[Place(LAST, "resid_pre")], given)
        expected_logits = model.hf.lm_head(model.hf.get_decoder().norm(expected))
    seen: dict[str, torch.Tensor] = {}
    edits: dict[Place, Edit] = {Place(LAST, "resid_post"): lambda states: seen.update(after=states.clone())}
    edits |= {Place(LAST, "resid_post"): lambda _: foreign} if site == "resid_post" else {place: lambda _: foreign}
    found = logits(model, IDS, edits)
    if site != "resid_post":
        assert ((seen["after"] - expected).norm(dim=-1) <= 1e-5 * expected.norm(dim=-1)).all()
    torch.testing.assert_close(found, expected_logits, rtol=1e-4, atol=1e-4)
    assert (found - logits(model, IDS)).abs().max() > 1e-2


@pytest.mark.parametrize("architecture", [*SEQUENTIAL, *PARALLEL])
def test_the_identity_and_ones_own_value_change_no_bit(architecture: str) -> None:
    model = model_of(architecture)
    places = [place for place in places_of(model) if architecture not in PARALLEL or place.site != "resid_mid"]
    plain, own = logits(model, IDS), read(model, IDS, places)

    def giving(value: torch.Tensor) -> Edit:
        return lambda _: value

    same: list[Edit] = [lambda states: states, lambda states: states.clone(), lambda states: None]
    for edit in same:
        assert torch.equal(logits(model, IDS, dict.fromkeys(places, edit)), plain)
    for place in places:
        assert torch.equal(logits(model, IDS, {place: giving(own[place])}), plain), place


@pytest.mark.parametrize("architecture", [*SEQUENTIAL, *PARALLEL])
def test_what_is_written_adds_up_to_the_stream(architecture: str) -> None:
    model = model_of(architecture)
    parallel = architecture in PARALLEL
    names = ("resid_pre", "attn_out", "mlp_out", "resid_post", *(() if parallel else ("resid_mid",)))
    for layer in range(model.n_layers):
        at = {place.site: states for place, states in read(model, IDS, places_of(model, names, layer)).items()}
        total = at["resid_pre"] + at["attn_out"] + at["mlp_out"]
        assert ((total - at["resid_post"]).norm(dim=-1) <= 1e-6 * at["resid_post"].norm(dim=-1)).all()
        if not parallel:
            assert torch.equal(at["resid_pre"] + at["attn_out"], at["resid_mid"])


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_oss", "granite", "gpt_neox"])
def test_both_backends_change_the_same(architecture: str) -> None:
    model = model_of(architecture)
    plain = logits(model, IDS)
    for place in places_of(model):
        if architecture == "gpt_neox" and place.site == "resid_mid":
            continue
        with torch.no_grad():
            edits: dict[Place, Edit] = {place: lambda states: states.flip(-1)}
            ours = logits(model, IDS, edits)
            with edited(model, edits, backend="bridge"):
                theirs = model.bridge()(IDS, return_type="logits")
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert (ours - plain).abs().max() > 1e-3, place


def test_a_change_between_attention_and_mlp_is_seen_by_what_reads_the_stream_and_by_nothing_else() -> None:
    model = model_of("qwen3")
    places = places_of(model, layer=1)
    before = read(model, IDS, places)
    shift = torch.randn(32, generator=torch.Generator().manual_seed(0))
    after: dict[str, torch.Tensor] = {}

    def reading(name: str) -> Edit:
        def see(states: torch.Tensor) -> None:
            after[name] = states.clone()

        return see

    readings: dict[Place, Edit] = {Place(1, name): reading(name) for name in ("attn_out", "resid_post", "mlp_out")}
    # Whoever reads sees it, from an outer block, too.
    with torch.no_grad(), edited(model, readings), edited(model, {Place(1, "resid_mid"): lambda mid: mid + shift}):
        model.hf(input_ids=IDS, use_cache=False)
    assert torch.equal(after["attn_out"], before[Place(1, "attn_out")])
    torch.testing.assert_close(
        after["resid_post"] - after["mlp_out"], before[Place(1, "resid_mid")] + shift, rtol=1e-5, atol=1e-4
    )


def test_a_gradient_reaches_every_place() -> None:
    model = model_of("gemma3_text")
    for place in places_of(model):
        change = torch.zeros((), requires_grad=True)
        with torch.enable_grad(), edited(model, {place: lambda states, change=change: states + change}):
            model.hf(input_ids=IDS, use_cache=False).logits.float().logsumexp(-1).sum().backward()
        step = 1e-2
        up, down = (
            logits(model, IDS, {place: lambda states, by=by: states + by}).logsumexp(-1).sum() for by in (step, -step)
        )
        assert change.grad is not None
        assert float(change.grad) == pytest.approx(float(up - down) / (2 * step), rel=0.05, abs=0.5), place


@pytest.mark.parametrize("backend", ["hf", "bridge"])
def test_hooks_are_gone_after_an_exception(backend: Any) -> None:
    model = model_of("qwen3")

    def fail(_states: torch.Tensor) -> None:
        raise Interrupt

    run: Callable[..., Any] = model.hf if backend == "hf" else model.bridge()
    plain, counts = logits(model, IDS), reference_forward.hook_counts(model.hf)
    edits: dict[Place, Edit] = {place: lambda states: states + 1 for place in places_of(model)}
    edits[Place(1, "mlp_out")] = fail
    with torch.no_grad(), pytest.raises(Interrupt), edited(model, edits, backend=backend):
        run(IDS)
    assert reference_forward.hook_counts(model.hf) == counts
    assert torch.equal(logits(model, IDS), plain)


def test_an_interrupted_pass_leaves_nothing_to_the_next() -> None:
    model = model_of("llama")
    first = [True]

    def change(mid: torch.Tensor) -> torch.Tensor | None:
        return mid + 1 if first else None

    def fail_once(_states: torch.Tensor) -> None:
        if first:
            first.clear()
            raise Interrupt

    with edited(model, {Place(1, "resid_mid"): change, Place(1, "mlp_out"): fail_once}), torch.no_grad():
        with pytest.raises(Interrupt):
            model.hf(input_ids=IDS, use_cache=False)
        after = model.hf(input_ids=IDS, use_cache=False).logits
    assert torch.equal(after, logits(model, IDS))


@pytest.mark.parametrize(
    ("architecture", "place", "says"),
    [
        ("llama", Place(3, "resid_mid"), "edit at resid_mid of layer 3: expected a layer of 0 to 2"),
        ("llama", Place(0, "head.4"), "expected one of .* head.0 to head.3"),
        ("llama", Place(0, "hook_z"), "edit of layer 0: got 'hook_z', expected one of resid_pre"),
        ("gpt_neox", Place(0, "resid_mid"), "parallel block.*expected resid_pre, attn_out, mlp_out or resid_post"),
        ("cohere2", Place(1, "resid_mid"), "parallel block"),
        ("opt", Place(1, "mlp_out"), "no module of this layer gives what attention or MLP adds"),
    ],
)
def test_a_place_that_is_not_there_is_refused(architecture: str, place: Place, says: str) -> None:
    with pytest.raises(InputError, match=says), edited(model_of(architecture), {place: lambda states: states}):
        pass


def test_a_projection_that_is_replaced_is_found_again() -> None:
    """As an adapter does it: the projection becomes a part of what takes its place."""
    model = small("llama", BASE)
    before = read(model, IDS, [Place(1, "head"), Place(1, "attn_out")])
    attention: Any = find_layout(model.hf).layers[1].self_attn
    attention.o_proj = torch.nn.Sequential(torch.nn.Identity(), attention.o_proj)
    after = read(model, IDS, [Place(1, "head"), Place(1, "attn_out")])
    assert all(torch.equal(after[place], before[place]) for place in before)
    heads = layer_parts(model.hf)[1].heads
    assert heads is not None
    assert heads.projection is attention.o_proj[1]


def test_layers_without_a_pattern_have_no_heads() -> None:
    for architecture, (options, without) in HYBRIDS.items():
        parts = layer_parts(small(architecture, options).hf)
        assert not any(parts[number].heads for number in without), architecture
        with_pattern = set(range(len(parts))) - set(without)
        assert all(parts[number].heads for number in with_pattern) or architecture == "minimax", architecture
