"""MkDocs hooks: option tables, generated pages, equations and references.

- ``<!-- options: probe -->`` becomes the table of a command's options, read from the command;
- ``<!-- settings -->`` the table of training settings, ``<!-- suites -->`` and ``<!-- benchmarks -->`` those of names;
- ``<!-- help: analysis -->`` what ``python -m analysis --help`` prints;
- results, claims, recipes and changelog are pages, read from their files elsewhere in the repository;
- ``$$ … $$`` and ``$…$`` become MathML, which browsers draw without a script;
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
_INLINE = re.compile(r"(?<=[ (])\$([^\s$`][^\n$`]*)\$(?=[\s,.;:)])")
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
    """Add the pages from elsewhere in the repository; their links to its files become plain text."""
    from mkdocs.structure.files import File

    for name, path in _ELSEWHERE.items():
        words = _HERE.sub(r"\1", (_ROOT / path).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=words))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace marks by tables, and formulas by MathML."""
    tables = {"options": options_table, "settings": settings_table, "suites": suites_table}
    tables |= {"benchmarks": benchmarks_table, "help": help_of}
    filled = _MARK.sub(lambda mark: tables[mark[1]](*(mark[2] or "").split()), markdown)
    drawn = _MATH.sub(lambda formula: _mathml(formula[1]), filled)
    return _INLINE.sub(lambda formula: _converted(formula[1], "inline"), drawn)


def on_page_content(html: str, **_: Any) -> str:
    """Replace roles by references that may stay unresolved; put each table into a box that scrolls."""
    linked = _ROLE.sub(_reference, html)
    return _WIDE.sub(lambda table: f'<div class="wide" role="region" aria-label="Table">{table[0]}</div>', linked)


def options_table(*words: str) -> str:
    """A command's arguments and options, as the command has them."""
    from safekey_interp.cli.app import command_named

    command = command_named(words[0])
    for word in words[1:]:
        command = command.get_command(None, word)
    rows = [
        (_option(option), _escaped(option.help) + _default(option))
        for option in command.params
        if getattr(option, "help", None)
    ]
    return _table(("option", "description"), rows)


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
    return _table(("setting", "value", "default", "description"), rows)


def suites_table() -> str:
    """Table of the benchmark suites of ``--suite``."""
    from safekey_interp.data.suites import SUITES

    rows = [
        (f"`{suite.name}`", ", ".join(f"`{field}`" for field in suite.needs), suite.judge, suite.citation)
        for suite in SUITES.values()
    ]
    return _table(("name", "required fields", "judge", "source"), rows)


def benchmarks_table() -> str:
    """Table of the benchmarks with a short name in ``eval``."""
    from safekey_interp.evaluation.benchmarks.catalogue import NAMED

    rows = [(f"`{task.name}`", task.harness, f"`{task.task}`", _escaped(task.cites)) for task in NAMED]
    return _table(("name", "harness", "task", "source"), rows)


def help_of(module: str) -> str:
    """Help text of a module of the repository."""
    command = [sys.executable, "-m", module, "--help"]
    environment = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True, env=environment)
    return f"```text\n{done.stdout}```"


def _option(option: Any) -> str:
    if not option.opts[0].startswith("-"):
        return f"`{option.metavar or option.name.upper()}`"
    names = [*option.opts, *option.secondary_opts]
    if option.is_flag:
        return "<br>".join(f"`{name}`" for name in names)
    metavar = option.metavar or {int: "NUMBER", float: "NUMBER"}.get(option.type_descriptor.annotation, "TEXT")
    return "<br>".join(f"`{name} {metavar}`" for name in names)


def _default(option: Any) -> str:
    if option.required:
        return " Required."
    if option.default in (None, False) or "Default:" in option.help:
        return ""
    return f" Default: `{option.opts[0] if option.default is True else option.default}`."


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
    lines = [_converted(line, "block") for line in formula.splitlines() if line.strip()]
    drawn = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="equation" role="region" aria-label="Equation">{drawn}</div>'


def _converted(formula: str, display: str) -> str:
    from latex2mathml.converter import convert

    return convert(formula.replace(r"\_", "_"), display=display)  # the converter keeps the backslash of \_


def _reference(role: re.Match[str]) -> str:
    short = role[2].rsplit(".", 1)[-1] if role[1] else role[2]
    return f'<autoref optional identifier="{role[2]}"><code>{short}</code></autoref>'
