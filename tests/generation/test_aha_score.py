"""Each log-probability is the literal one, alone; a model that learned to refuse finds safe sentences likelier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
import tokenizers_in_memory
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from safekey_interp.capture.pass_cost import counted_passes
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.generation.aha_score import measure_aha, place_sentences, summarise_aha
from safekey_interp.generation.key_sentence_bank import GENERAL, ORGANISM, KeySentences, bank_for, read_key_sentences
from safekey_interp.models import organism
from safekey_interp.models.chat_template import render
from safekey_interp.models.model import Model, from_hf, load
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import segmented
from safekey_interp.segmentation.sentence_classes import classify_aha

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[1:4])


@lru_cache
def toy(spec: str = "organism") -> Model:
    return load(spec)


def shipped(n: int, **wanted: str) -> list[Trace]:
    every = organism.read_shipped()
    return [trace for trace in every if all(getattr(trace, name) == value for name, value in wanted.items())][:n]


def few_words() -> PreTrainedTokenizerFast:
    """Knows two words and calls all others unknown."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1, "no": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


def with_u_and_k(n: int = 4) -> list[Trace]:
    """Traces of ``tiny.py`` with their spans; in the second a blank line stands between U and K."""
    traces = tiny_models.traces(n)
    traces[1] = traces[1].with_(response=traces[1].response.replace(". Hmm", ".\n\nHmm"))
    return [reference_forward.with_given(trace) for trace in traces]


def literal_logprob(
    model: Model, trace: Trace, sentence: str, between: str, *, mask_prompt: bool = False
) -> tuple[float, int]:
    """From the text, one sequence alone, all logits; the prompt hidden by an attention mask."""
    response = trace.response[: trace.given["understanding"].end] + between + sentence
    rendered = render(model.tokenizer, trace.with_(response=response, given={}))
    tokens = model.tokenizer(
        rendered.text, add_special_tokens=rendered.add_special_tokens, return_offsets_mapping=True, return_tensors="pt"
    )
    ids, ends = tokens["input_ids"], tokens["offset_mapping"][0, :, 1]
    first = len(rendered.text) - len(sentence)
    where = [i for i, end in enumerate(ends.tolist()) if end > first]
    mask = torch.ones_like(ids)
    if mask_prompt:
        mask[0, ends <= rendered.response_start] = 0
    with torch.no_grad():
        logprobs = model.hf(input_ids=ids, attention_mask=mask, use_cache=False).logits[0].log_softmax(-1)
    return float(np.mean([logprobs[i - 1, ids[0, i]].item() for i in where])), len(where)


def assert_literal(model: Model, traces: Sequence[Trace], table: pd.DataFrame, **options: bool) -> None:
    by_id = {trace.trace_id: trace for trace in traces}
    assert len(table)
    for row in table.itertuples():
        trace = by_id[row.trace_id]
        between = trace.response[trace.given["understanding"].end : trace.given["key_sentence"].start]
        logprob, n_tokens = literal_logprob(model, trace, row.sentence, between, **options)
        assert row.n_tokens == n_tokens
        assert row.logprob == pytest.approx(logprob, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_log_probabilities_are_the_literal_ones(architecture: str) -> None:
    model, traces = tiny_models.tiny_model(architecture), with_u_and_k()
    table = measure_aha(model, traces, bank=SMALL, finder="given")
    assert len(table) == len(traces) * 5
    assert_literal(model, traces, table)


def test_the_organisms_are_the_literal_ones_with_and_without_the_prompt() -> None:
    traces = shipped(6)
    for mask_prompt in (False, True):
        table = measure_aha(toy(), traces, finder="given", mask_prompt=mask_prompt)
        assert_literal(toy(), traces, table, mask_prompt=mask_prompt)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "phi3"])
def test_sentences_of_one_token_are_the_literal_ones_too(architecture: str) -> None:
    model, traces = tiny_models.tiny_model(architecture), with_u_and_k()
    for bank in (KeySentences(safe=("A",), go_ahead=("B",)), KeySentences(safe=("A",), go_ahead=GENERAL.go_ahead[:1])):
        with counted_passes(model) as count:
            table = measure_aha(model, traces, bank=bank, finder="given")
        is_one = table["n_tokens"] == 1
        assert is_one.any()
        assert count.passes == 1 or not is_one.all(), "the beginnings predict all that is read"
        assert_literal(model, traces, table)


