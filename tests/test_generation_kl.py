"""KL between two models by depth: the hand calculation, in pieces as in one, on the very same tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny_model, traces

from safekey_interp import organism
from safekey_interp.errors import InputError, ModelError
from safekey_interp.generation import LocalEngine, Request, Sampling, kl
from safekey_interp.generation.kl import TokenSequence, check_same_vocabulary, measure_kl, summarise_kl
from safekey_interp.models import load


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
        sequence = TokenSequence.of(one, tokenizer=None)
        assert sequence.ids == (*one.input_ids, *one.new_ids)
        assert model.tokenizer.decode(sequence.ids[sequence.start :]) == one.response
    [plain, begun] = (TokenSequence.of(one, tokenizer=None) for one in found)
    table = measure_kl(model, load("organism:base"), found)
    assert table["token"].tolist() == [*plain.ids[plain.start :], *begun.ids[begun.start :]]


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
