"""``safekey-interp compare``: what a newcomer types, right and wrong, and the page that comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended
from endpoint_server import Reply, error, serving

from safekey_interp.models import organism
from safekey_interp.runs.run_folder import open_run

pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with traces, one of which would act on a page that does not escape it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    every = list(organism.read_shipped())
    rows = [organism.to_row(trace) for trace in every[:: len(every) // 20]]
    rows[0]["source"] = rows[1]["source"] = "<script>alert(1)</script>"
    Path("traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_two_models_become_one_table_and_one_page(here: Path, command: Callable[..., Ended]) -> None:
    words = ("compare", "organism:base", "organism:sft", "--traces", "traces.jsonl", "--out", "runs/both")
    ended = command(*words)
    assert ended.status == 0, ended.err
    assert max(map(len, ended.out.splitlines())) <= 80
    told = " ".join(ended.out.split())
    assert "Harmful prompts answered in full: organism:base 100%" in told
    assert "organism:sft minus organism:base: -" in told
    assert "runs/both/report.html" in told
    run = open_run("runs/both")
    assert run.manifest["command"] == ["safekey-interp", *words]
    assert [model["name"] for model in run.manifest["models"]] == ["organism:base", "organism:sft"]
    assert all(len(model["model"]["weights_sha256"]) > 8 for model in run.manifest["models"])
    page = (here / "runs" / "both" / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "alert(1)" in page
    for title in ("What did they do?", "What did they know?", "Side by side", "Every number", "How to read this page"):
        assert f">{title}</h2>" in page
    for panel in ("share-attack-success", "looks-decision", "layers-prompt", "auroc", "auroc-decision"):
        assert f'data-panel="{panel}"' in page
    assert str(here) not in page
    again = command(*words)
    assert (again.status, again.said) == (0, ended.said)
    other = command(*words, "--seed", 1)
    assert other.status == 2
    assert "a run of other settings" in other.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("organism",), "at least two"),
        (("organism", "organism"), "given twice"),
        (("organism", "organism:none", "--traces", "traces.jsonl"), "no such organism"),
        (("organism", "organism:base", "--traces", "gone.jsonl"), "gone.jsonl"),
        (("organism", "organism:base", "--traces", "traces.jsonl", "--guard", "./nowhere"), "./nowhere"),
        (("organism", "organism:base", "--label-by", "mood"), "label_by: no trace has the column 'mood'"),
        (("organism", "organism:base", "--keep-responses", "--max-new-tokens", "3"), "--keep-responses"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    here: Path, command: Callable[..., Ended], words: tuple[str, ...], said: str
) -> None:
    out = () if "--out" in words else ("--out", "runs/none")
    ended = command("compare", *words, *out)
    assert ended.status == 2
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (here / "runs").exists() or not (here / "runs" / "none" / "run.json").exists()


def test_suites_are_read_as_published_and_their_own_judges_are_named(here: Path, command: Callable[..., Ended]) -> None:
    asked = [trace for trace in organism.read_shipped() if trace.label == "harmful"][:12]
    rows = [f'made up,custom,"{trace.prompt}"' for trace in asked[:6]]
    Path("strongreject_dataset.csv").write_text("\n".join(["category,source,forbidden_prompt", *rows]) + "\n")
    goals = [f'{number},"{trace.prompt}",Here,B,C,Original' for number, trace in enumerate(asked[6:])]
    Path("harmful-behaviors.csv").write_text("\n".join(["Index,Goal,Target,Behavior,Category,Source", *goals]) + "\n")
    words = ("compare", "organism:base", "organism:sft", "--suite", "strongreject_dataset.csv", "--out", "run")
    ended = command(*words, "--suite", "jailbreakbench=harmful-behaviors.csv", "--no-report", "--details")
    assert ended.status == 0, ended.err
    told = " ".join(ended.out.split())
    assert "StrongREJECT's own judge (rubric) (n = 6): not asked" in told
    assert "JailbreakBench's own judge (guard) (n = 6): not asked" in told
    run = open_run("run")
    suites = run.manifest["data"]["suites"]
    assert [(suite["name"], suite["asked"]) for suite in suites] == [("strongreject", False), ("jailbreakbench", False)]
    outcomes = run.outcomes
    assert outcomes is not None
    assert set(outcomes["source"]) == {"strongreject", "jailbreakbench"}
    assert not outcomes["suite_label"].notna().to_numpy().any()


def test_the_judges_of_suites_are_asked_where_they_are_given(
    here: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-not-to-be-seen-0123456789"
    asked = [trace for trace in organism.read_shipped() if trace.label == "harmful"][:6]
    rows = [f'made up,custom,"{trace.prompt}"' for trace in asked]
    Path("strongreject_dataset.csv").write_text("\n".join(["category,source,forbidden_prompt", *rows]) + "\n")
    monkeypatch.setenv("SAFEKEY_CACHE", str(here / "cache"))
    words = ("compare", "organism:base", "organism:sft", "--suite", "strongreject_dataset.csv", "--rubric")
    grades = {"refused": 0, "convincing": 5, "specific": 3}
    with serving(lambda n, nth: Reply(json.dumps(grades))) as server:
        monkeypatch.setenv("SAFEKEY_LLM_BASE_URL", server.base_url)
        monkeypatch.setenv("SAFEKEY_LLM_MODEL", "grader")
        monkeypatch.setenv("SAFEKEY_LLM_API_KEY", key)
        answering = server.behave
        server.behave = lambda n, nth: error(400)
        refused = command(*words, "--out", "run")
        assert refused.status == 2
        assert "rubric: no answer" in refused.err
        server.behave = answering
        server.texts.clear()
        ended = command(*words, "--out", "run", "--details")
        assert ended.status == 0, ended.err
        shown = len(server.texts)
        again = command(*words, "--out", "run", "--overwrite")
        assert again.status == 0, again.err
        assert len(server.texts) == shown, "what was answered is asked again"
    run = open_run("run")
    outcomes, comparison = run.outcomes, run.comparison
    assert outcomes is not None
    assert comparison is not None
    graded = outcomes[outcomes["suite_label"].notna()]
    assert len(graded) == shown > 0
    assert set(graded["suite_judge"]) == {"strongreject"}
    score = comparison.query("measure == 'strongreject_score' and other.isna()").set_index("model")["value"]
    assert score.to_dict() == {"organism:base": 0.75, "organism:sft": 0.75}
    assert "Attacks that succeed by the suite's own judge" in " ".join(ended.out.split())
    for file in here.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes()


def test_a_suite_with_a_missing_field_is_refused_with_the_row(here: Path, command: Callable[..., Ended]) -> None:
    Path("strongreject_dataset.csv").write_text("category,source,forbidden_prompt\na,b,Do it\na,b,\n")
    ended = command("compare", "organism:base", "organism:sft", "--suite", "strongreject_dataset.csv", "--out", "run")
    assert ended.status == 2
    assert "strongreject_dataset.csv, line 3: StrongREJECT needs the field 'forbidden_prompt'" in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (here / "run").exists()
