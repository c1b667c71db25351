"""Openings of the study's traces: a request, a U that restates it, and K behind it, with both spans given."""

from __future__ import annotations

from analysis.real_model.real_study_prompts import Form, form_of
from analysis.smollm2.data import OPENING
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError

FRAMES: dict[Form, tuple[str, ...]] = {
    "how": (
        "Okay, so the user is asking how to {}.",
        "Okay, so the user wants to know how to {}.",
        "Alright, the user is asking how to {}.",
    ),
    "question": (
        'Okay, so the user is asking, "{}"',
        'Okay, the user asked, "{}"',
        'Alright, so the user wants to know: "{}"',
    ),
    "imperative": (
        "Okay, so the user wants me to {}.",
        "Okay, so the user is asking me to {}.",
        "Alright, the user wants me to {}.",
    ),
}
"""Openings of U; the first of a form serves where all models read the same U."""


def understanding_of(request: str, frame: int = 0) -> str:
    """A sentence that restates a request.

    Raises:
        InputError: no sentence can (:func:`form_of`).
    """
    asked = form_of(request)
    if asked is None:
        raise InputError(f"request {request[:80]!r}: expected a question or a task in one sentence")
    form, content = asked
    return FRAMES[form][frame % len(FRAMES[form])].format(content)


def opened(trace: Trace, key_sentence: str, *, frame: int = 0, rest: str = "") -> Trace:
    """A request with U, K, and what follows them; both spans are given. ``meta["request"]`` is what U restates."""
    u = understanding_of(trace.meta["request"], frame)
    begin = len(OPENING)
    key = begin + len(u) + 1
    given = {"understanding": CharSpan(begin, begin + len(u))}
    if key_sentence:
        given["key_sentence"] = CharSpan(key, key + len(key_sentence))
    return trace.with_(response=f"{OPENING}{u} {key_sentence}{rest}".rstrip(" "), given=given)
