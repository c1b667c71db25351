"""Attention knockout: the law against an eager forward with joined masks, its controls, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import literal
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

import safekey_interp as ski
from safekey_interp.capture import Batch, CaptureRequest, capture
from safekey_interp.capture.knockout import Cut, Knockout, keys_of, knocked_out, knocked_out_on_bridge
from safekey_interp.errors import InputError
from safekey_interp.interventions.attention_knockout import knockout, summarise_knockout
from safekey_interp.models import Model
from safekey_interp.organism import read_shipped
from safekey_interp.segmentation import segment

WINDOWED = ("mistral", "gemma3_text", "gemma2", "gpt_oss")
ARCHITECTURES = ("llama", "qwen2", "phi3", *WINDOWED)


def setting(architecture: str) -> tuple[Model, list[Any], list[Any]]:
    model = tiny.tiny_model(architecture)
    traces = literal.with_spans(3)
    return model, traces, [model.encode(trace, segment(trace, finder="given")) for trace in traces]


def n_hooks(model: Model) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.hf.modules())


def key_logprob(model: Model, encoding: Any) -> float:
    k: Any = encoding.spans["key_sentence"]
    ids = encoding.input_ids[None, : encoding.end]
    logits = model.hf(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return float(logits[k.start - 1 : k.end - 1].gather(-1, ids[0, k.start : k.end, None]).double().mean())


@pytest.mark.parametrize(
    ("to_span", "layers"), [("prompt", None), ("understanding", [0]), ("understanding", [1]), ("first_token", [0, 2])]
)
@pytest.mark.parametrize("from_span", ["key_sentence", "decision", "decision+key_sentence"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_equals_an_eager_forward_with_the_masks_joined(architecture: str, from_span, to_span, layers) -> None:
    model, traces, encodings = setting(architecture)
    table: Any = knockout(model, traces, from_span, to_span, layers=layers, aha=False, n_random=1, finder="given")
    found = table[table["control"] == "none"].set_index("trace_id")
    for trace, encoding in zip(traces, encodings, strict=True):
        k, n = encoding.spans["key_sentence"], encoding.end
        rows = {
            "key_sentence": range(k.start, k.end),
            "decision": [k.start - 1],
            "decision+key_sentence": range(k.start - 1, k.end),
        }[from_span]
        hidden = torch.zeros((1, 1, n, n), dtype=torch.bool)
        for row in rows:
            hidden[0, 0, row, list(encoding.positions(to_span))] = True
        with torch.no_grad():
            plain = key_logprob(model, encoding)
            with literal.joined_masks(model, hidden, range(model.n_layers) if layers is None else layers):
                cut = key_logprob(model, encoding)
        row = found.loc[trace.trace_id]
        assert row["baseline"] == pytest.approx(plain, abs=1e-4)
        assert row["value"] == pytest.approx(cut, abs=1e-4)
        assert row["effect"] == pytest.approx(cut - plain, abs=2e-4)
        assert row["n_q"] == len(rows)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text"])
def test_one_head_is_cut_and_the_bridge_agrees(architecture: str) -> None:
    model, _, encodings = setting(architecture)
    encoding = encodings[0]
    k: Any = encoding.spans["key_sentence"]
    ids = encoding.input_ids[None, : encoding.end]

    def cut(draw: int | None) -> Knockout:
        where: Any = {"queries": tuple(range(k.start, k.end)), "keys": tuple(encoding.positions("understanding"))}
        places: Any = {"layers": frozenset({1, 2}), "heads": frozenset({3})}
        return Knockout([Cut(trace_id="t", draw=draw, **where, **places)], n_heads=model.n_heads)

    for draw in (None, 0):
        with torch.inference_mode():
            plain = model.hf(input_ids=ids, use_cache=False).logits
            with knocked_out(model, cut(draw)):
                tapped = model.hf(input_ids=ids, use_cache=False).logits
            with knocked_out_on_bridge(model, cut(draw)) as bridge:
                bridged = bridge(ids, return_type="logits")
        torch.testing.assert_close(tapped, bridged, atol=1e-4, rtol=1e-4)
        # Where the window holds nothing but U, there is no key that could be drawn.
        assert draw == 0 or (tapped - plain).abs().max() > 1e-3
        torch.testing.assert_close(tapped[:, : k.start], plain[:, : k.start], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_cut_has_no_mass_where_it_is_cut(architecture: str) -> None:
    model, _, encodings = setting(architecture)
    batch = Batch.of(encodings)
    cuts = [
        Cut(
            trace_id=e.trace_id,
            queries=tuple(e.positions("key_sentence")),
            keys=tuple(e.positions("understanding")),
            layers=frozenset({1}),
            heads=frozenset({0, 2}),
        )
        for e in encodings
    ]
    request = CaptureRequest(states=False, token_weights=True)
    with (
        torch.inference_mode(),
        knocked_out(model, Knockout(cuts, n_heads=model.n_heads)),
        capture(model, batch, request) as captured,
    ):
        model.hf(**batch.inputs(model.device))
    for row, encoding in enumerate(encodings):
        u = list(encoding.positions("understanding"))
        weights = [captured.attention[layer].token_weights[row, :, 0][:, u].sum(-1) for layer in (0, 1, 2)]  # type: ignore[index]
        assert weights[1][[0, 2]].tolist() == [0.0, 0.0]
        assert (weights[1][[1, 3]] > 0).all()
        assert (weights[0] > 0).all()
        assert (weights[2] > 0).all()


def test_nothing_cut_changes_nothing_and_nothing_stays_behind() -> None:
    model, _, encodings = setting("mistral")
    ids = encodings[0].input_ids[None]
    where: Any = {"queries": (5, 6), "keys": (), "layers": frozenset({0, 1})}
    before, hooks = dict(model.hf.config.to_dict()), n_hooks(model)
    with torch.inference_mode():
        plain = model.hf(input_ids=ids, use_cache=False).logits
        with knocked_out(model, Knockout([Cut(trace_id="t", **where)], n_heads=model.n_heads)):
            torch.testing.assert_close(model.hf(input_ids=ids, use_cache=False).logits, plain, atol=1e-6, rtol=1e-6)
        cut = Knockout([Cut(trace_id="t", **where | {"keys": (2, 3)})], n_heads=model.n_heads)
        with pytest.raises(RuntimeError, match="in the middle"), knocked_out(model, cut):
            raise RuntimeError("in the middle")
        assert torch.equal(model.hf(input_ids=ids, use_cache=False).logits, plain)
    assert model.hf.config.to_dict() == before
    assert n_hooks(model) == hooks


def test_a_random_set_is_of_keys_in_sight_outside_span_first_token_and_queries() -> None:
    cut = Cut(trace_id="t", queries=(20, 21), keys=tuple(range(10, 15)), layers=frozenset({0}), draw=0)
    whole = np.arange(30) <= 20
    window = whole & (np.arange(30) > 12)
    for seen, n in ((whole, 5), (window, 2)):
        sets = [keys_of(Cut(**{**vars(cut), "draw": draw}), seen, seed=3) for draw in range(200)]
        assert {len(one) for one in sets} == {n}
        assert all(len(set(one)) == n for one in sets)
        allowed = set(np.flatnonzero(seen)) - set(cut.keys) - {0, 20, 21}
        assert set(np.concatenate(sets)) == allowed, "every key in sight is drawn sooner or later, and no other"
        again = keys_of(cut, seen, seed=3)
        assert again.tolist() == sets[0].tolist()
        assert any(keys_of(cut, seen, seed=seed).tolist() != again.tolist() for seed in range(4, 8))
    few = np.arange(30) <= 3
    assert len(keys_of(Cut(**{**vars(cut), "queries": (4,), "keys": (1, 2)}), few, seed=0)) == 1


def test_places_and_controls_stand_in_one_table() -> None:
    model, traces, _ = setting("llama")
    table: Any = knockout(
        model, traces, to_span=("prompt", "understanding"), by="layer", window=2, n_random=3, finder="given"
    )
    assert sorted(set(zip(table["layer"], table["n_layers"], strict=True))) == [(0, 2), (1, 2)]
    assert len(table) == 3 * 2 * 2 * (1 + 3) * 4
    assert set(table["metric"]) == {"difference", "safe", "go_ahead", "key_sentence"}
    assert table.loc[table["control"] == "none", "draw"].eq(-1).all()
    assert sorted(set(table.loc[table["control"] == "random_keys", "draw"])) == [0, 1, 2]
    sizes = table.groupby(["trace_id", "layer", "to_span"])["n_k"].nunique()
    assert (sizes == 1).all(), "full attention: as many random keys as the span has"
    alone: Any = knockout(model, traces, to_span="random", n_random=3, finder="given")
    assert set(alone["to_span"]) == {"random"}
    assert sorted(set(alone["draw"])) == [0, 1, 2]
    whole: Any = knockout(model, traces, to_span="understanding", n_random=3, finder="given")
    drawn = whole.loc[whole["control"] == "random_keys", ["trace_id", "draw", "metric", "effect"]].reset_index(
        drop=True
    )
    pd.testing.assert_frame_equal(alone[["trace_id", "draw", "metric", "effect"]], drawn)
    by_head: Any = knockout(
        model, traces, to_span="prompt", by="head", heads=[1, 2], aha=False, n_random=1, finder="given"
    )
    assert set(zip(by_head["layer"], by_head["head"], strict=True)) == {(i, h) for i in range(3) for h in (1, 2)}


def test_the_summary_says_what_lies_beyond_random() -> None:
    model, traces, _ = setting("llama")
    table: Any = knockout(model, traces, aha=False, n_random=2, finder="given")
    summary: Any = summarise_knockout(table)
    mine = summary[(summary["subset"] == "all") & (summary["to_span"] == "prompt")].iloc[0]
    part = table[table["to_span"] == "prompt"]
    means = part.groupby("control")["effect"].mean()
    assert mine["value"] == pytest.approx(means["none"])
    assert mine["control"] == pytest.approx(means["random_keys"])
    assert mine["excess"] == pytest.approx(means["none"] - means["random_keys"])
    assert mine["low"] <= mine["value"] <= mine["high"]
    assert (mine["n"], mine["n_controls"]) == (3, 2)


def test_the_aha_difference_is_the_one_that_is_measured_without_cuts() -> None:
    model, traces = ski.load("organism:sft"), list(read_shipped())[:4]
    table: Any = knockout(model, traces, "decision", "prompt", n_random=1, finder="given")
    measured: Any = ski.measure_aha(model, traces, finder="given")
    kinds: Any = measured.groupby(["trace_id", "kind"], observed=True)["logprob"].mean().unstack()
    expected = kinds["safe"] - kinds["go_ahead"]
    mine = table[table["metric"] == "difference"]
    for trace_id, aha in zip(mine["trace_id"], mine["baseline"], strict=True):
        assert aha == pytest.approx(expected[trace_id], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"from_span": "prompt"}, "from_span: got 'prompt', expected one of"),
        ({"to_span": "answer"}, "to_span: got 'answer', expected one of"),
        ({"to_span": ()}, "to_span: got none"),
        ({"layers": [7]}, "layer"),
        ({"heads": [9]}, "heads: got 9, expected from 0 to 3"),
        ({"by": "token"}, "by: got 'token'"),
        ({"by": "layer", "window": 5}, "window: got 5, expected from 1 to 3"),
        ({"window": 2}, "window: got 2"),
        ({"n_random": 0}, "n_random: got 0"),
        ({"seed": -1}, "seed: got -1"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(options: dict[str, Any], words: str) -> None:
    model, traces, _ = setting("llama")
    with pytest.raises(InputError, match=words):
        knockout(model, traces, finder="given", **options)


def test_traces_without_a_key_sentence_are_named() -> None:
    model, traces, _ = setting("llama")
    bare = ski.Trace(trace_id="bare", prompt="Why?", response="")
    table: Any = knockout(model, [*traces, bare], aha=False, n_random=1, finder="given")
    assert "bare" in table.attrs["left_out"]
    with pytest.raises(InputError, match=r"no trace has a key sentence.*bare"):
        knockout(model, [bare], finder="given")
