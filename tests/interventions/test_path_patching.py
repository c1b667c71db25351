"""Path patching equals freezing everything else by hand; where a model is linear, its paths add up to the whole."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
import torch
from paired_traces import ONE_TOKEN, SMALL, linear_model, pairs, patched, rows_of

from safekey_interp.capture.attention_hook import observed_attention
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import edited
from safekey_interp.errors import InputError
from safekey_interp.interventions.activation_swaps import match_positions
from safekey_interp.interventions.path_patching import patch_paths, paths_cost, summarise_paths
from safekey_interp.interventions.trace_pairs import TracePair
from safekey_interp.models.model import Model


def by_path(model: Model, of: list[TracePair], **options: object) -> pd.DataFrame:
    settings = {"bank": SMALL, "finder": "given", "positions": ["understanding"], "n_random": 0}
    return patch_paths(model, of, **(settings | options))  # type: ignore[arg-type]


class Inputs:
    """Keys, values and queries of one layer, seen or put back."""

    def __init__(self, layer: int) -> None:
        self.layer, self.kept = layer, {}

    def see_attention(self, module, query, key, attention_mask, options):
        if module.layer_idx == self.layer:
            self.kept["query"], self.kept["options"] = query.clone(), options
        return attention_mask

    def change_keys(self, module, query, keys):
        if module.layer_idx == self.layer:
            self.kept["keys"] = keys
        return keys


def attention_of(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """By its definition."""
    n = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(n, dim=1) for part in (key, value))
    scores = query @ key.transpose(-1, -2) * inputs.kept["options"]["scaling"]
    mask = inputs.kept["keys"].mask
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value


def mean_logprob(model: Model, row, edits) -> float:
    with torch.no_grad(), edited(model, edits):
        logprobs = model.hf(input_ids=row.ids[None], use_cache=False).logits[0].log_softmax(-1)
    return float(np.mean([float(logprobs[at - 1, row.ids[at]]) for at in range(row.start, len(row.ids))]))


def frozen_by_hand(model: Model, pair: TracePair, sender: Place, receiver: str, position: str) -> list[float]:
    """Each row of the target in whole sequences: all parts before the receiver hold their values, but the sender."""
    source, target = rows_of(model, pair.source), rows_of(model, pair.target)
    match = match_positions(source, target, position)
    seen: dict[Place, torch.Tensor] = {}

    def reading(place):
        return lambda states: seen.update({place: states.clone()})

    def passes(ids, edits, inputs=None):
        with torch.no_grad(), edited(model, edits), ExitStack() as stack:
            if inputs is not None:
                stack.enter_context(observed_attention(model.hf, inputs))
            model.hf(input_ids=ids[None], use_cache=False)

    passes(source[0].ids, {sender: reading(sender)})
    values = seen[sender][0, list(match.source)]

    def put(states):
        out = states.clone()
        out[0, list(match.target)] = values
        return out

    layer = model.n_layers if receiver == "logits" else int(receiver.split(".", maxsplit=1)[0])
    own = Place(sender.layer, "mlp_out" if sender.site == "mlp_out" else "attn_out")
    places = [Place(n, site) for n in range(layer) for site in ("attn_out", "mlp_out")]
    numbers = []
    for row in target:
        passes(row.ids, {place: reading(place) for place in places})
        kept = {place: states.clone() for place, states in seen.items()}
        held = {place: (lambda _, place=place, kept=kept: kept[place]) for place in places if place != own}
        held |= {sender: put}
        if receiver == "logits":
            numbers.append(mean_logprob(model, row, held))
            continue
        before, after = Inputs(layer), Inputs(layer)
        passes(row.ids, {}, before)
        passes(row.ids, held, after)
        _, _, head, side = receiver.split(".")
        query = (after if side == "q" else before).kept["query"]
        key = (after if side == "k" else before).kept["keys"].key
        value = (after if side == "v" else before).kept["keys"].value
        z = attention_of(query, key, value, before)[:, int(head)]
        numbers.append(mean_logprob(model, row, {Place(layer, f"head.{head}"): lambda _, z=z: z}))
    return numbers


@pytest.mark.parametrize("sender", ["0.head.1", "1.mlp"])
@pytest.mark.parametrize("receiver", ["2.head.3.q", "2.head.3.k", "2.head.3.v", "logits"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_path_equals_freezing_everything_else_by_hand(architecture: str, receiver: str, sender: str) -> None:
    model, [pair] = tiny_models.tiny_model(architecture), pairs(2)
    layer, _, head = sender.partition(".")
    place = Place(int(layer), "mlp_out" if head == "mlp" else head)
    position = "decision" if receiver == "logits" else "understanding"
    table = by_path(model, [pair], senders=[sender], receivers=[receiver], positions=[position]).set_index("metric")
    logprobs = frozen_by_hand(model, pair, place, receiver, position)
    n = len(SMALL.safe)
    assert table["effect"].abs().max() > 1e-5, "the path matters"
    assert table.loc["difference", "value"] == pytest.approx(np.mean(logprobs[:n]) - np.mean(logprobs[n:-1]), abs=1e-5)
    assert table.loc["key_sentence", "value"] == pytest.approx(logprobs[-1], abs=1e-5)


@pytest.mark.parametrize("sender", ["head.0", "head.3"])
def test_direct_and_indirect_paths_sum_to_the_whole_effect_where_the_model_is_linear(sender: str) -> None:
    """Attention is fixed, norms divide by nothing and MLPs add 0: what a head of the last layer but one writes reaches
    the logits directly, or as a value of a head of the last layer, and in no other way."""
    model = linear_model()
    [pair] = pairs(2)
    heads = [f"2.head.{n}.v" for n in range(model.n_heads)]
    options = {"bank": ONE_TOKEN, "positions": ["understanding", "decision"]}
    paths = by_path(model, [pair], senders=[f"1.{sender}"], receivers=["logits", *heads], **options)
    whole = patched(model, [pair], components=[sender], layers=[1], method="exact", n_random=0, **options)
    sums = paths.groupby(["position", "metric"])["effect"].sum()
    exact = whole.set_index(["position", "metric"])["effect"]
    for position in options["positions"]:
        assert sums[position, "difference"] == pytest.approx(exact[position, "difference"], abs=1e-5)
    assert exact.abs().max() > 1e-3
    assert paths.groupby("receiver")["effect"].agg(lambda x: x.abs().max()).min() > 0


def test_a_trace_patched_with_itself_stays_as_it_is_along_every_path() -> None:
    model = tiny_models.tiny_model("qwen3")
    trace = reference_forward.with_spans(1)[0]
    table = by_path(model, [TracePair(trace, trace)], receivers=["logits", "2.head.0.q", "2.head.0.k"])
    assert set(table["sender"]) == {
        f"{n}.{part}" for n in range(3) for part in ("mlp", *(f"head.{h}" for h in range(4)))
    }
    assert (table.loc[table["receiver"] != "logits", "layer"] < 2).all(), "only what is before the receiver"
    assert table["effect"].abs().max() < 1e-5


def test_controls_are_other_requests_and_the_summary_sets_them_beside() -> None:
    model = tiny_models.tiny_model("llama")
    table = by_path(model, pairs(4), senders=["0.head.0", "2.mlp"], positions=["decision", "prompt_end"], n_random=2)
    controls = table[table["control"] == "other_request"]
    assert set(controls["draw"]) == {0, 1}
    assert (controls["donor_id"] != controls["trace_id"]).all()
    summary = summarise_paths(table)
    assert set(summary["measure"]) == {"effect", "share"}
    assert set(summary["control_kind"]) == {"other_request"}
    nowhere = summary[(summary["position"] == "prompt_end") & (summary["measure"] == "effect")]
    assert nowhere["value"].abs().max() < 1e-6, "the logits of the prompt's end predict nothing that is read out"


def test_the_cost_is_what_is_measured() -> None:
    model = tiny_models.tiny_model("llama")
    options = {"senders": ("0.head.0", "2.mlp"), "receivers": ("logits", "2.head.1.k"), "positions": ("decision",)}
    table = by_path(model, pairs(3), **(options | {"n_random": 1}))
    n = len(table) // table["metric"].nunique()
    assert f"{n} for 2 pairs" in paths_cost(options | {"n_random": 1}, 2)
    assert "3 paths x 1 positions x 2 donors" in paths_cost(options | {"n_random": 1}, 2)


def test_what_cannot_be_patched_is_refused() -> None:
    model = tiny_models.tiny_model("llama")
    for options, says in (
        ({"senders": ["9.mlp"]}, "sender: got '9.mlp'"),
        ({"senders": "0.mlp"}, "senders: got '0.mlp', expected a list"),
        ({"receivers": []}, "receivers: got"),
        ({"receivers": ["2.head.0.z"]}, "receiver: got '2.head.0.z'"),
        ({"senders": ["2.mlp"], "receivers": ["1.head.0.q"]}, "none of which reads behind"),
    ):
        with pytest.raises(InputError, match=says):
            by_path(model, pairs(2), **options)
