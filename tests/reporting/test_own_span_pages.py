"""Pages and terminal of a run of own spans and labels: the user's names, and no word of the built-in question."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from browser import complaints, look_with, needs_chromium, overflows, wait_for_script
from command_line import Type
from html_pages import check_outline, figures_in, read
from synthetic_intervention_runs import KIND_OF, write_intervention
from test_hostile_text import JSON_SAFE, check_page
from tiny_models import tiny_model, traces

from safekey_interp.capture.measured_spans import measured_spans
from safekey_interp.data.trace import Trace
from safekey_interp.experiments.intervene_run import run_intervention
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.estimator_names import EstimatorName
from safekey_interp.models.model import Model
from safekey_interp.reporting import figures
from safekey_interp.reporting.labels import METHODS, layer_name
from safekey_interp.reporting.pages.token_words import token_words
from safekey_interp.reporting.report_file import write_report
from safekey_interp.runs.run_folder import open_run

pytestmark = pytest.mark.slow

BUILT_IN = re.compile(r"\b[XUK]\b|(?i:harmful|benign|\baha\b|key[ _-]?sentence|understanding)")
ASKED: dict[str, Any] = {"queries": ["warning", "last(opening)"], "keys": ["prompt", "opening"]}
POSITIONS = ["last(warning)", "opening", "prompt"]


def own_traces(n: int = 60, classes: tuple[str, str] = ("correct", "wrong")) -> list[Trace]:
    """Of two sources, with a warning in most."""
    made = []
    for number, whole in enumerate(traces(n)):
        trace = whole.with_(label=classes[number % 2], source=f"set {number % 4 // 2}", group=f"g{number % 30}")
        end = len(trace.response)
        words = {"opening": [(8, 12)]} | ({"warning": [(end - 9, end)]} if number % 5 else {})
        made.append(trace.with_(spans=words))
    return made


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    out = tmp_path_factory.mktemp("own") / "run"
    run_probe(model, own_traces(), out=out, positions=POSITIONS, n_examples=4, **ASKED)
    return write_report(out)


def said(page: Path) -> str:
    """All that a reader may see: words, captions, and what the figures and islands hold."""
    text, outline = read(page)
    islands = re.findall(r'type="application/json"[^>]*>(.*?)</script>', text, re.S)
    packed = r'"maps":\{[^}]*\}'  # attention as base64, which may hold any letter
    return " ".join([*outline.words, *(re.sub(packed, "", island) for island in islands)])


def test_the_page_says_the_users_names_and_no_word_of_the_built_in_question(page: Path) -> None:
    text = said(page)
    assert BUILT_IN.findall(text) == []
    for words in (
        *ASKED["queries"],
        *ASKED["keys"],
        *POSITIONS,
        "From warning, to prompt",
        "wrong from correct traces",
    ):
        assert words in text, words


def test_findings_say_the_same_names(page: Path) -> None:
    found = open_run(page.parent).findings
    text = json.dumps(found, ensure_ascii=False)
    assert BUILT_IN.findall(text) == []
    told = {finding["question"] for finding in found["findings"]}
    assert told == {"what", "knew", "chance"}
    for query in ASKED["queries"]:
        assert any(query in finding["text"] for finding in found["findings"] if finding["question"] == "what")


def test_every_pair_and_position_is_drawn(page: Path) -> None:
    check_outline(read(page)[1])
    drawn = figures_in(page)["variants"]
    for name in ("lift-0", "lift-1", "mass-0", "mass-1"):
        assert {key.split("|")[0] for key in drawn[name]} == set(ASKED["queries"])
        assert {key.split("|")[2] for key in drawn[name]} >= {"all", "correct", "wrong", "source=set 0, wrong"}
    assert {key.split("|")[-1] for key in drawn["separability-curve"]} == set(POSITIONS)


def test_without_attention_its_section_is_left_out(tmp_path: Path, model: Model) -> None:
    run_probe(model, own_traces(24), out=tmp_path / "run", positions=["last(prompt)"])
    text, outline = read(write_report(tmp_path / "run"))
    assert BUILT_IN.findall(" ".join(outline.words)) == []
    assert 'id="knew"' in text
    assert 'id="what"' not in text


def test_other_labels_alone_leave_the_built_in_spans_and_name_the_classes(tmp_path: Path, model: Model) -> None:
    data = [trace.with_(label=("correct", "wrong")[number % 2]) for number, trace in enumerate(traces(24))]
    run_probe(model, data, out=tmp_path / "run", n_examples=2)
    text = said(write_report(tmp_path / "run"))
    assert re.findall("harmful|benign", text) == []
    assert "wrong from correct traces" in text


def test_labels_of_the_data_stay_text(tmp_path: Path, model: Model) -> None:
    classes = (f"right {JSON_SAFE}", f"\u202ewrong {JSON_SAFE}")
    run_probe(model, own_traces(24, classes), out=tmp_path / "run", positions=POSITIONS, n_examples=2, **ASKED)
    check_page(write_report(tmp_path / "run"))


def test_the_terminal_says_the_users_names(here: Path, command: Type) -> None:
    rows = [
        {
            "prompt": f"What is {n} + {n}?",
            "response": f"<think>\nLet me see. It is {2 * n}, I think.\n</think>\n{2 * n}",
        }
        | {"label": "correct" if n % 2 else "wrong"}
        for n in range(30)
    ]
    (here / "sums.json").write_text(json.dumps(rows), encoding="utf-8")
    spans = ["--query", "last(reasoning)", "--key", "sentence(0)", "--key", "prompt", "--position", "reasoning"]
    ended = command(
        "probe",
        "--traces",
        "sums.json",
        "--out",
        "run",
        *spans,
        "--by",
        "none",
        "--label-by",
        "label",
        "--allow-unknown",
    )
    assert ended.status == 0
    assert BUILT_IN.findall(ended.out) == []
    for words in ("last(reasoning)", "sentence(0)", "reasoning", "correct"):
        assert words in ended.out
    assert BUILT_IN.findall(said(here / "run" / "report.html")) == []


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["--query", "last("], 2, "--query: span expression 'last(': got the end at character 5"),
        (["--key", "prompt"], 2, "keys: got prompt without queries"),
        (["--query", "anser"], 2, "span 'anser': no trace has one; did you mean 'answer'?"),
    ],
)
def test_a_wrong_expression_is_one_line(here: Path, command: Type, words: list[str], status: int, error: str) -> None:
    ended = command("probe", "--out", "run", *words)
    assert ended.status == status
    assert error in " ".join(ended.err.split())
    assert not (here / "run").exists()


def test_a_figure_of_own_spans_says_them_and_one_of_the_built_in_question_its_words(model: Model) -> None:
    table = measure_attention(model, own_traces(4), queries=["warning", "key_sentence"], keys=["prompt"])
    by_head = table.groupby(["from_span", "to_span", "layer", "head"], observed=True, as_index=False)[
        ["mass", "uniform_mass"]
    ].mean()
    by_head = by_head.assign(subset="all", n=4)
    own = figures.lift_heatmap.spec(by_head, from_span="warning", to_span="prompt")["layout"]["meta"]["caption"]
    assert own.startswith("From warning, to prompt")
    built_in = figures.lift_heatmap.spec(by_head, from_span="key_sentence", to_span="prompt")
    assert built_in["layout"]["meta"]["caption"].startswith("From K, the key sentence, to X, the prompt")


OWN_NAMES = {
    "key_sentence": "last(answer_box)",
    "understanding": "working",
    "prompt": "question .. working",
    "prompt_end": "last(question)",
    "decision": "before(working)",
    "difference": 'logprob(" yes")',
    "safe": 'logit_difference("a", "b")',
    "go_ahead": "probe(file.npz)",
    "rest": "after(working) .. end",
    "harmful": "wrong",
    "benign": "correct",
}


NAMED_ON_PAGES = {
    "knockout": ["last(answer_box)", "question .. working"],
    "patch": ["last(question)", "before(working)"],
    "direction": ["before(working)", "mean states of wrong and correct traces"],
    "suppress": ["working hidden", "last(answer_box)", "after(working) .. end"],
    "lens": ["What each layer of a model says", "last(answer_box)"],
    "trajectory": ["the first token of last(answer_box)", "wrong lies"],
}
"""What each intervention's page says of the names below."""


