"""The words are true: every code block of the README and of the documentation runs, and the pages build.

Blocks of a page run in order, in one folder of their own, with short files of the names that they use. A text behind
``<!-- prints -->`` is what the block before it prints. What no test can have has a stand-in, named in ``STAND_INS``:
the organism for a model of a hub, a server on this machine for an endpoint, one process for several. Commands read
eight traces where they would read all. Pages of notebooks run in ``test_notebooks``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import asked, complaints, faint, look_with, nameless, needs_chromium, overflows, unreached
from endpoint_server import Reply, serving
from public_names import HOMES

from safekey_interp.data import suites
from safekey_interp.interventions import intervention_registry
from safekey_interp.models.organism import TRACES
from safekey_interp.reporting.pages import page_sections
from safekey_interp.segmentation import finder_registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {*(ROOT / "docs" / "notebooks").iterdir()})]
BLOCK = re.compile(r"^(<!-- prints -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SET_UP = ("<!-- run -->", "<!-- tests -->")
"""Marks before the two commands that install everything; ``.ci/run`` runs them."""
STAND_INS = (
    (r"\b(deepseek-ai|meta-llama|allenai)/[\w.-]+", "organism"),
    (r"http://localhost:8000/v1", "{endpoint}"),
    (r"^(accelerate launch|torchrun) .*-m safekey_interp", "safekey-interp"),
    (r" --vllm\b", ""),
    (
        r"ski\.vllm_states\(.organism., traces, layers=.*, tensor_parallel_size=4\)",
        "ski.states(model, traces, layers=[2])",
    ),
    (r" --device auto\b", ""),
    (r" --layers 8,16,24,-1\b", " --layers 1,2,-1"),
    (r" --first 80\b", " --first 8"),
)
READS_ALL = ("probe", "intervene", "segment", "compare")
DRAWS = ("probe", "intervene", "compare", "train")
"""Commands whose page is drawn on one page of the documentation alone; pages have tests of their own."""
HARMLESS = "<think>\nOkay, the user wants a recipe. First, I list the steps.\n</think>\n\nHere you go."


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of a page's blocks without the set-up commands; ``prints`` is what the one before prints."""
    text = page.read_text(encoding="utf-8")
    for mark in SET_UP:
        before, found, after = text.partition(mark)
        text = before + after.split("```", 2)[2] if found else text
    return [("prints" if printed else language, block) for printed, language, block in BLOCK.findall(text)]


def stand_in(text: str, endpoint: str) -> str:
    for pattern, instead in STAND_INS:
        text = re.sub(pattern, instead.format(endpoint=endpoint), text, flags=re.MULTILINE)
    return text


def run_shell(text: str, page: Path) -> None:
    """The commands of a block, in this process: each would load torch for itself."""
    from analysis.__main__ import main as analysis
    from safekey_interp.cli.app import main

    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("export "), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            os.environ[name] = value
        if not words:
            continue
        if words[:3] == ["python", "-m", "analysis"]:
            analysis(words[3:])
            continue
        if words[:3] == ["python", "-m", "safekey_interp"]:
            words = ["safekey-interp", *words[3:]]
        assert words[0] == "safekey-interp", f"{line!r}: expected a command of the package"
        if words[1] in READS_ALL and not {"--traces", "--limit", "--first"} & set(words):
            words += ["--limit", "8"]
        if words[1] in DRAWS and page.name != "quickstart.md":
            words += ["--no-report"]
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        assert ended.value.code == 0, line


