"""Pairs of traces of one request, one refused and one complied with.

Traces of one request share their group (a plain prompt and its wrapped forms). The outcome of a trace is that in the
data (``meta["outcome"]``, refused or complied), else that of its key sentence: safe is refused, unsafe complied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented

Outcome = Literal["refused", "complied"]
_OF_AHA: dict[str | None, Outcome] = {"safe": "refused", "unsafe": "complied"}


class TracePair(NamedTuple):
    """Two traces; states of the first are put into the run of the second."""

    source: Trace
    """Where states come from."""
    target: Trace
    """Where they are put."""


def find_pairs(
    traces: Iterable[Trace],
    settings: SegmentationSettings = SegmentationSettings(),
    *,
    source: Outcome = "refused",
) -> tuple[list[TracePair], dict[str, str]]:
    """Every trace of the other outcome as a target, with a source of its request.

    Args:
        traces: of several prompts a request, told by their group.
        settings: how K is found, for traces whose data do not say the outcome.
        source: outcome of the sources; the targets have the other.

    Returns:
        One pair a target, in the traces' order. Of several sources the first plain one is taken (``source`` field),
        else the first. And why other targets are left out.

    Raises:
        InputError: an unknown outcome.
    """
    if source not in ("refused", "complied"):
        raise InputError(f"source: got {source!r}, expected refused or complied")
    sources: dict[str, list[Trace]] = defaultdict(list)
    targets, left_out = [], {}
    for trace, segmentation in segmented(traces, settings):
        outcome = outcome_of(trace, segmentation)
        if outcome is None:
            left_out[trace.trace_id] = "neither refused nor complied"
        elif outcome == source:
            sources[trace.group].append(trace)
        else:
            targets.append(trace)
    pairs = []
    for target in targets:
        of_request = sorted(sources[target.group], key=lambda trace: trace.source != "plain")
        if of_request:
            pairs.append(TracePair(of_request[0], target))
        else:
            left_out[target.trace_id] = f"no {source} trace of its request ({target.group})"
    return pairs, left_out


def outcome_of(trace: Trace, segmentation: Segmentation) -> Outcome | None:
    """The outcome of a request; None where neither the data nor the key sentence say."""
    outcome = trace.meta.get("outcome")
    if outcome in ("refused", "complied"):
        return outcome
    return None if outcome is not None else _OF_AHA.get(segmentation.aha)
