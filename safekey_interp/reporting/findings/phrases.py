"""Which words do sentences share: places, classes, lists, and the cases that a sentence tells apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safekey_interp.data.class_labels import USUAL, ClassPair
from safekey_interp.data.conditions import FEW, Conditions
from safekey_interp.reporting.findings.finding import Estimate
from safekey_interp.reporting.labels import BUILT_IN_NAMES, Names

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
Row = Any
"""One of its rows."""

ROWS = {"decision": "the token before K", "key_sentence": "K"}
"""Whose attention, in the order in which it is told."""
CLASSES = {"label": "harmful from benign prompts", "aha": "traces that comply from traces that turn safe"}
_NUMBER = re.compile(r"(?<![\w.,-])[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?![\w-])")
MANY = 4
"""So many conditions are no longer told one by one: sentences name the ends, or speak of all traces."""


class Case(NamedTuple):
    """Some traces that a sentence is about."""

    words: str
    """What it calls them, such as ``on harmful prompts (wrapped)``; empty for all traces."""
    subset: str
    """Their name in the tables."""
    name: str
    """Their condition; empty for all traces."""


def cases(table: Table, conditions: Conditions) -> list[Case]:
    """The subsets of an attention table to speak of: each condition, on harmful prompts where all have enough of them.

    All traces together when nothing is told apart, or too much, or a condition has too few prompts.
    """
    sizes = table.groupby("subset", observed=True)["n_groups"].max()

    def enough(label: str | None) -> bool:
        return all(sizes.get(conditions.subset(name, label), 0) >= FEW for name in conditions.names)

    if not 0 < len(conditions.names) < MANY or not enough(None):
        return [Case("", "all", "")]
    label = "harmful" if enough("harmful") else None
    on = "on harmful prompts" if label else "on prompts"
    return [Case(f"{on} ({name})", conditions.subset(name, label), name) for name in conditions.names]


def classes_of(table: Table, names: Names = BUILT_IN_NAMES) -> str:
    """What a probe tells apart: classes as in the data; words of the built-in question for its own."""
    pair = class_pair_of(table)
    by = "aha" if (table["label_by"] == "aha").any() else "label"
    if pair == USUAL[by] and (names.is_built_in or by == "label"):
        return CLASSES[by]
    return f"{pair.positive} from {pair.negative} traces"


def class_pair_of(table: Table) -> ClassPair:
    """The two classes of a table of probes; those of harm in a table of an earlier version."""
    if "positive_class" not in table or not len(table):
        return USUAL["aha" if len(table) and (table["label_by"] == "aha").any() else "label"]
    return ClassPair(str(table["positive_class"].iloc[0]), str(table["negative_class"].iloc[0]))


def site_of(row: Row, n_sites: int) -> str:
    """In which layer a probe reads, and of how many it is the best."""
    site = "after the final norm" if row["site"] == "ln_final" else f"layer {row['layer']}"
    return f"{site}, the best of {n_sites}" if n_sites > 1 else site


def and_list(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def apart(shares: Sequence[tuple[str, Estimate, int]]) -> str:
    """Shares of traces by condition, in a list; of many conditions the highest and the lowest.

    Args:
        shares: name of the condition (empty for all), its share, its traces.
    """
    if len(shares) < MANY:
        text = and_list([_share(*one) for one in shares])
        sure = len(shares) == 2 and all(share.is_sure for _, share, _ in shares)
        return f"{text} (no clear difference)" if sure and not shares[0][1].lies(shares[1][1]) else text
    ordered = sorted(shares, key=lambda one: one[1].value)
    ends = [_share(*ordered[-1]), _share(*ordered[0])]
    return f"{ends[0]} (the most of {len(shares)} conditions) and {ends[1]} (the least)"


def capital(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def small_initial(text: str) -> str:
    """With a small letter, except where a symbol such as K is the first word."""
    return text if text[1:2] == " " else text[:1].lower() + text[1:]


def _share(name: str, share: Estimate, n: int) -> str:
    whose = f"{name} {'trace' if n == 1 else 'traces'}".strip()
    return f"{share.text('.0%')} of {n:,} {whose}"


def left_out(traces: Table, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of ``what``, ``why`` and ``n``."""
    gone = traces.loc[traces["status"] == "left out"]
    rows = by_reason(dict(zip(gone["trace_id"].astype(str), gone["left_out"], strict=True)))
    rows += list((manifest.get("conditions") or {}).get("left_out") or [])
    rows += list(manifest.get("separability_left_out") or [])
    without = manifest.get("layers_without_pattern") or []
    if without:
        layers = ", ".join(map(str, without))
        rows.append(
            {"what": f"attention of layers {layers}", "why": "n/a: they have no attention pattern", "n": len(without)}
        )
    return rows


def notes(traces: Table) -> list[str]:
    """What is worth knowing of traces that were not left out."""
    straddling = int((traces["n_straddling"].fillna(0) > 0).sum())
    if not straddling:
        return []
    return [
        f"Tokens straddle spans in {straddling:,} traces: each counts for the span of its first character that is not "
        "white space."
    ]


def by_reason(reasons: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of ``what``, ``why`` and ``n`` from the reason of each trace; those that differ in numbers alone are one."""
    alike: dict[str, dict[str, str]] = {}
    for trace_id, reason in reasons.items():
        alike.setdefault(_NUMBER.sub("#", str(reason)), {})[trace_id] = str(reason)
    return [{"what": _few(list(of)), "why": _with_ranges(list(of.values())), "n": len(of)} for of in alike.values()]


def _with_ranges(reasons: Sequence[str]) -> str:
    """The reason that all share, with each number as its least and its largest value."""
    ranges = []
    for numbers in zip(*map(_NUMBER.findall, reasons), strict=True):
        ordered = sorted(set(numbers), key=lambda number: float(number.replace(",", "")))
        ranges.append(ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}")
    values = iter(ranges)
    return _NUMBER.sub(lambda _: next(values), reasons[0])


def _few(names: list[str], shown: int = 3) -> str:
    listed = ", ".join(names[:shown])
    noun = "trace" if len(names) == 1 else "traces"
    return f"{noun} {listed}{' …' if len(names) > shown else ''}"