@pytest.mark.parametrize("name", KIND_OF)
def test_a_page_of_an_intervention_on_own_spans_says_them_alone(tmp_path: Path, name: str) -> None:
    page = write_report(write_intervention(tmp_path / "run", name, renamed=OWN_NAMES))
    text = said(page)
    check_outline(read(page)[1])
    assert BUILT_IN.findall(text) == []
    for words in (*NAMED_ON_PAGES[KIND_OF[name]], "wrong"):
        assert words.casefold() in text.casefold(), words


def test_spans_of_an_intervention_that_have_words_keep_them(tmp_path: Path) -> None:
    page = write_report(
        write_intervention(tmp_path / "run", "knockout", renamed={"harmful": "wrong", "benign": "correct"})
    )
    text = said(page)
    assert "the prompt (X)" in text
    assert re.findall("harmful|benign", text) == []


@pytest.fixture(scope="module")
def by_estimator(tmp_path_factory: pytest.TempPathFactory, model: Model) -> dict[str, Path]:
    """Pages of the same states under each estimator."""
    folder = tmp_path_factory.mktemp("estimators")
    asked: Any = {"positions": POSITIONS[:1], "by": "source", "n_examples": 0}
    for name in get_args(EstimatorName):
        run_probe(model, own_traces(), out=folder / name, estimator=name, **asked)
    return {name: write_report(folder / name) for name in get_args(EstimatorName)}


