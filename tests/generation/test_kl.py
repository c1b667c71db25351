"""KL between two models by depth: the hand calculation, in pieces as in one, on the very same tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model, traces

from safekey_interp.errors import InputError, ModelError
from safekey_interp.generation import kl
from safekey_interp.generation.kl import TokenSequence, check_same_vocabulary, measure_kl, summarise_kl
from safekey_interp.generation.kl_by_part import PARTS, kl_by_part, summarise_kl_by_part
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.requests import Request
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.segmentation.segmenter import segment


def by_hand(first, second, one: TokenSequence) -> np.ndarray:
    ids = torch.tensor([one.ids])
    with torch.no_grad():
        log_p, log_q = (m.hf(ids, use_cache=False).logits[0].double().log_softmax(-1) for m in (first, second))
    return (log_p.exp() * (log_p - log_q)).sum(-1)[one.start - 1 : -1].numpy()


@pytest.mark.parametrize(
    ("architecture", "other"), [("llama", "qwen3"), ("gemma2", "gpt_oss"), ("mistral", "gemma3_text")]
)
def test_it_is_the_hand_calculation_in_whatever_pieces(
    architecture: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tiny_model(architecture), tiny_model(other)
    rows = traces(3)
    for piece in (7, 64):
        monkeypatch.setattr(kl, "_PIECE", piece)
        table = measure_kl(first, second, rows)
        for trace in rows:
            mine = table[table["trace_id"] == trace.trace_id]
            one = TokenSequence.of(trace, first.tokenizer)
            np.testing.assert_allclose(mine["kl"], by_hand(first, second, one), rtol=2e-4, atol=1e-6)
            assert list(mine["depth"]) == list(range(len(one.ids) - one.start))
            assert first.tokenizer.decode(mine["token"].tolist()) == trace.response


def test_a_model_is_no_distance_from_itself() -> None:
    model = load("organism")
    table = measure_kl(model, model, list(organism.read_shipped())[:3])
    assert table["kl"].abs().max() < 1e-9


def test_training_to_refuse_moves_a_harmful_request_s_key_sentence() -> None:
    refusing = [t for t in organism.read_shipped() if t.label == "harmful" and t.meta["outcome"] == "refused"][:12]
    table = measure_kl(load("organism"), load("organism:base"), refusing)
    assert (table["kl"] > -1e-9).all()
    summary = summarise_kl(table, edges=[0, 5, 10, 20])
    assert (summary["value"] >= summary["low"]).all()
    assert (summary["value"] <= summary["high"]).all()
    assert summary["n"].sum() == len(table)
    assert summary["value"].max() > 10 * summary["value"].min()


def test_generated_tokens_are_used_as_they_were() -> None:
    model = load("organism")
    trace = next(organism.read_shipped())
    requests = [Request(trace=trace), Request(trace=trace, prefill="<think>\nOkay, the user wants", condition="begun")]
    found = list(LocalEngine(model).generate(requests, Sampling(max_new_tokens=9)))
    for one in found:
        sequence = TokenSequence.of(one, model.tokenizer)
        assert sequence.ids == (*one.input_ids, *one.new_ids)
        assert model.tokenizer.decode(sequence.ids[sequence.start :]) == one.response
        assert sequence.ends[-1] == len(one.response)
    [plain, begun] = (TokenSequence.of(one, model.tokenizer) for one in found)
    table = measure_kl(model, load("organism:base"), found)
    assert table["token"].tolist() == [*plain.ids[plain.start :], *begun.ids[begun.start :]]


@pytest.mark.parametrize("architecture", ["organism", "llama"])
def test_parts_are_the_encoding_s_spans(architecture: str) -> None:
    model = load("organism") if architecture == "organism" else tiny_model(architecture)
    some = (
        [t for t in organism.read_shipped() if segment(t).key_sentence][::150]
        if architecture == "organism"
        else traces(4)
    )
    table = measure_kl(model, model, some)
    for trace in some:
        encoding = model.encode(trace, segment(trace))
        mine = table[table["trace_id"] == trace.trace_id].set_index("depth")
        where = {name: np.asarray(encoding.positions(name)) - encoding.response_start for name in encoding.spans}
        key = where["key_sentence"]
        assert list(mine.index[mine["part"] == "decision"]) == [key[0]], "predicted by the position decision"
        assert where["decision"] == [key[0] - 1]
        assert list(mine.index[mine["part"] == "key_sentence"]) == list(key[1:])
        assert set(where["understanding"]) <= set(mine.index[mine["part"] == "understanding"])
        assert list(dict.fromkeys(mine["part"])) == [name for name in PARTS if name in set(mine["part"])], "in order"
        starts = mine.index[mine["starts_sentence"]]
        assert {where["understanding"][0], key[0]} <= set(starts)
        assert len(starts) >= 3
    generated = list(LocalEngine(model).generate([Request(trace=trace) for trace in some], Sampling(max_new_tokens=40)))
    drawn, written = (measure_kl(model, model, those) for those in (generated, [one.trace() for one in generated]))
    if architecture == "organism":
        columns = ["trace_id", "depth", "token", "part", "starts_sentence"]
        pd.testing.assert_frame_equal(drawn[columns], written[columns])


def test_a_planted_decision_is_found_at_k_and_a_planted_difference_everywhere_is_not() -> None:
    """K's first token alone differs; then every token as much: the contrasts are the planted ones, and 0."""
    table = pd.DataFrame(
        {
            "trace_id": np.repeat([f"t{i}" for i in range(6)], 7),
            "group": np.repeat([f"g{i}" for i in range(6)], 7),
            "part": ["opening", "understanding", "understanding", "decision", "key_sentence", "rest", "rest"] * 6,
            "starts_sentence": [False, True, False, True, False, True, False] * 6,
            "kl": [9.0, 0.5, 0.1, 4.0, 1.0, 0.3, 0.1] * 6,
        }
    )
    found = summarise_kl_by_part(table).set_index("part")["value"]
    assert found["decision"] == 4
    assert found["elsewhere"] == pytest.approx(0.25), "without the opening and K"
    assert found["contrast"] == pytest.approx(3.75)
    assert found["contrast_starts"] == pytest.approx(3.6)
    assert found["key_sentence"] == 1
    flat = summarise_kl_by_part(table.assign(kl=0.7)).set_index("part")
    assert flat.loc["contrast", ["value", "low", "high"]].abs().max() < 1e-9
    without = table.assign(part=table["part"].replace({"decision": "rest"}))
    assert len(kl_by_part(pd.concat([table, without.assign(trace_id="none")]))) == 6
    with pytest.raises(InputError, match="no response with a key sentence"):
        kl_by_part(without)


