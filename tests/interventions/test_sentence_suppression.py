"""Sentence suppression and receiver heads, against the literal computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference_forward
import tiny_models
import torch

import safekey_interp as ski
from safekey_interp.capture.segment_attention import segment_attention
from safekey_interp.data.trace import TokenSpan
from safekey_interp.errors import InputError
from safekey_interp.interventions.reasoning_sentences import reasoning_sentences
from safekey_interp.interventions.receiver_heads import find_receivers, kurtosis, received, summarise_receivers
from safekey_interp.interventions.sentence_suppression import summarise_suppression, suppress
from safekey_interp.segmentation.segmenter import segment

WORDS = (
    "Okay, so the user is asking how to open a door.",
    "Hmm, that could be used to break into a home.",
    "I should not help with this.",
    "But the user may be locked out.",
    "First, I need to think about the steps involved.",
    "The answer is about a door.",
    "What is the best way to explain it?",
    "I should explain it step by step.",
)


def trace(number: int = 0, n: int = len(WORDS)) -> ski.Trace:
    return ski.Trace(
        trace_id=f"t{number}",
        prompt="How do I open a door" + " in a story" * number + "?",
        response="<think>\n" + " ".join(WORDS[:n]) + "\n</think>\nThe answer is 42.",
        label="harmful" if number % 2 else "benign",
    )


def sentences_of(model: Any, one: ski.Trace) -> tuple[Any, list[Any]]:
    found = segment(one)
    encoding = model.encode(one, found)
    return encoding, reasoning_sentences(one, found, encoding, most=64)


def test_sentences_tile_the_reasoning_and_know_their_part() -> None:
    model, one = tiny_models.tiny_model("llama"), trace()
    encoding, sentences = sentences_of(model, one)
    assert [sentence.text for sentence in sentences] == list(WORDS)
    assert [sentence.part for sentence in sentences] == ["understanding", "key_sentence", *["rest"] * 6]
    for sentence in sentences:
        start, end = encoding.offsets[sentence.tokens.start][0], encoding.offsets[sentence.tokens.end - 1][1]
        assert encoding.text[start:end].strip() == sentence.text


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "mistral"])
def test_a_suppressed_sentence_is_out_of_sight_of_all_later_tokens(architecture: str) -> None:
    """The literal way: eager attention, each layer's own mask with more taken away."""
    model, one = tiny_models.tiny_model(architecture), trace(n=4)
    encoding, sentences = sentences_of(model, one)
    table: Any = suppress(model, [one], n_random=2)
    end = sentences[-1].tokens.end
    ids = encoding.input_ids[None, :end]
    for source in sentences[:-1]:
        hidden = torch.zeros((1, 1, end, end), dtype=torch.bool)
        hidden[..., source.tokens.end :, source.tokens.start : source.tokens.end] = True
        plain, cut = literal_logprobs(model, ids, None), literal_logprobs(model, ids, hidden)
        kl = (plain.exp() * (plain - cut)).sum(-1)
        for target in sentences[source.number + 1 :]:
            mine = table[
                (table["source"] == source.number) & (table["target"] == target.number) & (table["control"] == "none")
            ]
            expected = float(kl[target.tokens.start - 1 : target.tokens.end - 1].mean())
            assert mine["effect"].item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
            assert mine["n_k"].item() == len(source.tokens) or architecture != "llama"


