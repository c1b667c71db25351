"""What is edited while a model writes is what a whole forward pass would edit, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from safekey_interp import Ablate, HideSpan, Steer
from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.capture.residual_edits import ablate, add, edited
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, SafekeyError, TraceError
from safekey_interp.generation.generation_edits import GenerationEdit
from safekey_interp.generation.local_engine import LocalEngine, generate
from safekey_interp.generation.requests import Generated, Request
from safekey_interp.generation.sampling import Sampling
from safekey_interp.measures.direction_record import Direction
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load
from safekey_interp.segmentation.segmenter import segment

FAMILIES = ["llama", "gemma3_text", "qwen3", "gpt_oss"]
PROMPTS = ["How do I open a door?", "Hi", "What is the best way to write a story about a robbery, step by step?"]
PREFILL = "<think>\nOkay, so the user is asking how to open a door. Hmm,"
NEW = 12


@lru_cache
def toy() -> Model:
    return load("organism")


def direction(model: Model, seed: int = 0, norm: float = 8.0, layer: int = 1) -> Direction:
    vector = np.random.default_rng(seed).standard_normal(model.d_model)
    return Direction(vector=vector / np.linalg.norm(vector), norm=norm, layer=layer, site="resid_post")


def asked(edits: Sequence[GenerationEdit], prompts: Sequence[str] = PROMPTS, prefill: str = PREFILL) -> list[Request]:
    return [
        Request(trace=Trace(trace_id=str(n), prompt=prompt, response=""), prefill=prefill, edits=tuple(edits))
        for n, prompt in enumerate(prompts)
    ]


def answers(model: Model, requests: Sequence[Request], *, batch_size: int = 16, **sampling) -> list[Generated]:
    engine = LocalEngine(model, batch_size=batch_size)
    found = {one.trace_id: one for one in engine.generate(requests, Sampling(max_new_tokens=NEW, **sampling))}
    return [found[request.trace.trace_id] for request in requests]


@contextmanager
def seen(model: Model) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Logits of each pass with a cache, of its last token, and the states that each layer of each pass gives."""
    logits: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    with ExitStack() as stack:

        def see(_module, _args, kwargs, out) -> None:
            if kwargs.get("use_cache", True):
                logits.append(out.logits[:, -1])

        stack.callback(model.hf.register_forward_hook(see, with_kwargs=True).remove)
        for layer in find_layout(model.hf).layers:
            handle = layer.register_forward_hook(
                lambda _m, _a, out: states.append(out if isinstance(out, torch.Tensor) else out[0])
            )
            stack.callback(handle.remove)
        yield logits, states