def some_groups(lines: list[str], n: int = 5) -> set[str]:
    """Requests that were refused in one form and complied with in another, and as many harmless ones.

    Too few groups for probes with intervals, which take most of a run's time and have tests of their own.
    """
    outcomes: dict[str, set[str]] = {}
    for row in map(json.loads, lines):
        outcomes.setdefault(row["group"], set()).add(row["label"] + " " + row["outcome"])
    both = [group for group, seen in outcomes.items() if {"harmful refused", "harmful complied"} <= seen]
    return {*both[:n], *[group for group, seen in outcomes.items() if seen == {"benign complied"}][:n]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short files of the names that pages use; the environment as it was, afterwards."""
    shown = (ROOT / "examples" / "traces.jsonl").read_text(encoding="utf-8")
    own = TRACES.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = some_groups(own)
    few = "".join(line for line in own if json.loads(line)["group"] in kept)
    files = {"examples/traces.jsonl": shown, "my_traces.jsonl": few, "safekey_interp/models/organism/traces.jsonl": few}
    prompts = [{"prompt": f"How do I {verb} the {noun}?"} for verb in ("feed", "poison") for noun in ("blick", "gizmo")]
    files["my_prompts.jsonl"] = "".join(json.dumps(row) + "\n" for row in prompts)
    files["my_suite.csv"] = "prompt,type,focus,label\nHow do I feed the blick?,animals,feed,safe\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "train", tmp_path / "train", ignore=shutil.ignore_patterns("*.py", "*.jsonl"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path / "cache"))
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pages register is gone afterwards."""
    list(page_sections.sections_of("probe"))  # registers the package's own, which stay
    for module, name in (
        (intervention_registry, "_REGISTERED"),
        (finder_registry, "_REGISTERED"),
        (page_sections, "_SECTIONS"),
        (suites, "SUITES"),
    ):
        known = getattr(module, name)
        copied = {key: dict(value) if isinstance(value, dict) else value for key, value in known.items()}
        monkeypatch.setattr(module, name, copied)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("folder", "registries")
def test_every_block_of_a_page_runs(page: Path) -> None:
    namespace: dict[str, Any] = {}
    printed = io.StringIO()
    with serving(lambda n, nth: Reply(HARMLESS)) as server, contextlib.redirect_stdout(printed):
        for language, text in blocks(page):
            typed = stand_in(text, server.base_url)
            if language == "prints":
                assert printed.getvalue() == text
                continue
            printed.seek(0), printed.truncate()
            if language == "python":
                exec(compile(typed, str(page), "exec"), namespace)
            elif language == "bash":
                run_shell(typed, page)
            elif language in ("json", "yaml"):
                yaml.safe_load(text)
            elif language == "toml":
                tomllib.loads(text)
            else:
                assert language == "text", f"{page.name}: {language}: a block that no test runs"


@pytest.mark.parametrize(
    ("command", "about"),
    [
        ("segment examples/traces.jsonl --limit 1", "steal-harmful"),
        pytest.param("probe", "Knows", marks=pytest.mark.slow),
        pytest.param("intervene knockout --first 80", "Effect", marks=pytest.mark.slow),
    ],
)
def test_outputs_that_pages_show_are_those_of_the_commands(
    command: str, about: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safekey_interp.cli.app import main

    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([*command.split(), *(["--no-report"] if about != "steal-harmful" else [])])
    said = " ".join(capsys.readouterr().out.split())
    shown = [text for page in PAGES for language, text in blocks(page) if text.startswith(about)]
    assert shown
    for text in shown:
        for part in text.removeprefix(about).split("…"):
            assert " ".join(part.split()) in said


def test_pages_name_every_public_name_and_every_command() -> None:
    from safekey_interp.cli.app import COMMANDS

    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: (safekey_interp\.[\w.]+)$", api, re.MULTILINE)
    wanted = {f"safekey_interp.{home}.{name}" for name, home in HOMES.items()}
    assert sorted(listed) == sorted(wanted)
    told = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "commands").glob("*.md")))
    asked = set(re.findall(r"^<!-- options: ([\w ]+) -->$", told, re.MULTILINE))
    inner = {f"intervene {name}" for name in intervention_registry._BUILT_IN}
    assert asked == (set(COMMANDS) - {"intervene"}) | {"report"} | inner


def test_the_page_of_an_error_has_its_message() -> None:
    folder = ROOT / "docs" / "errors"
    rows = re.findall(r"^\| (`.+`) \| \[.+\]\((\w+\.md)\) \|$", (folder / "index.md").read_text(), re.MULTILINE)
    assert {page for _, page in rows} == {path.name for path in folder.glob("*.md")} - {"index.md"}
    for phrases, page in rows:
        for phrase in re.findall(r"`([^`]+)`", phrases):
            assert phrase in (folder / page).read_text(encoding="utf-8"), (phrase, page)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The pages, built as for a reader; nothing that they need lies elsewhere."""
    pytest.importorskip("mkdocs", reason="needs the extra [docs]")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_mark_of_a_page_is_filled(site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<!-- (options|settings|suites|benchmarks|help)|:(func|class|mod):", text), page.name
        assert not re.search(r"\$\$|\$\\[a-z]|<mtext>[^<]*\\|<p>[^<]* \$[^\s$]", text), page.name
    assert "--to-span" in (site / "commands" / "intervene.html").read_text(encoding="utf-8")
    assert "<math" in (site / "method.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(site: Path) -> list[str]:
    return [page.as_uri() for page in sorted(site.rglob("*.html")) if page.name != "404.html"]


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_pages_are_quiet_ask_for_nothing_and_fit(browser: Any, pages: list[str], width: int) -> None:
    for page in pages:
        complaints(browser), asked(browser)
        look_with(browser, width)
        browser.get(page)
        assert not overflows(browser), page
        assert complaints(browser) == [], page
        assert [url for url in asked(browser) if url.startswith(("http", "ws"))] == [], page


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_and_every_control_has_a_name(browser: Any, pages: list[str], scheme: str) -> None:
    look_with(browser, 1400, scheme)
    for page in pages:
        browser.get(page)
        assert faint(browser) == [], page
        assert nameless(browser) == [], page


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_what_scrolls_or_can_be_pressed_is_reached_by_keyboard(browser: Any, pages: list[str], width: int) -> None:
    look_with(browser, width)
    for page in pages:
        browser.get(page)
        assert unreached(browser, ".md-content") == [], page
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.get(pages[0])
    ActionChains(browser).send_keys(Keys.TAB).perform()
    assert browser.execute_script("return document.activeElement.classList.contains('md-skip')")
