"""Screenshots of HTML pages in headless Chromium, without a network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_BYTES = 200_000
_DRAWN = """return document.readyState === 'complete'
  && [...document.querySelectorAll('.panel, .plotly-graph-div')].every((panel) => panel.querySelector('.main-svg'))"""


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            yield driver
        finally:
            driver.quit()


def open_page(driver: Any, page: Path, width: int, height: int) -> None:
    """Open a page in a window of a size in CSS pixels, and wait until its plots are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(page.as_uri())
    WebDriverWait(driver, 30).until(lambda browser: browser.execute_script(_DRAWN))


def save_window(driver: Any, section: str, file: Path) -> None:
    """Picture of the window, scrolled to the section of a CSS selector."""
    scroll = "document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant'})"
    driver.execute_script(scroll, section)
    driver.save_screenshot(str(file))
    _check_size(file)


def save_element(driver: Any, element: str, file: Path) -> str:
    """Picture of the first element of a CSS selector, as high as it is; the text that it shows."""
    found = driver.find_element("css selector", element)
    found.screenshot(str(file))
    _check_size(file)
    return found.text


def _check_size(file: Path) -> None:
    if file.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{file}: {file.stat().st_size:,} bytes, expected at most {MOST_BYTES:,}; lower its height")
