"""Benchmark suites: which prompts a benchmark's own file holds, and who judges the answers.

A suite is read as its authors publish it (CSV, TSV, JSON, JSON Lines, Parquet): no column is renamed by hand. Each has
a reader from its rows to a prompt with a label, the judge that its authors use or the nearest that is here, and a
citation. ``refusal`` reads every answer without being asked; the judges named here see the answers besides, where they
are given (``safekey-interp compare --rubric``, ``--guard``).

Labels are the authors': a prompt is harmful where its file says so, or where all of the file's prompts are attacks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from safekey_interp.data.input_paths import row_file
from safekey_interp.data.row_readers import RowFile
from safekey_interp.data.suite_rows import Row
from safekey_interp.data.trace_reader import TraceSource
from safekey_interp.errors import InputError

SuiteJudge = Literal["refusal", "rubric", "guard"]
SuiteReader = Callable[[Row], dict[str, Any]]
"""From a row to the columns that :func:`~safekey_interp.data.row_schema.read_row` knows; None where it says nothing."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One benchmark and how its file is read."""

    title: str
    """As its authors write it."""
    needs: tuple[str, ...]
    """Fields that each of its rows has with something in them."""
    marks: tuple[str, ...]
    """Fields of which one, beside those that it needs, tells its file from others'; none when those alone do."""
    judge: SuiteJudge
    """Who judges its answers: ``refusal``, ``rubric`` (``strongreject``'s, by an endpoint) or ``guard``."""
    citation: str
    """Authors, title, year, where."""
    read: SuiteReader
    """What a row says."""

    @property
    def name(self) -> str:
        """Short; the ``source`` of its traces."""
        return self.title.lower()

    def adapt(self, row: Any, where: str, file: str) -> dict[str, Any]:
        """A row of the suite's file as one of ours.

        Args:
            row: as the file has it.
            where: how messages name it.
            file: the file's name.

        Raises:
            InputError: a field is missing or empty, or is not what the suite says.
        """
        fields = _fields_of(row)
        if not isinstance(fields, Mapping):
            raise InputError(f"{where}: got {type(row).__name__}, expected an object with {', '.join(self.needs)}")
        named = Row(fields, where, self.title, Path(file).name)
        for field in self.needs:
            named.there(field)
        return {"source": self.name} | {name: value for name, value in self.read(named).items() if value is not None}

    def columns(self) -> list[frozenset[str]]:
        """The sets of columns by which a file that is given without a name is known."""
        return [frozenset({*self.needs, mark}) for mark in self.marks] or [frozenset(self.needs)]


SUITES: dict[str, Suite] = {}
"""Suites by name; a file without a name is the first whose columns it has."""


def register_suite(
    title: str, *, needs: tuple[str, ...], marks: tuple[str, ...] = (), judge: SuiteJudge
) -> Callable[[SuiteReader], SuiteReader]:
    """Decorator of the function that reads a suite's row; its docstring is the citation.

    Args:
        title: as the authors write it; in lower case, the name that ``--suite NAME=FILE`` takes.
        needs: fields that each row has with something in them.
        marks: fields of which one, beside those, tells the suite's file from others'.
        judge: who judges its answers.

    Raises:
        InputError: neither needs nor marks, so that any file would be the suite's; or no such judge.
    """
    if not needs and not marks:
        raise InputError(f"register_suite: {title}: expected a field in needs or marks")
    if judge not in (judges := get_args(SuiteJudge)):
        raise InputError(f"register_suite: {title}: judge: got {judge!r}, expected one of {', '.join(judges)}")

    def register(read: SuiteReader) -> SuiteReader:
        citation = " ".join((read.__doc__ or "").split())
        suite = Suite(title=title, needs=needs, marks=marks, judge=judge, citation=citation, read=read)
        SUITES[suite.name] = suite
        return read

    return register


_UNSAFE = {"safe": "benign", "unsafe": "harmful", "benign": "benign", "harmful": "harmful"}
_TYPES = {
    "vanilla_harmful": "harmful",
    "adversarial_harmful": "harmful",
    "vanilla_benign": "benign",
    "adversarial_benign": "benign",
}


