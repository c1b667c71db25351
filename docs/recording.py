"""Recordings of ``explore`` in use, as GIF: ``python -m docs.recording [NAME...] [--model FOLDER]``.

A session is served on this machine, and headless Chromium is driven through it: a prompt is typed, tokens come, K is
chosen, U is hidden from K, a safe K is put in its place. A frame is taken whenever the page has changed. Every text is
the model's own; the time that it takes for a token is not that of the recording. Needs the extra ``docs``.
"""

from __future__ import annotations

import argparse
import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safekey_interp as ski
from docs.pictures import browser
from safekey_interp.exploration.web.session_server import SessionServer
from safekey_interp.models.organism import TRACES

_FOLDER = Path(__file__).parent / "pictures"
_SIZE = 1200, 740
_MOST_BYTES = 2_000_000
_COLOURS, _EXACT = 200, 64
_TOKEN_MS, _KEY_MS, _REST_MS = 75, 50, 900
_ASKED = "How do I pick the lock of a house that is not mine?"
_BEGUN = "<think>\nOkay, the user is asking how to pick the lock of a house that is not theirs."
_MARKS = """
const make = (css, html) => {
  const node = document.body.appendChild(document.createElement('div'));
  for (const [name, value] of Object.entries(css)) node.style.setProperty(name, value);
  node.innerHTML = html;
  return node;
};
document.body.style.paddingBottom = '80px';
document.body.style.caretColor = 'transparent';
window.pointer = make({position: 'fixed', left: '600px', top: '700px', 'z-index': 20, 'pointer-events': 'none'},
  '<svg width="26" height="30" viewBox="0 0 26 30"><path d="M3 2v22l6-5 4 9 4-2-4-8h8z"/></svg>');
const path = pointer.querySelector('path');
for (const [name, value] of [['fill', '#111'], ['stroke', '#fff'], ['stroke-width', '1.6']]) path.style[name] = value;
window.caption = make({position: 'fixed', left: '0', right: '0', bottom: '0', 'z-index': 19, 'pointer-events': 'none',
  padding: '9px 20px', background: '#16202c', color: '#fff', font: '600 19px/1.3 system-ui, sans-serif'}, '');
"""
_TO_KEYS = """
for (const run of document.querySelectorAll('.run.key-sentence')) run.closest('.tokens').scrollTop = run.offsetTop - 80;
"""
_COUNTED = """
const said = document.getElementById('control-count').textContent;
return said && !said.includes('to come') && said;
"""
# Above the caption, too.
_IN_SIGHT = """
arguments[0].scrollIntoView({block: 'nearest'});
window.scrollBy(0, Math.max(0, arguments[0].getBoundingClientRect().bottom - innerHeight + 70));
"""


class Frame(NamedTuple):
    """One picture and how long it is shown."""

    png: bytes
    """The picture."""
    duration: int
    """Milliseconds."""


