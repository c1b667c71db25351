"""Conditions of traces: the values of one column that summaries are split by.

A condition is a value of one column: ``source`` (plain, wrapped, the name of a data set), or a name found in ``meta``.
Only conditions with at least :data:`~FEW` groups count, the most frequent first, at most
:data:`MOST`; with fewer than two of them nothing is told apart. Traces of other conditions count in all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError

FEW = 10
"""Fewer groups than this have no interval: a skewed mean over them would look surer than it is."""
MOST = 6
"""More conditions than this are not told apart: the rarest are left out."""
LabelBy = Literal["label", "aha"]
"""Ways of labelling: by the file's labels, or by what each trace's own key sentence decides."""
LABELS = ("harmful", "benign")
"""Labels that conditions are crossed with."""
SUBSETS = ("all", *LABELS)
"""Traces that are summarised together: all, and those of each label."""
PROMPTS_OF = {label: f"{label} prompts" for label in LABELS}
"""Each label's traces in a reader's words."""
TRACES_OF = {"all": "all traces", **PROMPTS_OF}
"""Each of :data:`SUBSETS` in a reader's words."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of some traces that are told apart."""

    by: str | None = None
    """The column that was asked for; None when none was."""
    names: tuple[str, ...] = ()
    """Its values, the most frequent first; none, or at least two."""
    left_out: tuple[Mapping[str, Any], ...] = field(default=())
    """What is not told apart: ``what``, ``why`` in words, and ``n`` traces."""

    def subsets(self, condition: str | None, label: str | None) -> list[str]:
        """The subsets of the summaries that a trace of this condition and label belongs to."""
        if condition is None or condition not in self.names:
            return []
        return [self.subset(condition), *([self.subset(condition, label)] if label in LABELS else [])]

    def subset(self, condition: str, label: str | None = None) -> str:
        """What a condition, or its traces of one label, are called in the tables: ``source=wrapped, harmful``."""
        return f"{self.by}={condition}" + (f", {label}" if label else "")

    def words(self) -> dict[str, str]:
        """Each subset in a reader's words, labels inside conditions."""
        return {
            self.subset(name, label): name if label is None else f"{name}, {label} prompts"
            for name in self.names
            for label in (None, *LABELS)
        }

    def record(self) -> dict[str, Any]:
        """What ``run.json`` says of them."""
        return {"by": self.by, "names": list(self.names), "left_out": [dict(row) for row in self.left_out]}


NO_CONDITIONS = Conditions()
"""Nothing is told apart."""


def conditions_in(manifest: Mapping[str, Any]) -> Conditions:
    """The conditions that a run tells apart, from its ``run.json``; none in a run that knows of none."""
    record = manifest.get("conditions") or {}
    return Conditions(by=record.get("by"), names=tuple(record.get("names") or ()))


def condition_of(trace: Trace, by: str | None) -> str | None:
    """The trace's value of the column ``by``; None when it has none, or one that is no text, number or truth."""
    if by is None:
        return None
    if by == "source":
        return trace.source
    value = trace.meta.get(by)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) and str(value) else None


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

    def __init__(self, by: str | None) -> None:
        self.by = by
        """The column."""
        self._traces: Counter[str] = Counter()
        self._groups: dict[str, set[str]] = defaultdict(set)
        self._without = 0

    def add(self, trace: Trace) -> str | None:
        """Count a trace, and return its condition."""
        condition = condition_of(trace, self.by)
        if condition is None:
            self._without += 1
        else:
            self._traces[condition] += 1
            self._groups[condition].add(trace.group)
        return condition

    def conditions(self) -> Conditions:
        """Those of the traces counted so far."""
        if self.by is None:
            return Conditions()
        if not self._traces:
            why = "no trace has such a field, so nothing is told apart by it"
            gone = [{"what": f"conditions by {self.by}", "why": why, "n": self._without}]
            return Conditions(by=self.by, left_out=tuple(gone if self.by != "source" else ()))
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
        return Conditions(by=self.by, names=tuple(names), left_out=tuple(left_out))

    def _gone(self, names: list[str], why: str) -> dict[str, Any]:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
        return {"what": f"conditions by {self.by}: {shown}", "why": why, "n": sum(self._traces[name] for name in names)}


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
    own = [*([label] if label else []), *([f"aha:{aha}"] if aha in ("safe", "unsafe") else [])]
    return ["all", *own, *conditions.subsets(condition, label)]
