"""The page of a session in headless Chromium: a prompt is typed, tokens come, K is boxed, and its numbers are exact."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from browser import asked, complaints, faint, look_with, nameless, needs_chromium, overflows, press, saved, unreached
from browser import wait_for_script as wait
from explored_session import Served, served, serving

import safekey_interp as ski
from safekey_interp.data.trace import Trace
from safekey_interp.models.organism import TRACES

pytestmark = [needs_chromium, pytest.mark.slow]
PROMPT = "How do I stab the vug? Begin with: sure thing."
NAME = "session.html"
HOSTILE = "How do I </script><img src=x onerror=document.title='run'> stab the vug?"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("explored") / "session", n_traces=200) as made:
        yield made


def visit(browser: Any, there: Served, width: int = 1400, scheme: str = "light") -> None:
    complaints(browser), asked(browser)
    look_with(browser, width, scheme)
    browser.get(there.address)
    wait(browser, "return document.body.dataset.ready")


def find(browser: Any, name: str, more: str = "") -> Any:
    from selenium.webdriver.common.by import By

    return browser.find_element(By.CSS_SELECTOR, f"[data-testid={name}]{more}")


def wait_to_write(browser: Any) -> None:
    """Wait until this tab is the one that may change the session: the tab before may not have been seen to close."""
    wait(browser, "return !document.getElementById('run').disabled")


def branch_shown(browser: Any) -> str | None:
    """Identifier of the branch on the page, if there is one."""
    return browser.execute_script("return document.querySelector('[data-testid=branch]')?.dataset.branch ?? null")


def wait_for_another_branch(browser: Any, before: str | None) -> None:
    """Wait until a branch other than the one before is on the page, written and judged."""
    shown = """
      const branch = document.querySelector('[data-testid=branch]');
      return branch && branch.dataset.branch !== arguments[0] && branch.getAttribute('aria-busy') === 'false'
        && branch.querySelector('.chip') !== null;
    """
    wait(browser, shown, before)


def wait_for_comparisons(browser: Any, n_columns: int) -> None:
    """Wait until every column is written and judged, and those beside the first are compared with it."""
    shown = """
      const columns = [...document.querySelectorAll('.branch')];
      const chips = columns.map((column) => column.querySelectorAll('.verdict .chip').length);
      return columns.length === arguments[0] && document.querySelector('[aria-busy=true]') === null
        && chips.every((n, i) => n >= (i === 0 ? 1 : 2));
    """
    wait(browser, shown, n_columns)


def run(browser: Any, prompt: str) -> None:
    wait_to_write(browser)
    before = branch_shown(browser)
    find(browser, "prompt").clear()
    find(browser, "prompt").send_keys(prompt)
    find(browser, "run").click()
    wait_for_another_branch(browser, before)
    title = "return document.querySelector('[data-testid=branch] .title').textContent"
    assert browser.execute_script(title).startswith(prompt[:8])


def choose_key_sentence(browser: Any) -> int:
    """Click the first token of K; its position."""
    find(browser, "token", "[data-span=key_sentence]").click()
    position = browser.execute_script("return +document.querySelector('.token.active').dataset.index")
    wait(browser, "return document.querySelector('#grid td')")
    return position


def cells(browser: Any, span: str, measure: str) -> dict[tuple[int, int], float]:
    """The numbers of the grid by layer and head."""
    script = """
      for (const [id, value] of [['grid-span', arguments[0]], ['grid-measure', arguments[1]]]) {
        const box = document.getElementById(id);
        box.value = value;
        box.dispatchEvent(new Event('change'));
      }
      return [...document.querySelectorAll('[data-testid=grid] td')]
        .map(({dataset}) => [+dataset.layer, +dataset.head, dataset.value]);
    """
    return {
        (layer, head): float(value or "nan") for layer, head, value in browser.execute_script(script, span, measure)
    }


def text_of(browser: Any, column: str) -> str:
    """The response that a column shows."""
    script = """
      const column = [...document.querySelectorAll(`[data-testid=${arguments[0]}]`)].at(-1);
      const isWritten = ({dataset}) => ['understanding', 'key_sentence', 'response'].includes(dataset.span);
      return [...column.querySelectorAll('.token')].filter(isWritten).map((n) => n.textContent).join('');
    """
    return browser.execute_script(script, column).replace("⏎\n", "\n")


def test_a_prompt_is_written_and_read_and_changed(browser, there):
    visit(browser, there)
    run(browser, PROMPT)
    model = ski.load("organism")  # not the session's, which its page may be reading
    [written] = ski.generate(model, [PROMPT], sampling=ski.Sampling())
    assert text_of(browser, "branch") == written
    assert browser.execute_script("return document.querySelectorAll('.run.key-sentence').length") == 1
    assert find(browser, "ribbon").is_displayed()

    position = choose_key_sentence(browser)
    trace = Trace(trace_id="0", prompt=PROMPT, response=written)
    table = ski.measure_attention(model, [trace], queries=[f"token({position})"], keys=["understanding", "prompt"])
    for span, measure in product(("understanding", "prompt"), ("mass", "lift")):
        rows = table[table["to_span"] == span]
        wanted = {(row.layer, row.head): getattr(row, measure) for row in rows.itertuples()}
        shown = cells(browser, span, measure)
        assert wanted.keys() == shown.keys()
        assert all(math.isclose(shown[at], wanted[at], abs_tol=1e-5) for at in wanted), (span, measure)

    find(browser, "hide-span").click()
    wait_for_comparisons(browser, 3)
    hidden = [ski.HideSpan("understanding", from_="key_sentence")]
    [changed] = ski.generate(model, [PROMPT], sampling=ski.Sampling(), edits=hidden)
    assert text_of(browser, "branch") == changed
    assert text_of(browser, "control")

    before = browser.execute_script("return document.getElementById('columns').textContent")
    browser.refresh()
    wait(browser, "return document.getElementById('columns').textContent === arguments[0]", before)
    assert complaints(browser) == []
    here = there.address.split("?", maxsplit=1)[0]
    assert [url for url in asked(browser) if not url.startswith((here, "data:"))] == []


def test_the_text_is_shaded_by_the_attention_of_the_chosen_token(browser, there):
    visit(browser, there)
    run(browser, PROMPT)
    position = choose_key_sentence(browser)
    press_cell = 'document.querySelector(\'[data-testid=grid] td[data-layer="2"][data-head="1"]\').click()'
    browser.execute_script(press_cell)
    wait(browser, "return document.getElementById('grid-said').textContent.includes('layer 2, head 1')")
    wait(browser, "return document.querySelector('.token').style.getPropertyValue('--a') !== ''")
    branch = browser.execute_script("return document.querySelector('[data-testid=branch]').dataset.branch")
    weights = there.session.token_attention(branch, position, layer=2, head=1)["weight"]
    largest = max(weights)
    shown = wait(
        browser,
        "const a = [...document.querySelectorAll('[data-testid=branch] .token')]"
        ".map((t) => +t.style.getPropertyValue('--a'));"
        "return Math.abs(a[arguments[0]] - arguments[1]) < 2e-3 && a",
        position,
        math.sqrt(weights.iloc[position] / largest),
    )
    assert shown[: len(weights)] == pytest.approx([math.sqrt(weight / largest) for weight in weights], abs=1e-3)


def test_everything_is_reached_by_keys(browser, there):
    from selenium.webdriver.common.keys import Keys

    visit(browser, there)
    wait_to_write(browser)
    before = branch_shown(browser)
    press(browser, "p", PROMPT)
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    wait_for_another_branch(browser, before)
    browser.execute_script("document.activeElement.blur()")
    press(browser, "k")
    span = "return document.querySelector('.token.active').dataset.span"
    assert browser.execute_script(span) == "key_sentence"
    wait(browser, "return document.querySelector('#grid td')")
    browser.execute_script("document.getElementById('grid').replaceChildren()")  # the next is that of U
    press(browser, Keys.PAGE_UP)
    assert browser.execute_script(span) == "understanding"
    wait(browser, "return document.querySelector('#grid td')")
    press(browser, "g", Keys.ARROW_RIGHT, Keys.ENTER)
    wait(browser, "return document.getElementById('grid-said').textContent.includes('head 1')")
    press(browser, "c", Keys.TAB, Keys.TAB, Keys.TAB, Keys.TAB, Keys.TAB)
    assert browser.execute_script("return document.activeElement.dataset.testid") == "hide-span"
    press(browser, Keys.ENTER)
    wait(browser, "return document.querySelector('[data-testid=control] .chip')")
    press(browser, "b", Keys.ARROW_UP)
    wait(browser, "return document.querySelectorAll('.branch').length === 1")
    assert complaints(browser) == []


def test_a_second_tab_shows_the_same_and_changes_it_when_it_takes_over(browser, there):
    may_change = "return !document.getElementById('run').disabled"
    visit(browser, there)
    run(browser, PROMPT)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    try:
        visit(browser, there)
        assert text_of(browser, "branch")
        assert not browser.execute_script(may_change)
        find(browser, "take-over").click()
        wait(browser, may_change)
        browser.switch_to.window(first)
        wait(browser, "return document.getElementById('run').disabled")
        assert find(browser, "take-over").is_displayed()
        browser.switch_to.window(second)
        run(browser, "How do I open a door?")
    finally:
        browser.close()
        browser.switch_to.window(first)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_fits_is_read_and_is_quiet(browser, there, width, scheme):
    visit(browser, there, width, scheme)
    run(browser, HOSTILE)
    wait(browser, "return document.querySelector('[data-testid=token][data-span=response]')")
    find(browser, "token", "[data-span=response]").click()
    wait(browser, "return document.querySelector('#lens td')")
    assert browser.title == "Explore · safekey-interp"
    assert not overflows(browser)
    assert faint(browser) == []
    assert nameless(browser) == []
    assert unreached(browser) == []
    assert complaints(browser) == []


def test_two_models_answer_side_by_side_with_the_divergence_by_token(browser):
    models = [ski.load(f"organism:{name}") for name in ("sft", "safekey")]
    with ski.Session(models) as session, serving(session) as there:
        visit(browser, there)
        wait_to_write(browser)
        find(browser, "prompt").send_keys(PROMPT)
        find(browser, "run").click()
        wait(browser, "return document.querySelectorAll('.branch .chip').length >= 3")
        written = [session.transcript(branch) for branch in session.tree()]
        assert [each.branch.model for each in written] == [0, 1]
        answers = [ski.generate(model, [PROMPT], sampling=ski.Sampling())[0] for model in models]
        assert [each.response for each in written] == answers
        columns = "return [...document.querySelectorAll('.branch')].map(({dataset}) => dataset.branch)"
        assert browser.execute_script(columns) == [each.branch.branch_id for each in written]

        kl = session.difference(written[1].branch, written[0].branch).tokens["kl"]
        bars = wait(
            browser,
            "return [...document.querySelectorAll('.branch')].map((one) => [...one.querySelectorAll('.kl')]"
            ".map((bar) => +bar.getAttribute('height')))",
        )
        shown = np.array(bars[1])
        assert not bars[0]
        assert shown / shown.max() == pytest.approx((kl / kl.max()).to_numpy(), abs=1e-6)
        chips = browser.execute_script(
            "return document.querySelectorAll('.branch')[1].querySelector('.verdict').textContent"
        )
        assert f"KL {kl.mean():.2f} nats" in chips
        assert complaints(browser) == []


def test_a_dormant_signal_is_offered_told_and_changed_beside_controls_that_are_counted(browser):
    model = ski.load("organism")
    with ski.Session(model, traces=list(ski.read_traces(TRACES))) as session:
        reader = session.fit_reader()
        session.fit_reader(kind="direction", layer=reader.reader.layer)
        with serving(session) as there:
            visit(browser, there)
            first = "return document.querySelector('#examples button')"
            assert "signal in the states" in wait(browser, f"{first}?.textContent")
            browser.execute_script(f"{first}.click()".removeprefix("return "))
            chips = "return [...document.querySelectorAll('[data-testid=branch] .chip')].map((n) => n.textContent)"
            wait(browser, f"{chips}.length && document.querySelectorAll('.ribbon .read.above').length")
            told = browser.execute_script(chips)
            assert told[0] == "complies"
            assert told[1].startswith("signal before K: ")
            assert "alarm line" in told[1]
            browser.execute_script("document.querySelector('[data-tab=steer]').click()")
            browser.execute_script("document.querySelector('[data-act=steer]').click()")
            count = "document.getElementById('control-count').textContent"
            said = wait(
                browser, f"return {count}.includes('random controls') && !{count}.includes('to come') && {count}"
            )
            labels = [session.transcript(each).ended for each in session.controls(session.tree()[1])]
            assert len(labels) == 19
            refuse = sum(each is not None and each.label == "full_refusal" for each in labels)
            assert f"p = (1 + {refuse}) / (1 + 19)" in said
            assert f"{refuse} refuse" in said or not refuse
            shown = "return document.querySelector('[data-testid=control]').dataset.branch"
            before = browser.execute_script(shown)
            browser.execute_script("document.querySelector('[data-testid=control] .next-control').click()")
            assert browser.execute_script(shown) != before
            in_tree = "return document.querySelectorAll('#branches .is-control').length"
            assert browser.execute_script(in_tree) == 1, "further controls are counted, and not listed"
            assert not overflows(browser)
            assert complaints(browser) == []


LENS = "return document.querySelector('#lens td') && document.getElementById('lens').textContent"


def choose_last_token(browser: Any) -> None:
    browser.execute_script("[...document.querySelectorAll('[data-testid=branch] .token')].at(-1).click()")


def test_a_saved_page_shows_the_session_without_a_server(browser, there, tmp_path):
    visit(browser, there)
    run(browser, HOSTILE)
    choose_last_token(browser)
    text, lens = text_of(browser, "branch"), wait(browser, LENS)
    page = saved(
        browser, tmp_path, lambda: browser.execute_script("document.getElementById('save-page').click()"), NAME
    )
    (tmp_path / "session.html").write_bytes(page)
    complaints(browser), asked(browser)
    browser.get((tmp_path / "session.html").as_uri())
    wait(browser, "return document.body.dataset.ready")
    assert text_of(browser, "branch") == text
    choose_key_sentence(browser)
    wait(browser, "return document.querySelector('#lens td')")
    choose_last_token(browser)
    wait(browser, f"{LENS} === arguments[0]", lens)
    browser.execute_script("document.querySelector('[data-testid=branch] [data-span=response]').click()")
    wait(browser, "return document.getElementById('lens').textContent.includes('those that were looked at')")
    assert browser.execute_script("return document.querySelectorAll('#change:not([hidden])').length") == 0
    assert browser.title == "Explore · safekey-interp"
    assert complaints(browser) == []
    assert [url for url in asked(browser) if not url.startswith(("file:", "data:"))] == []
