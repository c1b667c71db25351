"""Language of a text and of its sentences: by script, and by the commonest words where languages share one.

The languages and their words are data (``languages/recognised.toml`` and the languages' own files); nothing is learned
and nothing is downloaded. A word counts by how few languages have it. Quotations do not count, since they are others'
words. A text that says too little is ``und`` (ISO 639-2, undetermined), and a sentence that says too little is in the
language of what it stands in.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from functools import cache, lru_cache
from typing import NamedTuple

from safekey_interp.segmentation.lexicon import FOLDER, language_file, languages_read, plain
from safekey_interp.segmentation.scripts import LATIN, SCRIPTS, words_by_script

UNKNOWN = "und"
"""The code of a language that is not known."""
READ = 400
"""Characters of a text that its language is told from."""

_DENSITY = 0.12
"""Share of a text's words that are its language's commonest, at least; prose of every language has far more."""
_FEW = 8
"""Fewer words than this need only one that no other language has as often."""
_AGAINST = 2.0
"""A sentence leaves the language around it when another speaks for it so many times as clearly."""
_TELLING = 3
"""Fewer words than this do not leave the language around them."""
_LATIN_WORD = re.compile(r"[^\W\d_](?:'?[^\W\d_])+")
"""Two letters at least: one alone is more often a variable."""
_LETTER = re.compile(r"[^\W\d_]")
_QUOTATION = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»|「[^」\n]*」|『[^』\n]*』|`[^`\n]*`")


class _Language(NamedTuple):
    name: str
    script: str
    words: frozenset[str]


@cache
def _languages() -> dict[str, _Language]:
    recognised = tomllib.loads((FOLDER / "recognised.toml").read_text(encoding="utf-8"))["languages"]
    read = {code: language_file(code) for code in languages_read()}
    tables = {code: (table, table["words"].get("function", "")) for code, table in read.items()}
    tables |= {code: (table, table.get("words", "")) for code, table in recognised.items() if code not in read}
    return {
        code: _Language(table["name"], table["script"], frozenset(words.split()))
        for code, (table, words) in tables.items()
    }


@cache
def _of_script(script: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The languages of a script, and those that have each word."""
    codes = tuple(code for code, language in _languages().items() if language.script == script)
    having: defaultdict[str, list[str]] = defaultdict(list)
    for code in codes:
        for word in _languages()[code].words:
            having[word].append(code)
    return codes, {word: tuple(those) for word, those in having.items()}


@cache
def _words_of_short_texts(language: str) -> frozenset[str]:
    words = language_file(language)["words"] if language in languages_read() else {}
    return frozenset(" ".join(words.get(name, "") for name in ("function", "common", "short")).split())


def language_name(code: str) -> str:
    """A language's English name; ``an unknown language`` for one that is not known."""
    return _languages()[code].name if code in _languages() else "an unknown language"


@lru_cache(maxsize=64)
def language_of(text: str, around: str = UNKNOWN) -> str:
    """The language that a text is written in, from its first :data:`READ` characters.

    Args:
        text: any text.
        around: language of what the text stands in, which it has unless it says otherwise.

    Returns:
        ISO 639-1 code; ``around`` where the text has no words, or too few to tell.
    """
    said = plain(text, READ).lower()
    if '"' in said or not said.isascii() or "`" in said:
        bare = _QUOTATION.sub(" ", said)
        said = bare if _LETTER.search(bare) else said
    if said.isascii():
        return _among(LATIN, said, around)
    by_script = words_by_script(said)
    if not by_script:
        return around
    return _among(max(by_script, key=lambda script: by_script[script]), said, around)


def has_words_of(text: str, code: str) -> bool:
    """Whether a text has one of a language's commonest words that no other language of its script has."""
    script = _languages()[code].script
    words = _words_in(plain(text, READ).lower(), script)
    return any(_of_script(script)[1].get(word) == (code,) for word in words)


def _words_in(text: str, script: str) -> set[str]:
    return set((_LATIN_WORD if script == LATIN else SCRIPTS[script].letters).findall(text))


def _among(script: str, text: str, around: str) -> str:
    """The language of a text, of those that share its script."""
    of_script, having = _of_script(script)
    if len(of_script) == 1:
        return of_script[0]
    words = _words_in(text, script)
    if not words:
        return around
    usual = around if around in of_script else _read_of(script)
    if usual and _is_plainly(usual, words):
        return usual
    scores: defaultdict[str, float] = defaultdict(float)
    for word in sorted(words.intersection(having)):  # sums to the last bit as in every other process
        for code in having[word]:
            scores[code] += 1 / len(having[word])
    best = max(of_script, key=lambda code: scores[code])
    # A word or two are in any language by chance: the Estonian "see" of "Okay, let's see."
    n, n_usual = len(words & _languages()[best].words), len(words & _words_of_short_texts(usual))
    if around in of_script:
        leaves = len(words) >= _TELLING and n > n_usual and scores[best] >= max(1.0, _AGAINST * scores[around])
        return best if leaves else around
    is_short = len(words) < _FEW
    if not scores[best]:
        known = (code for code in of_script if not _words_of_short_texts(code).isdisjoint(words))
        return next(known, UNKNOWN) if is_short else UNKNOWN
    likely = usual if is_short and n < n_usual else best
    return likely if is_short or n >= _DENSITY * len(words) else UNKNOWN


def _is_plainly(code: str, words: set[str]) -> bool:
    """Whether words of a language outnumber those of every other together, by far: most texts need no more."""
    n = len(words & _languages()[code].words)
    return n >= max(_DENSITY * len(words), 1 + _AGAINST * len(words & _foreign_to(code)))


@cache
def _foreign_to(code: str) -> frozenset[str]:
    """The words of the other languages of its script that a language lacks."""
    language = _languages()[code]
    return frozenset(_of_script(language.script)[1]) - language.words


@cache
def _read_of(script: str) -> str:
    """The first language of a script that is read; empty when there is none."""
    return next((code for code in _of_script(script)[0] if code in languages_read()), "")
