"""Labels are read by what they mean: truth values by the column's name, words by themselves, all else by a map."""

from __future__ import annotations

import pytest

from safekey_interp.data.label_polarity import TRUE_MEANS, WORDS
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError


def only(row: dict, **options: object) -> Trace:
    (trace,) = read_traces([{"prompt": "q", **row}], **options)  # type: ignore[arg-type]
    return trace


@pytest.mark.parametrize("column", sorted(set(TRUE_MEANS) - {"label"}))
def test_true_and_false_of_a_column_are_opposites(column: str) -> None:
    other = {"harmful": "benign", "benign": "harmful"}
    for true, false in ((True, False), (1, 0), ("true", "false"), ("Yes", "no"), ("1", "0")):
        assert only({column: true}).label == TRUE_MEANS[column]
        assert only({column: false}).label == other[TRUE_MEANS[column]]
        assert only({column.replace("_", " ").title(): true}).label == TRUE_MEANS[column]


def test_safe_is_benign_and_its_denial_harmful() -> None:
    assert [only({"is_safe": value}).label for value in (True, False)] == ["benign", "harmful"]
    assert [only({"unsafe": value}).label for value in (True, False)] == ["harmful", "benign"]


@pytest.mark.parametrize("word", sorted(WORDS))
def test_a_word_means_itself_in_any_column(word: str) -> None:
    spelled = word.replace("_", "-").upper()
    assert only({"label": spelled}).label == WORDS[word]
    assert only({"category": spelled}).label == WORDS[word]
    assert only({"is_safe": spelled}).label == WORDS[word]
    assert only({"kind": spelled}, label_field="kind").label == WORDS[word]


def test_a_column_of_another_meaning_is_no_label() -> None:
    for row in (
        {"category": "Malware"},
        {"toxicity": 0.83},
        {"toxicity": 4},
        {"safe": "A long text that is no value."},
    ):
        trace = only(row)
        assert trace.label is None
        assert dict(trace.meta) == row


def test_the_columns_order_decides() -> None:
    assert only({"label": "benign", "is_safe": False}).label == "benign"
    assert only({"category": "Malware", "toxicity": 0.2, "is_harmful": True}).label == "harmful"


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"refused": True}, {"label_field": "refused"}),
        ({"refused": 1}, {"label_field": "refused"}),
        ({"grade": "3"}, {"label_field": "grade"}),
        ({"label": 2}, {}),
        ({"is_safe": "perhaps"}, {}),
        ({"label": "partial"}, {"label_map": {"full": "harmful"}}),
    ],
)
def test_what_has_no_known_meaning_asks_for_a_map(row: dict, options: dict) -> None:
    with pytest.raises(InputError, match=r"got the values .*--label-map VALUE=harmful,VALUE=benign"):
        only(row, **options)


def test_a_map_says_what_values_mean() -> None:
    assert only({"refused": True}, label_field="refused", label_map={"TRUE": "benign"}).label == "benign"
    assert only({"grade": 3}, label_field="grade", label_map={"3": "harmful"}).label == "harmful"
    assert only({"grade": 3.0}, label_field="grade", label_map={"3": "harmful"}).label == "harmful"
    assert only({"label": "safe"}, label_map={"safe": "harmful"}).label == "harmful", "the user is right"
    assert only({"label": "safe"}, label_map={"x": "harmful"}).label == "benign", "what it leaves out is read as ever"
    assert only({"label": "unclear"}, label_map={"unclear": ""}).label is None
    assert only({"is_safe": "perhaps"}, label_map={"perhaps": "benign"}).label == "benign"


def test_the_error_names_the_values_that_are_there() -> None:
    rows = [{"prompt": "q", "grade": grade} for grade in (1, 2, 2, 5)]
    with pytest.raises(InputError, match=r"^rows in memory: grade: got the values 1, 2, 5; expected"):
        list(read_traces(rows, label_field="grade"))


def test_the_map_of_the_command_line(command, here) -> None:
    (here / "a.jsonl").write_text('{"prompt": "q", "response": "r", "grade": 2}\n')
    given = ("segment", here / "a.jsonl", "--label-field", "grade", "--out", "out.jsonl", "--label-map")
    assert command(*given, "2=harmful,0=benign").status == 0
    for wrong in ("2", "=harmful", "2=harmful,"):
        ended = command(*given, wrong)
        assert ended.status == 2
        assert "--label-map: got" in ended.err
        assert "expected VALUE=CLASS" in ended.err
