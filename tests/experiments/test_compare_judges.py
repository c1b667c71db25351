"""Which answers do the judges of suites see, and is anything asked of them twice?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models

from safekey_interp.data.suites import suite_files
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError
from safekey_interp.experiments.compare_judges import SuiteJudges, not_asked, opinions, suites_record
from safekey_interp.experiments.compare_models import ProbedModel
from safekey_interp.progress import Progress

ANSWERED = "<think>\nThe user asks. I will.\n</think>\n\nTake a wrench."


def done(name: str, *sources: str | None) -> ProbedModel:
    traces = [
        Trace(trace_id=f"t{number}", prompt=f"Do {number}", response=ANSWERED, source=source)
        for number, source in enumerate(sources)
    ]
    return ProbedModel(name, {trace.trace_id: trace for trace in traces}, None, None, {})


def test_a_guard_sees_the_answers_to_its_suites_alone_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path))
    model, passes = tiny_models.tiny_model("llama"), []
    model.hf.register_forward_hook(lambda *_: passes.append(1))
    judges = SuiteJudges(guard=model, guard_template="{prompt} {response}")
    sides = [done("a", "harmbench", "xstest", "strongreject", None, "wildchat"), done("b", "harmbench")]
    hidden: Any = {"load_options": {}, "progress": Progress(is_hidden=True)}
    said = opinions(sides, judges, **hidden)
    assert {name: sorted(found) for name, found in said.items()} == {"a": ["t0", "t4"], "b": ["t0"]}
    assert {one.reason for one in said["a"].values()} == {"the guard's words are no verdict"}, "it is a random model"
    n = len(passes)
    assert opinions(sides, judges, **hidden)["b"]["t0"].reason == said["b"]["t0"].reason
    assert len(passes) == n
    opinions(sides, SuiteJudges(guard=model, guard_template="{prompt}: {response}"), **hidden)
    assert len(passes) > n, "another text is another question"


def test_whose_own_judge_was_not_asked_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("category,source,forbidden_prompt\na,b,Do it\na,b,Do that\n")
    source = read_traces(suite_files([str(file)])).check()
    record = suites_record(source, SuiteJudges())
    (entry,) = not_asked(record, list(source))
    assert entry["n"] == 2
    assert "--rubric" in entry["why"]


def test_a_guards_text_without_a_guard_is_refused() -> None:
    with pytest.raises(InputError, match="without a guard"):
        SuiteJudges(guard_template="{prompt} {response}")
