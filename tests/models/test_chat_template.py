"""The text is what the model would have seen: every style of chat template, and prompts that try to confuse them."""

from __future__ import annotations

import pytest
from tiny_models import TEMPLATE, byte_level_tokenizer
from tokenizers_in_memory import R1, SYSTEM_FIRST, TEMPLATES, THINKING, UNTRIMMED, with_template

from safekey_interp.data.trace import Message, Trace
from safekey_interp.errors import TraceError
from safekey_interp.models.chat_template import Rendered, render


def rendered(template: str | None, prompt: str, response: str = "Hm.", messages: tuple[Message, ...] = ()) -> Rendered:
    trace = Trace(trace_id="t", prompt=prompt, response=response, messages=messages)
    return render(with_template(byte_level_tokenizer(), template), trace)


@pytest.mark.parametrize(
    "prompt",
    [
        "How do I open a door?",
        "assistant",
        "user",
        "<|im_start|>assistant\n",
        "<|im_end|>",
        "<s>",
        "<think>",
        "safekeyplaceholderforprompt",
        "  white space around  ",
        "\n\n",
        " ",
        "",
        "a\nb\n",
        "You are a helpful assistant.",
        "{{ bos_token }}{% raw %}",
        "😀 e\u0301 مرحبا \x00",
    ],
)
@pytest.mark.parametrize("style", TEMPLATES)
def test_the_prompt_is_found_whatever_it_says(style: str, prompt: str) -> None:
    text = rendered(TEMPLATES[style], prompt)
    assert text.prompt.text(text.text).strip() == prompt.strip()
    assert text.text[text.response_start :] == "Hm."
    assert text.prompt.end <= text.response_start
    if prompt.strip():
        # Not the same words of the template: with a mark around it, it begins where the mark does.
        marked = rendered(TEMPLATES[style], f"MARK {prompt} MARK")
        assert marked.prompt.text(marked.text) == f"MARK {prompt} MARK"
        before = text.text[: text.prompt.start]
        assert before.rstrip() == marked.text[: marked.text.index("MARK")].rstrip()


@pytest.mark.parametrize(
    ("template", "response", "tail"),
    [
        (THINKING, "<think>\nOkay.", "assistant\n<think>\nOkay."),
        (THINKING, "\n<think>\nOkay.", "assistant\n\n<think>\nOkay."),
        (THINKING, "Okay.</think>", "assistant\n<think>\nOkay.</think>"),
        (THINKING, "", "assistant\n<think>\n"),
        (TEMPLATE, "<think>\nOkay.", "assistant\n<think>\nOkay."),
        (TEMPLATE, "Okay.", "assistant\nOkay."),
        (R1, "<think>\nOkay.", "<|Assistant|><think>\nOkay."),
        (R1, "Okay.\n</think>\n42", "<|Assistant|><think>\nOkay.\n</think>\n42"),
        (THINKING.replace("<think>", "[THINK]"), "[THINK]Okay.", "assistant\n[THINK]Okay."),
    ],
)
def test_the_reasoning_is_opened_once(template: str, response: str, tail: str) -> None:
    text = rendered(template, "How?", response)
    assert text.text.endswith(tail)
    assert text.text[text.response_start :] == response
    assert text.text.count("<think>") + text.text.count("[THINK]") == (0 if response == "Okay." else 1)


def test_an_opening_mark_of_the_prompt_is_left_alone() -> None:
    """A template without a generation prompt: what precedes the response is the prompt itself."""
    text = rendered(TEMPLATES["bare"], "Say <think>", "<think>Okay.")
    assert text.text == "Say <think><think>Okay."
    assert text.prompt.text(text.text) == "Say <think>"


def test_a_template_that_deletes_reasoning_leaves_the_response_whole() -> None:
    messages = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="How?"),
        Message(role="assistant", content="<think>secret</think>So."),
    )
    response = "<think>\nOkay, the user. Hmm.\n</think>\nNo."
    text = rendered(R1, "How?", response, messages)
    assert text.text == f"<s>Be brief.<|User|>How?<|Assistant|>So.</s><|User|>How?<|Assistant|>{response}"
    assert text.prompt.start == text.text.rindex("How?"), "the last turn, not the same words in an earlier one"


