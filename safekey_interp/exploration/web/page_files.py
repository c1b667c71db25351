"""Files of a session's page: as a browser loads them, and all in one file that can be sent to somebody.

The page that is saved is the same: its modules become functions in one script, which reads the session from the page,
and a content security policy lets nothing else run or load. A notebook's widget is that script with another beginning.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from safekey_interp.errors import SafekeyError
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.position_readings import (
    MOST_READING_BYTES,
    READINGS,
    Asked,
    PositionReadings,
)
from safekey_interp.exploration.web.session_json import difference_json, session_json, transcript_json
from safekey_interp.reporting.pages.rendering import island, static, style_sheet

Json = dict[str, Any]
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "(\./\w+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) ([\w$]+))", re.MULTILINE)
_LOADED = re.compile(r'<(?:link rel="stylesheet"|script )[^>]*>(?:</script>)?\n')


class PageFile(NamedTuple):
    """One file of the page."""

    text: str
    """Its content."""
    media_type: str
    """What the browser is told that it is."""


@functools.cache
def page_files() -> dict[str, PageFile]:
    """The files that the page loads, by name."""
    folder = files("safekey_interp.exploration.web") / "static"
    found = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.is_file()}
    found |= {"page.css": style_sheet(), "token_text.js": static("token_text.js")}
    return {name: PageFile(text, _TYPES[Path(name).suffix]) for name, text in found.items()}


def saved_page(session: Session, readings: PositionReadings | None = None) -> str:
    """The session's page as one file of HTML.

    Args:
        session: the session.
        readings: those that were looked at; the page holds them and, of each key sentence, its first token's: no more
            than :data:`~safekey_interp.exploration.web.position_readings.MOST_READING_BYTES` in all.
    """
    found = {name: file.text for name, file in page_files().items()}
    script = found["token_text.js"] + _one_script(found, "saved_page.js")
    style = found["page.css"] + found["explore.css"]
    shown = session_json(
        session, lambda branch: transcript_json(session, branch.branch_id, is_waiting=False), with_presets=False
    )
    of_tokens = _token_readings(readings or PositionReadings(session), shown["branches"])
    n_tokens = len({(asked.branch, asked.position) for asked in of_tokens})
    data = {
        "session": shown | {"is_writer": False, "tab": "", "folder": None, "saved": True},
        "readings": {asked.query: reading for asked, reading in of_tokens.items()}
        | dict(_branch_readings(session, shown["branches"])),
        "held": f"Not in this saved page, which has the readings of {n_tokens} tokens: the first of each key sentence "
        "and those that were looked at.",
    }
    policy = (
        f"default-src 'none'; script-src {_hash_of(script)}; style-src {_hash_of(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n'
    page = _LOADED.sub("", found["index.html"])
    page = page.replace('<meta name="viewport"', f'{head}<meta name="viewport"', 1)
    return page.replace("</body>", f"{island('session-data', data)}\n<script>{script}</script>\n</body>", 1)


@functools.cache
def widget_module() -> str:
    """The page as an ECMAScript module of anywidget's form, which draws it in a shadow root."""
    found = {name: file.text for name, file in page_files().items()}
    style = (found["page.css"] + found["explore.css"]).replace(":root", ":host")
    given = json.dumps({"page": _LOADED.sub("", found["index.html"]), "style": style})
    script = _one_script(found, "notebook_widget.js")
    return f"{found['token_text.js']}const page = {script}export default page.widget({given});\n"


def _token_readings(readings: PositionReadings, branches: list[Json]) -> dict[Asked, Json]:
    """Readings of each key sentence's first token, then of what was looked at last, up to the limit."""
    keys = [(branch["branch"], branch["spans"]["key_sentence"]) for branch in branches]
    first = [Asked(kind, branch, key[0]) for branch, key in keys if key is not None for kind in READINGS]
    made: dict[Asked, Json] = {}
    room = MOST_READING_BYTES
    for asked, text in readings.texts(dict.fromkeys([*first, *readings.looked_at])):
        room -= len(text)
        if room < 0:
            break
        made[asked] = json.loads(text)
    return made


def _branch_readings(session: Session, branches: list[Json]) -> Iterator[tuple[str, Json]]:
    """Code of each branch, and how it differs from the one beside it, where it has ended."""
    for branch in branches:
        name = branch["branch"]
        beside = branch["control_of"] and next(
            (other["parent"] for other in branches if other["branch"] == branch["control_of"]), None
        )
        other = beside or branch["parent"]
        if other is not None and branch["ended"]:
            with suppress(SafekeyError):
                compared = difference_json(session.difference(name, other))
                yield f"difference?{urlencode({'branch': name, 'other': other})}", compared
        with suppress(SafekeyError):
            yield f"code?{urlencode({'branch': name})}", session.code(name)._asdict()


def _one_script(sources: dict[str, str], entry: str) -> str:
    """A module and those that it imports as one expression, whose value is what it exports; each is a function."""
    placed: list[str] = []
    seen: set[str] = set()

    def place(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        text = sources[name]
        for _, path in _IMPORT.findall(text):
            place(path.removeprefix("./"))
        exports = ", ".join(exported for _, exported in _EXPORT.findall(text))
        body = _EXPORT.sub(r"\1", _IMPORT.sub(r'const \1 = modules["\2"];' + "\n", text))
        placed.append(f'modules["./{name}"] = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();\n')

    place(entry)
    return "(() => {\nconst modules = {};\n" + "".join(placed) + f'return modules["./{entry}"];\n}})();\n'


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
