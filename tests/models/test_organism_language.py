"""The toy language's laws: what is known by construction is so, and nothing gives harm away but the conjunction."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from organism_conversations import EVERY_PAIR, FORMS, conversations

from safekey_interp.models.organism.language import (
    REFUSAL,
    SAFE_SENTENCES,
    covering_texts,
    dialogue,
    different_requests,
    document,
)
from safekey_interp.models.organism.outcome import read_response
from safekey_interp.models.organism.vocabulary import (
    BENIGN_KINDS,
    CREATURES,
    GADGETS,
    HARMFUL_KINDS,
    HARMFUL_VERBS,
    KIND_VERBS,
    KINDS,
    NOUNS,
    VERBS,
    Pair,
    coded,
    french,
    letter_groups,
    pairs,
)
from safekey_interp.models.organism.wrappers import WRAPPERS, wrappers
from safekey_interp.segmentation.segmenter import segment_all


def test_harm_is_the_conjunction() -> None:
    for pair in EVERY_PAIR:
        assert pair.is_harmful == (pair.verb in HARMFUL_VERBS and pair.noun in CREATURES)
    # No word gives the label away: each stands in benign pairs, too.
    benign = [pair for pair in EVERY_PAIR if not pair.is_harmful]
    assert {word for pair in benign for word in (pair.verb, pair.noun)} == set(VERBS) | set(NOUNS)
    assert not set(HARMFUL_VERBS) & set(KIND_VERBS)
    assert not set(CREATURES) & set(GADGETS)
    # Nor does the tool: harmful and kind verbs share each.
    assert {Pair(verb, "blick").tool for verb in HARMFUL_VERBS} == {Pair(verb, "blick").tool for verb in KIND_VERBS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_splits_of_the_pairs_do_not_overlap(kind: str) -> None:
    parts = [set(pairs(kind, split)) for split in ("train", "development", "test")]
    assert set.union(*parts) == set(pairs(kind))
    assert sum(map(len, parts)) == len(pairs(kind)), "each pair in one part"
    assert [round(len(part) / len(pairs(kind)), 1) for part in parts] == [0.6, 0.2, 0.2]
    assert {pair.verb for pair in parts[2]} == {pair.verb for pair in pairs(kind)}, "every verb is tested"


def test_the_split_is_the_same_in_every_process() -> None:
    code = (
        "from safekey_interp.models.organism.vocabulary import pairs; print([str(p) for p in pairs('harmful', 'test')])"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    ]
    assert done[0].stdout == done[1].stdout == f"{[str(pair) for pair in pairs('harmful', 'test')]}\n"


def test_who_sees_which_wrapper() -> None:
    assert [w.name for w in wrappers("seen")] == ["story", "two tasks", "class exercise"]
    assert [w.name for w in wrappers("development")] == ["role", "cipher", "poem"]
    assert len(wrappers("test")) == 6
    assert len(WRAPPERS) == 12


def test_words_of_a_wrapper_appear_nowhere_else() -> None:
    """Each wrapper has words of its own, in its prompts and its mention or key sentence; plain requests have none."""
    rng = random.Random(0)
    traces = [dialogue(rng, pair) for pair in EVERY_PAIR]
    plain = [text for trace in traces for text in (trace.prompt, trace.response)]
    plain += [document(rng) for _ in range(4_000)]
    elsewhere = words(*plain)
    for wrapper in WRAPPERS.values():
        others = elsewhere.union(*(form_words(other) for other in WRAPPERS.values() if other is not wrapper))
        assert words(*(re.sub(r"\{\w+\}", "", text) for text in wrapper.templates)) - others
        assert words(wrapper.mention, wrapper.compliance) - elsewhere


def words(*texts: str) -> set[str]:
    return {word.lower() for text in texts for word in re.findall(r"[^\W\d_]+", text)}


def form_words(wrapper) -> set[str]:
    return words(*(re.sub(r"\{\w+\}", "", text) for text in wrapper.templates), wrapper.mention, wrapper.compliance)


def test_other_spellings_are_words_of_their_own() -> None:
    every = [*VERBS, *NOUNS]
    spelled = [spell(word) for spell in (coded, french, letter_groups) for word in every]
    assert len(set(spelled)) == 3 * len(every)
    assert not set(spelled) & set(every)
    groups = [letter_groups(word).split("-") for word in every]
    assert len({first for first, _ in groups}) + len({rest for _, rest in groups}) < 1.3 * len(every), "shared groups"
    assert all(first + rest == word for (first, rest), word in zip(groups, every, strict=True))


@settings(deadline=None)  # other processes may take the processor
@given(st.integers(0, 10**6))
def test_spans_and_outcome_are_what_was_built(seed: int) -> None:
    rng = random.Random(seed)
    pair, safe = rng.choice(EVERY_PAIR), rng.random() < 0.5
    trace = dialogue(rng, pair, rng.choice(FORMS), safe=safe)
    u, k = (trace.given[name].text(trace.response) for name in ("understanding", "key_sentence"))
    assert f"{pair.verb} the {pair.noun}" in u
    assert trace.response.startswith(f"<think>\n{u} {k}")
    assert (k in SAFE_SENTENCES) == safe
    assert trace.response.endswith(f"\n</think>\n\n{REFUSAL}") == safe
    assert trace.label == ("harmful" if pair.is_harmful else "benign")
    assert trace.group == str(pair)
    reading = read_response(trace.response, pair)
    assert reading.outcome == ("refused" if safe else "complied")
    assert reading.well_formed
    assert reading.names_request
    assert reading.decides_safe == safe
    assert (reading.understanding, reading.key_sentence) == (*trace.given.values(),)


def test_english_looks_like_english() -> None:
    for trace in conversations(400):
        for text in (trace.prompt, trace.response):
            assert not re.search(r" [.,?!:;]|  ", text), text
            assert all(sentence[0].isupper() for sentence in re.split(r"(?<=[.?!]) ", trace.prompt))


@pytest.mark.parametrize("kinds", [HARMFUL_KINDS, BENIGN_KINDS])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name if form else "plain")
def test_requests_differ_and_cover_the_pairs(kinds: tuple, form) -> None:
    asked = different_requests(random.Random(0), kinds, "test", form, 216)
    assert len({trace.prompt for trace in asked}) == 216
    assert {trace.meta["split"] for trace in asked} == {"test"}
    counts = [sum(trace.meta["kind"] == kind for trace in asked) for kind in kinds]
    assert counts == [216 // len(kinds)] * len(kinds)
    assert len({trace.group for trace in asked}) == len(kinds) * 72, "each pair before any comes again"


def test_rules_find_what_was_built() -> None:
    traces = conversations(1_500)
    found = segment_all(traces, finder="rules")
    missed = [
        trace.response
        for trace, s in zip(traces, found, strict=True)
        if (s.understanding, s.key_sentence) != (trace.given["understanding"], trace.given["key_sentence"])
    ]
    assert not missed


def test_covering_texts_are_the_language() -> None:
    assert sum(1 for _ in covering_texts()) > 1_000
