"""Commands, files and modules that the documentation names: each of them exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from typer.main import get_group

from safekey_interp.cli.app import LazyGroup, app, command_named
from safekey_interp.training.config import TrainingConfig

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "train/README.md")),
    *(ROOT / "analysis" / name for name in ("RESULTS.md", "CLAIMS.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SCRIPTS = sorted((ROOT / "analysis").rglob("*.py")) + sorted((ROOT / "train").glob("*.py"))
ELSEWHERE = {"build", "mkdocs", "pip", "pytest", "twine", "venv", "zipfile"}
"""Modules of other projects, which need not be installed."""
IN_GENERAL = {"train/sft.py", "safekey_interp/interventions/NAME.py"}
"""A file of the paper's release, and a name to be chosen."""
CODE = re.compile(r"^```\w*\n(?P<block>.*?)^```$|(?<!`)`(?P<inline>[^`]+)`(?!`)", re.MULTILINE | re.DOTALL)
FILE = re.compile(
    r"\b(?:safekey_interp|analysis|train|tests|docs|notebooks|examples)/[\w/.-]*\.(?:py|yaml|md|jsonl?)\b"
)
NAME = re.compile(r"\b(?:safekey_interp|analysis)(?:\.\w+)+\b(?![/(])")
STRING = re.compile(r'"[\w-]+"')
FOLDED = re.compile(r"\\?\n\s*")


def commands(path: Path) -> Iterator[list[str]]:
    """Words of each command in a document's code or a script's docstrings, from the name of the program on."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "\n".join((code["block"] or FOLDED.sub(" ", code["inline"])) for code in CODE.finditer(text))
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\||`", line):
            program = re.search(r"(?:python3? |safekey-interp |-m safekey_interp).*", part)
            if program:
                yield shlex.split(program[0].replace("'", " ").replace('"', " ").replace("[", " ").replace("]", " "))


def complaints(words: list[str]) -> Iterator[str]:
    """What of a command does not exist."""
    if words[0] == "safekey-interp" or words[:2] == ["-m", "safekey_interp"]:
        yield from package_complaints(words[1 if words[0] == "safekey-interp" else 2 :])
    elif words[1] == "-m":
        module = words[2] if len(words) > 2 else ""
        if module == "safekey_interp":
            yield from package_complaints(words[3:])
        elif module.split(".")[0] not in ELSEWHERE:
            yield from script_complaints(find_spec(module) and module, words[3:])
    elif words[1].endswith(".py") and "/" in words[1]:  # without a folder, it is a file of the reader's own
        yield from script_complaints((ROOT / words[1]).is_file() and words[1], words[2:])


def script_complaints(script: Any, words: list[str]) -> Iterator[str]:
    if not script:
        yield "no such module or file"
        return
    known = "".join(path.read_text(encoding="utf-8") for path in [*SCRIPTS, *(ROOT / "tests").glob("*/*.py")])
    options = [word for word in words if word.startswith("--")]
    yield from (
        f"no option {name}" for name in options if not {f'"{name}"', f'"{name[2:]}"'} & set(STRING.findall(known))
    )


def package_complaints(words: list[str]) -> Iterator[str]:
    command: Any = get_group(app)
    while words and hasattr(command, "list_commands") and not words[0].startswith("-"):
        if not re.fullmatch(r"[a-z]+", words[0]):
            return
        if words[0] not in command.list_commands(None):
            yield f"no command {words[0]}"
            return
        named = command_named if isinstance(command, LazyGroup) else partial(command.get_command, None)
        command, words = named(words[0]), words[1:]
    options = {"--help", "--version", "--verbose"}
    options |= {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    yield from (f"no option {word}" for word in words if word.startswith("--") and word not in options)
    if command.name == "train":
        settings = set(signature(TrainingConfig).parameters)
        keys = {word.partition("=")[0] for word in words if re.match(r"[a-z_]+=", word)}
        yield from (f"no setting {key}" for key in sorted(keys - settings))


@pytest.mark.parametrize("path", [*DOCUMENTS, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_is_named_exists(path: Path) -> None:
    missing = [f"{' '.join(words)}: {complaint}" for words in commands(path) for complaint in complaints(words)]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_and_module_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    roots = (ROOT, path.parent)
    missing = [name for name in FILE.findall(text) if not any((root / name).exists() for root in roots)]
    assert set(missing) <= IN_GENERAL
    inline = " ".join(code["inline"] or "" for code in CODE.finditer(text))
    assert [name for name in NAME.findall(FILE.sub("", inline)) if not resolves(name)] == []


def resolves(name: str) -> bool:
    try:
        return resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False