@register_suite("XSTest", needs=("prompt", "type"), marks=("focus",), judge="refusal")
def _xstest(row: Row) -> dict[str, Any]:
    """Röttger et al., XSTest, NAACL 2024, arXiv 2308.01263"""
    kind = row.text("type")
    contrast = kind.startswith("contrast_")
    label = row.one_of("label", _UNSAFE) if row.get("label") is not None else "harmful" if contrast else "benign"
    focus = row.get("focus")
    return {
        "prompt": row.text("prompt"),
        "label": label,
        "id": _id("xstest", row.get("id")),
        # Prompts about one thing, safe and unsafe, are twins: splits keep them together.
        "group": f"xstest {str(focus).strip().lower()}" if focus is not None else None,
        "type": kind,
    }


@register_suite("StrongREJECT", needs=("forbidden_prompt",), judge="rubric")
def _strongreject(row: Row) -> dict[str, Any]:
    """Souly et al., A StrongREJECT for Empty Jailbreaks, NeurIPS 2024, arXiv 2402.10260"""
    return {"prompt": row.text("forbidden_prompt"), "label": "harmful"} | row.meta(category="category", origin="source")


@register_suite("JailbreakBench", needs=("Goal", "Behavior"), marks=("Category",), judge="guard")
def _jailbreakbench(row: Row) -> dict[str, Any]:
    """Chao et al., JailbreakBench, NeurIPS 2024, arXiv 2404.01318"""
    name = row.file.lower()
    label = "benign" if "benign" in name else "harmful" if "harmful" in name or name.startswith("behaviors.") else None
    if label is None:
        raise InputError(
            f"{row.where}: JailbreakBench tells harmful from benign by the file's name; expected one with 'harmful' or "
            "'benign' in it, as in harmful-behaviors.csv"
        )
    number = row.get("Index")
    about = row.meta(category="Category", behavior="Behavior", origin="Source")
    return {
        "prompt": row.text("Goal"),
        "label": label,
        "id": _id(f"jailbreakbench-{label}", number),
        # A benign behaviour has the number of the harmful one that it looks like.
        "group": _id("jailbreakbench", number),
    } | about


@register_suite("HarmBench", needs=("Behavior", "BehaviorID"), judge="guard")
def _harmbench(row: Row) -> dict[str, Any]:
    """Mazeika et al., HarmBench, ICML 2024, arXiv 2402.04249"""
    context, behavior = row.get("ContextString"), row.text("Behavior")
    about = row.meta(category="SemanticCategory", functional_category="FunctionalCategory", tags="Tags")
    return {
        "prompt": behavior if context is None else f"{context}\n\n---\n\n{behavior}",
        "label": "harmful",
        "id": _id("harmbench", row.there("BehaviorID")),
    } | about


@register_suite("WildJailbreak", needs=("data_type",), marks=("adversarial",), judge="guard")
def _wildjailbreak(row: Row) -> dict[str, Any]:
    """Jiang et al., WildTeaming at Scale, NeurIPS 2024, arXiv 2406.18510"""
    label, kind = row.one_of("data_type", _TYPES), row.text("data_type")
    if row.get("label") is not None:
        label = row.one_of("label", {"1": "harmful", "0": "benign"})
    prompt = row.text("vanilla" if kind.startswith("vanilla") else "adversarial")
    return {"prompt": prompt, "label": label, "group": row.get("vanilla"), "data_type": kind}


@register_suite("WildChat", needs=("conversation",), marks=("conversation_hash", "conversation_id"), judge="guard")
def _wildchat(row: Row) -> dict[str, Any]:
    """Zhao et al., WildChat, ICLR 2024, arXiv 2405.01470"""
    turns = row.listed("conversation")
    users = [turn for turn in turns if isinstance(turn, Mapping) and turn.get("role") == "user"]
    flag = users[-1].get("toxic", row.get("toxic")) if users else None
    label = None if flag is None else "harmful" if flag is True else "benign"
    return {"messages": turns, "label": label, "group": row.get("conversation_hash")} | row.meta(
        language="language", model_asked="model"
    )


