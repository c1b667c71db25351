"""Traces in a language that the finder does not read: how many of a table, and which languages."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from safekey_interp.segmentation.text_language import UNKNOWN, language_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from safekey_interp.segmentation.segmentation_record import Segmentation

NOT_READ = "not read: "
"""How the reason begins of a segmentation without K for want of a language."""
_NAMED = 5
"""Languages that are named in a sentence."""
_LANGUAGE = re.compile(rf"{NOT_READ}([^;]*)")


class Unread(NamedTuple):
    """Traces that no share counts, since their language is not read."""

    n: int
    """How many."""
    languages: tuple[str, ...]
    """Their languages by name, the most frequent first."""

    def in_words(self, of: int) -> str:
        """One sentence with the remedy, for so many traces in all."""
        named = ", ".join(self.languages[:_NAMED]) + " and others" * (len(self.languages) > _NAMED)
        return (
            f"{self.n:,} of {of:,} traces are not read, since they are in {named}: no share counts them; --finder llm"
        )


def unread_language(segmentation: Segmentation) -> str | None:
    """Name of the language for which a segmentation has no K, or a K of which nothing is said; None when it is read."""
    if (told := _LANGUAGE.match(segmentation.reason)) is not None:
        return told[1]
    said_nothing = segmentation.key_sentence is not None and segmentation.aha is None
    return language_name(segmentation.language) if said_nothing else None


def counted(languages: Iterable[str]) -> Unread:
    """The traces that are not read, from the name of each one's language."""
    found = Counter(languages)
    return Unread(sum(found.values()), tuple(name for name, _ in found.most_common()))


def not_read(language: str) -> str:
    """The reason of a segmentation whose next sentence is in a language (ISO 639-1) that is not read."""
    return f"{NOT_READ}{language_name(language)}; --finder llm reads it"


def unread(traces: pd.DataFrame) -> Unread:
    """How many traces are not read for their language, and in which languages they are.

    Args:
        traces: the ``traces`` table of a run, or what ``segment --out`` writes, with or without ``language``.
    """
    table: Any = traces
    told = table["reason"].astype("string").fillna("").str.extract(_LANGUAGE.pattern)[0]
    unclassified = table["aha"].isna() & table["key_sentence"].notna()
    language = table["language"].fillna(UNKNOWN) if "language" in table else told.map(lambda _: UNKNOWN)
    names = told.where(told.notna(), language.map(language_name).where(unclassified))
    return counted(names.dropna())
