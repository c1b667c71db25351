"""Donors for resample ablation: traces whose span takes the place of another's.

They are traces of other groups, with the same label as the trace or with the other one. Donors whose span is at least
as long as the trace's own come first, the nearest in length before the others, so that every key has a partner where
that can be; among equals the order is drawn, from the seed, the trace and the span alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from safekey_interp.capture.capture_request import reads_of
from safekey_interp.capture.key_sets import words_of
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.span_expressions import span_references
from safekey_interp.errors import TraceError
from safekey_interp.segmentation.segmenter import segmented

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

SAME, OTHER = "resample_same_label", "resample_other_label"
"""Kinds of control: whose span takes the place of a trace's own."""
RESAMPLING = (SAME, OTHER)
RESAMPLED = ("prompt", "understanding")
"""Spans that say which request it is."""
_SAME_IN_ALL = {"template", "first_token"}


def is_resampled(span: str) -> bool:
    """Whether a span differs between requests: template and first token are the same in every trace."""
    return not set(span_references([span])) <= _SAME_IN_ALL


class Donor(NamedTuple):
    """A trace whose spans can stand in another's place."""

    trace_id: str
    """The trace."""
    group: str
    """Its request."""
    label: str | None
    """Its label; none gives nothing."""
    ids: Int64[Tensor, " pos"]
    """Its tokens."""
    spans: dict[str, tuple[int, ...]]
    """Positions of each span that it can give; none where it lacks it."""


def find_donors(
    model: Model,
    traces: Sequence[Trace],
    settings: StreamSettings = StreamSettings(),
    *,
    spans: Sequence[str] = RESAMPLED,
    most: int = 1000,
) -> list[Donor]:
    """The traces that can give a span to others.

    Args:
        model: the model that reads them.
        traces: where they are taken from.
        settings: how U is found, and the longest trace.
        spans: span expressions.
        most: so many, evenly spaced over ``traces``.
    """
    labelled = [trace for trace in traces if trace.label is not None]
    step = max(1, -(-len(labelled) // most))
    reads, donors = reads_of(spans), []
    for trace, segmentation in segmented(labelled[::step], settings):
        try:
            encoding = model.encode(trace, segmentation, max_length=settings.max_length, reads=reads)
            positions = {span: tuple(encoding.positions(span)) for span in spans}
        except TraceError:
            continue
        donors.append(Donor(trace.trace_id, trace.group, trace.label, encoding.input_ids[: encoding.end], positions))
    return donors


def donors_for(
    donors: Sequence[Donor], trace: Trace, span: str, n_keys: int, kind: str, *, n: int, seed: int
) -> list[Donor]:
    """At most ``n`` donors of a trace's span, the best matched in length first; none where its label is unknown.

    Args:
        donors: from :func:`find_donors`.
        trace: the trace.
        span: one that the donors were read for.
        n_keys: tokens of its own span.
        kind: :data:`SAME` or :data:`OTHER`.
        n: how many are wanted.
        seed: of the order among equals.
    """
    if trace.label is None:
        return []
    fitting = [
        donor
        for donor in donors
        if donor.group != trace.group and donor.spans.get(span) and (donor.label == trace.label) == (kind == SAME)
    ]
    number = [RESAMPLED.index(span)] if span in RESAMPLED else words_of(span)
    stream = np.random.default_rng([seed, *number, *words_of(trace.trace_id)])
    order = stream.permutation(len(fitting))
    lengths = np.array([len(fitting[i].spans[span]) for i in order], np.int64) - n_keys
    # lexsort: the last key decides first, and it keeps the drawn order among equals.
    best = np.lexsort((np.abs(lengths), lengths < 0))[:n]
    return [fitting[order[i]] for i in best]