@register_suite("multi-turn", needs=(), marks=("messages", "message_0"), judge="guard")
def _multi_turn(row: Row) -> dict[str, Any]:
    """Lists of messages, as CoSafe (Yu et al., EMNLP 2024, arXiv 2406.17626) has them, or the columns message_0, … of
    Multi-Turn Human Jailbreaks (Li et al. 2024, arXiv 2408.15221)"""
    field = next((f for f in ("messages", "conversation", "conversations") if row.get(f) is not None), None)
    messages = row.get(field) if field else [_body(row, *cell) for cell in row.named("message_")]
    if not messages:
        raise InputError(
            f"{row.where}: multi-turn needs the field 'messages' (a list of role and content) or 'message_0', "
            "'message_1', …"
        )
    label = row.get("label")
    return {
        "messages": messages,
        "label": label if label is not None else None if field else "harmful",
        "id": row.get("id"),
        "group": row.get("group"),
        "tactic": row.get("tactic"),
        "category": row.get("category"),
    }


def _body(row: Row, field: str, value: Any) -> dict[str, Any]:
    """A turn of Multi-Turn Human Jailbreaks: a cell with ``{"body": …, "role": …}``."""
    try:
        turn = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        turn = None
    if not isinstance(turn, Mapping) or not {"body", "role"} <= turn.keys():
        raise InputError(f"{row.where}: {field}: expected an object with body and role")
    return {"role": turn["role"], "content": turn["body"]}


def _id(prefix: str, number: Any) -> str | None:
    if number is None:
        return None
    return f"{prefix}-{int(number) if isinstance(number, float) and number.is_integer() else number}"


_LOOKED_AT = 64
"""Rows whose columns tell what a file is."""


def suite_files(given: Iterable[str]) -> list[RowFile]:
    """The files of suites, to be read by :func:`~safekey_interp.data.trace_reader.read_traces`.

    Args:
        given: ``NAME=FILE``, with a name of :data:`SUITES`; or ``FILE``, which is then known by its columns.

    Returns:
        One source of rows a file, in the order given.

    Raises:
        InputError: no such file, an unknown name, or columns that are no suite's.
    """
    return [_suite_file(argument) for argument in given]


def suites_of(source: TraceSource) -> list[tuple[Suite, RowFile]]:
    """The suites among what is read, each with its file."""
    return [(file.layout, file) for file in source.files if isinstance(file.layout, Suite)]


def _suite_file(argument: str) -> RowFile:
    name, equals, rest = argument.partition("=")
    if equals and name.strip().lower() in SUITES:
        return row_file(rest, layout=SUITES[name.strip().lower()])
    if equals and not Path(argument).exists():
        raise InputError(f"suite {name!r}: not a known one; expected one of {', '.join(SUITES)}, as in xstest=FILE")
    file = row_file(argument)
    rows = [_fields_of(row) for _, row in islice(file.rows(hashlib.sha256()), _LOOKED_AT)]
    # Rows of a table come without their empty cells.
    columns = dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row).keys()
    known = [(suite, needed) for suite in SUITES.values() for needed in suite.columns()]
    for suite, needed in known:
        if needed <= columns:
            return row_file(argument, layout=suite)
    nearest, needed = max(known, key=lambda entry: len(entry[1] & columns) / len(entry[1]))
    lacks = ", ".join(sorted(needed - columns))
    near = f"; {nearest.title} is nearest, and lacks {lacks}" if needed & columns else ""
    raise InputError(
        f"{file.where(1)}: the fields {', '.join(map(str, columns)) or '(none)'} are no suite's{near}; name it, as "
        f"in {next(iter(SUITES))}={argument}, or give the file as traces"
    )


def _fields_of(row: Any) -> Any:
    """A row by its fields; a bare list is one of messages."""
    return {"messages": list(row)} if isinstance(row, list | tuple) else row
