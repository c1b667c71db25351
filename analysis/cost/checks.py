"""Correctness before cost: each number that is fast is also right, on this machine and in this floating-point type.

Each check compares the package with the plainest way to the same number, and says the largest error beside what is
tolerated. What holds in exact arithmetic alone (knockout, losses, sharding) is checked on a small model in float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from analysis.cost.bench import Bench, free_memory
from analysis.cost.loss_checks import check_losses
from analysis.cost.sharded_check import check_sharding
from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import QUERY_SPANS, STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.recording import LayerAttention, capture
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model

LENGTHS = tuple(512 * 2**i for i in range(7))
"""512 to 32,768 tokens."""
_CLOSE, _CLOSE_IN_HALF = 1e-3, 0.1
_LAYERS = 2


class Check(NamedTuple):
    """One comparison."""

    name: str
    """What is compared, with the number of tokens where it varies."""
    error: float
    """The largest error."""
    tolerated: float
    """The most that it may be."""
    note: str = ""
    """What was left out, and why."""

    @property
    def is_right(self) -> bool:
        """False for NaN, too."""
        return self.error <= self.tolerated


def _tolerated(dtype: torch.dtype) -> float:
    return _CLOSE if dtype in (torch.float32, torch.float64) else _CLOSE_IN_HALF


def check_attention(bench: Bench, lengths: tuple[int, ...] = LENGTHS) -> Iterator[Check]:
    """Rows of the hook against the model's own eager pattern: 512 to 32,768 tokens, as far as memory and time go."""
    longest = bench.model.max_positions or lengths[-1]
    share = 60 * bench.setup.minutes / 12
    for n in [n for n in lengths if n <= longest] or [longest]:
        model = _with_heads_that_fit(bench, n)
        if model is None:
            yield Check(f"attention, {n} tokens", 0, 0, "left out: one head's pattern does not fit the free memory")
            return
        start = time.perf_counter()
        encoding = bench.encoding(n, model=model)
        yield Check(
            f"attention, {n} tokens, {model.n_heads} heads",
            _attention_error(model, encoding),
            _tolerated(model.dtype),
        )
        if 4 * (time.perf_counter() - start) > share and n < min(longest, lengths[-1]):
            yield Check(f"attention, {2 * n} tokens", 0, 0, "left out: takes longer than a twelfth of the time")
            return


