"""Compilation of the lexicon's tables into regular expressions.

The tables hold regular expressions in which white space is layout and ``_`` stands for a space of the text.
"""

from __future__ import annotations

import re
from collections import defaultdict


def pattern(table: str) -> re.Pattern[str]:
    """A table as one pattern, blind to case."""
    return re.compile("".join(table.split()).replace("_", " "), re.IGNORECASE)


def alternatives(words: str) -> str:
    """The words of a table, separated by white space, as one group that branches on the first letter: much faster than
    a flat one.

    Every word begins with a letter or digit that stands for itself, or with a group.
    """
    by_first: defaultdict[str, list[str]] = defaultdict(list)
    for word in words.split():
        by_first[word[0]].append(word[1:])
    groups = by_first.pop("(", [])
    branches = [f"{first}(?:{'|'.join(rest)})" for first, rest in sorted(by_first.items())]
    return "(?:" + "|".join(branches + ["(" + group for group in groups]) + ")"


def plain(text: str, most: int) -> str:
    """The first ``most`` characters as the patterns read them: on one line, with straight apostrophes."""
    return text[:most].replace("’", "'").replace("‘", "'").replace("\n", " ")
