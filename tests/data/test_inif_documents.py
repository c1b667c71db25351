"""INIF documents: a range of tokens is the interval of the characters that it covers, in each text that it touches."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from command_line import Type
from damaged_files import read_or_named
from hypothesis import given, settings
from hypothesis import strategies as st

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError

METADATA = {"model": {"name": "m"}, "inif_version": "0.1"}
OPENING = ["<|im_start|>", "user", "\n"]
TOKENS = [
    *OPENING,
    "user",
    " asks",
    "<|im_end|>",
    "\n",
    "<|im_start|>",
    "assistant",
    "\n",
    "Yes",
    ".",
    " Wait",
    "<|im_end|>",
]
TEXTS = [{"name": "user_0", "value": "user asks"}, {"name": "assistant_0", "value": "Yes. Wait"}]
ROLES = [
    {"name": "user", "ranges": [[3, 5]]},
    {"name": "assistant", "ranges": [[10, 13]]},
    {"name": "template", "ranges": [[0, 3], [5, 10]]},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def tokens(strings: list[str]) -> list[dict]:
    return [{"token": string, "id": number} for number, string in enumerate(strings)]


def sample(**changes: object) -> dict:
    return {"id": "0", "tokens": tokens(TOKENS), "texts": TEXTS, "annotations": ROLES} | changes


def document(path: Path, *samples: object, sequences: object = ()) -> Path:
    path.write_text(json.dumps({"metadata": METADATA, "sequences": sequences or [], "samples": list(samples)}))
    return path


def only(path: Path) -> Trace:
    [trace] = read_traces(path)
    return trace


def words(trace: Trace) -> dict[str, list[str]]:
    places = [(trace.prompt, trace.prompt_spans), (trace.response, trace.spans)]
    places += [(turn.content, turn.spans) for turn in trace.messages]
    found: dict[str, list[str]] = {}
    for text, spans in places:
        for name, intervals in spans.items():
            found.setdefault(name, []).extend(span.text(text) for span in intervals)
    return found


def test_a_sample_is_a_trace(tmp_path: Path) -> None:
    named = [
        {"name": "wait", "ranges": [[12, 13]], "metadata": {"source": "regex"}},
        {"name": "both", "ranges": [[4, 11]]},
    ]
    spans = [{"name": "ends", "positions": [10, 12], "tags": ["x"]}, {"name": "named entity", "positions": [3]}]
    scores = [{"scorer": "match", "value": 1, "answer": "Yes"}]
    given = sample(annotations=ROLES + named, spans=spans, scores=scores, target="Yes", metadata={"language": "en"})
    trace = only(document(tmp_path / "d.inif.json", given))
    assert (trace.trace_id, trace.prompt, trace.response) == ("0", "user asks", "Yes. Wait")
    assert words(trace) == {
        "wait": [" Wait"], "both": [" asks", "Yes"], "ends": ["Yes", " Wait"], "named_entity": ["user"],
    }  # fmt: skip
    assert (trace.meta["score_match"], trace.meta["target"], trace.meta["language"]) == (1, "Yes", "en")


def test_names_that_are_built_in_get_a_prefix_and_given_spans_are_given(tmp_path: Path) -> None:
    named = [{"name": "reasoning", "ranges": [[10, 12]]}, {"name": "key_sentence", "ranges": [[12, 13]]}]
    trace = only(document(tmp_path / "d.json", sample(annotations=[*named, {"name": "prompt", "ranges": [[3, 4]]}])))
    assert words(trace) == {"inif_reasoning": ["Yes."], "inif_prompt": ["user"]}
    assert trace.given["key_sentence"].text(trace.response) == " Wait"


WORDS = st.lists(st.sampled_from(["a", " a", "bc", " ü", ".", "user"]), min_size=1, max_size=6)


@given(st.lists(WORDS, min_size=1, max_size=3), WORDS, st.data(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_range_covers_the_characters_of_its_tokens(tmp_path_factory, asked, answer, data, is_shared: bool) -> None:
    """The reference marks every character with the number of its token."""
    turns = [(role, words) for number, words in enumerate([*asked, answer]) for role in [_role(number, len(asked))]]
    strings: list[str] = []
    ranges: dict[str, list[list[int]]] = {"user": [], "assistant": []}
    owners: list[list[int]] = []
    for role, own in turns:
        strings += OPENING
        ranges[role].append([len(strings), len(strings) + len(own)])
        owners.append([len(strings) + number for number, word in enumerate(own) for _ in word])
        strings += [*own, "<|im_end|>"]
    start = data.draw(st.integers(0, len(strings) - 1))
    end = data.draw(st.integers(start + 1, len(strings)))
    roles = [{"name": name, "ranges": several} for name, several in ranges.items()]
    texts = [{"name": f"{role}_{number}", "value": "".join(own)} for number, (role, own) in enumerate(turns)]
    held, sequences, shift = tokens(strings), [], 0
    if is_shared and start >= len(OPENING):  # the first tokens, as one reference
        sequences = [{"id": "seq_0", "n_tokens": len(OPENING), "tokens": held[: len(OPENING)]}]
        reference = data.draw(st.sampled_from([{"token": "seq_0"}, {"seq_id": "seq_0", "id": -1}]))
        held, shift = [reference, *held[len(OPENING) :]], len(OPENING) - 1
        roles = [{"name": r["name"], "ranges": [[s - shift, e - shift] for s, e in r["ranges"]]} for r in roles]
    marked = {"name": "marked", "ranges": [[start - shift, end - shift]]}
    for given_texts in (texts, []):  # the conversation from texts, and from annotations of roles alone
        made = {"id": "x", "tokens": held, "texts": given_texts, "annotations": [*roles, marked]}
        trace = only(document(tmp_path_factory.getbasetemp() / "r.json", made, sequences=sequences))
        assert [turn.content for turn in trace.messages] + [trace.prompt, trace.response] == [
            "".join(own) for _, own in turns
        ]
        of_turns = [*(turn.spans for turn in trace.messages), trace.prompt_spans, trace.spans]
        for spans, owner in zip(of_turns, owners, strict=True):
            covered = {at for span in spans.get("marked", ()) for at in range(span.start, span.end)}
            assert covered == {at for at, token in enumerate(owner) if start <= token < end}


def _role(number: int, n_asked: int) -> str:
    return "assistant" if number == n_asked else "user"


def test_reasoning_of_a_message_stands_between_its_marks(tmp_path: Path) -> None:
    children = [{"name": "reasoning", "value": "Yes."}, {"name": "content", "value": " Wait "}, {"name": "tool_calls"}]
    named = [{"name": "wait", "ranges": [[12, 13]]}, {"name": "dot", "ranges": [[11, 12]]}]
    texts = [TEXTS[0], {"name": "assistant_0", "value": "", "children": children}]
    trace = only(document(tmp_path / "d.json", sample(texts=texts, annotations=ROLES + named)))
    assert trace.response == "<think>Yes.</think> Wait "
    assert words(trace) == {"dot": ["."], "wait": ["Wait"]}  # a template may strip a text
    assert trace.meta["left_out"] == "tool_calls"


def test_generated_tokens_are_the_answer_where_no_role_is_told(tmp_path: Path) -> None:
    named = [{"name": "user", "ranges": [[3, 5]]}, {"name": "generated", "ranges": [[10, 13]]}]
    trace = only(document(tmp_path / "d.json", sample(texts=[], annotations=named)))
    assert (trace.prompt, trace.response, words(trace)) == ("user asks", "Yes. Wait", {"generated": ["Yes. Wait"]})


def test_spans_of_a_text_that_the_tokens_do_not_hold_are_named(tmp_path: Path) -> None:
    texts = [TEXTS[0], {"name": "assistant_0", "value": "Yes.\u2028Wait"}]  # some tokenizers lose such characters
    named = [{"name": "wait", "ranges": [[12, 13]]}]
    trace = only(document(tmp_path / "d.json", sample(texts=texts, annotations=ROLES + named)))
    assert not trace.spans
    assert trace.meta["left_out"] == "spans of assistant_0"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"annotations": [{"name": "x", "ranges": [[3, 99]]}]},
            "annotations[0]: x: got [3, 99], expected ranges among",
        ),
        ({"annotations": [{"name": "x", "ranges": [[3, 3]]}]}, "x: got [3, 3]"),
        ({"annotations": [{"name": "x", "ranges": [[True, 3]]}]}, "x: got a list of 2"),
        ({"spans": [{"name": "x", "positions": [14]}]}, "spans[0]: x: got 14, expected positions among"),
        ({"annotations": [{"name": n, "ranges": [[3, 4]]} for n in ("a b", "a?b")]}, "would both be the span 'a_b'"),
        ({"tokens": [{"token": "seq_9"}]}, "tokens[0]: no sequence 'seq_9' stands before the samples"),
        ({"texts": [], "annotations": []}, "no conversation"),
        ({"texts": [{"name": "user_0", "value": 3}]}, "texts[0].value: got the number 3, expected text"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_place(tmp_path: Path, changes: dict, expected: str) -> None:
    with pytest.raises(InputError) as error:
        list(read_traces(document(tmp_path / "d.json", sample(), sample(id="1", **changes))))
    [line] = str(error.value).splitlines()
    assert "d.json, row 2" in line
    assert expected in line


@given(st.data(), JSON)
@settings(max_examples=150, deadline=None)
def test_a_wrong_value_anywhere_raises_nothing_but_the_documented_error(tmp_path_factory, data, value) -> None:
    held = {
        "metadata": METADATA,
        "sequences": [{"id": "s", "n_tokens": 1, "tokens": tokens(["a"])}],
        "samples": [sample()],
    }
    held["samples"][0]["spans"] = [{"name": "x", "positions": [1]}]
    held = copy.deepcopy(held)
    at = held[data.draw(st.sampled_from(["sequences", "samples"]))]
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = value
    path = tmp_path_factory.getbasetemp() / "wrong.json"
    path.write_text(json.dumps(held))
    assert path.name in read_or_named(path)


def test_references_that_would_fill_memory_are_refused(tmp_path: Path) -> None:
    long = [{"id": "seq_0", "n_tokens": 1, "tokens": [{"token": "a" * (1 << 20), "id": 1}]}]
    path = document(tmp_path / "d.json", sample(tokens=[{"token": "seq_0"}] * 257), sequences=long)
    with pytest.raises(InputError, match="tokens of 269,484,032 characters, expected at most 268,435,456"):
        list(read_traces(path))


def test_a_command_ends_with_status_2_and_one_line(command: Type, tmp_path: Path) -> None:
    typed = command("segment", document(tmp_path / "d.inif.json", sample(texts=[], annotations=[])))
    assert typed.status == 2
    assert "d.inif.json, row 1: no conversation" in typed.err
