"""Laws of the comparison with annotators: what counts as right, over what, and how sure it is."""

import json
from pathlib import Path

import pytest

from safekey_interp.errors import InputError
from safekey_interp.evaluation.segmentation_agreement import compare, is_held_out, read_annotations
from safekey_interp.measures.intervals import share_interval
from safekey_interp.segmentation.segmenter import segment_all

SHARED = Path(__file__).parents[3] / "shared" / "data" / "key_sentences.jsonl"
OPENINGS = Path(__file__).parents[1] / "segmentation" / "openings"
RESPONSE = "<think>\nThe user wants a bomb. That is dangerous. No."
U, K, LATER = [8, 30], [31, 49], [50, 53]


def annotator(key_sentence=K, aha="safe", hint="yes"):
    return {"understanding": U, "key_sentence": key_sentence, "aha": aha, "hint": hint}


def write(path, *rows):
    lines = (
        json.dumps({"id": f"t{index}", "prompt": "p", "response": RESPONSE, "annotator_a": a, "annotator_b": b})
        for index, (a, b) in enumerate(rows)
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def agreement(annotations):
    return compare(segment_all(annotation.trace for annotation in annotations), annotations)


def test_only_what_the_annotators_agree_on_is_judged(tmp_path):
    rows = [
        (annotator(), annotator()),  # right in all
        (annotator(), annotator(LATER)),  # no agreed key sentence: not judged
        (annotator(LATER), annotator(LATER)),  # wrong
        (annotator(), annotator(aha="neutral", hint="no")),  # key sentence right, aha and hint not judged
    ]
    report = agreement(read_annotations(write(tmp_path / "a.jsonl", *rows)))
    assert report.row("key sentence")[1:3] == (2, 3)
    assert report.row("aha")[1:3] == (2, 2)
    assert report.row("annotators, key sentence")[1:3] == (3, 4)
    assert report.missed == ("t2",)


def test_one_annotator_has_nobody_to_agree_with(tmp_path):
    row = {"id": "t", "prompt": "p", "response": RESPONSE, "annotator_a": annotator()}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    report = agreement(read_annotations(tmp_path / "a.jsonl"))
    assert [each.name for each in report.rows] == ["key sentence", "aha", "hint"]


@pytest.mark.parametrize(
    ("openings", "least"),
    [("en_written_with", (0.95, 0.91)), ("en_held_out", (0.97, 0.93)), ("zh_other_authors", (0.95, 0.92))],
)
def test_openings_of_other_authors(openings, least):
    """What rules were mended with, and eighty English openings that were measured once, after that."""
    report = agreement(read_annotations(OPENINGS / f"{openings}.jsonl"))
    assert report.row("key sentence").rate >= least[0]
    assert report.row("aha").rate >= least[1]


def test_the_interval_is_that_of_a_share(tmp_path):
    report = agreement(read_annotations(write(tmp_path / "a.jsonl", *[(annotator(), annotator())] * 10)))
    row = report.row("key sentence")
    assert (row.rate, (row.low, row.high)) == (1.0, tuple(share_interval([1] * 10, range(10))))
    assert "key sentence" in str(report)
    assert all(len(line) <= 80 for line in str(report).splitlines())


def test_traces_without_a_segmentation_are_counted(tmp_path):
    annotations = read_annotations(write(tmp_path / "a.jsonl", *[(annotator(), annotator())] * 3))
    said = list(segment_all(annotation.trace for annotation in annotations[:2]))
    assert compare(said, annotations).n_left_out == 1
    with pytest.raises(InputError, match="none of the traces is annotated"):
        compare([], annotations)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n", "no annotated trace"),
        ('{"id": "a"', "line 1"),
        ('{"id": "a", "prompt": "p", "response": "r"}', "line 1: got KeyError"),
        ('{"id": "a", "prompt": "p", "response": "r", "annotator_a": {"key_sentence": [0, 9]}}', "past the response"),
        ("[1, 2]", "line 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, text, message):
    path = tmp_path / "a.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(path)
    assert "\n" not in str(caught.value)


def test_no_such_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_annotations(tmp_path / "none.jsonl")


def test_the_held_out_third_is_about_a_third_and_fixed():
    share = sum(is_held_out(f"trace-{index}") for index in range(3_000)) / 3_000
    assert 0.3 < share < 0.37
    assert [is_held_out(name) for name in ("a", "b", "c", "d")] == [is_held_out(name) for name in ("a", "b", "c", "d")]


@pytest.mark.skipif(not SHARED.exists(), reason="development data is absent")
def test_the_rules_reach_their_bar_on_the_shared_file():
    report = agreement(read_annotations(SHARED))
    assert report.row("key sentence").rate >= 0.97
    assert report.row("aha").rate >= 0.95
