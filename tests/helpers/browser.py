"""Headless Chromium for tests that open pages, with the log and the requests of a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()), reason="needs chromium and chromedriver"
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for a module's tests."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


def wait(browser: Any, until: Callable[[Any], Any]) -> Any:
    """What a condition on the browser gives, once that is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60, poll_frequency=0.05).until(until)


def wait_for_script(browser: Any, script: str, *words: object) -> Any:
    """What a script returns, once that is true."""
    return wait(browser, lambda driver: driver.execute_script(script, *words))


def look_with(browser: Any, width: int, scheme: str = "light") -> None:
    """The window's width in CSS pixels, and whether the system prefers light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def complaints(browser: Any) -> list[str]:
    """Warnings and errors of the console since the last look."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def asked(browser: Any) -> list[str]:
    """Addresses that the page asked for since the last look."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def open_drawn(browser: Any, page: str, width: int = 1400, scheme: str = "light") -> None:
    """Open a page and wait until every plot on it is drawn; what was logged before is forgotten."""
    complaints(browser), asked(browser)
    look_with(browser, width, scheme)
    browser.get(page)
    wait_for_script(browser, _ALL_DRAWN)


def saved(browser: Any, folder: Path, act: Callable[[], object], name: str) -> bytes:
    """The file that an act downloads."""
    where = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Page.setDownloadBehavior", where)
    act()
    wait(browser, lambda _: (folder / name).is_file())
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    return content


def press(browser: Any, *keys: str) -> None:
    """Press keys, one after the other, wherever the focus is."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def overflows(browser: Any) -> bool:
    """Whether the page is wider than its window."""
    return browser.execute_script("return document.documentElement.scrollWidth > window.innerWidth")


def faint(browser: Any) -> list[str]:
    """Words that stand out from their ground by less than 4.5 to 1 (WCAG 2.1, AA)."""
    return browser.execute_script(_FAINT)


def nameless(browser: Any) -> list[str]:
    """Controls that a screen reader could not name."""
    return browser.execute_script(_NAMELESS)


def unreached(browser: Any, within: str = "body") -> list[str]:
    """What scrolls or can be pressed and is not reached by keyboard, in the element of a CSS selector."""
    return browser.execute_script(_UNREACHED, within)


_ALL_DRAWN = "return [...document.querySelectorAll('.panel')].every((panel) => panel.querySelector('.main-svg'))"
_FAINT = """
const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => {
  const n = text.match(/[\\d.]+/g).map(Number);
  const whole = text.startsWith("color(srgb") ? [...n.slice(0, 3).map((part) => 255 * part), ...n.slice(3)] : n;
  return whole.length < 4 ? [...whole, 1] : whole;
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
const ground = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const faint = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  const seen = element.checkVisibility({opacityProperty: true, visibilityProperty: true});
  if (!text || !seen || element.closest("script, style, noscript, .headerlink, [hidden]")) continue;
  const behind = ground(element);
  const colour = over(parse(getComputedStyle(element).color), behind);
  const [dark, bright] = [light(behind), light(colour)].sort((a, b) => a - b);
  const ratio = (bright + 0.05) / (dark + 0.05);
  if (ratio < 4.5) faint.add(`${ratio.toFixed(2)} ${element.tagName}.${element.className}: ${text.slice(0, 30)}`);
}
return [...faint];
"""
_NAMELESS = """
const named = (e) => e.getAttribute("aria-label") || e.title || e.textContent.trim() || e.placeholder
  || (e.labels && [...e.labels].some((label) => label.title || label.ariaLabel || label.textContent.trim()))
  || (e.querySelector("img[alt]") || {}).alt;
return [...document.querySelectorAll("a[href], button, input, select, textarea, [role=button], [tabindex='0']")]
  .filter((e) => e.checkVisibility({visibilityProperty: true}) && !named(e)).map((e) => e.outerHTML.slice(0, 120));
"""
_UNREACHED = """
const scrolls = (e) => e.scrollWidth > e.clientWidth + 1
  && ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
const inside = (e) => e.tabIndex >= 0 || e.querySelector("a[href], button, [tabindex='0']");
const lost = [...document.querySelectorAll(`${arguments[0]} *`)].filter((e) => scrolls(e) && !inside(e));
const pressed = ["[onclick]", "[role=button]"].map((what) => `${arguments[0]} ${what}`).join(", ");
const silent = [...document.querySelectorAll(pressed)].filter((e) => e.tabIndex < 0);
return [...lost, ...silent].map((e) => e.outerHTML.slice(0, 120));
"""
