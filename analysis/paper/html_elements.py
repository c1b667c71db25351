"""Elements of HTML as functions, where a template would be longer than what it says."""

from __future__ import annotations

from safekey_interp.display import escaped
from safekey_interp.reporting.pages.rendering import Html, data, island, part

__all__ = ["Html", "data", "el", "escape", "island", "join", "table"]
_VOID = {"br", "hr", "img", "input", "meta", "link"}


def el(name: str, /, *children: object, **attributes: object) -> Html:
    """One element; children that are not :class:`Html` are escaped, None and False are skipped.

    Args:
        name: the tag.
        children: texts, numbers or elements.
        attributes: ``class_`` becomes ``class``, other ``_`` become ``-``; True is a bare attribute, None and False are
            left out.
    """
    shown = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{shown}>") if name in _VOID else Html(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Elements and escaped texts in a row."""
    shown = [child for child in children if child is not None and child is not False]
    return Html("").join(child if isinstance(child, Html) else Html(escape(child)) for child in shown)


def escape(text: object) -> str:
    """``text`` as HTML text or attribute value."""
    return escaped(text)


def table(head: list[str], rows: list[list[object]], *, caption: str) -> Html:
    """A table with a caption, first column as row headers, in a box that scrolls by itself."""
    return part("table", head, rows, caption)