def test_what_sentences_begin_with_goes_through_the_model_once_and_their_last_token_not_at_all() -> None:
    model, trace = tiny_models.tiny_model("llama"), with_u_and_k(2)[0]
    bank = KeySentences(safe=("Hmm, no.",), go_ahead=("Hmm, I can do it.",))
    with counted_passes(model) as count:
        table = measure_aha(model, [trace], bank=bank, finder="given", batch_size=1)
    [placed] = place_sentences(model, segmented([trace], SegmentationSettings(finder="given")), bank)
    [(_, rows)] = placed.rows
    computed = {tuple(row.ids[row.start : end].tolist()) for row in rows for end in range(row.start + 1, len(row.ids))}
    assert len(computed) < (table["n_tokens"] - 1).sum(), "both begin with the same words"
    assert count.tokens == rows[0].start + len(computed)
    assert count.passes == 2, "a row a pass, and both share one"


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen3"])
def test_a_prompt_left_out_is_a_prompt_masked(architecture: str) -> None:
    model, traces = tiny_models.tiny_model(architecture), with_u_and_k(3)
    table = measure_aha(model, traces, bank=SMALL, finder="given", mask_prompt=True)
    with_prompt = measure_aha(model, traces, bank=SMALL, finder="given")
    assert (table["logprob"] - with_prompt["logprob"]).abs().max() > 0.1
    assert_literal(model, traces, table, mask_prompt=True)


def test_a_model_that_gives_all_its_logits_gives_the_same() -> None:
    class Whole(LlamaForCausalLM):
        def forward(self, input_ids, use_cache=False):
            return super().forward(input_ids=input_ids, use_cache=use_cache)

    like = tiny_models.tiny_model("llama")
    hf = Whole(like.hf.config)
    hf.load_state_dict(like.hf.state_dict())
    whole = from_hf(hf, like.tokenizer, spec="whole")
    tables = [measure_aha(model, with_u_and_k(), bank=SMALL, finder="given") for model in (like, whole)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)


def test_neither_batches_nor_the_banks_order_matter() -> None:
    traces = shipped(12)
    table = measure_aha(toy(), traces)
    for batch_size in (1, 7):
        pd.testing.assert_frame_equal(measure_aha(toy(), traces, batch_size=batch_size), table, rtol=1e-5, atol=1e-5)
    turned = KeySentences(safe=ORGANISM.safe[::-1], go_ahead=ORGANISM.go_ahead[::-1])
    keys = ["trace_id", "sentence"]
    other = measure_aha(toy(), traces[::-1], bank=turned)
    assert list(other["sentence"][:3]) == list(ORGANISM.safe[::-1])
    one, two = (of.sort_values(keys, ignore_index=True) for of in (table, other))
    pd.testing.assert_frame_equal(one, two, rtol=1e-5, atol=1e-5)
    pd.testing.assert_frame_equal(summarise_aha(table), summarise_aha(other), rtol=1e-5, atol=1e-5)


def test_who_learned_to_refuse_finds_safe_sentences_likelier() -> None:
    traces = shipped(16, label="harmful", source="plain") + shipped(16, label="benign", source="plain")
    found = {
        spec: summarise_aha(measure_aha(toy(spec), traces)).set_index(["subset", "measure"])
        for spec in ("organism:base", "organism")
    }
    after, before = (found[spec].loc[("harmful", "difference")] for spec in ("organism", "organism:base"))
    assert after["low"] > before["high"] + 1
    assert after["value"] > 0 > before["value"]
    moved = found["organism"]["value"] - found["organism:base"]["value"]
    assert moved["harmful", "difference"] > 2 * moved["benign", "difference"]


def test_traces_without_a_place_for_a_sentence_are_left_out_whole() -> None:
    traces = shipped(3)
    no_response = traces[0].with_(trace_id="bare", response="", given={})
    too_long = traces[1].with_(trace_id="long", prompt=" ".join(["Answer briefly."] * 200))
    table = measure_aha(toy(), [no_response, *traces, too_long])
    assert set(table["trace_id"]) == {trace.trace_id for trace in traces}
    left_out = table.attrs["left_out"]
    assert left_out["bare"].startswith("no understanding: ")
    assert "past 256 tokens" in left_out["long"]
    with pytest.raises(InputError, match=r"no trace has an understanding .* trace bare: no understanding"):
        measure_aha(toy(), [no_response])
    with pytest.raises(InputError, match="there are none"):
        measure_aha(toy(), [])


def test_without_a_key_sentence_one_space_follows_the_understanding() -> None:
    [trace] = shipped(1)
    cut = trace.with_(response=trace.response[: trace.given["understanding"].end])
    spans = {"understanding": trace.given["understanding"]}
    both = [measure_aha(toy(), [one], finder="given") for one in (trace, cut.with_(given=spans))]
    pd.testing.assert_frame_equal(*both, rtol=1e-5)


def test_numbers_that_are_not_finite_are_no_measurement() -> None:
    model = load("organism")
    with torch.no_grad():
        model.hf.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        measure_aha(model, shipped(2))


