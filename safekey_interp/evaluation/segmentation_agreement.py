"""Agreement of a finder with annotators: key sentence, aha and hint, with intervals.

Only where the annotators agree is there an answer to be right about: the key sentence is judged on traces whose
annotators chose the same one, aha and hint on those of them where they gave the same value. A span is right when both
its ends are, white space aside. How often the annotators agree with each other is reported too, as the most that can
be expected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safekey_interp.data.input_paths import row_file
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError
from safekey_interp.measures.intervals import share_interval
from safekey_interp.segmentation.segmentation_record import Segmentation

_MEASURED = {"key_sentence": "key sentence", "aha": "aha", "hint": "hint"}
"""What is compared, and its name in the report."""


class AnnotatorLabels(NamedTuple):
    """One annotator's labels of a trace."""

    understanding: CharSpan | None
    key_sentence: CharSpan | None
    aha: str | None
    hint: bool | None


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One annotated trace."""

    trace: Trace
    """The trace that was annotated."""
    judgements: tuple[AnnotatorLabels, ...]
    """One for each annotator, at least one."""


class Rate(NamedTuple):
    """One row of a report."""

    name: str
    """What is counted."""
    successes: int
    n: int
    rate: float
    """NaN when ``n`` is 0."""
    low: float
    """Lower bound of the 95 % interval."""
    high: float
    """Upper bound."""


@dataclass(frozen=True, kw_only=True)
class AgreementReport:
    """Agreement of one finder with the annotators of one file."""

    rows: tuple[Rate, ...]
    """``key sentence``, ``aha``, ``hint``: the finder where annotators agree; then, where there are two, these among
    themselves."""
    missed: tuple[str, ...]
    """Traces whose annotated key sentence was not found."""
    n_left_out: int
    """Annotated traces without a segmentation."""

    def row(self, name: str) -> Rate:
        """The row called ``name``."""
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        lines = [f"{'':<24}{'right':>7}{'n':>6}{'rate':>8}   95 % interval"]
        lines += [
            f"{row.name:<24}{row.successes:>7}{row.n:>6}{row.rate:>8.3f}   {row.low:.3f} to {row.high:.3f}"
            for row in self.rows
        ]
        return "\n".join(lines)


def read_annotations(path: str | Path) -> list[Annotation]:
    """Read annotated traces: rows with ``id, prompt, response`` and one object for each annotator.

    An annotator's field is ``annotator_…``: ``understanding`` and ``key_sentence`` as [start, end] into ``response``
    or null, ``aha`` as safe, unsafe or neutral, ``hint`` as yes or no.

    Raises:
        InputError: with the line's number, when a line cannot be used.
    """
    annotations = []
    file = row_file(str(path))
    for number, row in file.rows(hashlib.sha256()):
        try:
            annotations.append(_annotation(row))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{file.where(number)}: got {type(error).__name__} {error}, expected an annotated trace: id, prompt, "
                "response and annotator_… with understanding, key_sentence, aha, hint"
            ) from error
    if not annotations:
        raise InputError(f"{path}: got no annotated trace, expected one JSON object a line")
    return annotations


def compare(segmentations: Iterable[Segmentation], annotations: Iterable[Annotation]) -> AgreementReport:
    """Count where a finder is right.

    Args:
        segmentations: of the finder; matched by trace id, in any order.
        annotations: of people.

    Raises:
        InputError: when no segmentation belongs to an annotated trace.
    """
    by_id = {segmentation.trace_id: segmentation for segmentation in segmentations}
    annotations = list(annotations)
    pairs = [(by_id[a.trace.trace_id], a.judgements) for a in annotations if a.trace.trace_id in by_id]
    if not pairs:
        raise InputError("agreement: none of the traces is annotated; expected the same ids in both files")
    agreed = [(segmented, judged) for segmented, judged in pairs if _same(j.key_sentence for j in judged)]
    hits = {
        name: [
            getattr(judged[0], name) == getattr(segmented, name)
            for segmented, judged in agreed
            if _same(getattr(j, name) for j in judged)
        ]
        for name in _MEASURED
    }
    rows = [_rate(_MEASURED[name], row) for name, row in hits.items()]
    doubly = [judged for _, judged in pairs if len(judged) > 1]
    for name, words in _MEASURED.items() if doubly else ():
        rows.append(_rate(f"annotators, {words}", [_same(getattr(j, name) for j in judged) for judged in doubly]))
    found = zip(agreed, hits["key_sentence"], strict=True)
    return AgreementReport(
        rows=tuple(rows),
        missed=tuple(segmented.trace_id for (segmented, _), right in found if not right),
        n_left_out=len(annotations) - len(pairs),
    )


def is_held_out(trace_id: str) -> bool:
    """Whether a trace belongs to the third that no rule was written from: SHA-256 of its id, modulo 3, is 0."""
    return int(hashlib.sha256(trace_id.encode("utf-8", "replace")).hexdigest(), 16) % 3 == 0


def _annotation(row: Mapping[str, Any]) -> Annotation:
    trace = Trace(trace_id=str(row["id"]), prompt=row["prompt"], response=row["response"])
    judged = [_labels(value, trace.response) for key, value in row.items() if key.startswith("annotator_")]
    if not judged:
        raise KeyError("annotator_…")
    return Annotation(trace=trace, judgements=tuple(judged))


def _labels(labels: Mapping[str, Any], response: str) -> AnnotatorLabels:
    hint = labels.get("hint")
    if hint not in (None, "yes", "no", True, False):
        raise ValueError(f"hint {hint!r}")
    return AnnotatorLabels(
        _span(labels.get("understanding"), response),
        _span(labels.get("key_sentence"), response),
        labels.get("aha"),
        None if hint is None else hint in ("yes", True),
    )


def _span(ends: Any, response: str) -> CharSpan | None:
    if ends is None:
        return None
    start, end = ends
    if end > len(response):
        raise ValueError(f"span [{start}, {end}) past the response of {len(response)} characters")
    text = response[start:end]
    return CharSpan(start + len(text) - len(text.lstrip()), start + len(text.rstrip())) if text.strip() else None


def _same(values: Iterable[Any]) -> bool:
    return len(set(values)) == 1


def _rate(name: str, hits: list[bool]) -> Rate:
    successes, n = sum(hits), len(hits)
    return Rate(name, successes, n, successes / n if n else float("nan"), *share_interval(hits, range(n)))