def n_hooks(module: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def whole_logits(model: Model, one: Generated) -> torch.Tensor:
    """Logits of one forward pass over prompt and response, with the request's edits at the tokens that they touched."""
    assert one.input_ids is not None
    assert one.new_ids is not None
    ids = torch.tensor([[*one.input_ids, *one.new_ids]])
    with ExitStack() as stack, torch.no_grad():
        for edit, touched in zip(one.request.edits, one.edited, strict=True):
            if isinstance(edit, HideSpan):
                encoding = model.encode(one.trace(), segment(one.request.trace.with_(response=one.request.prefill)))
                cut = Cut(
                    trace_id="0",
                    queries=touched,
                    keys=tuple(encoding.positions(edit.span)),
                    layers=frozenset(range(model.n_layers) if edit.layers is None else edit.layers),
                    heads=None if edit.heads is None else frozenset(edit.heads),
                )
                stack.enter_context(knocked_out(model, Knockout([cut], n_heads=model.n_heads)))
                continue
            inside = torch.zeros(1, ids.shape[1], 1, dtype=torch.bool)
            inside[0, list(touched)] = True
            vector = torch.tensor(edit.vector, dtype=torch.float32)[None]
            change = add if isinstance(edit, Steer) else ablate

            def apply(states, inside=inside, vector=vector, change=change):
                return torch.where(inside, change(states, vector), states)

            stack.enter_context(edited(model, dict.fromkeys(edit.places(model), apply)))
        return model.hf(input_ids=ids, use_cache=False).logits[0, len(one.input_ids) - 1 :]


# Nothing changes where nothing is to change


@pytest.mark.parametrize("architecture", FAMILIES)
def test_scale_0_is_no_edit_bit_by_bit(architecture: str) -> None:
    model = tiny_model(architecture)
    with seen(model) as (plain, _):
        texts = generate(model, PROMPTS, max_new_tokens=NEW)
    with seen(model) as (steered, _):
        edit = Steer(direction(model), scale=0.0, positions=["prompt", "generated"])
        assert generate(model, PROMPTS, max_new_tokens=NEW, edits=[edit]) == texts
    assert len(plain) == len(steered) >= NEW
    assert all(torch.equal(one, other) for one, other in zip(plain, steered, strict=True))


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("span", ["understanding", "key_sentence"])
def test_states_before_an_edited_span_are_the_same_bit_by_bit(architecture: str, span: str) -> None:
    model = tiny_model(architecture)
    with seen(model) as (_, plain):
        answers(model, asked([], PROMPTS[:1]))
    with seen(model) as (_, steered):
        [one] = answers(model, asked([Steer(direction(model), positions=[span])], PROMPTS[:1]))
    first = one.edited[0][0]
    assert 0 < first < len(one.input_ids or ()) - 1
    for before, after in zip(plain[: model.n_layers], steered[: model.n_layers], strict=True):
        assert torch.equal(before[:, :first], after[:, :first])
    assert not torch.equal(plain[2][:, first:], steered[2][:, first:])


# What is done while a response is written is what a pass over all of it does


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize(
    "make",
    [
        lambda d: [Steer(d)],
        lambda d: [Steer(d, positions=["generated"], layers=[0, -1], scale=-0.5)],
        lambda d: [Ablate(d)],
        lambda d: [Steer(d, positions=["template", "understanding"]), Ablate(d, positions=["prompt"], layers=[1])],
        lambda d: [HideSpan("prompt")],
        lambda d: [HideSpan("understanding", from_="generated", layers=[0, 2], heads=[0, 3])],
        lambda d: [HideSpan("understanding", from_="decision"), Steer(d, positions=["key_sentence"], scale=2.0)],
    ],
)
def test_token_by_token_equals_a_pass_over_the_whole(architecture: str, make) -> None:
    model = tiny_model(architecture)
    for request in asked(make(direction(model))):
        with seen(model) as (passes, _):
            [one] = answers(model, [request])
        whole = whole_logits(model, one)
        steps = torch.cat([logits for logits in passes if len(logits) == 1][: len(one.new_ids or ()) + 1])
        assert len(whole) - len(steps) in (0, 1), "the last token is read where the response ends, not where it is cut"
        torch.testing.assert_close(steps, whole[: len(steps)], rtol=1e-4, atol=1e-4)
    unedited = whole_logits(model, replace(one, request=replace(request, edits=()), edited=()))
    assert (unedited - whole).abs().max() > 1e-2, "the edits do something"


@pytest.mark.parametrize("architecture", FAMILIES)
def test_batches_answer_as_one_at_a_time(architecture: str) -> None:
    model = tiny_model(architecture)
    kinds = [Steer(direction(model), positions=["prompt", "understanding"]), HideSpan("template", layers=[1])]
    requests = [*asked(kinds), *asked([Ablate(direction(model, 1))]), *asked([])]
    requests = [Request(trace=r.trace.with_(trace_id=str(n)), edits=r.edits) for n, r in enumerate(requests)]
    for sampling in ({}, {"temperature": 1.0, "seed": 3}):
        together = answers(model, requests, **sampling)
        alone = answers(model, requests, batch_size=1, **sampling)
        assert [one.response for one in together] == [one.response for one in alone]
        assert [one.edited for one in together] == [one.edited for one in alone]
    assert len({one.response for one in together}) > len(PROMPTS)


def test_the_same_prompt_under_different_edits_shares_nothing() -> None:
    [trace] = list(organism.read_shipped())[:1]
    steering = (Steer(direction(toy()), scale=4.0, layers=[2]),)
    requests = [Request(trace=trace, sample=n, edits=steering if n % 2 else ()) for n in range(6)]
    found = [one.response for one in LocalEngine(toy()).generate(requests, Sampling(max_new_tokens=24))]
    plain, steered = ([one for n, one in enumerate(found) if n % 2 == odd] for odd in (0, 1))
    assert set(plain) == set(generate(toy(), trace, max_new_tokens=24))
    assert set(steered) == set(generate(toy(), trace, max_new_tokens=24, edits=steering)) != set(plain)


# Which tokens


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(number=st.integers(0, 500), name=st.sampled_from(["understanding", "key_sentence"]))
@example(number=355, name="understanding")
def test_a_written_token_counts_when_the_text_that_ends_with_it_has_it_there(number: int, name: str) -> None:
    trace = list(organism.read_shipped())[number]
    request = Request(trace=trace, edits=(Steer(direction(toy()), positions=[name], scale=0.0),))
    [one] = LocalEngine(toy()).generate([request], Sampling(max_new_tokens=64))
    first, expected = len(one.input_ids or ()), []
    for n in range(1, len(one.new_ids or ()) + 1):
        text = toy().tokenizer.decode((one.new_ids or ())[:n])
        encoding = toy().encode(trace.with_(response=text, given={}))
        assert len(encoding.input_ids) == first + n
        expected += [token for token in [first + n - 1] if token in encoding.positions(name)]
    assert one.edited == (tuple(expected),)
    assert len(expected) >= 3


def test_spans_found_while_they_are_written_are_nearly_always_those_of_the_whole() -> None:
    names = ("understanding", "key_sentence")
    edits = tuple(Steer(direction(toy()), positions=[name], scale=0.0) for name in names)
    requests = [Request(trace=trace, edits=edits) for trace in list(organism.read_shipped())[::8]]
    found = list(LocalEngine(toy(), batch_size=72).generate(requests, Sampling(max_new_tokens=64)))
    encodings = [toy().encode(one.trace()) for one in found]
    same = [
        one.edited == tuple(tuple(encoding.positions(name)) for name in names)
        for one, encoding in zip(found, encodings, strict=True)
    ]
    assert sum(same) >= 0.9 * len(same)


def test_known_positions_are_those_of_prompt_and_prefill() -> None:
    model = tiny_model("llama")
    names = ["prompt", "template", "first_token", "understanding", "decision", "generated"]
    for one in answers(model, asked([Steer(direction(model), positions=[name], scale=0.0) for name in names])):
        encoding = model.encode(one.request.trace.with_(response=PREFILL))
        assert one.input_ids == tuple(encoding.input_ids.tolist())
        assert one.edited[:-1] == tuple(tuple(encoding.positions(name)) for name in names[:-1])
        first = len(encoding.input_ids)
        assert one.edited[-1] == tuple(range(first, first + NEW - 1)), "the last is not read"


def test_a_hidden_span_never_blinds_a_token() -> None:
    model = tiny_model("llama")
    [one] = answers(model, asked([HideSpan("first_token", from_="first_token")], PROMPTS[:1]))
    [plain] = answers(model, asked([], PROMPTS[:1]))
    assert one.response == plain.response, "the first token sees itself alone, and so goes on seeing it"


# What is refused, and what stays behind


class StopsInTheMiddle:
    """A finder that fails once the response is under way."""

    name = "stops"

    def __init__(self, after: int) -> None:
        self.left = after

    def find(self, traces):
        for trace in traces:
            self.left -= 1
            if self.left < 0:
                raise TraceError(trace.trace_id, "the finder gave up")
            yield segment(trace)


@pytest.mark.parametrize("architecture", ["llama", "gpt_oss"])
def test_nothing_stays_attached_after_an_exception_in_the_middle(architecture: str) -> None:
    model = tiny_model(architecture)
    before = n_hooks(model.hf), model.config._attn_implementation
    plain = generate(model, PROMPTS, max_new_tokens=NEW)
    edits = [Steer(direction(model), positions=["key_sentence"]), HideSpan("key_sentence")]
    with pytest.raises(TraceError, match="the finder gave up"):
        generate(model, PROMPTS, max_new_tokens=NEW, edits=edits, finder=StopsInTheMiddle(3 + 7))
    assert (n_hooks(model.hf), model.config._attn_implementation) == before
    assert generate(model, PROMPTS, max_new_tokens=NEW) == plain


def test_one_edit_is_a_list_of_one() -> None:
    hide = HideSpan("prompt")
    assert generate(toy(), PROMPTS, edits=hide, max_new_tokens=9) == generate(
        toy(), PROMPTS, edits=[hide], max_new_tokens=9
    )


def test_what_cannot_be_edited_is_refused_in_words() -> None:
    model = tiny_model("llama")
    d = direction(model)
    for edit, message in (
        (Steer(d, positions=["decision"]), "trace 0: position 'decision': not in prompt and prefill"),
        (Steer(d, positions=["decsion"]), "span 'decsion': no trace has one; did you mean 'decision'"),
        (Steer(d, positions="prompt"), r'positions: got one text, expected a list; \["prompt"\]'),
        (Steer(d, layers=[7]), "layers"),
        (Steer(d, scale=float("nan")), "scale: got nan"),
        (Ablate(direction(toy())), "width"),
        (HideSpan("prompt", heads=[4]), "got head 4, expected one of 0 to 3"),
        (HideSpan("understanding_end"), "give a prefill that holds it"),
        ("steer", "got a value of type str, expected Steer, Ablate or HideSpan"),
    ):
        with pytest.raises(SafekeyError, match=message):
            generate(model, PROMPTS, edits=[edit])  # type: ignore[list-item]
    given_ids = Request(trace=asked([])[0].trace, input_ids=(5, 6, 7), depth=1, edits=(Steer(d, positions=["prompt"]),))
    with pytest.raises(TraceError, match="no position can be told"):
        answers(model, [given_ids])


def test_a_text_in_place_of_a_list_is_refused_and_one_trace_is_a_list_of_one() -> None:
    with pytest.raises(InputError, match=r"prompts: got the text 'How\?', expected a list such as"):
        generate(toy(), "How?")
    trace = next(organism.read_shipped())
    assert generate(toy(), trace, max_new_tokens=9) == generate(toy(), [trace], max_new_tokens=9)
    with pytest.raises(InputError, match="sampling: got n=2"):
        generate(toy(), [trace], sampling=Sampling(n=2, temperature=1.0))
    with pytest.raises(InputError, match="max_new_tokens: got 9, and 8 in sampling"):
        generate(toy(), [trace], sampling=Sampling(max_new_tokens=8), max_new_tokens=9)
