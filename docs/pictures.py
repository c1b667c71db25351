"""Pictures of the documentation: ``python -m docs.pictures [NAME...]``.

Each is a section of a page that a command draws for the organism, in headless Chromium, without a network. About three
minutes; a picture above 200 kB is refused.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from shutil import copy
from typing import NamedTuple

import safekey_interp as ski
from analysis.__main__ import main as analysis
from docs.screenshots import browser, open_page, save_window
from safekey_interp.cli.app import main as command
from safekey_interp.exploration.web.page_files import saved_page
from safekey_interp.models.organism import TRACES

_FOLDER = Path(__file__).parent / "pictures"


class Picture(NamedTuple):
    """Command line and section of a picture."""

    words: str
    """Arguments of the command; it writes the folder ``run``."""
    section: str
    """CSS selector of the section of the page."""
    height: int = 820
    """Height in CSS pixels."""
    width: int = 1100
    """Width in CSS pixels."""
    page: str = "report.html"
    """File name of the page in ``run``."""
    command: Callable[[list[str]], None] = command
    """The command."""


def explore(words: list[str]) -> None:
    """Write the saved page of a session in which K was swapped for a safe one to ``run/session.html``."""
    model, [position] = ski.load("organism"), words
    with ski.Session(model, traces=TRACES) as session:
        session.fit_reader(position=position)
        root = session.start(ski.example().prompt)
        list(session.run(root))
        swapped = session.fork(root, swap="safe")
        for branch in filter(None, (swapped.branch_id, swapped.control)):
            list(session.run(branch))
        Path("run").mkdir()
        Path("run/session.html").write_text(saved_page(session), encoding="utf-8")


PICTURES = {
    "explore": Picture("decision", "body", height=580, width=1260, page="session.html", command=explore),
    "probe": Picture("probe --out run", "header", height=880),
    "intervene": Picture("intervene knockout --by layer --limit 60 --n-random 10 --out run", "header", height=880),
    "compare": Picture("compare organism:base organism --limit 96 --max-new-tokens 60 --out run", "header", height=840),
    "train": Picture(
        "train model=organism:base traces=traces.jsonl epochs=2 batch_size=32 micro_batch_size=16 learning_rate=3e-4 "
        "auxiliary_epochs=null probe_every=10 log_every=2 out=run",
        "header",
        height=880,
    ),
    "analysis": Picture("--only 1 7 --out run", "#key_sentence", height=1050, page="index.html", command=analysis),
}


def draw(picture: Picture, folder: Path) -> Path:
    """Run the command in a folder; the path of its page."""
    copy(TRACES, folder)
    with chdir(folder):
        try:
            picture.command(picture.words.split())
        except SystemExit as ended:
            if ended.code:
                raise
    return folder / "run" / picture.page


def main(names: list[str]) -> None:
    """Take the named pictures, by default all."""
    _FOLDER.mkdir(exist_ok=True)
    with browser() as driver:
        for name in names or PICTURES:
            with tempfile.TemporaryDirectory() as folder:
                page = draw(PICTURES[name], Path(folder))
                open_page(driver, page, PICTURES[name].width, PICTURES[name].height)
                save_window(driver, PICTURES[name].section, _FOLDER / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
