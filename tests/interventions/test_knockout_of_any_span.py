"""Knockout of any span from any other: the law against a forward with the same keys masked, and where controls lie."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import reference_forward
import tiny_models
import torch

from safekey_interp.capture.attention_mask import Cut, sight_of
from safekey_interp.capture.resample_ablation import read_matched, read_span
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.knockout_summary import summarise_knockout
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmenter import segment

ARCHITECTURES = ("llama", "qwen3", "gemma3_text", "phi3", "gpt_oss")
EXPRESSIONS = ("reasoning", "warning", "prompt", "first(warning) .. last(remark)", "remark + warning", "sentence(-1)")


def random_traces(seed: int, n: int = 3) -> list[Trace]:
    """Traces of different lengths, without U and K, each with two random spans of its response."""
    rng = np.random.default_rng(seed)
    traces = []
    for number, trace in enumerate(tiny_models.traces(n)):
        words = [at for at, (a, b) in enumerate(pairwise(trace.response)) if a == " " and b.isalpha()]
        a, b, c, d = sorted(rng.choice(words, 4, replace=False).tolist())
        spans = {"warning": [(a, b)], "remark": [(c, d)]}
        longer = trace.prompt + " Please." * number
        traces.append(trace.with_(spans=spans, prompt=longer, given={}, label=("harmful", "benign")[number % 2]))
    return traces


def masked(model: Model, trace: Trace, from_span: str, to_span: str, layers: range) -> tuple[Any, torch.Tensor]:
    """The encoding and all logits of a forward whose queries do not see the keys."""
    encoding = model.encode(trace, segment(trace, finder="given"), reads=("end",))
    n = len(encoding.input_ids)
    hidden = torch.zeros((1, 1, n, n), dtype=torch.bool)
    for row in encoding.positions(from_span):
        hidden[0, 0, row, list(encoding.positions(to_span))] = True
    with torch.no_grad(), reference_forward.joined_masks(model, hidden, layers):
        return encoding, model.hf(input_ids=encoding.input_ids[None], use_cache=False).logits[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_equals_a_forward_with_the_same_keys_masked(architecture: str, seed: int) -> None:
    model, traces, rng = tiny_models.tiny_model(architecture), random_traces(seed), np.random.default_rng(seed)
    # Of the two, the one that ends later has the queries.
    first = model.encode(traces[0], segment(traces[0], finder="given"), reads=("end",))
    pair = rng.choice(EXPRESSIONS, 2, replace=False).tolist()
    to_span, from_span = sorted(pair, key=lambda expression: first.positions(expression)[-1])
    seen: dict[str, list[torch.Tensor]] = {}

    def all_logits(logits: torch.Tensor, encoding: Any) -> float:
        seen.setdefault(encoding.trace_id, []).append(logits.clone())
        return float(logits[-1, 7])

    options: dict[str, Any] = {"controls": (), "finder": "given"}
    table: Any = knockout(model, traces, from_span, to_span, metric=all_logits, **options)
    # The beginning before the first query is shared: rows are padded on both sides.
    shared: Any = knockout(model, traces, from_span, to_span, metric="logprob(last(answer))", **options)
    assert set(table["trace_id"]) | set(table.attrs["left_out"]) == {trace.trace_id for trace in traces}
    assert len(table)
    for trace in traces:
        encoding, expected = masked(model, trace, from_span, to_span, range(model.n_layers))
        logits = seen[trace.trace_id]
        if trace.trace_id in table.attrs["left_out"]:
            assert encoding.positions(from_span)[-1] < encoding.positions(to_span)[0]
            continue
        torch.testing.assert_close(logits[1], expected, atol=1e-4, rtol=1e-4)
        assert (logits[0] - logits[1]).abs().max() > 1e-4
        last = encoding.positions("last(answer)")[0]
        value = expected[last - 1].log_softmax(-1)[encoding.input_ids[last]]
        row = shared.set_index("trace_id").loc[trace.trace_id]
        assert row["value"] == pytest.approx(float(value), abs=1e-4)
        assert row["n_q"] == len([at for at in encoding.positions(from_span) if at <= last])


def test_random_keys_lie_outside_every_tested_span_and_where_the_query_behind_the_span_sees_them() -> None:
    queries, keys, avoid = tuple(range(10, 40)), (*range(15, 18), *range(22, 24)), tuple(range(3, 6))
    cut = Cut(trace_id="t", queries=queries, keys=keys, layers=frozenset({0}), avoid=avoid)
    assert cut.reference == 23
    seen = np.arange(60) <= cut.reference
    for draw in range(40):
        found = sight_of(Cut(**(vars(cut) | {"draw": draw})), seen, seed=0)
        assert len(found.keys) == found.n_span == len(keys)
        assert found.n_pool == 23 - 1 - len(avoid) - (len(keys) - 1)
        assert not {0, *keys, *avoid} & set(found.keys.tolist())
        assert max(found.keys) < cut.reference
    behind = Cut(trace_id="t", queries=(10, 11), keys=(11, 30), layers=frozenset({0}))
    assert behind.reference == 11


def test_a_span_in_pieces_is_resampled_at_the_places_that_it_takes() -> None:
    model = tiny_models.tiny_model("llama")
    ids = torch.arange(5, 40)
    both = read_matched(model, ids, [3, 4, 9, 12], [13, 14, 20, 22])
    for position, place, at in ((3, 13, 0), (4, 14, 1), (9, 20, 2), (12, 22, 3)):
        alone = read_span(model, ids, [position], shift=place - position)
        for layer, (key, value) in alone.items():
            torch.testing.assert_close(both[layer][0][:, at], key[:, 0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(both[layer][1][:, at], value[:, 0], atol=1e-5, rtol=1e-5)


def test_every_control_stands_beside_a_span_of_ones_own_and_a_trace_without_it_is_named() -> None:
    model, traces = tiny_models.tiny_model("llama"), random_traces(0, n=5)
    traces[3] = traces[3].with_(spans={"warning": []})
    options: dict[str, Any] = {"n_random": 2, "n_dose": 1, "n_donors": 1, "finder": "given"}
    table: Any = knockout(model, traces, "answer", ("warning", "prompt"), metric="logprob(answer)", **options)
    assert set(table["control"]) == {"none", "outside_spans", "dose", "resample_same_label", "resample_other_label"}
    assert set(table["unit"]) == {"nats per token"}
    assert set(table.loc[table["trace_id"] == traces[3].trace_id, "to_span"]) == {"prompt"}
    alone: Any = knockout(model, traces, "answer", "warning", metric="logprob(answer)", **options)
    assert alone.attrs["left_out"] == {traces[3].trace_id: "it has none of the spans"}
    with pytest.raises(InputError, match=r"no token of first\(prompt\) could see answer"):
        knockout(model, traces, "first(prompt)", "answer", metric="logprob(answer)", **options)


def test_a_metric_that_is_read_before_the_span_is_not_moved_by_any_control() -> None:
    model, traces = tiny_models.tiny_model("llama"), random_traces(0, n=5)
    metric = ["logprob(answer)", 'logit_difference("a", "b") at last(prompt)']
    options: dict[str, Any] = {"n_random": 2, "n_dose": 1, "n_donors": 1, "finder": "given", "metric": metric}
    table: Any = knockout(model, traces, "answer", "warning", **options)
    before = table[table["metric"] == metric[1]]
    assert set(before["control"]) == {"none", "outside_spans", "dose", "resample_same_label", "resample_other_label"}
    assert before["effect"].abs().max() < 1e-5
    resampled = table[(table["metric"] == metric[0]) & table["control"].str.startswith("resample")]
    assert (resampled["effect"].abs() > 1e-6).all()


def test_a_planted_effect_on_a_span_of_ones_own_is_found_and_a_null_is_none() -> None:
    model, traces = tiny_models.tiny_model("llama"), random_traces(1, n=4)
    with torch.no_grad():
        attention = model.hf.model.layers[-1].self_attn
    metric = ["logprob(last(answer))", 'logit_difference("a", "b") at last(answer)']
    options: dict[str, Any] = {"metric": metric, "controls": (), "finder": "given"}
    found: Any = knockout(model, traces, "last(answer)", "warning", layers=[-1], **options)
    weight = attention.o_proj.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.zero_()
        null: Any = knockout(model, traces, "last(answer)", "warning", layers=[-1], **options)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    of_logits = found["metric"] == metric[1]
    assert (found.loc[of_logits, "effect"].abs() > 1e-4).all(), "its own position reads the span"
    assert (null["effect"].abs() < 1e-5).all(), "what attention reads there goes nowhere"
    assert (found.loc[~of_logits, "effect"].abs() < 1e-5).all(), "the last token of the answer predicts none of it"
    summary: Any = summarise_knockout(found)
    assert set(summary["unit"]) == {"nats per token", "logits"}
