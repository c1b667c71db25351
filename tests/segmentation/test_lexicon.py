"""Every language's file: each entry matches its example, and nothing in it goes unread."""

from __future__ import annotations

import re
from itertools import chain

import pytest

from safekey_interp.segmentation.lexicon import UNREAD, entries_of, language_file, languages_read, lexicon_of

ENTRIES = list(
    chain.from_iterable(((language, entry) for entry in entries_of(language)) for language in languages_read())
)


@pytest.mark.parametrize(
    ("language", "entry"),
    ENTRIES,
    ids=[f"{language}-{entry.name}-{number}" for number, (language, entry) in enumerate(ENTRIES)],
)
def test_each_entry_matches_its_example(language, entry):
    assert entry.pattern.search(entry.example), f"{language}: {entry.name} does not match {entry.example!r}"


@pytest.mark.parametrize("language", languages_read())
def test_a_file_has_every_block_that_it_names_and_names_every_block_that_it_has(language):
    table = language_file(language)
    entries = [
        entry
        for name, section in table.items()
        if name not in ("name", "spaced", "words", "blocks")
        for field in section.values()
        for entry in field
    ]
    sources = [*table.get("blocks", {}).values(), *(entry.get("form") or entry["words"] for entry in entries)]
    named = set(chain.from_iterable(re.findall(r"<([a-z_]+)>", source) for source in sources))
    assert named == set(table.get("blocks", {}))


def test_a_language_without_a_file_matches_nothing():
    assert lexicon_of("xx") is UNREAD
    assert not UNREAD.restatement.asker_subject.search("The user asks for help.")
