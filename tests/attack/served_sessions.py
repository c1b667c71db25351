"""Servers of sessions that are killed, ended and interrupted at random moments while a page has branches written.

Whatever the signal, the folder opens again: every branch whose end the page was told is there with its text, and those
that had not ended go on to the text of an undisturbed session.
"""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from explored_session import OpenTab, Served

from .interruptions import SIGNALS, STATUS
from .processes import environment, forked

_WORDS = ("explore", "--no-browser", "--no-fit", "--quiet")
_HOW = "opens it again\n"
Texts = dict[str, str]
"""Id of a branch to its response."""


class _Command:
    """The command, and its page."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._files = folder.with_name("served.out"), folder.with_name("served.err")
        self._pid = forked([*_WORDS, *words], folder, environment(folder), self._files)
        until = time.monotonic() + 120
        while not (address := self._files[0].read_text()).endswith("\n"):
            assert time.monotonic() < until, self._files[1].read_text()
            time.sleep(0.01)
        self.page = Served(None, address.strip(), [])

    def end(self, number: int) -> tuple[int, str]:
        """Exit status after a signal, and what was said on standard error."""
        os.kill(self._pid, number)
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return status, self._files[1].read_text()


def served(at: Path, *, points: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Each point, for every signal, and what was wrong then; nothing where all was well.

    Args:
        at: a folder in which others are made.
        points: moments for each signal.
        seed: of the moments.
    """
    whole: Texts = {}
    command = _Command(_empty(at / "whole"), "--out", "kept")
    began = time.monotonic()
    _use(command.page, whole)
    seconds = time.monotonic() - began
    command.end(signal.SIGTERM)
    draw = random.Random(f"{seed} served")
    for kind in SIGNALS:
        for _ in range(points):
            moment = draw.random() * seconds
            yield f"explore {kind} at {moment:.2f} s", _point(kind, moment, whole, _empty(at / "tried"))


def _point(kind: str, moment: float, whole: Texts, folder: Path) -> list[str]:
    seen: Texts = {}
    command = _Command(folder, "--out", "kept")
    using = threading.Thread(target=_use, args=[command.page, seen])
    using.start()
    time.sleep(moment)
    status, said = command.end(SIGNALS[kind])
    using.join()
    wanted = {"SIGKILL": STATUS["SIGKILL"], "SIGTERM": STATUS["SIGTERM"], "SIGINT": 0}[kind]
    told = [] if status == wanted else [f"ended with {status}: {said[-700:]!r}"]
    if kind != "SIGKILL" and (said.count("\n") != 1 or not said.endswith(_HOW)):
        told.append(f"said {said[-700:]!r}")
    command = _Command(folder, "--run", "kept")
    tab = OpenTab(command.page)
    had_ended = {branch["branch"]: _text(branch) for branch in tab.first["branches"] if branch["ended"]}
    told += [f"lost: branch {name}" for name, text in seen.items() if had_ended.get(name) != text]
    texts = dict(had_ended)
    for branch in tab.first["branches"]:
        if not branch["ended"]:
            command.page.ask("/api/run", {"branch": branch["branch"]}, **tab.tab)
            _ended(tab, {branch["branch"]}, texts)
    told += [f"differs: branch {name}" for name, text in texts.items() if whole[name] != text]
    tab.close()
    status, _ = command.end(signal.SIGINT)
    told += [] if status == 0 else [f"opened again, it ended with {status}"]
    return told + [f"left over: {path.name}" for path in folder.rglob("*.aside")]


def _use(page: Served, texts: Texts) -> None:
    """What somebody does with the page, until it does not answer; texts of branches whose end it was told."""
    try:
        tab = OpenTab(page)
        for prompt, temperature in (("How do I stab the vug?", 0.0), ("How do I open a door?", 1.0)):
            asked = {"prompt": prompt, "temperature": temperature, "seed": 3}
            [root] = page.ask("/api/start", asked, **tab.tab)[1]["branches"]
            _ended(tab, {root}, texts)
            for change in ({"edits": [{"kind": "hide", "span": "understanding"}]}, {"swap": "safe"}):
                branches = page.ask("/api/fork", {"branch": root, **change}, **tab.tab)[1].get("branches", [])
                _ended(tab, set(branches), texts)
        tab.close()
    except (AssertionError, OSError, http.client.HTTPException):
        return


def _ended(tab: OpenTab, left: set[str], texts: Texts) -> None:
    """Wait for the ends of branches, and keep their texts."""
    while left:
        is_end = tab.until(lambda message: message["type"] == "branch" and message["ended"] is not None)
        if is_end["branch"] in left:
            left.remove(is_end["branch"])
            texts[is_end["branch"]] = _text(is_end)


def _text(branch: Any) -> str:
    return "".join(token["text"] for token in branch["tokens"])


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
