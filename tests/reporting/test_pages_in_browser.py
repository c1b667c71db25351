"""The page in headless Chromium: it draws, is quiet, asks for nothing, keeps text as text, and answers the keyboard."""

from __future__ import annotations

import json

import pytest
from browser import asked, complaints, look_with, needs_chromium, open_drawn, press, wait_for_script
from slow_turns import mostly_slow
from synthetic_intervention_runs import KIND_OF, write_intervention
from synthetic_probe_runs import CONDITIONS, write_run
from synthetic_training_runs import hostile_run

pytestmark = needs_chromium
SCHEMES = pytest.mark.parametrize("scheme", mostly_slow(["light", "dark"], quick=("light",)))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    from safekey_interp.reporting.report_file import write_report

    folder = write_run(
        tmp_path_factory.mktemp("run"), n_traces=60, n_layers=12, n_heads=6, n_examples=12, long_prompt=60
    )
    return write_report(folder).as_uri()


def visit(browser, page: str, width: int = 1400, scheme: str = "light") -> None:
    complaints(browser), asked(browser)
    look_with(browser, width, scheme)
    browser.get(page)
    wait(browser, "return document.querySelectorAll('.js-plotly-plot .main-svg').length > 0 && lit()")


def wait(browser, script: str) -> None:
    helper = (
        "const lit = () => [...document.querySelectorAll('.token')]"
        ".some((token) => +token.style.getPropertyValue('--a') > 0.9);"
    )
    wait_for_script(browser, helper + script)


def choose(browser, box: str, value: str) -> None:
    browser.execute_script(
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change', {bubbles: true}));",
        box,
        value,
    )


@SCHEMES
@pytest.mark.parametrize("width", [1400, 400])
def test_every_plot_is_drawn_and_nothing_overflows(browser, page, width, scheme):
    visit(browser, page, width, scheme)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.panel')].map((p) => [p.dataset.panel,"
        "p.querySelectorAll('.js-plotly-plot svg.main-svg').length, p.querySelectorAll('.trace, .hm image').length])"
    )
    assert len(drawn) == 13
    assert all(pictures > 0 and traces > 0 for _, pictures, traces in drawn), drawn
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = browser.execute_script(
        "return [...document.querySelectorAll('.main-svg')]"
        ".filter((s) => s.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert wide == 0


def test_the_console_is_quiet_and_no_network_is_asked(browser, page):
    visit(browser, page)
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('select')].map((s) => [s.id, s.options[s.options.length - 1].value])"
    )
    for box, last in boxes:
        choose(browser, box, last)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    wait(browser, "return document.querySelectorAll('.numbers table').length > 0")
    assert complaints(browser) == []
    urls = asked(browser)
    assert urls
    assert all(url.startswith(("file:", "data:", "blob:")) for url in urls), urls


def test_a_script_in_a_trace_stays_text(browser, page):
    visit(browser, page)
    choose(browser, "example", "1")
    wait(browser, "return document.getElementById('example-facts').textContent.includes('xstest-001') && lit()")
    shown = browser.execute_script("return document.getElementById('tokens').innerText")
    assert "<script>alert(1)</script>" in shown.replace("\n", "")
    assert "‹U+2028›‹U+2029›" in shown.replace(" ", "")
    assert "‹U+202E›evil" in shown
    assert not set("\u2028\u202e") & set(shown)
    assert "<b>xstest-001</b>" in browser.execute_script("return document.getElementById('example-facts').innerText")
    assert (
        browser.execute_script(
            "return document.querySelectorAll('#tokens img, #tokens script, #example-facts b').length"
        )
        == 0
    )
    assert browser.execute_script("return document.scripts.length") == 4
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_the_keyboard_reaches_the_tokens_and_moves_among_them(browser, page):
    from selenium.webdriver.common.keys import Keys

    visit(browser, page)
    press(browser, Keys.TAB)
    assert browser.execute_script("return document.activeElement.className") == "skip"
    for _ in range(120):
        if browser.execute_script("return document.activeElement.id") == "tokens":
            break
        press(browser, Keys.TAB)
    at = "return +document.getElementById('tokens').getAttribute('aria-activedescendant').split('-')[1]"
    assert browser.execute_script("return document.activeElement.id") == "tokens"
    press(browser, Keys.HOME)
    assert browser.execute_script(at) == 0
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert browser.execute_script(at) == 1
    press(browser, Keys.PAGE_DOWN)
    assert (
        browser.execute_script("return document.querySelector('.token.active').closest('.run').className")
        == "run prompt"
    )
    press(browser, Keys.ARROW_DOWN)
    assert browser.execute_script(at) > 4
    assert "%" in browser.execute_script("return document.getElementById('token-detail').textContent")
    assert (
        browser.execute_script("return document.getElementById('token-detail').getAttribute('aria-live')") == "polite"
    )
    assert browser.execute_script("return document.querySelectorAll('[aria-selected=true]').length") == 1


@pytest.mark.slow
def test_attention_follows_the_choices_and_hiding_the_first_token(browser, page):
    visit(browser, page)
    first = "return +document.querySelector('.token').style.getPropertyValue('--a')"
    assert browser.execute_script(first) == 0
    browser.execute_script("document.getElementById('hide-first').click()")
    wait(browser, "return +document.querySelector('.token').style.getPropertyValue('--a') > 0")
    shades = "return [...document.querySelectorAll('.token')].map((t) => t.style.getPropertyValue('--a'))"
    before = browser.execute_script(shades)
    choose(browser, "kind", "decision")
    wait(browser, "return document.getElementById('token-detail').textContent.includes('decision row')")
    assert browser.execute_script(shades) != before