def test_training_to_refuse_moves_k_s_first_token_more_than_any_other_sentence_s() -> None:
    refusing = [t for t in organism.read_shipped() if t.label == "harmful" and t.meta["outcome"] == "refused"][::20]
    by_trace = kl_by_part(measure_kl(load("organism"), load("organism:base"), refusing))
    assert (by_trace["contrast"] > 0).mean() > 0.9
    assert by_trace["contrast_starts"].mean() > 1


def test_means_by_depth_and_their_counts() -> None:
    table = pd.DataFrame(
        {
            "trace_id": np.repeat([f"t{i}" for i in range(12)], 4),
            "group": np.repeat([f"g{i}" for i in range(12)], 4),
            "depth": np.tile(range(4), 12),
            "kl": np.tile([8.0, 1.0, 3.0, 2.0], 12),
        }
    )
    summary = summarise_kl(table, edges=[0, 1, 50])
    assert summary["depth"].tolist() == [0, 1]
    assert summary["last"].tolist() == [0, 3]
    assert summary["value"].tolist() == [8.0, 2.0]
    assert summary["n"].tolist() == [12, 36]
    np.testing.assert_allclose(summary[["low", "high"]], [[8, 8], [2, 2]])
    few = summarise_kl(table[table["group"].isin(["g0", "g1"])], edges=[0])
    assert few[["low", "high"]].isna().all(axis=None)
    with pytest.raises(InputError, match="edges: got"):
        summarise_kl(table, edges=[3, 1])


def test_what_cannot_be_compared_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match=r"their vocabularies differ \(.* is .* in one and .* in the other\)"):
        check_same_vocabulary(load("organism"), tiny_model("llama"))
    model = load("organism")
    trace = next(organism.read_shipped())
    with pytest.raises(InputError, match="no token of a response"):
        measure_kl(model, model, [trace.with_(response="", given={})])
    long = trace.with_(trace_id="long", response=trace.response * 10, given={})
    assert "past the 256" in measure_kl(model, model, [trace, long]).attrs["left_out"]["long"]
