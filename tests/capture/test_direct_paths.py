"""Direct paths equal the difference by freezing everything else by hand."""

from __future__ import annotations

import pytest
import torch
from einops import repeat
from tiny_models import tiny_model
from torch import Tensor

from safekey_interp.capture.attention_hook import observed_attention
from safekey_interp.capture.direct_paths import (
    Receiver,
    Sender,
    is_path,
    parse_receiver,
    parse_sender,
    path_edits,
    written_delta,
)
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import edited
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model

FAMILIES = ("llama", "gemma3_text", "qwen3", "phi3", "gpt_oss")
WHERE = [5, 9, 10]


def tokens(model: Model, n: int = 24) -> Tensor:
    return torch.randint(3, model.n_embeddings, (1, n), generator=torch.Generator().manual_seed(3))


def values_at(model: Model, sender: Sender) -> Tensor:
    """The sender's activations in another text."""
    seen = {}
    with edited(model, {sender.place: lambda states: seen.update(states=states.clone())}), torch.no_grad():
        model.hf(input_ids=tokens(model).flip(1), use_cache=False)
    return seen["states"][0, WHERE]


class Seen:
    """Queries, keys and values of one layer."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def see_attention(self, module, query, key, attention_mask, options):
        if module.layer_idx == self.layer:
            self.query, self.options, self.module = query, options, module
        return attention_mask

    def change_keys(self, module, query, keys):
        if module.layer_idx == self.layer:
            self.keys = keys
        return keys


def frozen(model: Model, ids: Tensor, sender: Sender, values: Tensor, before: int) -> dict:
    """Edits that change the sender and hold the output of every other part before a layer as it was."""
    clean: dict[Place, Tensor] = {}

    def reading(place):
        return lambda states: clean.update({place: states.clone()})

    places = [Place(layer, site) for layer in range(before) for site in ("attn_out", "mlp_out")]
    with edited(model, {place: reading(place) for place in places}), torch.no_grad():
        model.hf(input_ids=ids, use_cache=False)
    own = Place(sender.layer, "mlp_out" if sender.head is None else "attn_out")

    def put(states):
        out = states.clone()
        out[:, WHERE] = values
        return out

    return {place: (lambda _, kept=kept: kept) for place, kept in clean.items() if place != own} | {sender.place: put}


@pytest.mark.parametrize("side", ["q", "k", "v", "logits"])
@pytest.mark.parametrize("head", [1, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_equals_freezing_everything_else_by_hand(family: str, head: int | None, side: str) -> None:
    model, sender = tiny_model(family), Sender(0, head)
    ids, values = tokens(model), values_at(model, sender)
    receiver = Receiver(model.n_layers) if side == "logits" else Receiver(2, 3, side)
    delta = written_delta(model, ids, sender, WHERE, values)
    assert delta[:, WHERE].abs().sum() > 0
    with torch.no_grad(), edited(model, path_edits(model, ids, receiver, delta)):
        patched = model.hf(input_ids=ids, use_cache=False).logits
    with torch.no_grad():
        clean = model.hf(input_ids=ids, use_cache=False).logits
    assert (patched - clean).abs().max() > 1e-4, "the path matters in these models"
    if side == "logits":
        with torch.no_grad(), edited(model, frozen(model, ids, sender, values, model.n_layers)):
            by_hand = model.hf(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(patched, by_hand, atol=1e-5, rtol=1e-5)
        return
    before, after = Seen(2), Seen(2)
    with torch.no_grad(), observed_attention(model.hf, before):
        model.hf(input_ids=ids, use_cache=False)
    hold = edited(model, frozen(model, ids, sender, values, 2))
    with torch.no_grad(), hold, observed_attention(model.hf, after):
        model.hf(input_ids=ids, use_cache=False)
    query = (after if side == "q" else before).query
    key = (after if side == "k" else before).keys.key
    value = (after if side == "v" else before).keys.value
    z = by_hand_z(query, key, value, before)[:, 3]
    with torch.no_grad(), edited(model, {Place(2, "head.3"): lambda states: z}):
        by_hand = model.hf(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(patched, by_hand, atol=1e-5, rtol=1e-5)


def by_hand_z(query: Tensor, key: Tensor, value: Tensor, seen: Seen) -> Tensor:
    """Attention by its definition."""
    n = query.shape[1] // key.shape[1]
    key, value = (repeat(x, "b kv k d -> b (kv n) k d", n=n) for x in (key, value))
    scores = query @ key.transpose(-1, -2) * seen.options["scaling"]
    mask = seen.keys.mask
    if mask is None:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~visible, -torch.inf)
    else:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    sinks = seen.options.get("s_aux")
    if sinks is not None:
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)], dim=-1)
    return scores.softmax(-1)[..., : key.shape[2]] @ value


def test_the_paths_from_a_sender_add_up_where_nothing_is_between() -> None:
    """From the last layer's head, the direct path to the logits is the whole effect."""
    model = tiny_model("llama")
    sender = Sender(model.n_layers - 1, None)
    ids, values = tokens(model), values_at(model, sender)

    def put(states):
        out = states.clone()
        out[:, WHERE] = values
        return out

    delta = written_delta(model, ids, sender, WHERE, values)
    with torch.no_grad(), edited(model, path_edits(model, ids, Receiver(model.n_layers), delta)):
        direct = model.hf(input_ids=ids, use_cache=False).logits
    with torch.no_grad(), edited(model, {sender.place: put}):
        whole = model.hf(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(direct, whole, atol=1e-5, rtol=1e-5)


def test_names_are_parsed_and_checked() -> None:
    model = tiny_model("llama")
    assert parse_sender("0.head.1", model) == Sender(0, 1)
    assert str(parse_sender("2.mlp", model)) == "2.mlp"
    assert str(parse_receiver("2.head.3.k", model)) == "2.head.3.k"
    assert is_path(parse_sender("2.mlp", model), parse_receiver("logits", model))
    assert not is_path(parse_sender("2.mlp", model), parse_receiver("2.head.0.q", model))
    for wrong in ("9.mlp", "0.head.9", "head.0", "0.attn"):
        with pytest.raises(InputError, match="sender: got"):
            parse_sender(wrong, model)
    for wrong in ("0.head.1", "9.head.0.q", "logit"):
        with pytest.raises(InputError, match="receiver: got"):
            parse_receiver(wrong, model)
