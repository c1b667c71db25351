"""Pages open with figures, and their tools work by mouse and by keyboard, in headless Chromium at two widths."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import asked, complaints, faint, needs_chromium, open_drawn, overflows, press, saved, wait_for_script
from html_pages import figures_in
from synthetic_comparison_runs import write_benchmarks, write_comparison, write_series
from synthetic_intervention_runs import KIND_OF, write_intervention
from synthetic_probe_runs import write_run
from synthetic_training_runs import hostile_run

from safekey_interp.reporting.report_file import write_report

pytestmark = [needs_chromium, pytest.mark.slow]
WIDTHS = pytest.mark.parametrize("width", [1400, 400])
PNG = b"\x89PNG\r\n\x1a\n"


def _probe(folder: Path) -> Path:
    return write_run(folder, n_traces=60, n_layers=6, n_heads=4, n_examples=6, long_prompt=20)


PAGES: dict[str, Callable[[Path], Path]] = {
    "probe": _probe,
    "training": lambda folder: hostile_run(folder, n_layers=4),
    "comparison": lambda folder: write_comparison(folder, benchmarks=True),
    "series": write_series,
    "benchmarks": write_benchmarks,
    **{
        name: (lambda folder, name=name: write_intervention(folder, name, n_layers=6, n_heads=4, hostile=True))
        for name in KIND_OF
    },
}
KINDS = pytest.mark.parametrize("kind", PAGES)


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    pages: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in pages:
            pages[kind] = write_report(PAGES[kind](tmp_path_factory.mktemp("page") / "run"))
        return pages[kind]

    return of


def first_screen(browser: Any) -> list[str]:
    """Figures of the strip of which more than a sliver is in the window before anything is scrolled."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.strip .plot')].filter((plot) => { const box = "
        "plot.getBoundingClientRect(); return box.top >= 0 && box.bottom <= innerHeight && box.height > 120; })"
        ".map((plot) => plot.id)"
    )


def ranges(browser: Any, panel: str) -> list[float]:
    return browser.execute_script(
        "const plot = document.getElementById(`${arguments[0]}-plot`)._fullLayout;"
        "return [...plot.xaxis.range, ...plot.yaxis.range].map(Number)",
        panel,
    )


def tool(browser: Any, panel: str, name: str) -> Any:
    button = browser.find_element("css selector", f'[data-panel="{panel}"] [data-tool="{name}"]')
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })", button)
    return button


def focus(browser: Any, panel: str, part: str) -> None:
    browser.execute_script(
        "document.querySelector(`[data-panel='${arguments[0]}'] ${arguments[1]}`).focus()", panel, part
    )


@KINDS
@WIDTHS
def test_the_first_screen_holds_figures_with_their_readings(browser, page_of, kind: str, width: int) -> None:
    page = page_of(kind)
    open_drawn(browser, page.as_uri(), width)
    strip = [name for name in figures_in(page)["variants"] if name.startswith("strip-")]
    shown = first_screen(browser)
    assert shown[:1] == [f"{strip[0]}-plot"]
    assert len(shown) >= min(2, len(strip)) or width == 400
    readings = browser.execute_script("return [...document.querySelectorAll('.reading')].map((r) => r.innerText)")
    assert len(readings) == len(strip)
    assert all(len(text) > 20 for text in readings), readings
    assert browser.execute_script(
        "return document.querySelector('.strip').compareDocumentPosition("
        "document.querySelector('main p, main h3, main table')) & 4"
    ), "no words before it"
    assert browser.execute_script("return document.querySelector('details.findings').open") is False
    assert not overflows(browser)
    assert complaints(browser) == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked(browser))


@KINDS
@WIDTHS
def test_zoom_and_export_work_by_mouse_and_by_keyboard(browser, page_of, tmp_path: Path, kind: str, width: int) -> None:
    from selenium.webdriver.common.keys import Keys

    page = page_of(kind)
    open_drawn(browser, page.as_uri(), width)
    for panel in [name for name in figures_in(page)["variants"] if name.startswith("strip-")]:
        whole = ranges(browser, panel)
        tool(browser, panel, "in").click()
        near = ranges(browser, panel)
        assert abs(near[1] - near[0]) < abs(whole[1] - whole[0])
        assert abs(near[3] - near[2]) < abs(whole[3] - whole[2])
        focus(browser, panel, ".plot")
        press(browser, Keys.ARROW_RIGHT)
        assert abs(ranges(browser, panel)[0] - near[0]) > 0
        press(browser, "-", "-")
        assert abs(ranges(browser, panel)[1] - ranges(browser, panel)[0]) > abs(whole[1] - whole[0])
        press(browser, "0")
        assert ranges(browser, panel) == pytest.approx(whole)

        def by_key(name: str, panel: str = panel) -> None:
            focus(browser, panel, f"[data-tool={name}]")
            press(browser, Keys.ENTER)

        clicked = saved(browser, tmp_path, tool(browser, panel, "csv").click, f"{panel}.csv")
        assert clicked == saved(browser, tmp_path, lambda by=by_key: by("csv"), f"{panel}.csv")
        head, *rows = csv.reader(io.StringIO(clicked.decode()))
        assert len(head) >= 3
        assert rows
        assert {len(row) for row in rows} == {len(head)}
        assert saved(browser, tmp_path, lambda by=by_key: by("png"), f"{panel}.png").startswith(PNG)
        assert saved(browser, tmp_path, tool(browser, panel, "png").click, f"{panel}.png").startswith(PNG)
    assert complaints(browser) == []


