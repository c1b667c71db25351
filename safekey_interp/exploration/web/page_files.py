"""Files of a session's page: as a browser loads them, and all in one file that can be sent to somebody.

The page that is saved is the same. Its modules become functions in one script, that of the connection is replaced by
one that reads the session from the page, and a content security policy lets nothing else run or load.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from safekey_interp.errors import SafekeyError
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.session_json import difference_json, rows_json, session_json, transcript_json
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


def saved_page(session: Session) -> str:
    """The session's page as one file of HTML, with the readings of each key sentence's first token."""
    found = {name: file.text for name, file in page_files().items()}
    script = found["token_text.js"] + _one_script(found | {"connection.js": found["saved_connection.js"]})
    style = found["page.css"] + found["explore.css"]
    shown = session_json(session, lambda branch: transcript_json(session, branch.branch_id, is_waiting=False))
    data = {
        "session": shown | {"is_writer": False, "tab": "", "presets": [], "folder": None},
        "readings": dict(_readings(session, shown["branches"])),
    }
    policy = (
        f"default-src 'none'; script-src {_hash_of(script)}; style-src {_hash_of(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n'
    page = _LOADED.sub("", found["index.html"])
    page = page.replace('<meta name="viewport"', f'{head}<meta name="viewport"', 1)
    return page.replace("</body>", f"{island('session-data', data)}\n<script>{script}</script>\n</body>", 1)


def _readings(session: Session, branches: list[Json]) -> list[tuple[str, Json]]:
    """What the page would ask for at the first token of each key sentence, and of branches beside their parents."""
    made: list[tuple[str, Json]] = []
    for branch in branches:
        name, key = branch["branch"], branch["spans"]["key_sentence"]
        if key is not None:
            at, asked = key[0], {"branch": name, "position": key[0]}
            readings = {
                "attention": lambda name=name, at=at: rows_json(session.attention(name, at)),
                "weights": lambda name=name, at=at: rows_json(session.token_attention(name, at)),
                "writes": lambda name=name, at=at: rows_json(session.writes(name, at)),
                "lens": lambda name=name, at=at: rows_json(session.lens(name, at)),
            }
            made += [(f"{kind}?{urlencode(asked)}", _read(read)) for kind, read in readings.items()]
        beside = branch["control_of"] and next(
            (other["parent"] for other in branches if other["branch"] == branch["control_of"]), None
        )
        other = beside or branch["parent"]
        if other is not None and branch["ended"]:
            compared = _read(lambda name=name, other=other: difference_json(session.difference(name, other)))
            made.append((f"difference?{urlencode({'branch': name, 'other': other})}", compared))
        made.append((f"code?{urlencode({'branch': name})}", _read(lambda name=name: session.code(name)._asdict())))
    return [(asked, reading) for asked, reading in made if reading is not None]


def _read(reading: Any) -> Any:
    """A reading, or None where the model or the branch has none."""
    try:
        return reading()
    except SafekeyError:
        return None


def _one_script(sources: dict[str, str]) -> str:
    """The page's modules as one script: each a function that returns what it exports, after those that it imports."""
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

    place("explore.js")
    return "(() => {\nconst modules = {};\n" + "".join(placed) + "})();\n"


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
