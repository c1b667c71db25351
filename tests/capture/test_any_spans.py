"""Law of spans: attention and states at random spans of random traces equal those summed by hand from eager's."""

from __future__ import annotations

import random

import numpy as np
import pytest
import reference_forward
import torch
from tiny_models import tiny_model, traces

import safekey_interp as ski
from safekey_interp.capture.batch_runner import measure_batch
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import CaptureRequest, SpanPairs
from safekey_interp.capture.recording import capture
from safekey_interp.data.trace import Message, Trace
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmenter import segment

FAMILIES = ("llama", "qwen3", "gemma3_text", "phi3", "gpt_oss")


def words_of(text: str, rng: random.Random) -> list[tuple[int, int]]:
    """Up to three stretches of whole words, apart from each other."""
    edges = [0, *(i + 1 for i, character in enumerate(text) if character == " "), len(text)]
    chosen = sorted(rng.sample(edges, min(len(edges), 2 * rng.randint(1, 3)) // 2 * 2))
    return [(start, end) for start, end in zip(chosen[::2], chosen[1::2], strict=True) if text[start:end].strip()]


def random_traces(seed: int) -> list[Trace]:
    rng = random.Random(seed)
    return [
        trace.with_(
            spans={"some": words_of(trace.response, rng), "other": words_of(trace.response, rng)},
            prompt_spans={"ask": words_of(trace.prompt, rng)},
        )
        for trace in traces(4)
    ]


def random_expression(rng: random.Random, depth: int = 2) -> str:
    names = ("some", "other", "ask", "prompt", "reasoning", "key_sentence", "understanding", "decision", "sentence(1)")
    if depth == 0 or rng.random() < 0.3:
        return rng.choice((*names, "token(-2)", "first_token"))
    inner = random_expression(rng, depth - 1)
    kind = rng.choice(("first", "last", "before", "after", "+", ".."))
    return f"{kind}({inner})" if kind.isalpha() else f"({inner}) {kind} ({random_expression(rng, depth - 1)})"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masses_and_states_of_random_spans_equal_the_eager_ones(family: str, side: str) -> None:
    model, rng = tiny_model(family), random.Random(family)
    expressions = [random_expression(rng) for _ in range(6)]
    spans = SpanPairs(tuple(dict.fromkeys(expressions[:3])), tuple(dict.fromkeys(expressions[3:])))
    request = CaptureRequest(positions=tuple(dict.fromkeys(expressions)), spans=spans)
    encodings = [
        model.encode(trace, segment(trace), reads=request.reads) for trace in random_traces(rng.randint(0, 99))
    ]
    batch = Batch.of(encodings, side=side)
    with torch.no_grad(), capture(model, batch, request) as captured:
        model.hf(**batch.inputs(model.device))
    n_checked = 0
    for row, encoding in enumerate(encodings):
        with torch.no_grad():
            eager = reference_forward.forward(model, encoding, attn="eager")
        for layer, answer in captured.attention.items():
            for q, query in enumerate(spans.queries):
                if not len(encoding.positions(query)):
                    assert not answer.masses[row, :, q].any()
                    continue
                for k, key in enumerate(spans.keys):
                    where = [at for at in encoding.positions(key) if at < encoding.end]
                    by_hand = eager.patterns[layer][:, list(encoding.positions(query))][..., where].sum(-1).mean(-1)
                    torch.testing.assert_close(answer.masses[row, :, q, k], by_hand, atol=1e-5, rtol=0)
                    n_checked += 1
        for site in reference_forward.checkable_sites(model.n_layers):
            for p, position in enumerate(request.positions):
                if len(encoding.positions(position)):
                    reference = reference_forward.state(eager.hidden, encoding, site, position)
                    # SDPA against eager, in float32.
                    assert (captured.states[site][row, p] - reference).norm() <= 1e-5 * reference.norm()
    assert n_checked


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_keys_behind_every_query_are_out_of_sight(family: str) -> None:
    model = tiny_model(family)
    spans = SpanPairs(("key_sentence",), ("answer", "token(-1)", "prompt"))
    request = CaptureRequest(states=False, spans=spans)
    trace = traces(1)[0]
    trace = trace.with_(response=f"<think>{trace.response}</think> That is the answer.")
    [measured] = measure_batch(model, [model.encode(trace, reads=request.reads)], request)
    assert measured.attention is not None
    assert (measured.attention.mass[..., 0, :2] == 0).all()
    assert (measured.attention.mass[..., 0, 2] > 0).all()


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


def test_named_queries_and_keys_of_the_recipe_give_the_bits_of_the_default(model: Model) -> None:
    some = reference_forward.with_spans(3)
    default = ski.measure_attention(model, some, finder="given")
    queries = ["before(key_sentence)", "decision"]
    asked = ski.measure_attention(model, some, finder="given", queries=queries, keys=["prompt"])
    chosen = default[(default["from_span"] == "decision") & (default["to_span"] == "prompt")]
    for expression in queries:
        same = asked[asked["from_span"] == expression]
        np.testing.assert_allclose(same["mass"], chosen["mass"], atol=1e-6)
        np.testing.assert_array_equal(same["n_k"], chosen["n_k"])
    assert set(asked["to_span"]) == {"prompt"}


def test_traces_without_the_span_or_with_a_wrong_one_are_named(model: Model) -> None:
    trace = traces(1)[0]
    good = trace.with_(trace_id="good", spans={"some": [(0, 9)]})
    wrong = {
        "outside": [(5, 10_000)],
        "overlap": [(0, 9), (5, 12)],
        "no token": [(4, 4)],
    }
    broken = [trace.with_(trace_id=name, spans={"some": spans}) for name, spans in wrong.items()]
    every = [good, *broken, trace.with_(trace_id="none")]
    table = ski.measure_attention(model, every, queries=["some"], keys=["prompt"])
    assert set(table["trace_id"]) == {"good"}
    left_out = table.attrs["left_out"]
    assert "lies outside" in left_out["outside"]
    assert "overlap" in left_out["overlap"]
    assert "no token of its own" in left_out["no token"]
    assert "no token in some" in left_out["none"]


def test_an_unknown_span_is_refused_before_the_model_runs(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [trace.with_(spans={"warning": [(0, 9)]}) for trace in traces(2)]
    with monkeypatch.context() as patched:
        patched.setattr(Model, "encode", lambda *_, **__: pytest.fail("a trace was encoded first"))
        for listed in (some, tuple(some), some[0]):
            with pytest.raises(InputError, match="did you mean 'warning'"):
                ski.measure_attention(model, listed, queries=["warnng"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'warning'"):
        ski.measure_attention(model, some, queries=["warnng"])
    with pytest.raises(InputError, match="did you mean 'warning'"):
        ski.measure_attention(model, iter(some), queries=["warnng", "warning"])
    with pytest.raises(InputError, match="expected a list"):
        ski.measure_attention(model, some, queries="warning")


def test_earlier_turns_have_spans_and_sentences(model: Model) -> None:
    trace = Trace(
        trace_id="t",
        prompt="How do I open a door?",
        response="Okay, so the user is asking. First, the steps.",
        messages=(
            Message(role="system", content="You are a helpful assistant.", spans={"kind": [(10, 17)]}),
            Message(role="user", content="Okay"),
            Message(role="assistant", content="Okay, so the user is asking. Hmm, that could be used to break in."),
        ),
    )
    encoding = model.encode(trace)

    def text(expression: str) -> str:
        return "".join(encoding.text[slice(*encoding.offsets[at])] for at in encoding.positions(expression)).strip()

    assert text("system") == "You are a helpful assistant."
    assert text("kind") == "helpful"
    assert text("turn(0)") == "Okay"
    assert text("turn(1)") == trace.messages[2].content
    assert text("turn(2)") == text("prompt") == trace.prompt
    assert text("turn(-1)") == text("turn(3)") == trace.response
    assert text("key_sentence(1)") == "Hmm, that could be used to break in."
    assert text("understanding(1)") == "Okay, so the user is asking."
    assert text("key_sentence(-1)") == text("key_sentence")
    assert text("turn(9)") == text("understanding(0)") == ""
