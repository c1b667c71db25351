"""Heads add up to what attention writes, and their effects with all others' to the model's own logits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
import torch

import safekey_interp as ski
from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.head_outputs import find_heads, read_heads
from safekey_interp.capture.layer_parts import layer_parts
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.errors import InputError, ModelError
from safekey_interp.generation.key_sentence_bank import GENERAL, KeySentences
from safekey_interp.interventions.direct_logit_attribution import rank_heads, summarise_heads
from safekey_interp.interventions.effect_metrics import find_subjects, own_tokens
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[2:4])
IDS = torch.arange(3, 33).reshape(2, 15)


@lru_cache
def toy() -> Model:
    return load("organism")


def ranked(model: Model, **options: object) -> pd.DataFrame:
    return rank_heads(
        model, reference_forward.with_spans(3), **({"bank": SMALL, "finder": "given", "n_random": 2} | options)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_heads_and_bias_add_up_to_what_attention_writes(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    heads, at = find_heads(model.hf), torch.tensor([6, 14])
    assert list(heads) == [0, 1, 2]
    reading = read_heads(model, heads, IDS, at)
    written: list[torch.Tensor] = []
    handles = [
        parts.attention.module.register_forward_hook(
            lambda _m, _a, out: written.append((out if isinstance(out, torch.Tensor) else out[0])[[0, 1], at])
        )
        for parts in layer_parts(model.hf)
        if parts.attention is not None
    ]
    with torch.no_grad():
        model.hf(input_ids=IDS, use_cache=False)
        for handle in handles:
            handle.remove()
        for layer, writes in heads.items():
            outputs = reading.outputs[layer]
            assert outputs.shape == (2, 4, 32)
            bias = writes.projection.bias
            rest = 0 if bias is None else bias
            torch.testing.assert_close(outputs.sum(1) + rest, writes.scale * written[layer], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "gpt_oss"])
def test_the_whole_streams_effect_is_the_difference_of_logits(architecture: str) -> None:
    model, traces = tiny_models.tiny_model(architecture), reference_forward.with_spans(3)
    table = ranked(model)
    assert set(table["tokens"]) == {"first"}
    subjects, _ = find_subjects(model, traces, SMALL, StreamSettings(finder="given"))
    for subject in subjects:
        safe, go_ahead = own_tokens(subject, SMALL, first=True)
        with torch.no_grad():
            logits = model.hf(input_ids=subject.own.ids[None, : subject.own.start]).logits[0, -1]
        expected = float(logits[list(safe)].mean() - logits[list(go_ahead)].mean())
        mine = table[(table["trace_id"] == subject.trace.trace_id) & (table["control"] == "none")]
        np.testing.assert_allclose(mine["total"], expected, rtol=1e-4, atol=1e-4)


def test_all_parts_add_up_to_the_whole() -> None:
    """Heads, MLPs and the embedding of one trace."""
    model, [trace] = tiny_models.tiny_model("llama"), reference_forward.with_spans(1)
    table = rank_heads(model, [trace], bank=SMALL, finder="given", n_random=0)
    [subject], _ = find_subjects(model, [trace], SMALL, StreamSettings(finder="given"))
    parts: list[torch.Tensor] = []
    modules = [model.hf.get_input_embeddings(), *(layer.mlp for layer in find_layout(model.hf).layers)]
    handles = [module.register_forward_hook(lambda _m, _a, out: parts.append(out[0, -1])) for module in modules]
    last: list[torch.Tensor] = []
    handles.append(model.hf.model.norm.register_forward_hook(lambda _m, args, _out: last.append(args[0][0, -1])))
    with torch.no_grad():
        model.hf(input_ids=subject.own.ids[None, : subject.own.start])
        for handle in handles:
            handle.remove()
        safe, go_ahead = own_tokens(subject, SMALL, first=True)
        weight = model.hf.lm_head.weight
        vector = weight[list(safe)].mean(0) - weight[list(go_ahead)].mean(0)
        norm = model.hf.model.norm
        scale = norm.weight / (last[0].square().mean() + norm.variance_epsilon).sqrt()
        others = sum(float(vector @ (scale * part)) for part in parts)
    assert float(table["effect"].sum()) + others == pytest.approx(table["total"].iloc[0], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_the_bridge_gives_the_same_table(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    ours, theirs = (ranked(model, backend=way) for way in ("hf", "bridge"))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3, atol=1e-4)
    assert ours["effect"].abs().max() > 1e-2


def test_neither_batches_nor_the_choice_of_layers_matter() -> None:
    model = tiny_models.tiny_model("qwen2")
    before = [len(part._forward_hooks) for part in model.hf.modules()]
    every = ranked(model)
    pd.testing.assert_frame_equal(ranked(model, batch_size=1), every, rtol=1e-3, atol=1e-5)
    one = ranked(model, layers=[1])
    expected = every[every["layer"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, expected, rtol=1e-3, atol=1e-5)
    assert [len(part._forward_hooks) for part in model.hf.modules()] == before


def test_a_bank_whose_kinds_begin_alike_is_told_apart_by_its_other_words() -> None:
    assert set(
        rank_heads(tiny_models.tiny_model("llama"), reference_forward.with_spans(1), finder="given")["tokens"]
    ) == {"own"}


def test_some_of_the_organisms_heads_write_its_refusals() -> None:
    plain = [trace for trace in organism.read_shipped() if trace.source == "plain"]
    both = [trace for label in ("harmful", "benign") for trace in [t for t in plain if t.label == label][:16]]
    summary = summarise_heads(rank_heads(toy(), both, finder="given"))
    harmful, benign = (summary[summary["subset"] == label] for label in ("harmful", "benign"))
    first = harmful.iloc[0]
    assert first["rank"] == 1
    assert first["value"] == pytest.approx(harmful["value"].abs().max())
    assert first["low"] > 0.1 > abs(first["control"])
    assert first["p_value"] == first["p_value_over_all"] == pytest.approx(1 / 21)
    assert (summary["p_value_over_all"] >= summary["p_value"]).all()
    gap = harmful.set_index(["layer", "head"])["value"] - benign.set_index(["layer", "head"])["value"]
    assert gap.sum() > 0.3, "together they write more of it where it is due"


def test_heads_that_cannot_be_told_apart_are_refused() -> None:
    model = tiny_models.tiny_model("llama")
    for options, says in (({"layers": [3]}, "layers: got"), ({"n_random": -1}, "n_random: got -1")):
        with pytest.raises(InputError, match=says):
            ranked(model, **options)
    packed = load("organism")
    for layer in packed.hf.model.layers:
        packed_weight = torch.nn.Parameter(layer.self_attn.o_proj.weight.detach()[:, :64], requires_grad=False)
        whole = layer.self_attn.o_proj.weight.detach().clone()
        layer.self_attn.o_proj.forward = lambda x, whole=whole: x @ whole.t()
        layer.self_attn.o_proj.weight = packed_weight
    with pytest.raises(ModelError, match="expected ordinary attention with unquantised weights"):
        find_heads(packed.hf)
    assert ski.states(packed, [organism.example()], components=["head"]).array.shape[3:] == (4, 32)
    with pytest.raises(InputError, match=r"components: head.0: .*packed \(quantised\)"):
        ski.states(packed, [organism.example()], components=["head"], head="output")
