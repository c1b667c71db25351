"""Class labels of traces: the values of a column, the two classes that they make, and which of these is positive.

A column is ``label`` (the file's), ``aha`` (what each trace's own key sentence decides), ``source``, or a name found in
``meta``, plain or as a path with dots: ``correct``, ``meta.language``. Classes are named as in the data. The positive
one is ``harmful``, ``unsafe``, ``true``, ``1`` or ``yes`` where one of the two is (in any case), else the last in
sorted order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from safekey_interp.data.conditions import label_of
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError

LabelBy = str
"""A column whose two values are the classes."""
OUTCOME = "aha"
"""The column that the finder makes: whether the key sentence is ``safe``, ``unsafe`` or ``neutral``."""
_NO_CLASS = {OUTCOME: ("neutral",)}  # values of neither class
_POSITIVE = ("harmful", "unsafe", "true", "1", "yes")
_SHOWN = 6  # values that a message lists


class ClassPair(NamedTuple):
    """Names of the two classes."""

    positive: str
    """The class that a probe's higher scores stand for."""
    negative: str
    """The other."""


HARM = ClassPair("harmful", "benign")
"""Labels of prompts that ask for harm, and of those that do not."""
USUAL = {"label": HARM, OUTCOME: ClassPair("unsafe", "safe")}
"""Classes of the columns whose values are known beforehand."""


def class_pair(labels: Iterable[str | None], label_by: LabelBy) -> ClassPair:
    """The two classes of some labels.

    Args:
        labels: values of the column; None where a trace has none.
        label_by: the column.

    Returns:
        Their names; empty for a class that is not there, but of ``label`` and ``aha``, whose usual names are known.

    Raises:
        InputError: more than two values; it names them with their counts.
    """
    counts = Counter(label for label in labels if label is not None and label not in _NO_CLASS.get(label_by, ()))
    usual = USUAL.get(label_by)
    if usual and set(counts) <= set(usual):
        return usual
    if len(counts) == 2:
        low, high = sorted(counts, key=_rank)
        known = [name for name in (low, high) if name.casefold() in _POSITIVE]
        positive = known[0] if len(known) == 1 else high
        return ClassPair(positive, low if positive == high else high)
    if len(counts) < 2:
        return ClassPair(next(iter(counts), ""), "")
    raise _other_than_two(counts, label_by)


def check_label_by(traces: Iterable[Trace], label_by: LabelBy) -> None:
    """Refuse a column that no trace has, or that does not hold two values; ``label`` and ``aha`` may hold fewer.

    Raises:
        InputError: with the columns, or with the values and their counts.
    """
    if label_by == OUTCOME:
        return
    labels: Counter[str | None] = Counter()
    known: dict[str, None] = {}
    for trace in traces:
        labels[label_of(trace, label_by)] += 1
        known |= dict.fromkeys(trace.meta)
    if label_by != "label" and not set(labels) - {None}:
        shown = ", ".join(["label", OUTCOME, "source", *list(known)[:10]])
        raise InputError(f"label_by: no trace has the column {label_by!r}; expected one of {shown}")
    if not class_pair(labels.elements(), label_by).negative and label_by != "label":
        raise _other_than_two(labels, label_by)


def _other_than_two(counts: Counter[Any], label_by: LabelBy) -> InputError:
    return InputError(f"label_by {label_by}: got {_listed(counts)}, expected two; name a column with two values")


def _rank(name: str) -> tuple[int, float, str]:
    """Order of names: numbers by their value, before words."""
    with suppress(ValueError):
        if math.isfinite(number := float(name)):
            return 0, number, name
    return 1, 0.0, name


def _listed(counts: Counter[str]) -> str:
    counts = Counter({name: n for name, n in counts.items() if name is not None})
    shown = [f"{_short(name)} {n:,}" for name, n in counts.most_common(_SHOWN)]
    more = [f"and {len(counts) - _SHOWN:,} more"] if len(counts) > _SHOWN else []
    values = f"{len(counts):,} {'value' if len(counts) == 1 else 'values'}"
    return f"{values} ({', '.join([*shown, *more])})"


def _short(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:37]}...")
