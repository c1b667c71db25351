"""Parser of HTML pages: tags, words, scripts, and the data of the figures."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.words: list[str] = []
        self._open: dict | None = None

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = dict(attrs)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._open = None

    def handle_data(self, data):
        if self._open is None:
            self.words.append(data)
        else:
            self.scripts.append((self._open, data))


def read(page) -> tuple[str, Outline]:
    text = page.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(text)
    return text, outline


def figures_in(page: Path) -> dict[str, Any]:
    """What the page's figures are drawn from."""
    data = re.search(r'id="figures-data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    assert data
    return json.loads(data[1])


def check_outline(outline: Outline) -> None:
    """One heading of the first level, which comes first; none skips a level; no id comes twice."""
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