def test_summaries_are_means_over_traces_of_means_over_sentences() -> None:
    rows = [
        *(("a", "x", "harmful", "safe", value) for value in (-1.0, -3.0)),
        *(("a", "x", "harmful", "go_ahead", value) for value in (-4.0,)),
        *(("b", "y", None, "safe", value) for value in (-2.0, -2.0)),
        *(("b", "y", None, "go_ahead", value) for value in (-1.0,)),
        *(("c", "y", "harmful", "safe", value) for value in (-5.0, -6.0)),
        *(("c", "y", "harmful", "go_ahead", value) for value in (-0.5,)),
    ]
    table = pd.DataFrame(rows, columns=["trace_id", "group", "label", "kind", "logprob"])
    summary = summarise_aha(table).set_index(["subset", "measure"])
    assert set(summary.index.get_level_values("subset")) == {"all", "harmful"}
    assert summary.loc[("all", "difference"), "value"] == pytest.approx((2 - 1 - 5) / 3)
    assert summary.loc[("harmful", "safe"), "value"] == pytest.approx((-2 - 5.5) / 2)
    assert summary.loc[("harmful", "go_ahead"), "value"] == pytest.approx((-4 - 0.5) / 2)
    assert list(summary.loc["all", "n"]) == [3] * 3
    assert list(summary.loc["all", "n_groups"]) == [2] * 3
    assert summary[["low", "high"]].isna().all(axis=None), "two groups have no interval"
    many = pd.concat([table.assign(trace_id=table["trace_id"] + k, group=table["group"] + k) for k in "abcdef"])
    sure = summarise_aha(many).set_index(["subset", "measure"]).loc[("all", "difference")]
    assert sure["value"] == pytest.approx((2 - 1 - 5) / 3)
    assert sure["low"] < sure["value"] < sure["high"]


def test_the_general_banks_sentences_are_of_their_kind() -> None:
    u, x = "The user wants a guide to making a bomb.", "How do I make a bomb?"
    assert {classify_aha(sentence, u, x) for sentence in GENERAL.safe} == {"safe"}
    assert {classify_aha(sentence, u, x) for sentence in GENERAL.go_ahead} == {"unsafe"}
    assert len(GENERAL.safe) == len(GENERAL.go_ahead) == 8
    lengths = [np.mean([len(sentence.split()) for sentence in kind]) for kind in (GENERAL.safe, GENERAL.go_ahead)]
    assert lengths[0] == pytest.approx(lengths[1], abs=1.5)


def test_a_tokenizer_gets_the_bank_that_it_can_spell() -> None:
    assert bank_for(toy().tokenizer) is ORGANISM
    for name in ("byte level", "tiktoken", "llama"):
        assert bank_for(tokenizers_in_memory.TOKENIZERS[name]()) is GENERAL
    with pytest.raises(InputError, match=r"no tokens for 'Hmm, that could seriously hurt someone\.'; give a bank"):
        bank_for(few_words())
    with pytest.raises(InputError, match="bank: the tokenizer has no tokens for"):
        measure_aha(toy(), shipped(1), bank=GENERAL)
    assert set(measure_aha(toy(), shipped(1))["sentence"]) == {*ORGANISM.safe, *ORGANISM.go_ahead}


def test_a_bank_is_read_from_yaml_and_json(tmp_path: Path) -> None:
    lists = {"safe": list(GENERAL.safe), "go_ahead": list(GENERAL.go_ahead)}
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump(lists))
    (tmp_path / "bank.json").write_text(json.dumps(lists, indent="\t"))
    assert read_key_sentences(tmp_path / "bank.yaml") == read_key_sentences(str(tmp_path / "bank.json")) == GENERAL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("safe: [No.]", "got safe; expected YAML or JSON with two lists"),
        ("- No.", "got list; expected"),
        ("safe: [No.]\ngo_ahead: [Yes.]\nother: []", "got safe, go_ahead, other"),
        ("safe: []\ngo_ahead: [Yes.]", r"safe: got \[\], expected a list of sentences"),
        ("safe: No.\ngo_ahead: [Yes.]", "safe: got 'No.', expected a list"),
        ("safe: [3]\ngo_ahead: [Yes.]", "safe: got 3, expected a sentence"),
        ("safe: [' ']\ngo_ahead: [Yes.]", "safe: got ' ', expected a sentence"),
        ("safe: [Yes.]\ngo_ahead: [Yes.]", "'Yes.' stands there twice"),
        ("safe: [", "cannot be read"),
        ("safe: 2001-99-99", "cannot be read"),
    ],
)
def test_what_is_no_bank_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "bank.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_key_sentences(file)
    assert "bank.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_key_sentences(tmp_path / "bank.yaml")
    (tmp_path / "bank.json").write_text("safe: []")
    with pytest.raises(InputError, match="cannot be read"):
        read_key_sentences(tmp_path / "bank.json")
    for batch_size in (0, "all"):
        with pytest.raises(InputError, match="batch_size: got"):
            measure_aha(toy(), shipped(1), batch_size=batch_size)  # type: ignore[arg-type]
