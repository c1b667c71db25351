"""Pairs of traces of one request and different kinds: one refused and one complied with, or of two values of a column.

Traces of one request share their group (a plain prompt and its wrapped forms). The outcome of a trace is that in the
data (``meta["outcome"]``, refused or complied), else that of its key sentence: safe is refused, unsafe complied. Other
columns are ``label``, ``aha``, ``source``, or a name found in ``meta``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from safekey_interp.data.class_labels import class_pair, label_of
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented

Outcome = Literal["refused", "complied"]
_OUTCOMES = ("refused", "complied")
_OF_AHA: dict[str | None, Outcome] = {"safe": "refused", "unsafe": "complied"}


class TracePair(NamedTuple):
    """Two traces; states of the first are put into the run of the second."""

    source: Trace
    """Where states come from."""
    target: Trace
    """Where they are put."""


def adapted_source(options: Mapping[str, Any], traces: Iterable[Any]) -> dict[str, Any]:
    """Options with the source that the column's values suggest, where the default one is none of them: the negative
    class (:mod:`safekey_interp.data.class_labels`), such as ``correct`` of ``correct`` and ``wrong``."""
    source, label_by = options["source"], options.get("label_by")
    if label_by is None or source != _OUTCOMES[0]:
        return dict(options)
    of = (pair.target if isinstance(pair, TracePair) else pair for pair in traces)
    values = ["safe", "unsafe"] if label_by == "aha" else [label_of(trace, label_by) for trace in of]
    return dict(options) if source in values else {**options, "source": class_pair(values, label_by).negative}


def find_pairs(
    traces: Iterable[Trace],
    settings: SegmentationSettings = SegmentationSettings(),
    *,
    source: str = "refused",
    label_by: str | None = None,
) -> tuple[list[TracePair], dict[str, str]]:
    """Every trace of the other kind as a target, with a source of its request.

    Args:
        traces: of several prompts a request, told by their group.
        settings: how K is found, for traces whose data do not say the outcome.
        source: outcome of the sources, or their value of the column; the targets have the other.
        label_by: a column with two values; the outcome when None.

    Returns:
        One pair a target, in the traces' order. Of several sources the first plain one is taken (``source`` field),
        else the first. And why other targets are left out.

    Raises:
        InputError: an unknown outcome, or a column that does not have two values, one of them ``source``.
    """
    if label_by is None and source not in _OUTCOMES:
        raise InputError(f"source: got {source!r}, expected refused or complied")
    sources: dict[str, list[Trace]] = defaultdict(list)
    targets, left_out = [], {}
    kinds = [(trace, _kind_of(trace, segmentation, label_by)) for trace, segmentation in segmented(traces, settings)]
    values = sorted({kind for _, kind in kinds if kind is not None})
    if kinds and label_by is not None and (len(values) != 2 or source not in values):
        shown = ", ".join(values[:6]) or "none"
        raise InputError(f"source: got {source!r}, expected one of two values of {label_by}, which has {shown}")
    for trace, kind in kinds:
        if kind is None:
            left_out[trace.trace_id] = "neither refused nor complied" if label_by is None else f"it has no {label_by}"
        elif kind == source:
            sources[trace.group].append(trace)
        else:
            targets.append(trace)
    pairs = []
    for target in targets:
        of_request = sorted(sources[target.group], key=lambda trace: trace.source != "plain")
        if of_request:
            pairs.append(TracePair(of_request[0], target))
        else:
            what = f"no {source} trace of its request" if label_by is None else f"no trace with {label_by} {source}"
            left_out[target.trace_id] = f"{what} ({target.group})"
    return pairs, left_out


def _kind_of(trace: Trace, segmentation: Segmentation, label_by: str | None) -> str | None:
    if label_by is None:
        return outcome_of(trace, segmentation)
    if label_by == "aha":
        return segmentation.aha if segmentation.aha in _OF_AHA else None
    return label_of(trace, label_by)


def outcome_of(trace: Trace, segmentation: Segmentation) -> Outcome | None:
    """The outcome of a request; None where neither the data nor the key sentence say."""
    outcome = trace.meta.get("outcome")
    if outcome in _OUTCOMES:
        return outcome
    return None if outcome is not None else _OF_AHA.get(segmentation.aha)