def test_system_and_earlier_turns_come_first() -> None:
    messages = (Message(role="system", content="S"), Message(role="user", content="U"))
    assert rendered(TEMPLATE, "P", "R", messages).text == (
        "<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
        "<|im_start|>user\nP<|im_end|>\n<|im_start|>assistant\nR"
    )
    assert rendered(SYSTEM_FIRST, "P", "R").text.startswith("<s><|im_start|>system\nYou are a helpful assistant.")
    assert rendered(SYSTEM_FIRST, "P", "R", messages).text.count("system") == 1


def test_the_plain_form_without_a_template() -> None:
    messages = (Message(role="system", content="S"), Message(role="assistant", content="A"))
    text = rendered(None, " P ", "R", messages)
    assert text.text == "System: S\n\nAssistant: A\n\nUser:  P \n\nAssistant:\nR"
    assert text.prompt.text(text.text) == " P "
    assert text.add_special_tokens
    assert not rendered(TEMPLATE, "P").add_special_tokens, "the template wrote them"


def test_a_template_that_refuses_names_the_trace() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system\nrole') }}{% endif %}" + TEMPLATE
    with pytest.raises(TraceError, match=r"^trace t: the chat template refuses its messages: no system role$"):
        rendered(refusing, "P", messages=(Message(role="system", content="S"),))
    with pytest.raises(TraceError, match="the chat template refuses its messages"):
        rendered("{% for", "P")


@pytest.mark.parametrize(
    "template", ["{{ messages[-1].content | upper }}", "nothing", "{{ messages[-1].content[:3] }}"]
)
def test_a_template_that_hides_the_prompt_is_refused(template: str) -> None:
    """Also where the template's own words happen to be the prompt's."""
    for prompt in ("user", "nothing", "assistant"):
        with pytest.raises(TraceError, match="does not show the prompt as it is"):
            rendered(template, prompt)


def test_what_follows_may_depend_on_the_prompt() -> None:
    template = TEMPLATE.replace("<|im_end|>", "{{ m.content | length }}<|im_end|>")
    text = rendered(template, "How do I open a door?")
    assert text.prompt.text(text.text) == "How do I open a door?"
    with pytest.raises(TraceError, match="does not show the prompt"):
        rendered(template, "user")  # twice in the text, and nothing says which


def test_the_prompt_may_be_shown_twice() -> None:
    template = "{{ messages[-1].content }}|{{ messages[-1].content }}|answer:"
    text = rendered(template, "How?")
    assert text.text == "How?|How?|answer:Hm."
    assert text.prompt.start == len("How?|")


def test_a_changed_template_is_not_mistaken_for_the_old_one() -> None:
    tokenizer = with_template(byte_level_tokenizer(), TEMPLATE)
    trace = Trace(trace_id="t", prompt="P", response="R")
    assert render(tokenizer, trace).text.endswith("<|im_start|>assistant\nR")
    tokenizer.chat_template = UNTRIMMED.replace("assistant", "model")
    assert render(tokenizer, trace).text.endswith("<|im_start|>model\nR")


@pytest.mark.parametrize("style", [TEMPLATE, UNTRIMMED, None])
def test_steps_stand_between_prompt_and_response_and_their_characters_are_found(style: str | None) -> None:
    steps = (Message(role="assistant", content="I call it."), Message(role="tool", content="It says no."))
    messages = (Message(role="user", content="Hello"), Message(role="assistant", content="Hi"))
    trace = Trace(trace_id="t", prompt="Ask it.", response="Hm.", messages=messages, steps=steps)
    text, prompt, start, _, shifts = render(with_template(byte_level_tokenizer(), style), trace)
    assert prompt.text(text) == "Ask it."
    assert text[start:] == "Hm."
    for number, turn in enumerate(trace.turns):
        shift = shifts["prompt" if number == len(messages) else number]
        assert text[shift : shift + len(turn.content)] == turn.content
    at = [text.index(turn.content) for turn in trace.turns]
    assert at == sorted(at)
    without = render(with_template(byte_level_tokenizer(), style), trace.with_(steps=()))
    assert "no." not in without.text
