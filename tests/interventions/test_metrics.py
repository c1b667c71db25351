"""Metrics: values by hand from a plain forward, their notation, and what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_forward
import tiny_models
import torch

import safekey_interp as ski
from safekey_interp.errors import InputError
from safekey_interp.interventions.activation_patching import patch
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.direct_logit_attribution import rank_heads
from safekey_interp.interventions.logit_lens_scores import logit_lens
from safekey_interp.interventions.metric_registry import METRICS, parse_metric
from safekey_interp.interventions.metric_trajectory import measure_trajectory
from safekey_interp.interventions.sentence_suppression import suppress
from safekey_interp.interventions.steering import steer
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.segmentation.segmenter import segment

ARCHITECTURES = ("llama", "qwen3", "gemma3_text", "phi3", "gpt_oss")
WARNING = [(9, 33)]


def traces(n: int = 3) -> list[ski.Trace]:
    """Traces with U and K, and a span of their own before K."""
    return [trace.with_(spans={"warning": WARNING}) for trace in reference_forward.with_spans(n)]


def records(folder: Path, model: ski.Model) -> dict[str, Any]:
    """A probe and a direction, saved."""
    rng = np.random.default_rng(0)
    states, labels = rng.normal(size=(12, model.d_model)), ["harmful", "benign"] * 6
    groups = [str(number) for number in range(12)]
    about: dict[str, Any] = {"layer": 1, "site": "resid_post"}
    probe = Probe.fit(states, labels, groups, n_controls=2, position="last(warning)", **about)
    vector = rng.normal(size=model.d_model)
    found = {"probe": probe, "direction": Direction(vector=vector / np.linalg.norm(vector), norm=1.0, **about)}
    for name, record in found.items():
        record.save(folder / f"{name}.safetensors")
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_metric_equals_its_value_by_hand(architecture: str, tmp_path: Path) -> None:
    model, saved = tiny_models.tiny_model(architecture), {}
    saved = records(tmp_path, model)
    token, other = (model.tokenizer(text)["input_ids"] for text in ("a", "b"))
    metrics: list[Any] = [
        "key_sentence",
        "logprob(warning)",
        'logprob(" Hmm no") at last(warning)',
        'logit_difference("a", "b") at warning',
        f"probe({tmp_path / 'probe.safetensors'})",
        f"probe({tmp_path / 'direction.safetensors'}) at understanding",
        ski.FunctionMetric(function=lambda logits, encoding: logits[:, 7].sum(), at="key_sentence", label="sum"),
    ]
    # Beside cuts in one pass: prefixes are shared and padded, and the baseline is the model as it is.
    table: Any = knockout(model, traces(), "decision", "prompt", metric=metrics, controls=(), finder="given")
    names = list(dict.fromkeys(table["metric"]))
    assert dict(zip(table["metric"], table["unit"], strict=True)) == {
        **dict.fromkeys(names[:3], "nats per token"),
        names[3]: "logits",
        **dict.fromkeys(names[4:], "score"),
    }
    for trace in traces():
        encoding = model.encode(trace, segment(trace, finder="given"), reads=("end",))
        with torch.no_grad():
            output = model.hf(encoding.input_ids[None], use_cache=False, output_hidden_states=True)
        logits, states = output.logits[0], output.hidden_states[2][0].double().numpy()

        def logprob(expression: str, encoding: Any = encoding, logits: Any = logits) -> float:
            at = torch.tensor(list(encoding.positions(expression)))
            return float(logits.log_softmax(-1)[at - 1, encoding.input_ids[at]].double().mean())

        where = list(encoding.positions("warning"))
        last, understanding = encoding.positions("last(warning)")[0], list(encoding.positions("understanding"))
        cut = encoding.offsets[last][1]
        ids = model.tokenizer(encoding.text[:cut] + " Hmm no", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            behind = model.hf(torch.tensor(ids)[None], use_cache=False).logits[0].log_softmax(-1)
        by_hand = [
            logprob("key_sentence"),
            logprob("warning"),
            float(np.mean([float(behind[i - 1, ids[i]]) for i in range(last + 1, len(ids))])),
            float((logits[where, token[0]] - logits[where, other[0]]).double().mean()),
            float(saved["probe"].score(states[[last]])[0]),
            float(saved["direction"].project(states[understanding]).mean()),
            float(logits[: encoding.positions("last(key_sentence)")[0] + 1, 7].sum()),
        ]
        found = table[table["trace_id"] == trace.trace_id].set_index("metric")["baseline"]
        assert list(found[names]) == pytest.approx(by_hand, abs=1e-3, rel=1e-4)


def test_a_text_in_the_place_of_a_span_is_that_span_and_ks_own_words_are_k() -> None:
    model, of = tiny_models.tiny_model("llama"), traces(1)
    k = segment(of[0], finder="given").key_sentence
    assert k is not None
    own = f'logprob("{k.text(of[0].response)}")'
    table: Any = knockout(model, of, "key_sentence", "warning", metric=["key_sentence", own], controls=())
    mine, text = (table[table["metric"] == name].iloc[0] for name in ("key_sentence", own))
    for column in ("baseline", "value"):
        assert text[column] == pytest.approx(mine[column], abs=1e-5)


def test_every_intervention_takes_them_and_defaults_are_the_two_first() -> None:
    model, of = tiny_models.tiny_model("llama"), traces(4)
    direction = Direction(vector=np.eye(32)[0], norm=3.0, layer=1, site="resid_post")
    given: dict[str, Any] = {"finder": "given", "metric": "logprob(last(warning))"}
    tables = [
        knockout(model, of, "warning", "prompt", controls=(), **given),
        steer(model, of, direction, controls=(), positions=["prompt"], mode="add", scales=9.0, **given),
        logit_lens(model, of, n_others=0, **given),
    ]
    for table in tables:
        assert set(table["metric"]) == {"logprob(last(warning))"}
        assert table["value"].notna().all()
    assert (tables[1]["effect"].abs() > 0).all()
    last: Any = tables[2].groupby("trace_id")[["layer", "value", "output"]].last()
    assert np.allclose(last["value"], last["output"], atol=1e-4), "the last layer is the model's own output"
    both = knockout(model, of, metric=["aha", "key_sentence"], controls=(), finder="given")
    plain = knockout(model, of, controls=(), finder="given")
    assert both.drop(columns="unit").equals(plain)


def test_states_are_swapped_between_traces_of_two_values_of_a_column() -> None:
    model, of = tiny_models.tiny_model("llama"), traces(4)
    pairs = [trace.with_(group="one", meta={"correct": number % 2}) for number, trace in enumerate(of)]
    options: dict[str, Any] = {"label_by": "correct", "source": "0", "layers": [1], "n_random": 0, "finder": "given"}
    table: Any = patch(model, pairs, positions=["warning", "last(prompt)"], metric="logprob(last(warning))", **options)
    assert set(table["trace_id"]) == {"t1", "t3"}
    assert set(table["source_id"]) == {"t0"}
    assert (table["effect"].abs() > 0).all()
    assert table.attrs["attribution_correlation"]["n"] == len(table)
    with pytest.raises(InputError, match="source: got '2', expected one of two values of correct, which has 0, 1"):
        patch(model, pairs, label_by="correct", source="2", finder="given")


def test_any_span_is_hidden_from_any_later_one_and_trajectories_are_aligned_at_it() -> None:
    model, of = tiny_models.tiny_model("llama"), traces(2)
    spans: dict[str, Any] = {"hidden": ["warning", "answer"], "targets": ["key_sentence", "prompt"]}
    table: Any = suppress(model, of, n_random=1, finder="given", **spans)
    assert set(zip(table["source_part"], table["target_part"], strict=True)) == {("warning", "key_sentence")}
    assert (table.loc[table["control"] == "none", "effect"] > 0).all()
    reader = Direction(vector=np.eye(32)[0], norm=1.0, layer=1, site="resid_post")
    scores: Any = measure_trajectory(model, of, reader, align="last(warning)", controls=(), finder="given")
    for trace in of:
        encoding = model.encode(trace, segment(trace, finder="given"))
        rows = scores[scores["trace_id"] == trace.trace_id]
        assert int(rows.loc[rows["offset"] == 0, "position"].iloc[0]) == encoding.positions("last(warning)")[0]


@pytest.mark.parametrize(
    "notation",
    ["aha", "key_sentence", "logprob(first(a) .. b + c)", 'logprob("x (\\"y\\") at z") at last((a))', "aha at last(a)"],
)
def test_notation_reads_what_it_writes(notation: str) -> None:
    metric = parse_metric(notation)
    assert parse_metric(metric.name) == metric
    assert parse_metric(notation.replace('"', "'") if "\\" not in notation else notation) == metric


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "expected one of aha, key_sentence"),
        ("loss", "expected one of aha, key_sentence"),
        ("logprob", r"expected logprob\(\"text\"\)"),
        ('logprob("")', "one text that is not empty"),
        ("logprob(a", "expected one of"),
        ("logprob(a b)", "span expression 'a b'"),
        ("logprob(a) at b", "read where it stands"),
        ('logprob("x") at nowhere(', "got nowhere"),
        ("key_sentence at prompt", "key_sentence alone"),
        ('logit_difference("a")', "two tokens in quotes"),
        ('logit_difference("a", "a")', "the same token twice"),
        ('logit_difference("a long text", "b")', "token 'a long text': got .* tokens"),
        ("logprob('\\x')", "texts in quotes"),
        ("probe(/nowhere)", "cannot be read"),
        ("logprob(nowhere)", "span 'nowhere': no trace has one"),
        ([], "metric: got none"),
        (["aha", "aha"], "got difference twice"),
        (7, "a value of type int"),
        (lambda logits, encoding: "x", "its function returned str"),
        (lambda logits, encoding: logits, "its function returned Tensor"),
    ],
    ids=lambda value: "function" if callable(value) else str(value),
)
def test_what_is_no_metric_is_refused_in_one_line(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        knockout(tiny_models.tiny_model("llama"), traces(1), metric=given, controls=(), finder="given")
    assert "\n" not in str(caught.value)


def test_heads_are_ranked_by_any_two_tokens_at_any_position() -> None:
    model, [trace] = tiny_models.tiny_model("llama"), traces(1)
    metric = 'logit_difference("a", "b") at last(warning)'
    table: Any = rank_heads(model, [trace.with_(given={})], metric=metric, n_random=1, finder="given")
    token, other = (model.tokenizer(text)["input_ids"][0] for text in ("a", "b"))
    encoding = model.encode(trace, segment(trace, finder="given"))
    with torch.no_grad():
        logits = model.hf(encoding.input_ids[None], use_cache=False).logits[0, encoding.positions("last(warning)")[0]]
    tested = table[table["control"] == "none"]
    assert tested["total"].to_numpy() == pytest.approx(float(logits[token] - logits[other]), abs=1e-4)
    with pytest.raises(InputError, match="expected one logit_difference"):
        rank_heads(model, [trace], metric="key_sentence", finder="given")


def test_a_lens_reads_no_probe_and_attribution_needs_a_gradient() -> None:
    model, of = tiny_models.tiny_model("llama"), traces(2)
    direction = Direction(vector=np.eye(32)[0], norm=1.0, layer=1, site="resid_post")
    with pytest.raises(InputError, match="reads states of its own layer"):
        logit_lens(model, of, metric=direction, finder="given")
    pairs = [trace.with_(group="one", meta={"kind": "ab"[number]}) for number, trace in enumerate(of)]
    options: dict[str, Any] = {"label_by": "kind", "source": "a", "layers": [1], "finder": "given"}
    with pytest.raises(InputError, match="without a gradient"):
        patch(model, pairs, metric=lambda logits, encoding: float(logits[-1, 0]), **options)
    assert list(METRICS) == ["aha", "key_sentence", "logprob", "logit_difference", "probe"]
