"""Conditions of traces: the values of one column that summaries are split by.

A condition is a value of one column: ``source`` (plain, wrapped, the name of a data set), or a name found in ``meta``.
Only conditions with at least :data:`~FEW` groups count, the most frequent first, at most
:data:`MOST`; with fewer than two of them nothing is told apart. Traces of other conditions count in all.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError

FEW = 10
"""Fewer groups than this have no interval: a skewed mean over them would look surer than it is."""
MOST = 6
"""More conditions than this are not told apart: the rarest are left out."""
LABELS = ("harmful", "benign")
"""Labels of prompts that ask for harm, and of those that do not."""
SUBSETS = ("all", *LABELS)
"""Traces that are summarised together where the question is harm: all, and those of each label."""
PROMPTS_OF = {label: f"{label} prompts" for label in LABELS}
"""Each label's traces in a reader's words."""
TRACES_OF = {"all": "all traces", **PROMPTS_OF}
"""Each of :data:`SUBSETS` in a reader's words; traces of another label are called by it."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of some traces that are told apart."""

    by: str | None = None
    """The column that was asked for; None when none was."""
    names: tuple[str, ...] = ()
    """Its values, the most frequent first; none, or at least two."""
    left_out: tuple[Mapping[str, Any], ...] = field(default=())
    """What is not told apart: ``what``, ``why`` in words, and ``n`` traces."""
    labels: tuple[str, ...] = LABELS
    """Labels that conditions are crossed with, and that summaries are split by."""
    label_by: str = "label"
    """The column that they are values of."""

    def subsets(self, condition: str | None, label: str | None) -> list[str]:
        """The subsets of the summaries that a trace of this condition and label belongs to."""
        if condition is None or condition not in self.names:
            return []
        return [self.subset(condition), *([self.subset(condition, label)] if label in self.labels else [])]

    def subset(self, condition: str, label: str | None = None) -> str:
        """What a condition, or its traces of one label, are called in the tables: ``source=wrapped, harmful``."""
        return f"{self.by}={condition}" + (f", {label}" if label else "")

    def words(self) -> dict[str, str]:
        """Each subset in a reader's words, labels inside conditions."""
        return {
            self.subset(name, label): name if label is None else f"{name}, {PROMPTS_OF.get(label, label)}"
            for name in self.names
            for label in (None, *self.labels)
        }

    def record(self) -> dict[str, Any]:
        """What ``run.json`` says of them."""
        left_out = [dict(row) for row in self.left_out]
        return {"by": self.by, "names": list(self.names), "left_out": left_out, "labels": list(self.labels)}


NO_CONDITIONS = Conditions()
"""Nothing is told apart."""


def conditions_in(manifest: Mapping[str, Any]) -> Conditions:
    """The conditions that a run tells apart, from its ``run.json``; none in a run that knows of none."""
    record = manifest.get("conditions") or {}
    labels = tuple(record.get("labels", LABELS))
    return Conditions(by=record.get("by"), names=tuple(record.get("names") or ()), labels=labels)


def condition_of(trace: Trace, by: str | None) -> str | None:
    """The trace's value of the column ``by``; None when it has none, or one that is no text, number or truth."""
    return None if by is None else value_of(trace.source, trace.meta, by)


def label_of(trace: Trace, label_by: str) -> str | None:
    """A trace's value of a column of the data, as text; None when it has none, or one of several parts."""
    return trace.label if label_by == "label" else condition_of(trace, label_by)


def value_of(source: str | None, meta: Mapping[str, Any], name: str) -> str | None:
    """A column's value as text: of ``source``, or of what else the data say, by its name or a path with dots."""
    value: Any = source if name == "source" else _found(meta, name)
    if getattr(value, "shape", None) == ():
        value = value.item()  # a number or truth of NumPy's
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, str | int | float) and str(value) else None


def _found(fields: Any, path: str) -> Any:
    """A value by its name, or by a path with dots, of which a first ``meta`` may stand for the fields themselves."""
    if isinstance(fields, str) and fields.startswith("{"):  # an object in a cell of a CSV file
        with suppress(ValueError, RecursionError):
            fields = json.loads(fields)
    if not isinstance(fields, Mapping):
        return None
    if path in fields:
        return fields[path]
    head, _, rest = path.partition(".")
    inner = _found(fields.get(head), rest) if rest else None
    return _found(fields, rest) if inner is None and rest and head == "meta" else inner


