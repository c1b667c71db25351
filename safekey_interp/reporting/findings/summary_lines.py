"""Summary of a run in five lines: what was read, what was found, what it is held against, and what is known of it.

``findings.json`` has them as ``summary``; a terminal prints them, then where the page lies. A line has a label of one
word, and sentences with n, interval and control.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from safekey_interp.segmentation.unread_languages import counted

_FEW_READ = 0.9
"""A smaller share of traces read is no longer most of them: what is found may be of the easy ones alone."""
_UNSURE = 0.6
"""A smaller median confidence is that of a finder that goes by position."""
_UNLIKE = 0.8
"""Less agreement with annotated key sentences than this is no reading of them."""
_MOST_CUT = 0.5
"""From this share of cut responses on, the limit decides what is seen."""


class Line(NamedTuple):
    """One line."""

    label: str
    """One word."""
    text: str
    """Its sentences."""


def listed(lines: Iterable[Line]) -> list[dict[str, str]]:
    """Lines with a text, as ``findings.json`` has them."""
    return [line._asdict() for line in lines if line.text]


def trust(record: Mapping[str, Any] | None, finder: object, n_measured: int | None) -> str:
    """How far the finder can be trusted on the data, with the remedy where that is not far; empty where nobody counted.

    Args:
        record: ``finder_trust`` of ``run.json``.
        finder: the finder's name.
        n_measured: traces that were measured; None where that is not said.
    """
    if not record or not record["n"]:
        return ""
    n, n_read = int(record["n"]), int(record["n_read"])
    languages = record.get("languages") or {}
    parts = [f"{n_read:,} of {n:,} traces read by finder {finder} ({n_read / n:.0%})"]
    parts[0] += "" if n_measured is None else f", {n_measured:,} measured"
    if languages:
        parts.append(f"languages: {', '.join(f'{name} {count:,}' for name, count in languages.items())}")
    median = record["median_confidence"]
    parts += [] if median is None else [f"median confidence {median:.2f}"]
    annotated, same = int(record["n_annotated"]), int(record["n_as_annotated"])
    parts += [f"K as annotated in {same:,} of {annotated:,} ({same / annotated:.0%})"] if annotated else []
    is_low = n_read < _FEW_READ * n or (median is not None and median < _UNSURE) or same < _UNLIKE * annotated
    is_cut = int(record.get("n_cut") or 0) >= _MOST_CUT * n  # another finder finds no more in these
    unread = counted(Counter(record.get("unread") or {}).elements())
    if unread.n:
        return f"{'; '.join(parts)}. {unread.in_words(n)}."
    remedy = " Little of that is sure: --finder llm reads more." if is_low and finder != "llm" and not is_cut else ""
    return f"{'; '.join(parts)}.{remedy}"


def cut(counts: Sequence[tuple[str, int, int]]) -> str:
    """How many responses the largest number of tokens cut, by model; empty where it cut none.

    Args:
        counts: model, responses cut, responses of which it is known.
    """
    there = [(name, k, n) for name, k, n in counts if k]
    if not there:
        return ""
    told = ", ".join(f"{k:,} of {n:,} responses{f' of {name}' if name else ''}" for name, k, n in there)
    remedy = "; raise --max-new-tokens" if any(k >= _MOST_CUT * n for _, k, n in there) else ""
    return f"{told} ended by the largest number of tokens{remedy}."


def cut_of(record: Mapping[str, Any] | None, name: str = "") -> tuple[str, int, int]:
    """The counts of :func:`cut` in ``finder_trust`` of a run."""
    return name, int((record or {}).get("n_cut") or 0), int((record or {}).get("n_cut_known") or 0)


def with_control(finding: Mapping[str, Any]) -> str:
    """A finding as a line's sentence: its text, its n and its control."""
    n, control = finding.get("n"), finding.get("control")
    size = "n unknown" if not n else f"n = {n}" if isinstance(n, str) else f"n = {n:,}"
    return f"{finding['text']} ({size}{f'; control: {control}' if control else ''})"


def streamed(record: Mapping[str, Any] | None) -> str:
    """What of a streamed run is of all its traces, and what of its sample; empty for other runs."""
    if not record:
        return ""
    other = [
        f"{record[f'n_other_{name}']:,} of another {name}"
        for name in ("label", "condition")
        if record.get(f"n_other_{name}")
    ]
    later = f" Of later traces, {' and '.join(other)} count in all traces alone." if other else ""
    return (
        f"{record['n_read']:,} traces of a stream, {record.get('n_measured', 0):,} measured. Attention by head is of "
        f"all of them, everything else here of a sample of {record['n_sample']:,}, drawn in whole groups by the seed. "
        f"Classes and conditions are those of the first {record['n_first']:,}.{later}"
    )
