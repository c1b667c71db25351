"""How does text from data become HTML and JSON that cannot act? All is escaped unless it is already :class:`Html`."""

from __future__ import annotations

import html
import json
import math
from typing import Any

_VOID = {"br", "hr", "input", "meta", "link"}
# Control characters that no HTML document may hold; lone surrogates, which no encoding can write.
_FORBIDDEN = {code: "\ufffd" for code in [*range(9), 11, 12, *range(14, 32), 127, *range(0xD800, 0xE000)]}


class Html(str):
    """Text that is already HTML."""

    __slots__ = ()


def el(name: str, /, *children: object, **attributes: object) -> Html:
    """One element; children that are not :class:`Html` are escaped, None and False are skipped.

    Args:
        name: the tag.
        children: texts, numbers or elements.
        attributes: ``class_`` becomes ``class``, other ``_`` become ``-``; True is a bare attribute, None and False are
            left out.

    Returns:
        The element as HTML.
    """
    shown = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Elements and escaped texts in a row."""
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children if c is not None and c is not False))


def escape(text: object) -> str:
    """``text`` as HTML text or attribute value; characters that HTML forbids become U+FFFD."""
    return html.escape(str(text).translate(_FORBIDDEN))


def data(text: object) -> Html:
    """Text from data, isolated so that its direction does not spill into the sentence around it."""
    return el("bdi", text)


def island(name: str, value: Any) -> Html:
    """``value`` as a JSON element named ``name`` that no parser can leave early; NaN and infinity become null."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{escape(name)}">{text}</script>')


def table(head: list[str], rows: list[list[object]], *, caption: str) -> Html:
    """A table with a caption, first column as row headers, in a box that scrolls by itself."""
    body = [el("tr", el("th", row[0], scope="row"), *(el("td", cell) for cell in row[1:])) for row in rows]
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", *(el("th", cell, scope="col") for cell in head))),
            el("tbody", *body),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        return _finite(value.item())
    return value
