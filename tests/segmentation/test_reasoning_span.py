"""Laws of finding the reasoning: every family, every way in which its marks can be missing."""

import pytest

from safekey_interp.data.reasoning_marks import FAMILIES
from safekey_interp.data.trace import CharSpan
from safekey_interp.errors import InputError
from safekey_interp.segmentation.reasoning_span import answer_span, reasoning_region


def text_of(response, delimiters=None):
    region = reasoning_region(response, delimiters)
    return region.span.text(response), region.family, region.region, region.closed


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_family_is_found_between_its_marks(family):
    response = f"{family.opening}\nThe user asks. \n\n{family.closing}{family.answer}Answer."
    assert text_of(response) == ("The user asks.", family.name, "reasoning", True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_unclosed_reasoning_reaches_to_the_end(family):
    assert text_of(f"{family.opening}\nThe user asks.\n") == ("The user asks.", family.name, "reasoning", False)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_empty_reasoning_falls_to_the_answer(family):
    response = f"{family.opening}\n\n{family.closing}\n{family.answer}\nSure, here it is."
    assert text_of(response) == ("Sure, here it is.", family.name, "answer", True)


@pytest.mark.parametrize("closing", ["</think>", "[/THINK]", "<|end_of_thought|>"])
def test_a_closing_mark_alone_means_that_the_template_opened(closing):
    text, _, region, closed = text_of(f"\nThe user asks.\n{closing}\n\nAnswer.")
    assert (text, region, closed) == ("The user asks.", "reasoning", True)


def test_without_marks_the_answer_is_all_there_is():
    assert text_of("  I can't help.\n") == ("I can't help.", "none", "answer", False)


@pytest.mark.parametrize(
    "response", ["", "   \n", "<think>", "<think></think>", "<think>\n</think>\n", "</think>", "<|im_end|>"]
)
def test_no_text_is_an_empty_answer(response):
    text, _, region, _ = text_of(response)
    assert (text, region) == ("", "answer")


def test_harmony_with_a_final_channel_alone_is_an_answer():
    response = "<|channel|>final<|message|>No.<|return|>"
    assert text_of(response) == ("No.", "harmony", "answer", False)


def test_harmony_ends_at_the_end_of_the_analysis_message():
    response = (
        "<|channel|>analysis<|message|>We must refuse.<|end|><|start|>assistant<|channel|>final<|message|>No.<|return|>"
    )
    assert text_of(response) == ("We must refuse.", "harmony", "reasoning", True)


def test_control_tokens_are_no_words():
    assert text_of("<|start|>assistant<think>Hm, no.<|im_end|>\n</s>")[0] == "Hm, no."


def test_given_delimiters_replace_the_families():
    response = "<think>no</think> <a>The user asks.</a> Answer."
    assert text_of(response, ("<a>", "</a>")) == ("The user asks.", "given", "reasoning", True)
    assert text_of("The user asks.</a> Answer.", ("", "</a>")) == ("The user asks.", "given", "reasoning", True)


@pytest.mark.parametrize("delimiters", [("<a>",), "<a>", ("<a>", ""), ("<a>", None), 3])
def test_wrong_delimiters_are_refused_in_one_line(delimiters):
    with pytest.raises(InputError, match="delimiters: got"):
        reasoning_region("text", delimiters)


def test_an_opening_mark_twice_is_skipped_twice():
    assert text_of("<think>\n<think>\nThe user asks.</think>")[0] == "The user asks."


def test_a_mark_that_the_answer_talks_about_is_text():
    response = "In HTML there is no such tag as <think>, I believe."
    assert text_of(response) == (response, "none", "answer", False)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("reasoning", ["", "The user asks."])
def test_the_answer_is_what_follows_the_reasoning(family, reasoning):
    response = f"{family.opening}\n{reasoning}\n{family.closing}\n\n{family.answer}\nNo, sorry. \n"
    span = answer_span(response)
    assert span is not None
    assert span.text(response) == "No, sorry."


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_reasoning_that_never_closes_has_no_answer(family):
    assert answer_span(f"{family.opening}\nThe user asks.") is None
    assert answer_span(family.opening) is None


@pytest.mark.parametrize("response", ["", " \n", "<think>x</think>\n", "x</think>"])
def test_nothing_after_the_reasoning_is_an_empty_answer(response):
    span = answer_span(response)
    assert span is not None
    assert len(span) == 0


def test_without_reasoning_all_is_the_answer():
    assert answer_span("I can't help.") == CharSpan(0, 13)
    assert answer_span("(a)b", ("(", ")")) == CharSpan(3, 4)


REASONING = "Okay, so the user asks how to pick a lock. Hmm, that could be burglary."
REFUSAL = "I'm sorry, but I can't help with that."
THOUGHTS = [
    REASONING,
    "The user wants a poem. I should write it.",
    "We need to answer in French. Easy.",
    "Hmm, let me see. A poem, then.",
    "I need to figure out how to pick a lock. First, the tools.",
]
ANSWERS = [
    REFUSAL,
    "Sure, here is a poem about a rose.",
    "Okay, here are three steps:\n\n1. Take the rope.",
    "Alright! Sure, I can do that.",
    "To pick a lock, take a tension wrench.",
    "I need to inform you that this is illegal.",
    "You should see a doctor.",
    "Analysis of the text shows two themes.",
    "analysis of the text shows two themes.",
]


def marks_of(response):
    region = reasoning_region(response)
    answer = None if region.answer is None else region.answer.text(response)
    return region.region, region.marks, region.span.text(response), answer


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("thought", THOUGHTS)
def test_every_way_of_losing_the_marks_is_read_and_named(thought, answer):
    parts = thought, answer
    assert marks_of(f"<think>\n{thought}\n</think>\n\n{answer}") == ("reasoning", "tags", *parts)
    assert marks_of(f"{thought}\n</think>\n\n{answer}") == ("reasoning", "closing tag alone", *parts)
    assert marks_of(f"analysis{thought}assistantfinal{answer}") == ("reasoning", "channels", *parts)


@pytest.mark.parametrize("thought", THOUGHTS)
def test_without_marks_a_thought_is_reasoning(thought):
    assert marks_of(thought) == ("reasoning", "none", thought, None)
    for answer in (REFUSAL, "Sure, take this.", "**Answer**\n\nIt is 42.", "Final answer: 42", "A rope is a cord."):
        assert marks_of(f"{thought}\n\n{answer}") == ("reasoning", "none", thought, answer)


@pytest.mark.parametrize("answer", ANSWERS)
def test_without_marks_anything_else_is_an_answer(answer):
    assert marks_of(answer) == ("answer", "none", answer, answer)


def test_a_later_paragraph_of_thought_is_no_answer():
    whole = "Okay, the user asks.\n\nA rope is a cord.\n\nI should say so."
    assert marks_of(f"{whole}\n\nA rope.") == ("reasoning", "none", whole, "A rope.")


def test_channels_without_their_tokens_that_were_cut_have_no_answer():
    assert marks_of("analysisThe user asks.") == ("reasoning", "channels", "The user asks.", None)
    commentary = "analysisThe user asks.assistantcommentary to=search {}assistantfinalIt rains."
    assert marks_of(commentary) == ("reasoning", "channels", "The user asks.", "It rains.")


def test_delimiters_of_the_caller_say_how_reasoning_is_marked():
    assert text_of(REASONING, ("<a>", "</a>")) == (REASONING, "none", "answer", False)
