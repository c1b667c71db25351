"""Benchmarks of others: which call is made, how thinking is handled, what is read back, and what is said of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_models import byte_level_tokenizer
from tokenizers import AddedToken

from safekey_interp.errors import InputError, ModelError, RunError
from safekey_interp.evaluation.benchmarks.catalogue import NAMED, Benchmark, benchmarks_of
from safekey_interp.evaluation.benchmarks.commands import BenchmarkSettings, call_of, check_call
from safekey_interp.evaluation.benchmarks.handover import HarnessModel, Thinking, for_harness, thinking_of
from safekey_interp.evaluation.benchmarks.scores import COLUMNS, scores_in
from safekey_interp.measures.intervals import share_from_error
from safekey_interp.models.model_list import NamedModel, named_models
from safekey_interp.reporting import figures
from safekey_interp.reporting.findings.benchmark_findings import difference, tell

Z = 1.96
"""Of the rows made here."""
THINKING = Thinking(opening="<think>", closing="</think>", has_template=True, has_switch=True)
LM_EVAL, INSPECT = benchmarks_of(["lm-eval:task", "inspect:pkg/task"])
BY_NAME = {benchmark.name: benchmark for benchmark in NAMED}


def model(thinking: Thinking = THINKING) -> HarnessModel:
    return HarnessModel(
        name="m", folder="m", spec="m", location="/models/m, m", fingerprint="f", longest=1000, thinking=thinking
    )


def after(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def call(benchmark: Benchmark, marks: Thinking = THINKING, **settings: Any) -> list[str]:
    return call_of(benchmark, model(marks), BenchmarkSettings(**settings), Path("/unit")).arguments


# -- names ------------------------------------------------------------------------------------------------------------


def test_named_benchmarks_have_names_of_their_own_and_say_who_made_them() -> None:
    assert len(BY_NAME) == len(NAMED)
    assert {"math-500", "aime-2024", "gpqa", "minerva", "humaneval"} <= set(BY_NAME)
    assert all(benchmark.cites and benchmark.metric for benchmark in NAMED)
    assert {name for name, benchmark in BY_NAME.items() if benchmark.runs_code} == {"humaneval", "humaneval-inspect"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "expected names"),
        ("gpqa", "expected names"),
        (["math500"], "nearest: math-500"),
        (["gpqa", "gpqa"], "given twice"),
        (["lm-eval:"], "one task"),
        (["lm-eval:--trust_remote_code"], "one task"),
        (["lm-eval:a,b"], "one task"),
        (["inspect:-M x=1"], "one task"),
        (["other:task"], "has no short name"),
    ],
)
def test_a_name_that_no_harness_has_is_refused(names: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        benchmarks_of(names)


# -- calls ------------------------------------------------------------------------------------------------------------


def test_lm_eval_scores_what_follows_the_last_mark_and_stops_no_thought() -> None:
    words = call(LM_EVAL)
    loaded, drawn = json.loads(after(words, "--model_args")), json.loads(after(words, "--gen_kwargs"))
    assert loaded["pretrained"] == "/models/m, m"
    assert (loaded["think_end_token"], loaded["enable_thinking"]) == ("</think>", True)
    assert loaded["use_safetensors"] is True
    assert drawn == {"do_sample": False, "max_gen_toks": 1000, "until": []}
    assert "--apply_chat_template" in words
    assert not {"--trust_remote_code", "--confirm_run_unsafe_code", "--limit", "--device"} & set(words)


def test_a_mark_that_is_a_special_token_goes_to_lm_eval_as_its_id_and_not_to_inspect() -> None:
    harmony = Thinking(opening="<|a|>", closing="<|b|>", closing_id=7, has_template=True)
    assert json.loads(after(call(LM_EVAL, harmony), "--model_args"))["think_end_token"] == 7
    with pytest.raises(InputError, match="special token"):
        check_call(INSPECT, model(harmony), BenchmarkSettings())
    check_call(LM_EVAL, model(harmony), BenchmarkSettings())


def test_a_model_that_does_not_think_keeps_the_tasks_own_stops() -> None:
    words = call(LM_EVAL, Thinking())
    assert "think_end_token" not in after(words, "--model_args")
    assert "until" not in after(words, "--gen_kwargs")
    assert "--apply_chat_template" not in words


def test_an_answer_that_the_harness_begins_is_neither_prolonged_nor_preceded_by_thought() -> None:
    words = call(BY_NAME["humaneval"], allow_code_execution=True)
    assert "enable_thinking" not in after(words, "--model_args")
    assert json.loads(after(words, "--gen_kwargs")) == {"do_sample": False}


def test_inspect_asks_through_the_provider_that_takes_reasoning_out() -> None:
    made = call_of(INSPECT, model(), BenchmarkSettings(temperature=0.6, top_p=0.95, limit=5), Path("/unit"))
    words, loaded = made.arguments, made.files["model.json"]
    assert Path(words[0]).name == "inspect_provider.py"
    assert after(words, "--model") == "thinking/m"
    assert after(words, "--model-config") == "/unit/model.json"
    assert loaded["model_path"] == "/models/m, m"
    assert (loaded["opening"], loaded["closing"], loaded["enable_thinking"]) == ("<think>", "</think>", True)
    assert (loaded["do_sample"], loaded["trust_remote_code"]) == (True, False)
    assert (after(words, "--temperature"), after(words, "--top-p"), after(words, "--limit")) == ("0.6", "0.95", "5")
    assert after(words, "--max-tokens") == "1000"


def test_inspect_itself_asks_a_model_that_does_not_think() -> None:
    made = call_of(INSPECT, model(Thinking(has_template=True)), BenchmarkSettings(), Path("/unit"))
    assert made.arguments[:2] == ["-m", "inspect_ai"]
    assert after(made.arguments, "--model") == "hf/m"
    assert not {"closing", "enable_thinking"} & set(made.files["model.json"])
    assert made.files["model.json"]["do_sample"] is False
    assert "--temperature" not in made.arguments


@pytest.mark.parametrize("name", ["humaneval", "humaneval-inspect"])
def test_code_runs_only_when_it_is_allowed(name: str) -> None:
    benchmark = BY_NAME[name]
    with pytest.raises(InputError, match="--allow-code-execution"):
        check_call(benchmark, model(), BenchmarkSettings())
    check_call(benchmark, model(), BenchmarkSettings(allow_code_execution=True))
    allowed = call_of(benchmark, model(), BenchmarkSettings(allow_code_execution=True), Path("/unit"))
    assert allowed.environment["HF_ALLOW_CODE_EVAL"] == "1"
    assert ("--confirm_run_unsafe_code" in allowed.arguments) == (benchmark.harness == "lm-eval")
    # A benchmark that needs none gets no leave, whatever the environment says; a task that is not known here may.
    other = call_of(BY_NAME["gpqa"], model(), BenchmarkSettings(allow_code_execution=True), Path("/unit"))
    assert other.environment["HF_ALLOW_CODE_EVAL"] is None
    assert "--confirm_run_unsafe_code" not in other.arguments
    assert "--confirm_run_unsafe_code" in call(LM_EVAL, allow_code_execution=True)
    assert "--confirm_run_unsafe_code" not in call(LM_EVAL)


def test_code_of_the_hub_runs_only_when_it_is_trusted() -> None:
    assert "--trust_remote_code" in call(LM_EVAL, trust_remote_code=True)
    trusted = call_of(INSPECT, model(), BenchmarkSettings(trust_remote_code=True), Path("/unit"))
    assert trusted.files["model.json"]["trust_remote_code"] is True


def test_thinking_is_switched_off_where_there_is_a_switch() -> None:
    assert json.loads(after(call(LM_EVAL, thinking=False), "--model_args"))["enable_thinking"] is False
    with pytest.raises(InputError, match="enable_thinking"):
        check_call(LM_EVAL, model(Thinking(opening="<think>", closing="</think>")), BenchmarkSettings(thinking=False))
    check_call(LM_EVAL, model(Thinking()), BenchmarkSettings(thinking=False))


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"batch_size": True}, {"seed": -1}, {"temperature": -1.0}, {"top_p": 0.0}]
)
def test_settings_that_nothing_can_be_asked_with_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        BenchmarkSettings(**wrong)


# -- models -----------------------------------------------------------------------------------------------------------


def tokenizer(template: str | None, *, special: tuple[str, ...] = (), plain: tuple[str, ...] = ()) -> Any:
    from copy import deepcopy

    made = deepcopy(byte_level_tokenizer())
    made.add_tokens([AddedToken(mark, special=True) for mark in special], special_tokens=True)
    made.add_tokens([AddedToken(mark, special=False) for mark in plain])
    made.chat_template = template
    return made


def test_marks_are_found_in_the_vocabulary_and_in_the_template() -> None:
    r1 = thinking_of(tokenizer("{{ messages }}", plain=("<think>", "</think>")))
    assert (r1.opening, r1.closing, r1.closing_id, r1.has_switch) == ("<think>", "</think>", None, False)
    qwen = thinking_of(tokenizer("{% if enable_thinking %}<think>{% endif %}</think>"))
    assert (qwen.closing, qwen.has_switch, qwen.has_template) == ("</think>", True, True)
    none = thinking_of(tokenizer(None))
    assert none == Thinking()
    given = thinking_of(tokenizer(None), ("[A]", "[B]"))
    assert (given.opening, given.closing) == ("[A]", "[B]")


def test_a_special_mark_is_known_by_its_last_tokens_id() -> None:
    final = "<|channel|>final<|message|>"
    made = tokenizer(f"<|channel|>analysis<|message|>{final}", special=("<|channel|>", "<|message|>", "<|end|>"))
    found = thinking_of(made)
    assert (found.closing, found.closing_id) == (final, made.convert_tokens_to_ids("<|message|>"))


def test_what_is_handed_over_is_a_folder_with_its_hash_and_room_for_the_prompt() -> None:
    [side] = named_models(["organism"], at_least=1)
    options: Any = {"delimiters": None, "trust_remote_code": False, "allow_unknown": True}
    handed = for_harness(side, **options)
    assert Path(handed.location, "model.safetensors").is_file()
    assert len(handed.fingerprint) == 64
    assert handed.longest == int(256 * 0.8)
    assert (handed.thinking.closing, handed.thinking.has_template) == ("</think>", True)
    assert handed == for_harness(side, **options)


def test_what_no_harness_can_read_is_refused(tmp_path: Path) -> None:
    from tiny_models import tiny_model

    loaded = tiny_model("llama")
    with pytest.raises(InputError, match="in memory"):
        for_harness(NamedModel(name="m", folder="m", given=loaded), delimiters=None, trust_remote_code=False)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickles"):
        for_harness(NamedModel(name="m", folder="m", given=str(tmp_path)), delimiters=None, trust_remote_code=False)


# -- results ----------------------------------------------------------------------------------------------------------


def written(folder: Path, document: Any, name: str = "results_1.json") -> Path:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_lm_evals_groups_filters_and_missing_errors_are_read(tmp_path: Path) -> None:
    document = {
        "results": {
            "minerva_math": {
                "alias": "x",
                "exact_match,none": 0.25,
                "math_verify,none": 0.5,
                "math_verify_stderr,none": 0.1,
            },
            "one": {"exact_match,flexible-extract": 1, "exact_match_stderr,flexible-extract": "N/A"},
        },
        "group_subtasks": {"minerva_math": ["one", "two"], "loop": ["loop"]},
        "n-samples": {"one": {"effective": 4}, "two": {"effective": 8}},
    }  # fmt: skip
    found = scores_in(written(tmp_path, document), BY_NAME["minerva"])
    assert [(score.task, score.metric, score.n) for score in found] == [
        ("minerva_math", "exact_match", 12),
        ("minerva_math", "math_verify", 12),
        ("one", "exact_match,flexible-extract", 4),
    ]
    assert [score.is_main for score in found] == [False, True, False]
    assert found[1].interval == pytest.approx(share_from_error(0.5, 0.1, 12))
    assert found[1].interval.low < 0.5 - 1.96 * 0.1, "twelve tasks are fewer than a normal interval takes them for"
    assert math.isnan(found[2].stderr)
    assert math.isnan(found[2].interval.low)


def test_an_error_of_zero_and_too_few_tasks_give_no_interval(tmp_path: Path) -> None:
    results = {"a": {"acc,none": 0.0, "acc_stderr,none": 0.0}, "b": {"acc,none": 0.5, "acc_stderr,none": 0.3}}
    sizes = {"a": {"effective": 500}, "b": {"effective": 4}}
    found = scores_in(written(tmp_path, {"results": results, "n-samples": sizes}), LM_EVAL)
    assert all(math.isnan(bound) for score in found for bound in score.interval)


def test_inspects_scores_are_read_with_the_error_of_their_mean(tmp_path: Path) -> None:
    def score(name: str, **metrics: float) -> dict[str, Any]:
        return {
            "name": name,
            "scored_samples": 30,
            "metrics": {key: {"value": value} for key, value in metrics.items()},
        }

    results = {"scores": [score("match", accuracy=0.4, stderr=0.05, share=3.0), score("judge", mean=0.6)]}
    results["headline"] = {"score": "judge", "metric": "mean"}  # type: ignore[assignment]
    document = {"status": "success", "eval": {"task": "t"}, "results": results}
    found = scores_in(written(tmp_path, document, "log.json"), INSPECT)
    assert [(one.metric, one.value, one.n, one.is_main) for one in found] == [
        ("match/accuracy", 0.4, 30, False),
        ("match/share", 3.0, 30, False),
        ("judge/mean", 0.6, 30, True),
    ]
    assert found[0].stderr == 0.05
    assert math.isnan(found[1].stderr)
    document["status"], document["error"] = "error", {"message": "no docker"}  # type: ignore[assignment]
    with pytest.raises(RunError, match="no docker"):
        scores_in(written(tmp_path, document, "log.json"), INSPECT)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{'a': 1}",
        "[1, 2]",
        "[" * 100_000,
        {},
        {"results": []},
        {"results": {"t": {"acc,none": "0.5", "b,none": True, "c,none": None}}},
        '{"results": {"t": {"acc,none": NaN, "b,none": Infinity}}}',
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(RunError):
        scores_in(written(tmp_path, document), LM_EVAL)


def test_no_file_and_two_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="0 files"):
        scores_in(tmp_path, LM_EVAL)
    written(tmp_path, {}, "results_1.json")
    with pytest.raises(RunError, match="2 files"):
        scores_in(written(tmp_path, {}, "results_2.json"), LM_EVAL)


# -- words ------------------------------------------------------------------------------------------------------------


def row(model: str, value: float, stderr: float, **about: Any) -> dict[str, Any]:
    filled = dict.fromkeys(COLUMNS, "x") | {"is_main": True, "n": 100, "harness_version": "lm-eval 1", "seconds": 1.0}
    bounds = (
        {"low": value - Z * stderr, "high": value + Z * stderr} if stderr > 0 else {"low": math.nan, "high": math.nan}
    )
    return filled | {"model": model, "value": value, "stderr": stderr} | bounds | about


def test_a_difference_is_that_of_independent_means() -> None:
    found = difference(row("a", 0.5, 0.03), row("b", 0.7, 0.04))
    assert found is not None
    assert found == pytest.approx((0.2, 0.2 - Z * 0.05, 0.2 + Z * 0.05))


@pytest.mark.parametrize("other", [{"n": 99}, {"harness_version": "lm-eval 2"}, {"task": "y"}, {"metric": "y"}])
def test_numbers_of_other_tasks_or_versions_are_not_subtracted(other: dict[str, Any]) -> None:
    assert difference(row("a", 0.5, 0.03), row("b", 0.7, 0.04, **other)) is None


def test_the_words_hold_each_models_number_and_whether_a_difference_is_clear() -> None:
    table = pd.DataFrame([row("a", 0.5, 0.03), row("b", 0.7, 0.04), row("c", 0.5, 0.0)]).astype({"n": "Int64"})
    told = tell(table, ["a", "b", "c"], [{"what": "gpqa of a", "why": "crashed", "n": None}])
    [finding] = told["findings"]
    assert "a 0.500 [0.441, 0.559], b 0.700 [0.622, 0.778], c 0.500 [all tasks alike]" in finding["text"]
    assert "b minus a: +0.200 [+0.102, +0.298], a clear difference." in finding["text"]
    assert "c minus a: +0.000 [no interval]." in finding["text"]
    assert finding["n"] == 100
    assert "independent means" in finding["control"]
    assert told["left_out"] == [{"what": "gpqa of a", "why": "crashed", "n": None}]


# -- the figure -------------------------------------------------------------------------------------------------------


def test_the_figure_shows_what_stands_for_each_benchmark_with_its_interval() -> None:
    long = "lm-eval:folder/" + "x" * 40
    rows = [
        row("a", 0.5, 0.03, benchmark="gpqa", metric="acc"),
        row("b", 0.7, 0.0, benchmark="gpqa", metric="acc"),
        row("a", 0.1, 0.01, benchmark=long, metric="f1", n=None),
        row("a", 0.9, 0.01, benchmark="gpqa", metric="other", is_main=False),
    ]
    table = pd.DataFrame(rows).astype({"n": "Int64"})
    figure = figures.score_by_benchmark(table, names=["a", "b"])
    one, two = figure.data
    assert (list(one.y), list(two.y)) == ([0.5, 0.1], [0.7])
    assert list(one.error_y.array) == pytest.approx([Z * 0.03, Z * 0.01], abs=1e-4)
    assert list(two.error_y.array) == [None]
    assert list(figure.layout.xaxis.ticktext) == ["gpqa", "x" * 20 + "…"]
    assert "gpqa: acc, n = 100" in figure.layout.meta["caption"]
    assert "n = unknown" in figure.layout.meta["caption"]
