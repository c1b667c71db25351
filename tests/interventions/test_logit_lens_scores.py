"""The last layer's lens is the model's own output, and K appears in it before the end."""

from __future__ import annotations

import copy
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
import torch

from safekey_interp.capture.unembedding import LogitReader, frozen_norm
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, ModelError
from safekey_interp.generation.aha_score import measure_aha
from safekey_interp.generation.key_sentence_bank import GENERAL, KeySentences
from safekey_interp.interventions.logit_lens_scores import FIRST_TOKENS, logit_lens, summarise_lens
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[1:4])


@lru_cache
def toy() -> Model:
    return load("organism")


def lens_of(model: Model, traces: list[Trace], **options: object) -> pd.DataFrame:
    return logit_lens(model, traces, bank=SMALL, finder="given", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_the_last_layer_is_the_models_own_output(architecture: str) -> None:
    model, traces = tiny_models.tiny_model(architecture), reference_forward.with_spans(3)
    table = lens_of(model, traces)
    last = table[(table["layer"] == model.n_layers - 1) & ~table["metric"].isin(FIRST_TOKENS)]
    np.testing.assert_allclose(last["value"], last["output"], rtol=1e-6, atol=1e-6)
    aha = measure_aha(model, traces, bank=SMALL, finder="given")
    means = aha.groupby(["trace_id", "kind"])["logprob"].mean().unstack()
    for row in last.itertuples():
        if row.metric in ("safe", "go_ahead"):
            assert row.value == pytest.approx(means.loc[row.trace_id, row.metric], rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_oss"])
def test_every_layer_is_the_literal_lens(architecture: str) -> None:
    """States of transformers' own output, its norm and its unembedding; Gemma's bound on the logits included."""
    model, traces = tiny_models.tiny_model(architecture), reference_forward.with_spans(2)
    table = lens_of(model, traces)
    own = table[(table["metric"] == "key_sentence") & (table["control"] == "none")].set_index(["trace_id", "layer"])[
        "value"
    ]
    for trace in traces:
        encoding = model.encode(trace, reference_forward.segmentation(trace))
        where = list(encoding.positions("key_sentence"))
        with torch.no_grad():
            states = model.hf(input_ids=encoding.input_ids[None], output_hidden_states=True).hidden_states
            for layer in range(model.n_layers - 1):
                logits = model.hf.lm_head(model.hf.model.norm(states[layer + 1][0]))
                if architecture == "gemma2":
                    logits = 30.0 * torch.tanh(logits / 30.0)
                logprobs = logits.log_softmax(-1)
                expected = np.mean([float(logprobs[at - 1, encoding.input_ids[at]]) for at in where])
                assert own[trace.trace_id, layer] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "mistral"])
def test_the_bridge_reads_the_same(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    ours, theirs = (lens_of(model, reference_forward.with_spans(3), backend=way) for way in ("hf", "bridge"))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-4)


