"""Reasoning without marks: whether a text thinks aloud, and where its answer begins.

Files from which the marks were stripped hold reasoning and answer in one text, and answers of chat models have no
reasoning at all. The form of the opening tells them apart: a thought begins with an interjection ("Okay, so"), with the
asker in the third person ("the user wants"), with a task or an invitation to oneself ("I need to figure out", "let me
think"); everything else, first of all a plain refusal and "Sure", is an answer. The answer after a thought begins with
the first paragraph that is headed "Answer" or turns to the asker; else with the first after the last paragraph that
thinks. ``analysis/validation/unmarked_reasoning.py`` measures both on texts whose marks are known.
"""

from __future__ import annotations

import re
from itertools import pairwise

from safekey_interp.segmentation.lexicon import languages_read, lexicon_of, plain
from safekey_interp.segmentation.lexicon_sections import Monologue

_READ_OF_OPENING = 300
_READ_OF_PARAGRAPH = 4_000
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")


def thinks_aloud(text: str) -> bool:
    """Whether a text without marks begins as reasoning, in any language that has a lexicon."""
    return _language(text) is not None


def answer_start(text: str) -> int | None:
    """Where the answer begins in a text that thinks aloud: a character of ``text``; None when none follows."""
    forms = _language(text) or Monologue()
    starts = [gap.end() for gap in _PARAGRAPH.finditer(text)]
    paragraphs = [text[a:b] for a, b in pairwise([*starts, len(text)])]
    for form in (forms.heading, forms.answers):
        for start, paragraph in zip(starts, paragraphs, strict=True):
            if form.match(paragraph[:_READ_OF_OPENING].replace("’", "'")):
                return start
    last = len(paragraphs)
    while last and not forms.goes_on.search(plain(paragraphs[last - 1], _READ_OF_PARAGRAPH)):
        last -= 1
    return starts[last] if last < len(starts) else None


def _language(text: str) -> Monologue | None:
    """The forms of the first language in which a text thinks aloud."""
    opening = plain(text, _READ_OF_OPENING)
    all_forms = (lexicon_of(language).monologue for language in languages_read())
    return next((forms for forms in all_forms if forms.opens.match(opening)), None)