@pytest.mark.slow
def test_a_condition_is_chosen_and_a_pair_is_drawn(browser, page):
    visit(browser, page)
    caption = "return document.getElementById('mass-prompt-caption').textContent"
    everyone = browser.execute_script(caption)
    choose(browser, "mass-subset", f"source={CONDITIONS[1]}, harmful")
    wait(browser, f"{caption} !== {json.dumps(everyone)}")
    assert "n = 15 traces" in browser.execute_script(caption)
    choose(browser, "transfer-fitted", CONDITIONS[1])
    choose(browser, "transfer-tested", CONDITIONS[0])
    told = browser.execute_script("return document.getElementById('transfer-curve-caption').textContent")
    assert told.startswith("Tested on plain, at the position “decision”.")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_every_control_has_a_name(browser, page):
    visit(browser, page)
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "combobox", "checkbox", "listbox", "link", "textbox", "region", "image", "figure"}
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node["role"]["value"] in roles - {"figure"}
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []


@pytest.mark.slow
def test_colours_follow_the_scheme_and_print_is_light(browser, page):
    visit(browser, page, scheme="dark")
    ink = "return getComputedStyle(document.querySelector('.js-plotly-plot text')).fill"
    dark = browser.execute_script(ink)
    visit(browser, page, scheme="light")
    assert browser.execute_script(ink) != dark
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(pdf) > 50_000
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_browser_without_decompression_says_so_and_shows_the_tokens(browser, page):
    script = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream;"}
    )
    try:
        browser.get(page)
        wait(browser, "return !document.getElementById('token-trouble').hidden")
        assert "cannot unpack" in browser.execute_script("return document.getElementById('token-trouble').textContent")
        assert browser.execute_script("return document.querySelectorAll('.token').length") > 50
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script["identifier"]})


@pytest.fixture(scope="module")
def training_page(tmp_path_factory) -> str:
    from safekey_interp.reporting.report_file import write_report

    return write_report(hostile_run(tmp_path_factory.mktemp("training"), n_layers=12)).as_uri()


@SCHEMES
@pytest.mark.parametrize("width", mostly_slow([1280, 400], quick=(1280,)))
def test_every_plot_of_training_is_drawn_and_no_word_is_cut(browser, training_page, width, scheme):
    open_drawn(browser, training_page, width, scheme)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.panel')].map((p) => [p.dataset.panel,"
        "p.querySelectorAll('.trace, .hm image').length])"
    )
    assert len(drawn) == 17
    assert all(traces > 0 for _, traces in drawn), drawn
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    room = browser.execute_script(
        "return [...document.querySelectorAll('.annotation-text')].map((text) =>"
        "text.getBoundingClientRect().top - text.closest('.plot').getBoundingClientRect().top)"
    )
    assert room
    assert min(room) >= 0


@pytest.mark.slow
def test_the_page_of_training_is_quiet_and_names_its_columns_after_the_axes(browser, training_page):
    open_drawn(browser, training_page, 1280)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('select')].map((s) => [s.id, s.options[s.options.length - 1].value])"
    )
    for box, last in boxes:
        choose(browser, box, last)
    corner = "document.querySelector('[data-panel={}] .numbers thead th')?.textContent"
    for panel, name in (("loss-lm", "step"), ("attention-map", "layer \\ step"), ("attention-ends", "layer")):
        wait(browser, f"return {corner.format(panel)} === {json.dumps(name)}")
    assert complaints(browser) == []
    urls = asked(browser)
    assert urls
    assert all(url.startswith(("file:", "data:", "blob:")) for url in urls), urls
    assert browser.execute_script("return document.scripts.length") == 3


@pytest.fixture(scope="module")
def intervention_pages(tmp_path_factory) -> dict[str, str]:
    from safekey_interp.reporting.report_file import write_report

    folder = tmp_path_factory.mktemp("interventions")
    written = (write_intervention(folder / name, name, n_layers=12, n_heads=8, hostile=True) for name in KIND_OF)
    return {path.name: write_report(path).as_uri() for path in written}


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_every_plot_of_an_intervention_is_drawn_and_the_page_is_quiet(browser, intervention_pages, width):
    for name, page in intervention_pages.items():
        open_drawn(browser, page, width)
        browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        boxes = browser.execute_script(
            "return [...document.querySelectorAll('select')].map((s) => [s.id, s.options[s.options.length - 1].value])"
        )
        for box, last in boxes:
            choose(browser, box, last)
        drawn = browser.execute_script(
            "return [...document.querySelectorAll('.panel')].map((p) =>"
            "[p.querySelectorAll('.trace, .hm image').length, p.querySelectorAll('.numbers tbody tr').length])"
        )
        assert drawn, name
        assert all(traces > 0 and rows > 0 for traces, rows in drawn), (name, drawn)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, name
        wide = browser.execute_script(
            "return [...document.querySelectorAll('.main-svg')]"
            ".filter((s) => s.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert wide == 0, name
        assert complaints(browser) == [], name
        urls = asked(browser)
        assert all(url.startswith(("file:", "data:", "blob:")) for url in urls), urls
        assert browser.execute_script("return document.scripts.length") == 3, name