def test_neither_batches_nor_the_choice_of_layers_matter() -> None:
    model = tiny_models.tiny_model("qwen2")
    every = lens_of(model, reference_forward.with_spans(3))
    pd.testing.assert_frame_equal(
        lens_of(model, reference_forward.with_spans(3), batch_size=1), every, rtol=1e-4, atol=1e-5
    )
    one = lens_of(model, reference_forward.with_spans(3), layers=[-2])
    expected = every[every["layer"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, expected, rtol=1e-4, atol=1e-5)


def test_the_organism_decides_in_its_upper_layers() -> None:
    plain = [t for t in organism.read_shipped() if t.source == "plain"]
    both = [t for label in ("harmful", "benign") for t in [t for t in plain if t.label == label][:16]]
    summary = summarise_lens(logit_lens(toy(), both, finder="given"))
    of_k, decided = (
        summary[(summary["subset"] == "harmful") & (summary["metric"] == metric)].set_index("layer")
        for metric in ("key_sentence", "first_difference")
    )
    assert list(of_k["value"]) == sorted(of_k["value"]), "K grows likelier from layer to layer"
    assert of_k.loc[3, "excess_low"] > max(0.3, of_k.loc[0, "excess_high"]), "than other requests' key sentences do"
    assert decided.loc[0, "high"] < 0 < decided.loc[3, "low"]
    assert (of_k["n"] == 16).all()
    assert (of_k["n_controls"] == 3).all()
    assert (decided["n_controls"] == 0).all()


def test_a_control_is_another_requests_key_sentence_in_other_words() -> None:
    model, traces = tiny_models.tiny_model("llama"), reference_forward.with_spans(3)
    assert not lens_of(model, traces)["control"].ne("none").any(), "all say the same K, so that there is no other"
    other = traces[2].response.replace("Hmm, that could", "Hmm, this could")
    mixed = [*traces[:2], traces[2].with_(response=other)]
    table = lens_of(model, mixed, n_others=2)
    assert set(table.loc[table["control"] == "other_requests", "trace_id"]) == {trace.trace_id for trace in mixed}
    controls = table[(table["control"] != "none") & (table["trace_id"] == "t0")].set_index("layer")["value"]
    replaced = mixed[0].with_(response=mixed[0].response.replace("Hmm, that could", "Hmm, this could"))
    alone = lens_of(model, [replaced]).query("metric == 'key_sentence'").set_index("layer")["value"]
    pd.testing.assert_series_equal(controls, alone, rtol=1e-4)
    assert not lens_of(model, mixed, n_others=0)["control"].ne("none").any()


def test_kinds_that_begin_alike_have_no_first_tokens() -> None:
    table = logit_lens(tiny_models.tiny_model("llama"), reference_forward.with_spans(1), finder="given")
    assert table.loc[table["metric"].isin(FIRST_TOKENS), "value"].isna().all()
    summary = summarise_lens(table)
    assert (summary.loc[summary["metric"].isin(FIRST_TOKENS), "n"] == 0).all()


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_a_norm_held_fixed_is_linear_and_gives_the_whole_from_the_parts(architecture: str) -> None:
    reader = LogitReader(tiny_models.tiny_model(architecture))
    parts = torch.randn(4, 5, 32)
    factor = frozen_norm(reader.norm, parts.sum(0))
    torch.testing.assert_close((factor * parts).sum(0), reader.norm(parts.sum(0)).detach(), rtol=1e-4, atol=1e-5)


def test_in_half_precision_a_norm_held_fixed_is_the_same() -> None:
    norm = tiny_models.tiny_model("llama").hf.model.norm
    half = copy.deepcopy(norm).bfloat16()
    states = torch.randn(3, 32).bfloat16()
    exact = copy.deepcopy(half).float()
    torch.testing.assert_close(frozen_norm(half, states), frozen_norm(exact, states.float()), rtol=1e-5, atol=1e-6)


def test_a_norm_that_subtracts_a_mean_is_refused() -> None:
    with pytest.raises(ModelError, match="expected a root-mean-square norm"):
        frozen_norm(torch.nn.LayerNorm(8, bias=False), torch.randn(3, 8) + 1)


def test_what_cannot_be_read_is_left_out_or_refused() -> None:
    model, traces = tiny_models.tiny_model("llama"), reference_forward.with_spans(2)
    bare = traces[0].with_(trace_id="bare", response="", given={})
    assert list(lens_of(model, [bare, traces[1]]).attrs["left_out"]) == ["bare"]
    for options, says in (({"layers": [3]}, "layers: got"), ({"n_others": -1}, "n_others: got -1")):
        with pytest.raises(InputError, match=says):
            lens_of(model, traces, **options)
    broken = load("organism")
    with torch.no_grad():
        broken.hf.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises((InputError, ModelError)):
        logit_lens(broken, [organism.example()], finder="given")
