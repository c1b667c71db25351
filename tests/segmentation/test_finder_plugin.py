"""A finder of one's own: one file in a package outside this one, and no change inside."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import safekey_interp as ski

PLUGIN = '''
from dataclasses import replace

import safekey_interp as ski


class SecondSentence:
    """The rules' key sentence, with the confidence of this study."""

    name = "second-sentence"

    def __init__(self, delimiters=None):
        self.delimiters = delimiters

    def find(self, traces):
        for found in ski.segment_all(traces, delimiters=self.delimiters):
            yield replace(found, confidence=0.5, reason="by this study", finder=self.name)


ski.register_finder("second-sentence", SecondSentence)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "finder_of_a_study"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "second_sentence.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("finder_of_a_study.second_sentence")


@pytest.mark.usefixtures("plugin")
def test_a_finder_is_one_file() -> None:
    trace = ski.example()
    by_rules, by_plugin = ski.segment(trace), ski.segment(trace, finder="second-sentence")
    assert (by_plugin.finder, by_plugin.confidence) == ("second-sentence", 0.5)
    assert by_plugin.key_sentence == by_rules.key_sentence


@pytest.mark.usefixtures("plugin")
def test_functions_that_segment_take_it_by_name() -> None:
    trace = ski.example()
    by_rules, by_plugin = (ski.turning_points([trace], finder=name) for name in ("rules", "second-sentence"))
    assert by_plugin.equals(by_rules)


@pytest.mark.usefixtures("plugin")
def test_it_is_given_the_delimiters() -> None:
    trace = ski.Trace(trace_id="1", prompt="How?", response="[R] The user asks how. First, I plan. [/R] So.")
    segmentation = ski.segment(trace, finder="second-sentence", delimiters=("[R]", "[/R]"))
    assert (segmentation.family, segmentation.key_sentence_text) == ("given", "First, I plan.")
