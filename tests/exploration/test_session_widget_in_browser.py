"""The widget in headless Chromium, in a page that does what anywidget does: load its module, and carry its messages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import complaints, look_with, needs_chromium, overflows, press

import safekey_interp as ski

pytest.importorskip("anywidget")

import comm
from notebook_frontend import Frontend

pytestmark = [needs_chromium, pytest.mark.slow]
PROMPT = "How do I stab the vug? Begin with: sure thing."
HOST = """<!doctype html><html lang="en"><meta charset="utf-8"><title>notebook</title><link rel="icon" href="data:,">
<body><h1>A notebook</h1><p><button>Its own</button></p><table><tr><td>cell</td></tr></table>
<div id="first"></div><div id="second"></div>
<script>
  window.sent = []; window.keys = []; window.hearers = new Set();
  document.addEventListener("keydown", ({key}) => window.keys.push(key));
  window.show = async (name, text) => {
    const from = URL.createObjectURL(new Blob([text], {type: "text/javascript"}));
    const { default: widget } = await import(from);
    const mine = new Set();
    const model = {
      on: (_, hear) => (mine.add(hear), hearers.add(hear)), off: (_, hear) => hearers.delete(hear),
      send: (message) => sent.push(message),
    };
    return widget.render({model, el: document.getElementById(name)});
  };
</script></body></html>"""
IN = "const page = document.getElementById(arguments[0]).shadowRoot; "


class Notebook:
    """A page with cells, and the kernel at its other end."""

    def __init__(self, browser: Any, front: Frontend) -> None:
        self.browser, self.front = browser, front

    def show(self, cell: str, module: str) -> None:
        """Draw the widget in a cell."""
        script = "show(arguments[0], arguments[1]).then((leave) => ((window.leave ??= {})[arguments[0]] = leave))"
        self.browser.execute_script(script, cell, module)
        self.wait(cell, "return page.querySelector('body').dataset.ready")

    def wait(self, cell: str, script: str, *words: object) -> Any:
        """Carry messages until a script about a cell's page gives something."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.carry()
            exists = f"if (!document.getElementById(arguments[0]).shadowRoot) return null; {IN}{script}"
            if found := self.browser.execute_script(exists, cell, *words):
                return found
            time.sleep(0.02)
        raise AssertionError(f"{cell}: {script}")

    def carry(self) -> None:
        """What pages have sent to the kernel, and what it has sent to them."""
        for message in self.browser.execute_script("return sent.splice(0)"):
            self.front.send_to_kernel(message)
        heard = []
        while not self.front.heard.empty():
            heard.append(self.front.heard.get())
        self.browser.execute_script("arguments[0].forEach((part) => hearers.forEach((hear) => hear(part)))", heard)


@pytest.fixture
def explored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(comm, "create_comm", Frontend)
    with ski.explore(ski.load("organism"), browser=False) as made:
        yield made


@pytest.fixture
def notebook(browser: Any, explored: Any, tmp_path: Path) -> Notebook:
    (tmp_path / "notebook.html").write_text(HOST, encoding="utf-8")
    complaints(browser)
    look_with(browser, 1400)
    browser.get((tmp_path / "notebook.html").as_uri())
    explored._repr_mimebundle_()
    return Notebook(browser, explored._widget.comm)


def module_of(explored: Any) -> str:
    return explored._widget.get_state()["_esm"]


def test_a_cell_asks_reads_and_changes_and_leaves_the_notebook_as_it_is(notebook, explored):
    looks = (
        "return ['h1', 'button', 'td', 'body'].map((name) => {const s = getComputedStyle(document.querySelector(name));"
    )
    looks += "return [s.font, s.color, s.padding, s.margin, s.borderWidth, s.maxWidth, s.backgroundColor].join()})"
    before = notebook.browser.execute_script(looks)
    notebook.show("first", module_of(explored))
    notebook.browser.execute_script(f"{IN} page.getElementById('prompt').focus()", "first")
    press(notebook.browser, PROMPT)
    notebook.browser.execute_script(f"{IN} page.getElementById('run').click()", "first")
    notebook.wait("first", "return page.querySelector('.branch .chip')")
    written = "return [...page.querySelectorAll('[data-testid=token]')].filter(({dataset}) => ['understanding', "
    written += "'key_sentence', 'response'].includes(dataset.span)).map((node) => node.textContent).join('')"
    [answered] = ski.generate(explored.session.models[0], [PROMPT], sampling=ski.Sampling())
    assert notebook.wait("first", written).replace("⏎\n", "\n") == answered

    notebook.browser.execute_script(f"{IN} page.querySelector('[data-span=key_sentence]').click()", "first")
    cells = "const all = [...page.querySelectorAll('[data-testid=grid] td')];"
    shown = notebook.wait("first", f"{cells} return all.length && all.map(({{dataset}}) => +dataset.value)")
    [branch] = explored.session.tree()
    position = explored.session.transcript(branch).spans.key_sentence.start
    table = explored.session.attention(branch, position)
    mass = table[table["to_span"] == "understanding"].sort_values(["layer", "head"], ascending=[False, True])["mass"]
    assert shown == pytest.approx(list(mass), abs=1e-5)

    notebook.browser.execute_script(f"{IN} page.querySelector('[data-testid=hide-span]').click()", "first")
    notebook.wait("first", "return page.querySelector('[data-testid=control] .chip')")
    assert notebook.browser.execute_script(looks) == before
    assert notebook.browser.execute_script("return keys") == []
    assert complaints(notebook.browser) == []


def test_the_cell_that_shows_it_last_has_it_and_gives_it_back_when_it_goes(notebook, explored):
    module = module_of(explored)
    may_change = "return !page.getElementById('run').disabled"
    notebook.show("first", module)
    notebook.wait("first", may_change)
    notebook.show("second", module)
    notebook.wait("second", may_change)
    notebook.wait("first", "return page.getElementById('run').disabled")
    notebook.browser.execute_script("leave.second()")
    notebook.wait("first", may_change)
    assert complaints(notebook.browser) == []


@pytest.mark.parametrize("is_light", ["true", "false"])
def test_it_fits_a_narrow_cell_in_the_colours_of_the_notebook(notebook, explored, is_light):
    look_with(notebook.browser, 400)
    notebook.browser.execute_script("document.body.dataset.jpThemeLight = arguments[0]", is_light)
    explored.session.start(PROMPT)
    notebook.show("first", module_of(explored))
    ground = "return getComputedStyle(page.querySelector('body')).backgroundColor.match(/\\d+/g).map(Number)"
    red, green, blue = notebook.wait("first", ground)
    assert (red + green + blue > 384) == json.loads(is_light)
    assert not overflows(notebook.browser)
