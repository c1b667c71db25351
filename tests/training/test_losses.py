"""The three terms and every gradient equal the literal ones: two full forwards, all logits, the prompt masked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import reference_forward
import torch
import torch.nn.functional as F
from tiny_models import ARCHITECTURES, BASE, byte_level_tokenizer
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.capture.unembedding import Unembedding
from safekey_interp.data.trace import CharSpan, TokenSpan, Trace
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model, from_hf
from safekey_interp.models.safety_head import HeadLogits, SafetyHead
from safekey_interp.segmentation.segmenter import segment
from safekey_interp.training import loss_terms
from safekey_interp.training.batch import collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.losses import Counts, LossSums, LossTerms, combine, head_loss, summed_cross_entropy
from safekey_interp.training.query_mask import exact_way

_FACTORS = {"short_factor": [1.0, 1.2, 1.4, 1.6], "long_factor": [2.0, 3.0, 4.0, 5.0]}
LONGROPE = {
    "original_max_position_embeddings": 32,
    "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 1.0, **_FACTORS},
}
DYNAMIC = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}


def fresh(architecture: str, **changes: object) -> Model:
    """A model as it is initialised, and so of reasonable gradients."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[architecture](**(BASE | ARCHITECTURES.get(architecture, {}) | changes))
    return from_hf(
        AutoModelForCausalLM.from_config(config, dtype=torch.float32), byte_level_tokenizer(), spec=architecture
    )


def head_of(model: Model) -> SafetyHead:
    torch.manual_seed(1)
    return SafetyHead(model.d_model)


def literal_terms(model: Model, head: SafetyHead, traces: Sequence[Trace]) -> tuple[torch.Tensor, ...]:
    """One trace at a time, straight from the formulas; the prompt hidden by the attention mask."""
    lm, by_head, masked = [], [], []
    for trace in traces:
        encoding = model.encode(trace, segment(trace, finder="given"))
        ids = encoding.input_ids[None]
        out = model.hf(input_ids=ids, output_hidden_states=True, use_cache=False)
        start = max(1, encoding.response_start)
        lm.append(F.cross_entropy(out.logits[0, start - 1 : -1], ids[0, start:], reduction="none"))
        u, k = encoding.spans["understanding"], encoding.spans["key_sentence"]
        if u is not None and trace.label is not None:
            h, target = out.hidden_states[-1][0], torch.tensor(float(trace.label == "harmful"))
            by_u = head.understanding(h[u.start : u.end].mean(0))[0]
            by_c = head.context(h[: u.end].mean(0))[0]
            by_head.append(
                0.5 * F.binary_cross_entropy_with_logits(by_u, target)
                + 0.5 * F.binary_cross_entropy_with_logits(by_c, target)
            )
        if k is not None:
            mask = torch.ones_like(ids)
            mask[:, : encoding.response_start] = 0
            logits = model.hf(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
            masked.append(F.cross_entropy(logits[k.start - 1 : k.end - 1], ids[0, k.start : k.end], reduction="none"))
    means = [torch.cat(lm).mean(), torch.stack(by_head).mean(), torch.cat(masked).mean()]
    return (*means, means[0] + 0.2 * means[1] + 0.2 * means[2])


def gradients(loss: torch.Tensor, model: Model, head: SafetyHead) -> dict[str, torch.Tensor]:
    parameters = dict([*model.hf.named_parameters(), *head.named_parameters(prefix="head")])
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(parameters, found, strict=True) if g is not None and g.abs().sum() > 0}


def assert_equal_to_the_literal(model: Model, traces: Sequence[Trace], terms: LossTerms, head: SafetyHead) -> None:
    expected = literal_terms(model, head, traces)
    for name, found, wanted in zip(("lm", "head", "query_mask", "total"), terms, expected, strict=False):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
        ours, theirs = gradients(found, model, head), gradients(wanted, model, head)
        assert ours.keys() == theirs.keys(), name
        whole = torch.stack([g.norm() for g in theirs.values()]).norm()
        for parameter, gradient in theirs.items():
            assert torch.isfinite(ours[parameter]).all()
            assert (ours[parameter] - gradient).norm() <= 1e-5 * whole, f"{name}: {parameter}"


def test_each_weight_is_that_of_its_own_term() -> None:
    sums = LossSums(*map(torch.tensor, (3.0, 10.0, 100.0, 1000.0)))
    terms = combine(sums, Counts(3, 2, 4, 8), head_weight=0.5, query_mask_weight=0.25, key_weight=0.125)
    assert terms[:3] == (1.0, 5.0, 25.0)
    assert terms.total == 1.0 + 0.5 * 5.0 + 0.25 * 25.0 + 0.125 * 125.0