def _with_heads_that_fit(bench: Bench, n: int) -> Model | None:
    """The model with as many layers and heads as have room for whole patterns; None where one has not."""
    bytes_a_head = n**2 * (2 * torch.finfo(bench.dtype).bits // 8 + 8)
    room = free_memory(bench.setup.device) / 3
    if not bench.is_random:
        fits = bench.model.n_heads * bench.model.n_layers * bytes_a_head <= room
        return bench.model if fits else None
    config = bench.model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // config.num_key_value_heads
    groups = config.num_key_value_heads
    while groups and groups * group * _LAYERS * bytes_a_head > room:
        groups //= 2
    heads, kv = (groups * group, groups) if groups else (1, 1)
    if heads * _LAYERS * bytes_a_head > room:
        return None
    changes = {"num_attention_heads": heads, "num_key_value_heads": kv, "num_hidden_layers": _LAYERS}
    # Scores of unit spread: an even pattern would hide a wrong scale.
    return bench.resized(**changes, head_dim=width, initializer_range=1.3 * config.hidden_size**-0.5)


def _attention_error(model: Model, encoding: Encoding) -> float:
    """The largest difference of a weight, relative to the weight, or to a tenth of an even one where it is less.

    Read in an eager pass, where a layer has the same states below it as the pattern's, and in the model's own (SDPA),
    whose layers above the first have others in half precision.
    """
    batch = Batch.of([encoding])
    request = CaptureRequest(states=False, token_weights=True, n_random=1)
    before = model.hf.config._attn_implementation
    with torch.inference_mode():
        with capture(model, batch, request) as own:
            model.hf(**batch.inputs(model.device), logits_to_keep=1)
        model.hf.set_attn_implementation("eager")
        try:
            with capture(model, batch, request) as eager:
                model.hf(**batch.inputs(model.device), logits_to_keep=1)
            patterns = model.hf(**batch.inputs(model.device), logits_to_keep=1, output_attentions=True).attentions
        finally:
            model.hf.set_attn_implementation(before)
    compared = [(0, own), *((layer, eager) for layer in range(len(patterns)))]
    return max(_pattern_error(patterns[layer], captured.attention[layer], encoding) for layer, captured in compared)


def _pattern_error(pattern: Tensor, answer: LayerAttention, encoding: Encoding) -> float:
    assert answer.token_weights is not None
    worst = 0.0
    for number, span in enumerate(QUERY_SPANS):
        expected = pattern[:, :, list(encoding.positions(span))].float().mean(2)
        read = answer.token_weights[:, :, number].to(expected.device)
        least = 0.1 / len(encoding.input_ids)
        error = (expected - read).abs() / torch.maximum(expected, read).clamp(min=least)
        worst = max(worst, float(error.nan_to_num(torch.inf).max()))
    return worst


def check_states(bench: Bench) -> Iterator[Check]:
    """Captured states against transformers' own hidden states, averaged over each position."""
    encoding = bench.encoding(min(512, bench.model.max_positions or 512))
    batch, model = Batch.of([encoding]), bench.model
    with torch.inference_mode(), capture(model, batch, CaptureRequest(attention=False)) as captured:
        out = model.hf(**batch.inputs(model.device), logits_to_keep=1, output_hidden_states=True)
    worst = 0.0
    for place, read in captured.states.items():
        for number, position in enumerate(STATE_POSITIONS):
            is_final = place.layer == model.n_layers or place.site == "ln_final"
            if place.layer == model.n_layers - 1 and not is_final:
                continue  # transformers returns the last layer's behind the norm alone
            own = out.hidden_states[-1 if is_final else place.layer + 1][0, list(encoding.positions(position))]
            worst = max(worst, _relative(read[0, number], own.float().mean(0)))
    yield Check("states", worst, _tolerated(model.dtype))


def check_hooked_logits(bench: Bench) -> Iterator[Check]:
    """Logits of a pass that is read against the same pass that is not: with eager, SDPA and flash attention."""
    model, encoding = bench.model, bench.encoding(min(512, bench.model.max_positions or 512))
    batch = Batch.of([encoding])
    before = model.hf.config._attn_implementation
    with torch.inference_mode():
        reference = None
        for name in ("eager", "sdpa", "flash_attention_2"):
            try:
                model.hf.set_attn_implementation(name)
                plain = model.hf(**batch.inputs(model.device)).logits
            except (ImportError, ValueError, RuntimeError) as error:
                why = str(error).strip().splitlines()[0][:80]
                yield Check(f"logits, {name}", 0, 0, f"left out: {why}")
                continue
            finally:
                model.hf.set_attn_implementation(before)
            model.hf.set_attn_implementation(name)
            try:
                with capture(model, batch, CaptureRequest()):
                    hooked = model.hf(**batch.inputs(model.device)).logits
            finally:
                model.hf.set_attn_implementation(before)
            reference = plain if reference is None else reference
            yield Check(f"logits, {name}: read against not read", _relative(hooked, plain), _tolerated(model.dtype))
            yield Check(f"logits, {name}: against eager", _relative(plain, reference), _tolerated(model.dtype))


def check_knockout(bench: Bench) -> Iterator[Check]:
    """Logits with keys hidden against a mask written out by hand, relative to what hiding them changes."""
    model = bench.small
    encoding = bench.encoding(64, model=model)
    queries, keys = (list(encoding.positions(name)) for name in ("key_sentence", "understanding"))
    layers = frozenset(range(model.n_layers))
    cut = Cut(trace_id="0", queries=tuple(queries), keys=tuple(keys), layers=layers)
    ids = encoding.input_ids[None].to(model.device)
    n = ids.shape[1]
    seen = torch.ones((n, n), dtype=torch.bool, device=ids.device).tril()
    hidden = seen.clone()
    for query in queries:
        hidden[query, keys] = False
    with torch.inference_mode():
        plain = model.hf(input_ids=ids, use_cache=False).logits
        by_hand = model.hf(input_ids=ids, use_cache=False, attention_mask=hidden[None, None]).logits
        with knocked_out(model, Knockout([cut], n_heads=model.n_heads)):
            ours = model.hf(input_ids=ids, use_cache=False).logits
    error = float((ours - by_hand).norm() / (by_hand - plain).norm())
    yield Check("knockout of U", error, 1e-3)


def _relative(one: Tensor, other: Tensor) -> float:
    one, other = one.float(), other.float()
    return float((one - other).norm() / other.norm().clamp(min=1e-20))


def _named(check: Callable[[Bench], Iterator[Any]]) -> Callable[[Bench], Iterator[Check]]:
    return lambda bench: (Check(*found) for found in check(bench))


CHECKS: dict[str, Callable[[Bench], Iterator[Check]]] = {
    "attention": check_attention,
    "states": check_states,
    "logits": check_hooked_logits,
    "knockout": check_knockout,
    "losses": _named(check_losses),
    "sharding": _named(check_sharding),
}
"""Every check, by name."""
