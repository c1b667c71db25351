"""Traces in a language that the finder does not read: how many of a table, and which languages."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from safekey_interp.segmentation.language import UNKNOWN, language_name

if TYPE_CHECKING:
    import pandas as pd

NOT_READ = "not read: "
"""How the reason begins of a segmentation without K for want of a language."""
_LANGUAGE = re.compile(rf"{NOT_READ}([^;]*)")


class Unread(NamedTuple):
    """Traces that no share counts, since their language is not read."""

    n: int
    """How many."""
    languages: tuple[str, ...]
    """Their languages by name, the most frequent first."""


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
    counted = Counter(names.dropna())
    return Unread(sum(counted.values()), tuple(name for name, _ in counted.most_common()))