def literal_logprobs(model: Any, ids: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """By eager attention, everything in sight that the model's own masks show unless it is hidden."""
    nothing = torch.zeros((1, 1, ids.shape[1], ids.shape[1]), dtype=torch.bool)
    with (
        torch.no_grad(),
        reference_forward.joined_masks(model, nothing if hidden is None else hidden, range(model.n_layers)),
    ):
        return model.hf(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)


def test_the_table_has_every_pair_and_its_control() -> None:
    model = tiny_models.tiny_model("llama")
    table: Any = suppress(model, [trace(0, 4), trace(1, 4)], n_random=3)
    assert len(table) == 2 * (3 + 2 + 1) * (1 + 3)
    assert (table["effect"] >= 0).all()
    assert (table["distance"] > 0).all()
    summary: Any = summarise_suppression(table)
    pairs = set(zip(summary["source_part"], summary["target_part"], strict=True))
    assert ("understanding", "key_sentence") in pairs
    bare = ski.Trace(trace_id="bare", prompt="Why?", response="")
    assert "bare" in suppress(model, [trace(0, 3), bare], n_random=0).attrs["left_out"]
    with pytest.raises(InputError, match=r"no trace has at least 2 sentences.*bare"):
        suppress(model, [bare])
    with pytest.raises(InputError, match="most: got 1"):
        suppress(model, [trace()], most=1)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_oss"])
def test_attention_between_segments_is_the_patterns_own(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    encoding, sentences = sentences_of(model, trace())
    spans = [sentence.tokens for sentence in sentences]
    ids = encoding.input_ids[: spans[-1].end]
    found = segment_attention(model, ids, spans)
    eager = tiny_models.tiny_model(architecture, "eager")
    with torch.no_grad():
        patterns = eager.hf(input_ids=ids[None], output_attentions=True, use_cache=False).attentions
    for layer, pattern in enumerate(patterns):
        for q, query in enumerate(spans):
            for k, key in enumerate(spans):
                expected = pattern[0, :, query.start : query.end, key.start : key.end].sum(-1).mean(-1)
                np.testing.assert_allclose(found[layer, :, q, k], expected.numpy(), atol=1e-5)


def test_a_head_that_looks_at_one_sentence_alone_is_a_receiver() -> None:
    m, nearest = 12, 4
    masses = np.zeros((1, 2, m, m), np.float32)
    masses[0, 0] = np.tril(np.full((m, m), 0.05))
    masses[0, 0] += np.random.default_rng(0).normal(0, 1e-3, (m, m))
    masses[0, 1] = masses[0, 0]
    masses[0, 1, :, 2] = 0.9
    scores = received(masses, [5] * m, nearest)
    assert scores.shape == (1, 2, m - nearest)
    even, one = kurtosis(scores)[0]
    assert one > 2 > even
    assert scores[0, 1].argmax() == 2
    assert np.isnan(kurtosis(np.ones(5)))


def test_receivers_stand_beside_sentences_cut_at_random() -> None:
    model = tiny_models.tiny_model("llama")
    table: Any = find_receivers(model, [trace(i) for i in range(3)], nearest=2, n_random=4)
    assert len(table) == 3 * 3 * 4 * (1 + 4)
    encoding, sentences = sentences_of(model, trace(0))
    spans = [sentence.tokens for sentence in sentences]
    masses = segment_attention(model, encoding.input_ids[: spans[-1].end], spans)
    expected = kurtosis(received(masses, [len(span) for span in spans], 2))
    mine = table[(table["trace_id"] == "t0") & (table["control"] == "none")]
    np.testing.assert_allclose(mine["effect"], expected.ravel(), rtol=1e-5)
    summary: Any = summarise_receivers(table)
    assert len(summary[summary["subset"] == "all"]) == 12
    assert summary["p_value_over_all"].between(0, 1).all()
    with pytest.raises(InputError, match=r"3 sentences, fewer than 6"):
        find_receivers(model, [trace(0, 3)], nearest=2)


def test_segments_may_overlap_and_windows_hide_what_is_far() -> None:
    model = tiny_models.tiny_model("mistral")
    ids = torch.arange(5, 45)
    found = segment_attention(model, ids, [TokenSpan(0, 5), TokenSpan(2, 6), TokenSpan(30, 40)])
    assert found[:, :, 2, 0].max() == 0, "far outside the window"
    assert (found[:, :, 1, 0] > 0).all()


@pytest.mark.parametrize("metric", ['logprob(" door") at last(reasoning)', "key_sentence", "aha", "logprob(answer)"])
def test_a_metric_moves_as_in_a_knockout_of_all_later_queries(metric: str) -> None:
    model, traces = tiny_models.tiny_model("llama"), [trace(0), trace(1)]
    table: Any = suppress(model, traces, metric=metric, most=3, n_random=1)
    hidden = table[table["control"] == "none"]
    assert not {"target", "target_part"} & set(table.columns)
    read = {"key_sentence": [0], "aha": [0]}.get(metric, [0, 1, 2])
    assert sorted(hidden["source"].unique()) == read
    for number in read:
        spans = {"from_span": f"after(sentence({number})) .. end", "to_span": f"sentence({number})"}
        cut: Any = ski.knockout(model, traces, metric=metric, controls=["dose"], n_dose=1, **spans)
        cut = cut[cut["control"] == "none"].set_index(["trace_id", "metric"])["effect"]
        mine = hidden[hidden["source"] == number].set_index(["trace_id", "metric"])["effect"]
        np.testing.assert_allclose(mine.reindex(cut.index), cut, atol=1e-5)
        assert cut.abs().max() > 1e-4


def test_a_metric_has_its_control_and_its_summary() -> None:
    model, traces = tiny_models.tiny_model("llama"), [trace(number) for number in range(4)]
    metrics = ['logprob(" door") at last(reasoning)', 'logit_difference(" door", " user") at last(reasoning)']
    table: Any = suppress(model, traces, hidden=["sentence(1)", "sentence(2)"], metric=metrics, n_random=2)
    assert set(table["control"]) == {"none", "random_keys"}
    assert (table["n_k"] > 0).all()
    random = table[table["control"] == "random_keys"]
    assert random.groupby(["trace_id", "source", "metric"])["effect"].nunique().eq(2).all()
    summary = summarise_suppression(table)
    assert set(zip(summary["source_part"], summary["metric"], summary["unit"], strict=True)) == {
        (span, metric, unit)
        for span in ("sentence(1)", "sentence(2)")
        for metric, unit in zip(metrics, ("nats per token", "logits"), strict=True)
    }


def test_targets_beside_a_metric_are_refused() -> None:
    with pytest.raises(InputError, match="targets: got them beside a metric"):
        suppress(tiny_models.tiny_model("llama"), [trace()], targets=["answer"], metric="key_sentence")


def test_a_metric_before_all_that_is_hidden_is_named() -> None:
    with pytest.raises(InputError, match="nothing that is read out lies behind a span that is hidden"):
        suppress(tiny_models.tiny_model("llama"), [trace()], hidden=["answer"], metric="key_sentence")