def test_dragging_zooms_and_the_bar_of_the_plot_saves(browser, page_of, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    open_drawn(browser, page_of("probe").as_uri())
    whole = ranges(browser, "strip-auroc")
    plot = browser.find_element("css selector", "#strip-auroc-plot .nsewdrag")
    ActionChains(browser).move_to_element_with_offset(plot, -60, -20).click_and_hold().move_by_offset(
        90, 50
    ).release().perform()
    near = ranges(browser, "strip-auroc")
    assert near[1] - near[0] < whole[1] - whole[0]
    bar = browser.find_elements("css selector", "#strip-auroc-plot .modebar-btn")
    named = {button.get_attribute("data-title") or button.get_attribute("title"): button for button in bar}
    text = saved(browser, tmp_path, named["Save as CSV"].click, "strip-auroc.csv").decode()
    assert text.startswith("series,layer,AUROC,low,high\n")
    assert complaints(browser) == []


def test_the_csv_is_the_figure_and_no_formula(browser, page_of, tmp_path: Path) -> None:
    page = page_of("knockout by head")
    open_drawn(browser, page.as_uri())
    text = saved(browser, tmp_path, tool(browser, "strip-effect", "csv").click, "strip-effect.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    plot = browser.execute_script(
        "const plot = document.getElementById('strip-effect-plot');"
        "return plot.data.map(({ name, x, customdata }) => [name, x, customdata])"
    )
    numbers = [[value, *bounds] for _, values, ends in plot for value, bounds in zip(values, ends, strict=True)]
    assert [[float(number) for number in list(row.values())[2:]] for row in rows] == numbers
    assert {row["series"] for row in rows} == {name.replace("<br>", " ") for name, _, _ in plot}
    evil = {"data": [{"name": "=1+1", "x": [0], "y": [1], "customdata": [[None, None]]}]}
    evil |= {"layout": {"meta": {"table": "lines"}, "xaxis": {"title": {"text": 'a "b", c'}}, "yaxis": {}}}
    made = browser.execute_script("return figureTables.csv(JSON.parse(arguments[0]))", json.dumps(evil))
    assert made == 'series,"a ""b"", c",value,low,high\n\'=1+1,0,1,,\n'


@pytest.mark.parametrize(
    ("panel", "wanted"),
    [("strip-heads", ("map", "3", "2")), ("strip-auroc", (None, "4", "-1")), ("lift-understanding", ("map", "1", "0"))],
)
def test_a_click_on_a_head_or_a_layer_leads_to_its_tokens(browser, page_of, panel: str, wanted: tuple) -> None:
    open_drawn(browser, page_of("probe").as_uri())
    kind, layer, head = wanted
    at = {"x": int(layer), "y": int(head)}
    browser.execute_script(
        "document.getElementById(`${arguments[0]}-plot`).emit('plotly_click', { points: [arguments[1]] })", panel, at
    )
    chosen = browser.execute_script(
        "return ['kind', 'layer', 'head'].map((name) => document.getElementById(name).value)"
    )
    assert chosen[1:] == [layer, head]
    assert kind in (None, chosen[0])
    assert browser.execute_script("return document.activeElement.id") == "tokens"
    assert browser.execute_script("return document.getElementById('token-trouble').hidden")


def test_a_click_on_a_trace_leads_to_it_or_says_that_it_is_no_example(browser, page_of) -> None:
    open_drawn(browser, page_of("probe").as_uri())
    trouble = "return document.getElementById('token-trouble').textContent"
    for trace, said in (("xstest-003", ""), ("xstest-059", "Trace xstest-059 is none of the examples on this page.")):
        click = {"customdata": trace}
        browser.execute_script(
            "document.getElementById('lda-plot').emit('plotly_click', { points: [arguments[0]] })", click
        )
        facts = browser.execute_script("return document.getElementById('example-facts').textContent")
        assert "xstest-003" in facts
        wait_for_script(browser, f"{trouble} === arguments[0]", said)


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser, page_of, kind: str, scheme: str) -> None:
    open_drawn(browser, page_of(kind).as_uri(), 1400, scheme)
    assert faint(browser) == []