class Recorder:
    """A page that is driven, and its frames."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.frames: list[Frame] = []
        width, height = _SIZE
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument",
            {"source": "localStorage.setItem('safekey-explore-tour', 'seen')"},
        )
        driver.get(address)
        self.wait("return document.body.dataset.ready")
        driver.execute_script(_MARKS)

    def shoot(self, duration: int) -> None:
        """Take a frame; the one before is shown for longer where nothing has changed."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": True})
        png = base64.b64decode(taken["data"])
        if self.frames and self.frames[-1].png == png:
            png, before = self.frames.pop()
            duration += before
        self.frames.append(Frame(png, duration))

    def say(self, words: str, duration: int = 900) -> None:
        """Write a caption."""
        self.driver.execute_script("caption.textContent = arguments[0]", words)
        self.shoot(duration)

    def wait(self, script: str, *words: object) -> Any:
        """Wait until a script gives something."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 600, 0.05).until(lambda driver: driver.execute_script(script, *words))

    def point(self, selector: str) -> Any:
        """Move the pointer to an element."""
        find = "return document.querySelector(arguments[0])"
        element = self.driver.execute_script(find, selector)
        self.driver.execute_script(_IN_SIGHT, element)
        place = "const box = arguments[0].getBoundingClientRect(); const end = [box.left + Math.min(box.width / 2, 60),"
        place += (
            " box.top + box.height / 2]; const now = [parseFloat(pointer.style.left), parseFloat(pointer.style.top)];"
        )
        (x, y), (left, top) = self.driver.execute_script(place + "return [end, now]", element)
        for step in range(1, 5):
            share = 1 - (1 - step / 4) ** 2
            where = left + (x - left) * share, top + (y - top) * share
            move = "pointer.style.left = `${arguments[0]}px`; pointer.style.top = `${arguments[1]}px`"
            self.driver.execute_script(move, *where)
            self.shoot(60)
        self.shoot(250)
        return element

    def click(self, selector: str) -> None:
        """Point at an element and click it."""
        self.driver.execute_script("arguments[0].click()", self.point(selector))
        self.shoot(120)

    def type(self, selector: str, text: str, letters: int = 4) -> None:
        """Type a text, some letters a frame."""
        self.click(selector)
        box = self.driver.execute_script(
            "const box = document.querySelector(arguments[0]); box.select(); return box", selector
        )
        for start in range(0, len(text), letters):
            box.send_keys(text[start : start + letters])
            self.shoot(_KEY_MS)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a box."""
        self.point(selector)
        script = "const box = document.querySelector(arguments[0]); box.value = arguments[1];"
        self.driver.execute_script(f"{script} box.dispatchEvent(new Event('change'))", selector, value)
        self.shoot(300)

    def watch(self, n_columns: int) -> None:
        """Take a frame of each change until so many columns are shown and written."""
        done = "const all = [...document.querySelectorAll('.branch')]; return all.length === arguments[0]"
        done += " && all.every((one) => one.querySelector('.chip') && one.getAttribute('aria-busy') !== 'true')"
        self.driver.execute_script("window.scrollTo(0, 0)")
        while not self.driver.execute_script(done, n_columns):
            self._shoot_change()
        time.sleep(1.5)  # the difference from the column beside it is still asked for
        self.shoot(400)

    def _shoot_change(self) -> None:
        """A frame for what is new; a model's pause is not shown."""
        before = len(self.frames)
        self.shoot(_TOKEN_MS)
        if len(self.frames) == before:
            png, duration = self.frames.pop()
            self.frames.append(Frame(png, duration - _TOKEN_MS))

    def save(self, file: Path) -> None:
        """Write the GIF: one palette for all frames, so that nothing flickers, and of each only what has changed."""
        from PIL import Image

        pictures = [Image.open(io.BytesIO(frame.png)).convert("RGB") for frame in self.frames]
        rests = [picture for picture, frame in zip(pictures, self.frames, strict=True) if frame.duration >= _REST_MS]
        palette = palette_of([pictures[len(pictures) * step // 8] for step in range(8)] + 2 * rests)
        drawn = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
        durations = [frame.duration for frame in self.frames]
        drawn[0].save(file, save_all=True, append_images=drawn[1:], duration=durations, loop=0, optimize=True)
        size, seconds = file.stat().st_size, sum(durations) / 1000
        print(f"{file}: {len(drawn)} frames, {seconds:.1f} s, {size:,} bytes")
        if size > _MOST_BYTES:
            raise SystemExit(f"{file}: {size:,} bytes, expected at most {_MOST_BYTES:,}")


def palette_of(pictures: list[Any]) -> Any:
    """A palette of pictures of one size: the colours that cover most of them as they are, the others by nearness."""
    from PIL import Image

    width, height = _SIZE
    sheet = Image.new("RGB", (width, height * len(pictures)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (0, height * number))
    counted: Any = sorted(sheet.getcolors(width * height * len(pictures)) or (), reverse=True)
    exact = [channel for _, colour in counted[:_EXACT] for channel in colour]
    near = sheet.quantize(_COLOURS - _EXACT, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette(exact + (near or [])[: 3 * (_COLOURS - _EXACT)])
    return palette


class ReadableSession(ski.Session):
    """A session whose tokens come no faster than they can be recorded."""

    def run(self, branch: Any) -> Any:
        """As a session does."""
        for event in super().run(branch):
            yield event
            if isinstance(event, ski.TokenWritten) and not event.is_given:
                time.sleep(0.15)


@contextmanager
def served(session: ski.Session) -> Iterator[str]:
    """The address of a session's page, until the block ends."""
    server, is_ready = SessionServer(), threading.Event()
    thread = threading.Thread(target=server.run, args=[session, lambda _: is_ready.set()], daemon=True)
    thread.start()
    is_ready.wait()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join()


def organism(driver: Any, _: str) -> Recorder:
    """A dormant signal, found and woken."""
    with ReadableSession(ski.load("organism"), traces=TRACES) as session:
        reader = session.fit_reader()
        session.fit_reader(kind="direction", layer=reader.reader.layer)
        with served(session) as address:
            page = Recorder(driver, address)
            page.say("Ask a reasoning model something harmful")
            page.type("#prompt", ski.example().prompt)
            page.click("#run")
            page.say("It writes: U, what it understood, then K, the sentence that decides", 100)
            page.watch(1)
            page.say("It complies, though a probe before K is above its alarm line: a dormant signal", 1900)
            page.click("[data-span=key_sentence]")
            page.wait("return document.querySelector('#lens td')")
            page.say("Click K: what each head attends to and what it writes", 1600)
            driver.execute_script("document.querySelector('.right').scrollTop = 1000")
            page.say("and what each layer would say next", 1400)
            page.click("[data-testid=hide-span]")
            page.say("Hide U from K, and let the model go on, beside random controls", 100)
            page.watch(3)
            page.say("The same answer, word for word: here K does not depend on what it reads of U", 2200)
            page.driver.execute_script("document.querySelector('.branch .title').click()")
            page.click("[data-tab=steer]")
            page.click("[data-act=steer]")
            page.say("Add the direction of harmful minus benign at U", 100)
            page.watch(3)
            page.wait(_COUNTED)
            page.say(driver.execute_script(_COUNTED), 3200)
            return page


def smollm2(driver: Any, folder: str) -> Recorder:
    """A chat model that is given the beginning of a reasoning, and goes on with it."""
    with ReadableSession(ski.load(folder)) as session, served(session) as address:
        page = Recorder(driver, address)
        page.say("SmolLM2-135M, a chat model that was not trained to reason")
        page.type("#prompt", _ASKED)
        driver.execute_script("document.getElementById('longest').value = 28")
        page.click("#run")
        page.watch(1)
        page.click("[data-span=understanding], [data-span=key_sentence], [data-span=response]")
        page.click("[data-tab=edit]")
        page.type("#edit-text", _BEGUN, letters=6)
        page.click("[data-act=edit]")
        page.say("Have it begin as a reasoning model does, and go on from there", 100)
        page.watch(2)
        page.click(".branch:last-of-type [data-span=key_sentence]")
        page.wait("return document.querySelector('#lens td')")
        page.say("30 layers of 9 heads: what the first token of K attends to", 2400)
        page.click("[data-tab=swap]")
        page.click("[data-act=swap]")
        page.say("A safe sentence in the place of K, beside a neutral one", 100)
        page.watch(3)
        driver.execute_script(_TO_KEYS)
        page.say("Another K, another text; but nothing has taught this model to follow K", 3000)
        return page


RECORDINGS: dict[str, Callable[[Any, str], Recorder]] = {"explore": organism, "explore-smollm2": smollm2}


def main() -> None:
    """Record what is named, by default all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RECORDINGS)}; by default all")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="of explore-smollm2")
    asked = parser.parse_args()
    _FOLDER.mkdir(exist_ok=True)
    for name in asked.names or RECORDINGS:
        with browser() as driver:
            RECORDINGS[name](driver, asked.model).save(_FOLDER / f"{name}.gif")


if __name__ == "__main__":
    main()
