"""Which answers have people labelled?

A file holds the answers of one model, in XSTest's form: ``response``, ``human_label`` (``1_full_compliance``,
``2_full_refusal`` or ``3_partial_refusal``) and ``group``, which ties near-twins among the prompts. Answers that were
written by hand as examples have ``response`` and ``label`` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safekey_interp.errors import InputError


class Labelled(NamedTuple):
    """An answer that people labelled."""

    response: str
    label: str
    """One of the judge's labels."""
    source: str | None
    """The model that wrote it; None for one that was written by hand as an example."""
    group: str
    """Ties answers to the same prompt or to near-twins."""


def read_labelled(paths: Sequence[Path]) -> list[Labelled]:
    """Answers that people labelled, one file for each model; the file's name is the model's.

    Raises:
        InputError: a file cannot be read, or a row lacks a field.
    """
    found = []
    for path in paths:
        for number, row in _rows(path):
            try:
                label = str(row["human_label"]).partition("_")[2]
                found.append(Labelled(row["response"], label, path.stem, row["group"]))
            except KeyError as error:
                raise InputError(
                    f"{path}, line {number}: has no {error}, expected response, human_label and group"
                ) from error
    return found


def read_examples(path: Path) -> list[Labelled]:
    """Answers that were written by hand.

    Raises:
        InputError: the file cannot be read, or a row lacks a field.
    """
    found = []
    for number, row in _rows(path):
        try:
            found.append(Labelled(row["response"], row["label"], None, ""))
        except KeyError as error:
            raise InputError(f"{path}, line {number}: has no {error}, expected response and label") from error
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, json.loads(line)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON lines ({error})") from error