@pytest.mark.parametrize(("theta", "path"), [(1.0, "understanding"), (0.0, "context")])
def test_theta_is_the_weight_of_the_path_over_the_understanding(theta: float, path: str) -> None:
    logits, harmful = HeadLogits(torch.tensor([2.0, -1.0]), torch.tensor([-3.0, 0.5])), torch.tensor([1.0, 0.0])
    found = head_loss(logits, harmful, torch.tensor([True, True]), theta=theta)
    alone = F.binary_cross_entropy_with_logits(getattr(logits, path), harmful, reduction="sum")
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("way", ["short", "packed", "masked"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text", "gemma2", "mistral", "qwen3_moe", "phi3"])
def test_terms_and_gradients_are_the_literal_ones(architecture: str, way) -> None:
    model = fresh(architecture)
    head, traces = head_of(model), reference_forward.with_spans(5)
    assert_equal_to_the_literal(model, traces, loss_terms(model, head, traces, query_mask=way, finder="given"), head)


@pytest.mark.parametrize("way", ["short", "packed", "masked"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text", "mistral"])
def test_traces_in_one_row_have_the_same_terms_and_gradients(architecture: str, way) -> None:
    model = fresh(architecture)
    head, whole = head_of(model), reference_forward.with_spans(4)
    bare = Trace(trace_id="bare", prompt="Why?", response="Because of that.", label="harmful")
    mixed = [whole[0], bare, whole[1].with_(label=None), *whole[2:]]
    terms = loss_terms(model, head, mixed, query_mask=way, packing=True, finder="given")
    assert_equal_to_the_literal(model, mixed, terms, head)


@pytest.mark.parametrize("layer", [0, 1, None])
def test_the_head_reads_what_its_layer_puts_out(layer: int | None) -> None:
    model = fresh("llama")
    head, traces = head_of(model), reference_forward.with_spans(3)
    encodings = [model.encode(trace, segment(trace, finder="given")) for trace in traces]
    read: dict[int, torch.Tensor] = {}
    by_hand = torch.zeros(())
    for encoding, trace in zip(encodings, traces, strict=True):
        at = model.hf.model.norm if layer is None else model.hf.model.layers[layer]
        handle = at.register_forward_hook(lambda _module, _args, out: read.update({0: out}))
        model.hf(input_ids=encoding.input_ids[None], use_cache=False)
        handle.remove()
        target = torch.tensor(float(trace.label == "harmful"))
        for path, name in ((head.understanding, "understanding"), (head.context, "context")):
            mean = read[0][0, list(encoding.positions(name))].mean(0)
            by_hand = by_hand + 0.5 * F.binary_cross_entropy_with_logits(path(mean)[0], target)
    batch = collate(encodings, [trace.label for trace in traces], layout="short")
    found = BatchLoss(model.hf, head, head_layer=layer)(batch).head
    torch.testing.assert_close(found, by_hand, rtol=1e-5, atol=1e-5)


def test_traces_in_one_row_are_refused_where_they_would_see_one_another() -> None:
    model = fresh("gpt_oss")
    with pytest.raises(InputError, match=r"packing: .*apart; take packing=false"):
        loss_terms(model, head_of(model), reference_forward.with_spans(2), packing=True, finder="given")


def test_one_row_holds_every_trace_without_padding() -> None:
    model = fresh("llama")
    encodings = [model.encode(trace, segment(trace, finder="given")) for trace in reference_forward.with_spans(3)]
    batch = collate(encodings, ["harmful", "benign", None], layout="short", packing=True)
    assert batch.input_ids.shape == (1, sum(len(one.input_ids) for one in encodings))
    assert batch.beginnings is not None
    last = encodings[1].positions("context")[-1]
    assert batch.input_ids[0, batch.beginnings[1, last]] == encodings[1].input_ids[last]
    assert collate([], [], packing=True).counts == collate([], []).counts


@pytest.mark.parametrize(
    ("architecture", "changes", "asked", "taken", "because"),
    [
        ("llama", {}, "packed", "packed", ""),
        ("gpt_oss", {}, "packed", "short", "apart"),
        ("gpt_oss", {}, "short", "short", ""),
        ("phi3", LONGROPE, "short", "masked", "longrope"),
        ("phi3", LONGROPE, "packed", "masked", "longrope"),
        ("llama", DYNAMIC, "short", "masked", "dynamic"),
        ("gpt2", {}, "short", "masked", "not relative"),
    ],
)
def test_the_next_exact_way_is_taken_and_said(architecture: str, changes, asked, taken, because: str) -> None:
    model = fresh(architecture, **changes)
    way = exact_way(model.hf, asked)
    assert way.layout == taken
    assert because in way.why
    assert bool(way.why) == (taken != asked)
    head, traces = head_of(model), reference_forward.with_spans(4)
    assert_equal_to_the_literal(model, traces, loss_terms(model, head, traces, query_mask=asked, finder="given"), head)


@pytest.mark.parametrize("way", ["short", "packed"])
def test_rows_without_label_or_spans_give_no_term_of_their_own(way) -> None:
    model = fresh("llama")
    head, whole = head_of(model), reference_forward.with_spans(4)
    bare = Trace(trace_id="bare", prompt="Why?", response="Because of that.", label="harmful")
    mixed = [whole[0], bare, whole[1].with_(label=None), whole[2]]
    assert_equal_to_the_literal(model, mixed, loss_terms(model, head, mixed, query_mask=way, finder="given"), head)
    none = loss_terms(model, head, [bare], query_mask=way, finder="given")
    assert none.head == 0
    assert none.query_mask == 0
    none.total.backward()
    assert all(p.grad is not None for p in head.parameters()), "every rank has a gradient for every parameter"


@pytest.mark.parametrize("way", ["short", "packed"])
def test_a_key_sentence_that_begins_the_response_leaves_its_first_token_out(way) -> None:
    model = fresh("llama")
    head = head_of(model)
    words = "First, I need the steps."
    trace = Trace(
        trace_id="k",
        prompt="How?",
        response=f"{words} Then more.",
        label="harmful",
        given={"key_sentence": CharSpan(0, len(words))},
    )
    terms = loss_terms(model, head, [trace], query_mask=way, finder="given")
    encoding = model.encode(trace, segment(trace, finder="given"))
    key = encoding.spans["key_sentence"]
    assert isinstance(key, TokenSpan)
    ids = encoding.input_ids[key.start : key.end][None]
    logits = model.hf(input_ids=ids, use_cache=False).logits[0]
    torch.testing.assert_close(terms.query_mask, F.cross_entropy(logits[:-1], ids[0, 1:]))
    assert terms.counts.key_tokens == len(key) - 1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_checkpointing_changes_no_gradient(checkpointing: bool) -> None:
    model = fresh("qwen2")
    head, traces = head_of(model), reference_forward.with_spans(3)
    expected = gradients(literal_terms(model, head, traces)[3], model, head)
    if checkpointing:
        model.hf.gradient_checkpointing_enable({"use_reentrant": False})
        model.hf.train()
    found = gradients(loss_terms(model, head, traces, finder="given").total, model, head)
    whole = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * whole, name


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_fused_cross_entropy_is_the_ordinary_one(scale: float, softcap: float | None, bias: bool, chunk: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 11, bias=bias).double()
    states = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (7,))
    unembedding = Unembedding(linear, scale=scale, softcap=softcap)
    logits = linear(states) * scale
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    wanted = F.cross_entropy(logits, targets, reduction="sum")
    found = summed_cross_entropy(states, targets, unembedding, chunk=chunk)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    parameters = [states, *linear.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, parameters), torch.autograd.grad(3 * wanted, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_adapted_unembedding_goes_through_autograd() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 11))
    states, targets = torch.randn(5, 6, requires_grad=True), torch.randint(0, 11, (5,))
    found = summed_cross_entropy(states, targets, Unembedding(linear), chunk=2)
    wanted = F.cross_entropy(linear(states), targets, reduction="sum")
    for ours, theirs in zip(
        torch.autograd.grad(found, [*linear.parameters()]),
        torch.autograd.grad(wanted, [*linear.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("way", ["short", "packed"])
def test_adapters_get_the_literal_gradients(way) -> None:
    from peft import LoraConfig, get_peft_model

    model = fresh("llama")
    options = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model.hf, options)
    head, traces = head_of(model), reference_forward.with_spans()
    trained = [name for name, p in model.hf.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    terms = loss_terms(model, head, traces, query_mask=way, finder="given")
    expected = literal_terms(model, head, traces)
    parameters = [p for p in model.hf.parameters() if p.requires_grad]
    for found, wanted in zip(terms[:4], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        ours, theirs = (torch.autograd.grad(x, parameters, retain_graph=True) for x in (found, wanted))
        whole = torch.stack([g.norm() for g in theirs]).norm()
        assert all((one - other).norm() <= 1e-5 * whole for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("way", ["short", "packed"])
def test_a_model_in_another_precision_takes_the_way_that_was_asked_for(dtype: torch.dtype, way) -> None:
    model = fresh("llama")
    model.hf.to(dtype)
    assert exact_way(model.hf, way) == (way, "")
