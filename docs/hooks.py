"""What is put into the pages while they are built, so that none of it is typed by hand.

- ``<!-- options: probe -->`` becomes the table of a command's options, asked of the command itself;
- ``<!-- settings -->`` the table of training settings, ``<!-- suites -->`` and ``<!-- benchmarks -->`` those of names;
- ``<!-- help: analysis -->`` what ``python -m analysis --help`` prints;
- results, claims, recipes and changelog are pages, read where they lie in the repository;
- ``$$ … $$`` becomes MathML, which browsers draw without a script;
- docstrings' roles (``:func:`~safekey_interp.segment```) become links where there is a page to go to.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_MARK = re.compile(r"^<!-- (options|settings|suites|benchmarks|help)(?:: ([\w ]+))? -->$", re.MULTILINE)
_MATH = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.MULTILINE | re.DOTALL)
_ROLE = re.compile(r":(?:mod|class|func|attr|data|meth):<code>(~?)([\w.]+)</code>")
_HERE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]+\)")
_ROOT = Path(__file__).parents[1]
_ELSEWHERE = {
    "results.md": "analysis/RESULTS.md",
    "claims.md": "analysis/CLAIMS.md",
    "recipes.md": "train/README.md",
    "changelog.md": "CHANGELOG.md",
}
_WIDE = re.compile(r"<table>.*?</table>", re.DOTALL)


def on_files(files: Any, *, config: Any) -> Any:
    """Pages that lie elsewhere in the repository; their links to its files become plain words."""
    from mkdocs.structure.files import File

    for name, path in _ELSEWHERE.items():
        words = _HERE.sub(r"\1", (_ROOT / path).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=words))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Marks become tables, and formulas MathML."""
    tables = {"options": options_table, "settings": settings_table, "suites": suites_table}
    tables |= {"benchmarks": benchmarks_table, "help": help_of}
    filled = _MARK.sub(lambda mark: tables[mark[1]](*(mark[2] or "").split()), markdown)
    return _MATH.sub(lambda formula: _mathml(formula[1]), filled)


def on_page_content(html: str, **_: Any) -> str:
    """Roles become references that may stay unresolved; a wide table scrolls inside its own box."""
    linked = _ROLE.sub(_reference, html)
    return _WIDE.sub(lambda table: f'<div class="wide" role="region" aria-label="Table">{table[0]}</div>', linked)


def options_table(*words: str) -> str:
    """A command's arguments and options, as the command has them."""
    from safekey_interp.cli.app import command_named

    command = command_named(words[0])
    for word in words[1:]:
        command = command.get_command(None, word)
    rows = [(_option(one), _escaped(one.help) + _default(one)) for one in command.params if getattr(one, "help", None)]
    return _table(("option", "what it says"), rows)


def settings_table() -> str:
    """Every field of ``TrainingConfig`` with its bounds and description."""
    from safekey_interp.runs.settings import fields_of, in_words
    from safekey_interp.training.config import TrainingConfig

    rows = [
        (
            f"`{name}`",
            in_words(field),
            f"`{_yaml(field.default)}`",
            _escaped((field.description or "").replace("``", "`")),
        )
        for name, field in fields_of(TrainingConfig).items()
    ]
    return _table(("setting", "value", "default", "what it says"), rows)


def suites_table() -> str:
    """The benchmarks' files that ``--suite`` knows."""
    from safekey_interp.data.suites import SUITES

    rows = [
        (f"`{one.name}`", ", ".join(f"`{need}`" for need in one.needs), one.judge, one.citation)
        for one in SUITES.values()
    ]
    return _table(("name", "fields that each row has", "judge", "from"), rows)


def benchmarks_table() -> str:
    """The benchmarks that ``eval`` calls by a short name."""
    from safekey_interp.evaluation.benchmarks.catalogue import NAMED

    rows = [(f"`{one.name}`", one.harness, f"`{one.task}`", _escaped(one.cites)) for one in NAMED]
    return _table(("name", "harness", "task there", "from"), rows)


def help_of(module: str) -> str:
    """What a program of the repository prints about itself."""
    asked = [sys.executable, "-m", module, "--help"]
    told = subprocess.run(
        asked, cwd=_ROOT, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"}
    )
    return f"```text\n{told.stdout}```"


def _option(one: Any) -> str:
    if not one.opts[0].startswith("-"):
        return f"`{one.metavar or one.name.upper()}`"
    names = [*one.opts, *one.secondary_opts]
    if one.is_flag:
        return "<br>".join(f"`{name}`" for name in names)
    metavar = one.metavar or {int: "NUMBER", float: "NUMBER"}.get(one.type_descriptor.annotation, "TEXT")
    return "<br>".join(f"`{name} {metavar}`" for name in names)


def _default(one: Any) -> str:
    if one.required:
        return " Required."
    if one.default in (None, False) or "Default:" in one.help:
        return ""
    return f" Default: `{one.opts[0] if one.default is True else one.default}`."


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return {None: "null", True: "true", False: "false"}[value] if value in (None, True, False) else str(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _mathml(formula: str) -> str:
    from latex2mathml.converter import convert

    lines = [line.replace(r"\_", "_") for line in formula.splitlines() if line.strip()]  # the converter keeps the mark
    drawn = "".join(f"<p>{convert(line, display='block')}</p>" for line in lines)
    return f'<div class="equation" role="region" aria-label="Equation">{drawn}</div>'


def _reference(role: re.Match[str]) -> str:
    short = role[2].rsplit(".", 1)[-1] if role[1] else role[2]
    return f'<autoref optional identifier="{role[2]}"><code>{short}</code></autoref>'
