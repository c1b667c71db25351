"""Offsets of SafeKey's training rows: where they cut a response.

The reference's trainer (``train/sft.py``, ``get_response`` and ``get_prompt``) does not cut the response but a text
that it rebuilds from it: ``\\/`` becomes ``/``, and around the think tags the white space is set anew. For rows in that
form already (all of STAR-1's) there is no difference. For others the spans are carried back, so that ``response`` stays
as it was generated: rebuilding moves white space and drops backslashes; the n-th other character stays the n-th.
"""

from __future__ import annotations

import re

from safekey_interp.data.trace import CharSpan

_OPENING = re.compile(r"\s*(?:<think>)?\s*")
_KEPT = re.compile(r"(?!\\/)\S")  # neither white space nor a backslash that escapes a slash


def spans_from_offsets(response: str, summary_end: int, next_sentence_end: int) -> dict[str, CharSpan]:
    """The spans ``understanding`` and ``key_sentence`` of a response; one that holds nothing is absent.

    Args:
        response: the response as the file holds it.
        summary_end: where U ends and K begins, in characters.
        next_sentence_end: where K ends.
    """
    cut = response[:next_sentence_end]
    rebuilt, begin = _rebuilt(response)
    carry = not rebuilt.startswith(cut) and _is_between_sentences(rebuilt, summary_end)
    text = rebuilt if carry else response
    opening = _OPENING.match(text)
    start = opening.end() if opening else 0
    spans = {}
    for name, span in (
        ("understanding", _trimmed(text, start, summary_end)),
        ("key_sentence", _trimmed(text, max(start, summary_end), next_sentence_end)),
    ):
        if span is not None:
            spans[name] = _carried_back(span, rebuilt, response, begin) if carry else span
    return spans


def _rebuilt(response: str) -> tuple[str, int]:
    """The trainer's text, and where in the response it begins; the response itself where there is no whole thought."""
    before, _, rest = response.partition("<think>")
    thought, closing, answer = rest.replace("\\/", "/").partition("</think>")
    if not closing:
        return response, 0
    return f"<think>\n{thought.strip()}\n</think>\n\n{answer.strip()}", len(before)


def _is_between_sentences(text: str, offset: int) -> bool:
    """Whether a sentence can end here: offsets that were counted in another text cut sentences apart."""
    before, around = text[:offset].rstrip(), text[max(offset - 1, 0) : offset + 1]
    return not before[-1:].isalnum() and around.strip() != around


def _trimmed(text: str, start: int, end: int) -> CharSpan | None:
    inside = text[start:end]
    begin = start + len(inside) - len(inside.lstrip())
    return CharSpan(begin, start + len(inside.rstrip())) if inside.strip() else None


def _carried_back(span: CharSpan, rebuilt: str, response: str, begin: int) -> CharSpan:
    first = len("".join(rebuilt[: span.start].split()))
    last = first + len("".join(span.text(rebuilt).split())) - 1
    places = [match.start() for match in _KEPT.finditer(response, begin)]
    return CharSpan(places[first], places[last] + 1)