@pytest.mark.parametrize("name", get_args(EstimatorName))
def test_a_page_has_the_same_findings_and_figures_for_every_estimator(by_estimator: dict[str, Path], name: str) -> None:
    def parts(page: Path) -> tuple[Any, ...]:
        asked = [finding["question"] for finding in open_run(page.parent).findings["findings"]]
        drawn = {panel: sorted(variants) for panel, variants in figures_in(page)["variants"].items()}
        return sorted(set(asked)), drawn, re.findall(r"<(?:h3|caption)>([^<]*)", page.read_text(encoding="utf-8"))

    mine, logistic = parts(by_estimator[name]), parts(by_estimator["logistic"])
    assert mine[:2] == logistic[:2]
    assert len(mine[2]) == len(logistic[2])
    if name != "logistic":
        assert "logistic" not in said(by_estimator[name]).lower().replace("--estimator logistic", "")
        assert f"AUROC of the {METHODS[name]}" in said(by_estimator[name])


@pytest.mark.parametrize("name", get_args(EstimatorName))
def test_calibration_is_that_of_the_layer_with_the_highest_auroc(by_estimator: dict[str, Path], name: str) -> None:
    table = open_run(by_estimator[name].parent).separability
    assert table is not None
    best = table[table["method"] == name].sort_values("auroc", ascending=False, kind="stable").iloc[0]
    text = by_estimator[name].read_text(encoding="utf-8")
    body = re.search(r"<caption>Calibration.*?<tbody>(.*?)</tbody>", text, re.S)
    assert body is not None
    cells = [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", body[1], re.S)]
    assert cells[:2] == [POSITIONS[0], layer_name(best)]
    share = best["n_harmful"] / best["n"]
    numbers = [best["tpr_at_5fpr"], best["brier"], share - share**2, best["ece"]]
    for cell, number in zip([cells[2], cells[3], cells[4], cells[6]], numbers, strict=True):
        assert cell.split(" ")[0] == ("n/a" if np.isnan(number) else f"{number:.3f}")


def test_a_figure_takes_the_name_of_any_estimator_as_text(by_estimator: dict[str, Path]) -> None:
    table = open_run(by_estimator["lda"].parent).separability
    assert table is not None
    renamed = table.replace({"method": {"lda": "<b>Mine"}, "estimator": {"lda": "<b>Mine"}})
    for spec in (figures.separability_map.spec(renamed), figures.auroc_by_layer.spec(renamed, position=POSITIONS[0])):
        assert "<b>" not in json.dumps(spec)
        assert "Mine" in json.dumps(spec)


@needs_chromium
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_draws_and_does_not_overflow(browser: Any, page: Path, width: int) -> None:
    complaints(browser)
    look_with(browser, width)
    browser.get(page.as_uri())
    wait_for_script(browser, "return document.querySelectorAll('.js-plotly-plot .main-svg').length > 0")
    assert complaints(browser) == []
    assert not overflows(browser)


@needs_chromium
def test_the_token_view_says_the_users_spans(browser: Any, page: Path) -> None:
    from selenium.webdriver.support.ui import Select

    browser.get(page.as_uri())
    text = "return document.getElementById(arguments[0]).textContent"
    boxes = {name: Select(browser.find_element("id", name)) for name in ("kind", "example")}
    assert [option.text for option in boxes["kind"].options] == ASKED["queries"]
    assert [option.text.split(" · ")[1] for option in boxes["example"].options].count("wrong") > 0
    boxes["kind"].select_by_visible_text("last(opening)")
    wait_for_script(browser, f"{text}.includes('attention of last(opening)')", "token-detail")
    shares = browser.execute_script(text, "span-shares")
    assert "3, prompt" in shares
    assert "other input" in shares
    assert "2 last(opening)" in browser.execute_script(text, "token-legend")
    assert BUILT_IN.findall(browser.execute_script("return document.getElementById('tokens-view').innerText")) == []


def test_a_token_belongs_to_the_shortest_of_the_spans_that_hold_it() -> None:
    words = token_words(measured_spans(["long"], ["short", "last(long)", "nowhere"], None))
    pieces = {"long": [[2, 5], [7, 9]], "short": [[3, 5]], "last(long)": [[8, 9]], "nowhere": []}
    runs = words.runs(10, pieces, 6)
    named = [(start, words.owners[owner]["text"]) for start, owner in runs]
    around = [(0, "other input"), (2, "long"), (3, "short"), (5, "other input"), (6, "other response")]
    assert named == [*around, (7, "long"), (8, "last(long)"), (9, "other response")]


@pytest.mark.parametrize("estimator", ["lda", "mass_mean"])
def test_every_estimator_is_told_and_drawn_as_the_logistic_probe_is(
    tmp_path: Path, model: Model, estimator: Any
) -> None:
    run = run_probe(model, own_traces(), out=tmp_path / "run", positions=POSITIONS, estimator=estimator, n_examples=0)
    knew = [finding for finding in run.findings["findings"] if finding["question"] == "knew"]
    best = run.separability[run.separability["method"] == estimator]["auroc"].max()
    assert [finding["value"] for finding in knew[:1]] == [best]
    drawn = {trace.get("name") for trace in figures.auroc_by_layer.spec(run.separability, position="prompt")["data"]}
    assert {METHODS[estimator], METHODS["diff_of_means"], METHODS["text_tfidf"]} <= drawn
    text = said(write_report(run.path))
    assert METHODS[estimator] in text
    assert METHODS["logistic"] not in text


def test_a_lens_on_a_metric_of_ones_own_says_what_it_read_and_calls_no_logit_a_log_probability(
    tmp_path: Path, model: Model
) -> None:
    metric = 'logit_difference("a", "b") at last(opening)'
    run = run_intervention("lens", model, own_traces(6), out=tmp_path / "run", metric=[metric], layers=[0, -1])
    told = [finding["text"] for finding in run.findings["findings"] if finding["question"] == "did"]
    assert [text.startswith(f"Read out, {metric} is ") and " logits" in text for text in told] == [True]
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "log-probability" not in " ".join(told)
    assert not BUILT_IN.search(page[page.index("<h1") : page.index("</h1>")])


def test_every_metric_that_was_asked_for_is_told_and_the_first_is_the_headline(tmp_path: Path, model: Model) -> None:
    first, second = 'logit_difference("a", "b") at end', 'logprob(" door") at end'
    asked: Any = {"hidden": ["opening"], "n_random": 2, "metric": [first, "aha", second]}
    run = run_intervention("suppress", model, own_traces(24), out=tmp_path / "run", **asked)
    told = [finding for finding in run.findings["findings"] if finding["question"] != "changed"]
    for question in ("did", "chance"):
        texts = [finding["text"] for finding in told if finding["question"] == question]
        assert [any(name in text for text in texts[1:]) for name in (first, "difference", second)] == [
            False,
            True,
            True,
        ]
        assert not any("go_ahead" in text for text in texts), "both terms of a difference are told with it"
    assert first in run.findings["headline"]
    assert [first in finding["short"] for finding in told if finding["short"]] == [True]
    text = write_report(run.path).read_text(encoding="utf-8")
    captions = re.findall(r"<caption>([^<]*; control: [^<]*)</caption>", text)
    for name in (first, second, "difference"):
        assert sum(html.unescape(caption).startswith(name) for caption in captions) == 1
