"""Speech act of a sentence of reasoning: does it restate the request, decide about it, or begin the task?

Restating is a speech act with a grammatical form: the asker as subject ("the user is asking", "they want"), the
request as subject ("the goal is", "this is a request for"), the model's own task ("I need to figure out how to
respond"), a question about what is meant, or, where the model speaks as the asker ("I own this shop"), a statement
about that life. A clause that brings in rules, a verdict or a plan ("…, so I must refuse") makes the
whole sentence a decision.
"""

from __future__ import annotations

from typing import Literal

from safekey_interp.segmentation.lexicon import restatement_forms as forms
from safekey_interp.segmentation.lexicon.patterns import plain

Voice = Literal["answering", "doing", "asker"]
_LONGEST = 1_200


def voice(opening: str) -> Voice:
    """Whose voice the first sentence has: it answers someone, does a task, or speaks as the asker."""
    if forms.ANSWERING_VOICE.search(opening):
        return "answering"
    if forms.ANYONE.search(opening) or forms.SET_TASK.search(opening):
        return "doing"
    return "asker" if forms.ASKER_VOICE.search(opening) or not forms.FRAMES.match(plain(opening, _LONGEST)) else "doing"


def opens_with_request(sentence: str, answer: bool) -> bool:
    """Whether a first sentence may be the understanding.

    In reasoning it is unless it has the form of a decision; in an answer it is only when it restates. One that
    restates and settles the outcome at once ("the user asks for X, so I must refuse") is no understanding.
    """
    text = plain(sentence, _LONGEST)
    if forms.RESOLVES.search(text):
        return False
    if answer:
        restated = forms.ADDRESSES_ASKER.search(text) or _restating_form(text, "answering")
        return bool(restated) and not forms.DECISION_OPENING.match(text)
    if not forms.DECISION_OPENING.match(text):
        return True
    return bool(forms.MENTIONS_REQUEST.search(text)) and not decides(text, "answering")


def continues(voice_before: Voice, sentence: str) -> Voice:
    """Voice of the text after ``sentence``: once the asker was named, "they" is the asker."""
    return "answering" if forms.ANSWERING_VOICE.search(sentence) else voice_before


def restates(sentence: str, spoken_by: Voice) -> bool:
    """Whether a sentence after the first still restates, in a text of that voice."""
    text = plain(sentence, _LONGEST)
    return not decides(text, spoken_by) and _restating_form(text, spoken_by)


def decides(sentence: str, spoken_by: Voice) -> bool:
    """Whether a clause of the sentence brings in rules, a verdict on the request, or a plan drawn from it."""
    text = plain(sentence, _LONGEST)
    return bool(forms.DECIDES.search(text)) or (spoken_by != "asker" and bool(forms.PLANS.search(text)))


def frames_task(sentence: str) -> bool:
    """Whether a first sentence says what is to be done ("I'm trying to figure out how …"), or speaks as the asker."""
    return bool(forms.FRAMES.match(plain(sentence, _LONGEST)))


def bridges(sentence: str) -> bool:
    """Whether a sentence only announces that the request will be read or taken apart."""
    return bool(forms.BRIDGE.match(plain(sentence, _LONGEST)))


def interjects(sentence: str) -> bool:
    """Whether a sentence is an interjection alone ("Hmm."), which belongs to the next one."""
    return len(sentence) < 40 and bool(forms.INTERJECTION.match(plain(sentence, _LONGEST)))


def thinks(sentence: str) -> bool:
    """Whether a sentence has the form of a thought of one's own rather than of a report."""
    return bool(forms.THINKS.match(plain(sentence, _LONGEST)))


def _restating_form(text: str, spoken_by: Voice) -> bool:
    if forms.ADVISES.match(text):
        return False
    reports = forms.ASKER_SUBJECT.match(text) or forms.REQUEST_SUBJECT.match(text) or forms.THIS_IS_REQUEST.match(text)
    if reports or (forms.REPORTED_REQUEST.search(text) and not forms.THINKS.match(text)):
        return True
    if (forms.OWN_TASK.match(text) or forms.NEEDS_TO_BE.match(text)) and not forms.TAKES_CARE.search(text):
        return True
    if spoken_by == "answering":
        asks_meaning = "?" in text and forms.MEANING.match(text) and not forms.MOTIVE_QUESTION.match(text)
        return bool(forms.PRONOUN_SUBJECT.match(text) or asks_meaning)
    return bool(forms.WISH.match(text)) or (spoken_by == "asker" and _tells(text))


def _tells(text: str) -> bool:
    """Whether a sentence in the asker's own voice continues the story, or puts its aim as a question.

    What the world is like ("banks check such things"), what the asker does not know or has never done, and a plan that
    begins are thoughts about the task, no longer the story.
    """
    if "?" in text:
        return bool(forms.GOAL_QUESTION.match(text))
    return bool(forms.OWN_LIFE.search(text)) and not forms.THINKS.match(text) and not forms.WONDERS.search(text)
