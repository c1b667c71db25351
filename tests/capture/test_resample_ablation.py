"""Another trace's keys and values in a span's place: against hidden states swapped by hand, for the chosen queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import reference_forward
import tiny_models
import torch

from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.resample_ablation import Resampling, Swap, check_resampling, read_span, resampled
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model

ARCHITECTURES = ("llama", "qwen3", "phi3", "mistral", "gemma3_text", "gemma2", "gpt_oss")
SPAN, QUERIES = range(6, 13), range(14, 20)


def ids_of(n: int, seed: int) -> torch.Tensor:
    return torch.randint(5, 400, (n,), generator=torch.Generator().manual_seed(seed))


def logits(model: Model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(input_ids=ids[None], use_cache=False).logits[0]


def replaced(model: Model, ids: torch.Tensor, *swaps: Swap) -> torch.Tensor:
    with resampled(model, Resampling(swaps, n_heads=model.n_heads)), torch.no_grad():
        return model.hf(input_ids=ids.expand(len(swaps), -1), use_cache=False).logits


def swap(model: Model, given: Any, keys: Sequence[int] = SPAN, queries: Sequence[int] = QUERIES, **more: Any) -> Swap:
    layers = frozenset(range(model.n_layers))
    return Swap(**{"queries": tuple(queries), "keys": tuple(keys), "given": given, "layers": layers} | more)


@contextmanager
def by_hand(model: Model, ids: torch.Tensor, donor: torch.Tensor, of: range, layers: Sequence[int]) -> Iterator[None]:
    """Eager attention that runs twice in each layer: with its own states, and, for the chosen queries, with the donor's
    states at the last places of the span, whose other tokens are masked."""
    n = len(of)
    entering: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def see(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
            entering[layer] = kwargs["hidden_states"][0].clone()

        return see

    blocks: Any = find_layout(model.hf).layers
    handles = [blocks[i].self_attn.register_forward_pre_hook(keep(i), with_kwargs=True) for i in layers]
    logits(model, donor)
    for handle in handles:
        handle.remove()
    theirs = dict(entering)

    def twice(layer: int, forward: Any) -> Any:
        def run(**kwargs: Any) -> Any:
            own, *rest = forward(**kwargs)
            states, mask = kwargs["hidden_states"].clone(), kwargs["attention_mask"].clone()
            states[0, list(SPAN)[-n:]] = theirs[layer][list(of)]
            mask[..., list(SPAN)[: len(SPAN) - n]] = torch.finfo(mask.dtype).min
            other = forward(**kwargs | {"hidden_states": states, "attention_mask": mask})[0]
            out = own.clone()
            out[0, list(QUERIES)] = other[0, list(QUERIES)]
            return out, *rest

        return run

    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        for layer in layers:
            blocks[layer].self_attn.forward = twice(layer, blocks[layer].self_attn.forward)
        yield
    finally:
        for layer in layers:
            del blocks[layer].self_attn.forward
        model.hf.set_attn_implementation(before)


@pytest.mark.parametrize("layers", [(0, 1, 2), (1,)])
@pytest.mark.parametrize(("of", "n_donor"), [(range(6, 13), 20), (range(2, 9), 14), (range(15, 19), 25)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_equals_states_that_are_swapped_by_hand(architecture: str, of: range, n_donor: int, layers) -> None:
    model = tiny_models.tiny_model(architecture)
    check_resampling(model)
    ids, donor = ids_of(22, 0), ids_of(n_donor, 1)
    given = read_span(model, donor, of, shift=SPAN[-1] - of[-1])
    found = replaced(model, ids, swap(model, given, layers=frozenset(layers)))[0]
    with by_hand(model, ids, donor, of, layers):
        expected = logits(model, ids)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    plain = logits(model, ids)
    torch.testing.assert_close(found[: QUERIES[0]], plain[: QUERIES[0]], atol=1e-5, rtol=1e-5)
    assert (found[QUERIES[0] :] - plain[QUERIES[0] :]).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_own_keys_change_nothing(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    ids = ids_of(22, 0)
    own = read_span(model, ids, SPAN)
    for queries in (QUERIES, range(SPAN[-1], 20)):
        found = replaced(model, ids, swap(model, own, queries=queries))[0]
        torch.testing.assert_close(found, logits(model, ids), atol=1e-5, rtol=1e-5)


def test_a_shift_turns_keys_alone() -> None:
    for architecture in ARCHITECTURES:
        model = tiny_models.tiny_model(architecture)
        ids = ids_of(15, 2)
        here, there = read_span(model, ids, range(4, 9)), read_span(model, ids, range(4, 9), shift=-3)
        for layer, (key, value) in here.items():
            torch.testing.assert_close(value, there[layer][1], atol=1e-4, rtol=1e-3)
            assert (key - there[layer][0]).abs().max() > 1e-2


def test_rows_of_a_batch_do_not_know_of_one_another() -> None:
    model = tiny_models.tiny_model("gemma3_text")
    ids = ids_of(22, 0)
    long = read_span(model, ids_of(20, 1), range(3, 10), shift=3)
    short = read_span(model, ids_of(12, 3), range(4, 7), shift=6)
    swaps = [
        swap(model, long),
        swap(model, {}, queries=()),
        swap(model, short, layers=frozenset({1})),
        swap(model, short, heads=frozenset({2})),
    ]
    together = replaced(model, ids, *swaps)
    for row, one in enumerate(swaps):
        torch.testing.assert_close(together[row], replaced(model, ids, one)[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1], logits(model, ids), atol=1e-5, rtol=1e-5)
    assert (together[3] - replaced(model, ids, swap(model, short))[0]).abs().max() > 1e-3


def test_all_heads_by_name_are_all_heads_and_nothing_stays_behind() -> None:
    model = tiny_models.tiny_model("llama")
    ids, given = ids_of(22, 0), read_span(tiny_models.tiny_model("llama"), ids_of(20, 1), SPAN)
    before, hooks = dict(model.hf.config.to_dict()), reference_forward.hook_counts(model.hf)
    every = replaced(model, ids, swap(model, given, heads=frozenset(range(model.n_heads))))
    torch.testing.assert_close(every, replaced(model, ids, swap(model, given)), atol=1e-6, rtol=1e-6)
    none = replaced(model, ids, swap(model, given, heads=frozenset()))
    torch.testing.assert_close(none[0], logits(model, ids), atol=1e-5, rtol=1e-5)
    assert model.hf.config.to_dict() == before
    assert reference_forward.hook_counts(model.hf) == hooks


def test_a_model_whose_positions_are_not_relative_is_refused() -> None:
    sizes: dict[str, Any] = {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    config: Any = tiny_models.CONFIG_MAPPING["gpt2"](**sizes, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    hf = tiny_models.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.normal_(0, 0.25)
    model = tiny_models.from_hf(hf, tiny_models.byte_level_tokenizer(), spec="tiny-gpt2")
    with pytest.raises(ModelError, match=r"tiny-gpt2: its states change when all positions are shifted.*resample_same"):
        check_resampling(model)
