r"""Lexicon of a language: what the rule-based finder and the classes of key sentences read, from one file a language.

``languages/<code>.toml`` (an ISO 639-1 code) holds ``name``, ``script``, ``[words]``,
``[blocks]`` and entries of the sections of :mod:`~safekey_interp.segmentation.lexicon_sections`. An entry is a
``form``, a regular expression blind to case in which white space is layout, ``_`` is a space of the text and ``<name>``
is a block; or ``words``, a table of such forms separated by white space. Each has an ``example`` that it matches.
A language is one such file and one test: docs/howto/language.md.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from safekey_interp.segmentation.lexicon_sections import NEVER, Compliance, Form, Monologue, Refusal, Restatement, Risk
from safekey_interp.segmentation.scripts import LATIN, SCRIPTS, Script

FOLDER = Path(__file__).parent / "languages"
"""Where the languages' files lie."""
_SECTIONS = {
    "restatement": Restatement,
    "risk": Risk,
    "refusal": Refusal,
    "compliance": Compliance,
    "monologue": Monologue,
}
_WORDS = re.compile(r"[^\W\d_]{4,}")
_BLOCK = re.compile(r"<([a-z_]+)>")
_STEM = 5
"""Letters of a word that are compared: what follows is mostly inflection."""


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Everything that is read of one language; by default nothing, as for a language without a file."""

    language: str = "und"
    """ISO 639-1 code; ``und`` for none."""
    common: frozenset[str] = field(default=frozenset(), repr=False)
    """Words too common to tell what a text is about."""
    restatement: Restatement = field(default=Restatement(), repr=False)
    risk: Risk = field(default=Risk(), repr=False)
    refusal: Refusal = field(default=Refusal(), repr=False)
    compliance: Compliance = field(default=Compliance(), repr=False)
    monologue: Monologue = field(default=Monologue(), repr=False)

    script: Script = SCRIPTS[LATIN]
    """How it is written."""

    def content(self, text: str) -> frozenset[str]:
        """The content words of a text, each by its first letters; pairs of letters where white space parts no words."""
        if self.script.letters_per_word:
            pairs = (run[at : at + 2] for run in self.script.letters.findall(text) for at in range(len(run) - 1))
            return frozenset(pairs) - self.common
        return frozenset(word[:_STEM] for word in _WORDS.findall(text.lower()) if word not in self.common)


UNREAD = Lexicon()
"""The lexicon of a language that has no file: nothing in it ever matches."""


class Entry(NamedTuple):
    """One entry of a language's file."""

    name: str
    """``section.field``."""
    pattern: Form
    """The entry alone."""
    example: str
    """A text that it matches."""


@cache
def language_file(language: str) -> Mapping[str, Any]:
    """What the file of a language says, as it stands there.

    Raises:
        KeyError: the language has no file.
    """
    if language not in languages_read():
        raise KeyError(language)
    return tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))


@cache
def languages_read() -> tuple[str, ...]:
    """Codes of the languages that have a file, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("??.toml")))


@cache
def lexicon_of(language: str) -> Lexicon:
    """The lexicon of a language, compiled once; :data:`UNREAD` for one that has no file.

    Args:
        language: ISO 639-1 code.

    Raises:
        ValueError: the file has a section, a field or a block that nothing reads.
    """
    if language not in languages_read():
        return UNREAD
    table = language_file(language)
    _check(f"{language}.toml", table, ("name", "script", "words", "blocks", *_SECTIONS))
    sections: dict[str, Any] = {}
    for name, section in _SECTIONS.items():
        entries = table.get(name, {})
        _check(f"{language}.toml, {name}", entries, [known.name for known in fields(section)])
        sections[name] = section(**{key: _joined(of_key, table) for key, of_key in entries.items()})
    common = frozenset(table["words"].get("common", "").split())
    return Lexicon(language=language, common=common, script=SCRIPTS[table["script"]], **sections)


def entries_of(language: str) -> Iterator[Entry]:
    """Each entry of a language's file by itself, for its test."""
    table = language_file(language)
    for section in _SECTIONS:
        for name, entries in table.get(section, {}).items():
            for entry in entries:
                yield Entry(f"{section}.{name}", _joined([entry], table), entry["example"])


def lexicons_in(text: str) -> tuple[Lexicon, ...]:
    """The lexicons of every language that is read and whose script a text has."""
    if text.isascii():
        return _lexicons_by_script().get(LATIN, ())
    written = [known for script, known in _lexicons_by_script().items() if SCRIPTS[script].letters.search(text)]
    return tuple(chain.from_iterable(written))


@cache
def _lexicons_by_script() -> dict[str, tuple[Lexicon, ...]]:
    by_script: defaultdict[str, tuple[Lexicon, ...]] = defaultdict(tuple)
    for language in languages_read():
        by_script[language_file(language)["script"]] += (lexicon_of(language),)
    return dict(by_script)


def plain(text: str, most: int) -> str:
    """The first ``most`` characters as forms read them: on one line, with straight apostrophes, with ``?`` alone."""
    return text[:most].replace("’", "'").replace("‘", "'").replace("\n", " ").replace("？", "?")


def _check(where: str, given: Iterable[str], expected: Collection[str]) -> None:
    unknown = sorted(set(given) - set(expected))
    if unknown:
        raise ValueError(f"{where}: {', '.join(unknown)}, expected some of {', '.join(expected)}")


def _joined(entries: list[Mapping[str, str]], table: Mapping[str, Any]) -> Form:
    """Entries as one pattern: forms side by side, or the tables' words as one group."""
    if all("words" in entry for entry in entries):
        group = _alternatives(" ".join(entry["words"] for entry in entries))
        source = group if SCRIPTS[table["script"]].letters_per_word else rf"\b{group}\b"
    else:
        source = "|".join(entry["form"] for entry in entries)
    return re.compile(_expanded(source, table.get("blocks", {})), re.IGNORECASE) if source else NEVER


def _expanded(source: str, blocks: Mapping[str, str]) -> str:
    """The regular expression itself: blocks in the place of their names, without layout."""
    while _BLOCK.search(source):
        source = _BLOCK.sub(lambda name: blocks[name[1]], source)
    return "".join(source.split()).replace("_", " ")


def _alternatives(words: str) -> str:
    """The words of a table as one group that branches on the first letter: much faster than a flat one.

    Every word begins with a letter or digit that stands for itself, or with a group.
    """
    by_first: defaultdict[str, list[str]] = defaultdict(list)
    for word in words.split():
        by_first[word[0]].append(word[1:])
    groups = by_first.pop("(", [])
    branches = [f"{first}(?:{'|'.join(rest)})" for first, rest in sorted(by_first.items())]
    return "(?:" + "|".join(branches + ["(" + group for group in groups]) + ")"
