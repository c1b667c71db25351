"""Scripts of writing: which letters belong to which, and how many of them make a word where white space does not."""

from __future__ import annotations

import re
from typing import NamedTuple


class Script(NamedTuple):
    """One script."""

    letters: re.Pattern[str]
    """A run of its letters."""
    letters_per_word: float = 0.0
    """Letters that make a word on average where words are not parted by white space; 0 where they are."""
    borrows: str = ""
    """A script whose letters are this one's in a text that mixes both, as Japanese writes Chinese characters."""

    def count_words(self, text: str) -> float:
        """How many words of this script ``text`` has, about."""
        runs = self.letters.findall(text)
        return sum(map(len, runs)) / self.letters_per_word if self.letters_per_word else float(len(runs))


def _script(letters: str, letters_per_word: float = 0.0, borrows: str = "") -> Script:
    return Script(re.compile(f"[{letters}]+"), letters_per_word, borrows)


LATIN = "Latin"
SCRIPTS = {
    LATIN: _script("A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ"),
    "Han": _script("々㐀-䶿一-鿿豈-﫿\U00020000-\U0003134f", 1.6),
    "Kana": _script("ぁ-ゖァ-ヺーｦ-ﾟ", 2.5, "Han"),
    "Hangul": _script("ᄀ-ᇿㄱ-ㆎ가-힣", borrows="Han"),
    "Cyrillic": _script("Ѐ-ԯ"),
    "Arabic": _script("ء-يٮ-ۓەۮۯۺ-ۿݐ-ݿﭐ-﷿ﹰ-ﻼ\u064b-\u0652\u200c"),
    "Devanagari": _script("ऀ-ॣॱ-ॿ"),
    "Bengali": _script("ঀ-ৣ"),
    "Gurmukhi": _script("ਁ-ੵ"),
    "Gujarati": _script("ઁ-ૣ"),
    "Tamil": _script("ஂ-ௗ"),
    "Telugu": _script("ఀ-ౣ"),
    "Kannada": _script("ಀ-ೣ"),
    "Malayalam": _script("ഀ-ൣ"),
    "Sinhala": _script("ඁ-ෟ"),
    "Thai": _script("ก-๎", 4.5),
    "Lao": _script("ກ-ໟ", 4.5),
    "Myanmar": _script("က-ဿ", 4.5),
    "Khmer": _script("ក-៓", 4.5),
    "Ethiopic": _script("ሀ-ፚ"),
    "Georgian": _script("Ⴀ-ჿ"),
    "Armenian": _script("Ա-և"),
    "Hebrew": _script("א-ת"),
    "Greek": _script("Ͱ-Ͽἀ-῿"),
}
"""Every script that is told apart."""
_BORROWING = 0.1
"""A text whose letters are to this share a borrowing script's own is written in that script."""


def words_by_script(text: str) -> dict[str, float]:
    """How many words of each script a text has, about; scripts that it does not have are left out."""
    if text.isascii():
        found = {LATIN: SCRIPTS[LATIN].count_words(text)}
    else:
        found = {name: n for name, script in SCRIPTS.items() if (n := script.count_words(text))}
    for name, script in SCRIPTS.items():
        if name in found and script.borrows in found and found[name] >= _BORROWING * found[script.borrows]:
            found[name] += found.pop(script.borrows)
    return found
