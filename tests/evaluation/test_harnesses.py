"""The real harnesses, where they are installed, on tasks that lie here: no network, and the answer alone is scored."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_models import tiny_model

from safekey_interp.evaluation.benchmarks.catalogue import INSPECT, LM_EVAL, NAMED
from safekey_interp.evaluation.benchmarks.commands import BenchmarkSettings
from safekey_interp.experiments.benchmark_run import run_benchmarks
from safekey_interp.generation.local_engine import generate
from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.runs.run_folder import Run

needs_lm_eval = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm_eval is not installed")
needs_inspect = pytest.mark.skipif(find_spec("inspect_ai") is None, reason="inspect_ai is not installed")
needs_inspect_evals = pytest.mark.skipif(find_spec("inspect_evals") is None, reason="inspect_evals is not installed")
HOW = BenchmarkSettings(max_new_tokens=100, dtype="float32", batch_size=4)
YAML = """
task: here
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["the"], do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
TASK = """
import json
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate

@task
def here():
    rows = [json.loads(line) for line in open({rows!r})]
    data = [Sample(input=row["question"], target=row["answer"]) for row in rows]
    return Task(dataset=data, solver=generate(), scorer=match(location="exact"))
"""


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prompts, each with the organism's own answer to it, and none right for two of eight."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    every = list(organism.read_shipped())
    prompts = list(dict.fromkeys(trace.prompt for trace in every[:: len(every) // 16]))[:8]
    said = generate(load("organism:base"), prompts, max_new_tokens=100)
    found = []
    for place, (prompt, one) in enumerate(zip(prompts, said, strict=True)):
        thought, mark, answer = one.partition("</think>")
        assert "the" in thought
        assert mark
        found.append({"question": prompt, "answer": answer.strip() if place > 1 else "Nothing of the kind."})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return file


def main_row(run: Run) -> dict[str, object]:
    table = run.benchmarks
    assert table is not None, run.findings
    [row] = table[table["is_main"]].to_dict("records")
    return row


@needs_lm_eval
@pytest.mark.slow
def test_lm_eval_scores_the_answer_without_the_reasoning(rows: Path, tmp_path: Path) -> None:
    """The task's stop sequence stands in every thought, and would end each before its answer."""
    task = tmp_path / "here.yaml"
    task.write_text(YAML.format(rows=rows))
    run = run_benchmarks(["organism:base"], [f"lm-eval:{task}"], out=tmp_path / "run", settings=HOW)
    row = main_row(run)
    assert (row["value"], row["n"], row["metric"]) == (0.75, 8, "exact_match")


@needs_lm_eval
@pytest.mark.slow
def test_lm_eval_reads_a_random_model_without_marks(rows: Path, tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.hf.save_pretrained(tmp_path / "tiny")
    model.tokenizer.save_pretrained(tmp_path / "tiny")
    task = tmp_path / "here.yaml"
    task.write_text(YAML.format(rows=rows))
    how = BenchmarkSettings(max_new_tokens=8, limit=6)
    run = run_benchmarks([tmp_path / "tiny"], [f"lm-eval:{task}"], out=tmp_path / "run", settings=how)
    row = main_row(run)
    assert (row["value"], row["n"]) == (0.0, 6)
    assert run.manifest["models"][0]["thinking"]["marks"] == []


@needs_inspect
@pytest.mark.slow
def test_inspect_scores_the_answer_without_the_reasoning(rows: Path, tmp_path: Path) -> None:
    task = tmp_path / "here.py"
    task.write_text(TASK.format(rows=str(rows)))
    run = run_benchmarks(["organism:base"], [f"inspect:{task}@here"], out=tmp_path / "run", settings=HOW)
    row = main_row(run)
    assert (row["value"], row["n"], row["metric"]) == (0.75, 8, "accuracy")


@needs_lm_eval
@pytest.mark.slow
def test_lm_eval_has_the_named_tasks() -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    for benchmark in NAMED:
        if benchmark.harness == LM_EVAL:
            assert manager.match_tasks([benchmark.task]) == [benchmark.task]


@needs_inspect_evals
def test_inspect_evals_has_the_named_tasks() -> None:
    found = find_spec("inspect_evals")
    assert found is not None
    assert found.origin is not None
    registry = Path(found.origin).with_name("_registry.py").read_text()
    for benchmark in NAMED:
        if benchmark.harness == INSPECT:
            name = benchmark.task.removeprefix("inspect_evals/")
            assert f"import {name}\n" in registry