def check_by(traces: Iterable[Trace], by: str | None) -> None:
    """Refuse a column of conditions that no trace has; ``source`` is asked of all traces, and may be absent.

    Raises:
        InputError: it is in none of them.
    """
    if by in (None, "source"):
        return
    known: dict[str, None] = {}
    for trace in traces:
        if condition_of(trace, by) is not None:
            return
        known |= dict.fromkeys(trace.meta)
    shown = ", ".join(["source", *list(known)[:10]])
    raise InputError(f"by: no trace has the field {by!r}; expected one of {shown}, or none")


class ConditionCounter:
    """Counts conditions as traces come, to say at the end which are told apart."""

    def __init__(self, by: str | None, label_by: str = "label") -> None:
        self.by, self.label_by = by, label_by
        """The columns of conditions and of labels."""
        self._traces: Counter[str] = Counter()
        self._groups: dict[str, set[str]] = defaultdict(set)
        self._labels: set[str] = set()
        self._without = 0

    def add(self, trace: Trace) -> str | None:
        """Count a trace, and return its condition."""
        condition = condition_of(trace, self.by)
        label = label_of(trace, self.label_by)
        if label is not None and len(self._labels) <= len(LABELS):
            self._labels.add(label)
        if condition is None:
            self._without += 1
        else:
            self._traces[condition] += 1
            self._groups[condition].add(trace.group)
        return condition

    def conditions(self) -> Conditions:
        """Those of the traces counted so far."""
        known = Conditions(by=self.by, labels=subsets_by_label(self._labels)[1:], label_by=self.label_by)
        if self.by is None:
            return known
        if not self._traces:
            why = "no trace has such a field, so nothing is told apart by it"
            gone = [{"what": f"conditions by {self.by}", "why": why, "n": self._without}]
            return replace(known, left_out=tuple(gone if self.by != "source" else ()))
        ordered = sorted(self._traces, key=lambda name: (-self._traces[name], name))
        small = [name for name in ordered if len(self._groups[name]) < FEW]
        large = [name for name in ordered if len(self._groups[name]) >= FEW]
        names, many = (large[:MOST], large[MOST:]) if len(large) >= 2 else ([], [])
        left_out = []
        if small and len(ordered) > 1:
            left_out.append(self._gone(small, f"fewer than {FEW} prompts each, too few to tell apart"))
        if many:
            left_out.append(self._gone(many, f"only the {MOST} most frequent are told apart"))
        if names and self._without:
            why = "of no condition; they count in all"
            left_out.append({"what": f"traces without {self.by}", "why": why, "n": self._without})
        return replace(known, names=tuple(names), left_out=tuple(left_out))

    def _gone(self, names: list[str], why: str) -> dict[str, Any]:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
        return {"what": f"conditions by {self.by}: {shown}", "why": why, "n": sum(self._traces[name] for name in names)}


def subsets_by_label(labels: Iterable[Any]) -> tuple[str, ...]:
    """The subsets that a summary is split into: all traces, and those of each label where these are at most two."""
    found = {label for label in labels if isinstance(label, str)} - {"all"}
    if found <= set(LABELS):
        return SUBSETS
    return ("all", *sorted(found)) if len(found) <= len(LABELS) else ("all",)


def conditions_of(traces: Iterable[Trace], by: str | None) -> Conditions:
    """The conditions of traces that are told apart by a column."""
    counter = ConditionCounter(by)
    for trace in traces:
        counter.add(trace)
    return counter.conditions()


def subsets_of(
    label: str | None, aha: str | None, condition: str | None = None, conditions: Conditions = NO_CONDITIONS
) -> list[str]:
    """The subsets of the summaries that a trace belongs to."""
    own = [*([label] if label in conditions.labels else []), *([f"aha:{aha}"] if aha in ("safe", "unsafe") else [])]
    return ["all", *own, *conditions.subsets(condition, label)]
