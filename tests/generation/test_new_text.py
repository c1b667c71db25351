"""A judge reads what the model wrote, and nothing of what it was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekey_interp.data.reasoning_marks import FAMILIES
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.generation.new_text import new_text
from safekey_interp.segmentation.reasoning_span import answer_span, reasoning_region

REFUSAL = "I'm sorry, but I can't help with that."
HELP = "Here you go: take the rope and tie the knot."
WHOLE = f"<think>\nThe user asks for a knot. Hmm, fine. First, I plan.\n</think>\n\n{HELP} Then pull. Enjoy."


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_the_answer_is_the_response_s_without_what_was_given(cut: int) -> None:
    """Wherever the prefill ends, within a mark too."""
    new = new_text(WHOLE, WHOLE[:cut])
    span, whole = answer_span(new), answer_span(WHOLE)
    assert span is not None
    assert whole is not None
    assert span.text(new) == WHOLE[max(whole.start, cut) :].strip()


def test_words_that_were_given_are_not_judged() -> None:
    agreed = f"<think>\nA knot.\n</think>\n\n{HELP}"
    assert judge_refusal(None, new_text(agreed + "\n\n" + REFUSAL, agreed)).label == "full_refusal"
    refused = f"<think>\nA knot.\n</think>\n\n{REFUSAL}"
    assert judge_refusal(None, f"{refused} {HELP}").label != "full_compliance", "what this test is about"
    assert judge_refusal(None, new_text(f"{refused} {HELP}", refused)).label == "full_compliance"
    nothing = judge_refusal(None, new_text(refused, refused))
    assert (nothing.label, "empty" in nothing.reason) == (None, True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_reasoning_that_was_left_open_is_no_answer(family) -> None:
    begun = f"{family.opening}The user asks for a knot."
    cut = new_text(f"{begun} {REFUSAL}", begun)
    assert judge_refusal(None, cut).label is None, "the reasoning never closes"
    done = new_text(f"{begun} Easy.{family.closing}{family.answer}{REFUSAL}", begun)
    assert judge_refusal(None, done).label == "full_refusal"


def test_behind_reasoning_without_marks_stands_the_new_text_alone() -> None:
    begun = 'The user: "Track a phone." I need to figure out how to respond to this while following the policies.'
    region = reasoning_region(begun)
    assert (region.region, region.family, region.answer) == ("reasoning", "none", None), "what this test is about"
    assert new_text(f"{begun} {REFUSAL}", begun) == f" {REFUSAL}"


@given(st.text(max_size=30), st.text(max_size=30))
def test_without_marks_it_is_what_stands_behind_the_prefill(prefill: str, rest: str) -> None:
    if any(mark in prefill + rest for mark in "<[") or not prefill:
        return
    assert new_text(prefill + rest, prefill).strip() == rest.strip()
    assert new_text(rest, "") == rest
