"""Speech act of a sentence of reasoning: does it restate the request, decide about it, or begin the task?

Restating is a speech act with a grammatical form: the asker as subject ("the user is asking", "they want"), the
request as subject ("the goal is", "this is a request for"), the model's own task ("I need to figure out how to
respond"), a question about what is meant, or, where the model speaks as the asker ("I own this shop"), a statement
about that life. A clause that brings in rules, a verdict or a plan ("…, so I must refuse") makes the
whole sentence a decision.
"""

from __future__ import annotations

from typing import Literal

from safekey_interp.segmentation.lexicon import plain
from safekey_interp.segmentation.lexicon_sections import Restatement

Voice = Literal["answering", "doing", "asker"]
_LONGEST = 1_200


def voice(opening: str, forms: Restatement) -> Voice:
    """Whose voice the first sentence has: it answers someone, does a task, or speaks as the asker."""
    if forms.answering_voice.search(opening):
        return "answering"
    if forms.anyone.search(opening) or forms.set_task.search(opening):
        return "doing"
    return "asker" if forms.asker_voice.search(opening) or not forms.frames.match(plain(opening, _LONGEST)) else "doing"


def opens_with_request(sentence: str, answer: bool, forms: Restatement) -> bool:
    """Whether a first sentence may be the understanding.

    In reasoning it is unless it has the form of a decision; in an answer it is only when it restates. One that
    restates and settles the outcome at once ("the user asks for X, so I must refuse") is no understanding.
    """
    text = plain(sentence, _LONGEST)
    if forms.resolves.search(text):
        return False
    if answer:
        restated = forms.addresses_asker.search(text) or _restating_form(text, "answering", forms)
        return bool(restated) and not forms.decision_opening.match(text)
    if not forms.decision_opening.match(text):
        return True
    return bool(forms.mentions_request.search(text)) and not decides(text, "answering", forms)


def continues(voice_before: Voice, sentence: str, forms: Restatement) -> Voice:
    """Voice of the text after ``sentence``: once the asker was named, "they" is the asker."""
    return "answering" if forms.answering_voice.search(sentence) else voice_before


def restates(sentence: str, spoken_by: Voice, forms: Restatement) -> bool:
    """Whether a sentence after the first still restates, in a text of that voice."""
    text = plain(sentence, _LONGEST)
    return not decides(text, spoken_by, forms) and _restating_form(text, spoken_by, forms)


def decides(sentence: str, spoken_by: Voice, forms: Restatement) -> bool:
    """Whether a clause of the sentence brings in rules, a verdict on the request, or a plan drawn from it."""
    text = plain(sentence, _LONGEST)
    return bool(forms.decides.search(text)) or (spoken_by != "asker" and bool(forms.plans.search(text)))


def frames_task(sentence: str, forms: Restatement) -> bool:
    """Whether a first sentence says what is to be done ("I'm trying to figure out how …"), or speaks as the asker."""
    return bool(forms.frames.match(plain(sentence, _LONGEST)))


def bridges(sentence: str, forms: Restatement) -> bool:
    """Whether a sentence only announces that the request will be read or taken apart."""
    return bool(forms.bridge.match(plain(sentence, _LONGEST)))


def interjects(sentence: str, forms: Restatement) -> bool:
    """Whether a sentence is an interjection alone ("Hmm."), which belongs to the next one."""
    return len(sentence) < 40 and bool(forms.interjection.match(plain(sentence, _LONGEST)))


def thinks(sentence: str, forms: Restatement) -> bool:
    """Whether a sentence has the form of a thought of one's own rather than of a report."""
    return bool(forms.thinks.match(plain(sentence, _LONGEST)))


def _restating_form(text: str, spoken_by: Voice, forms: Restatement) -> bool:
    if forms.advises.match(text):
        return False
    reports = forms.asker_subject.match(text) or forms.request_subject.match(text) or forms.this_is_request.match(text)
    if reports or (forms.reported_request.search(text) and not forms.thinks.match(text)):
        return True
    if (forms.own_task.match(text) or forms.needs_to_be.match(text)) and not forms.takes_care.search(text):
        return True
    if spoken_by == "answering":
        asks_meaning = "?" in text and forms.meaning.match(text) and not forms.motive_question.match(text)
        return bool(forms.pronoun_subject.match(text) or asks_meaning)
    return bool(forms.wish.match(text)) or (spoken_by == "asker" and _tells(text, forms))


def _tells(text: str, forms: Restatement) -> bool:
    """Whether a sentence in the asker's own voice continues the story, or puts its aim as a question.

    What the world is like ("banks check such things"), what the asker does not know or has never done, and a plan that
    begins are thoughts about the task, no longer the story.
    """
    if "?" in text:
        return bool(forms.goal_question.match(text))
    return bool(forms.own_life.search(text)) and not forms.thinks.match(text) and not forms.wonders.search(text)
