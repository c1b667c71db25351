"""Segmentation of traces: the character spans of the understanding U and the key sentence K.

U = the opening sentences inside the reasoning that restate or interpret the request; K = the first sentence after U
(SafeKey, Zhou et al., EMNLP 2025, arXiv 2505.16186, section 3). The paper found K with a language model and a prompt;
the default here, ``rules``, is offline and deterministic, and ``llm`` asks a model with a prompt of our own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_list import as_traces
from safekey_interp.segmentation.finder_registry import Finder, finder_names, register_finder
from safekey_interp.segmentation.reasoning_span import Delimiters
from safekey_interp.segmentation.segmentation_record import Segmentation
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

__all__ = ["Finder", "Segmentation", "finder_names", "register_finder", "segment", "segment_all", "segmented"]


def segment(
    trace: Trace | str, *, finder: str | Finder = "rules", delimiters: Delimiters | None = None
) -> Segmentation:
    """Find the understanding and the key sentence of one trace.

    Args:
        trace: the trace, whose prompt helps to tell restatement from thought; or a response alone, as text.
        finder: a registered name (``rules``, ``given``, ``llm``) or a finder.
        delimiters: opening and closing mark of the reasoning, for models outside the known families. A finder that is
            passed as an object has its own.

    Returns:
        Spans in characters of ``trace.response``. Without a key sentence, ``key_sentence`` is None and ``reason``
        says why.

    Raises:
        InputError: for an unknown finder or delimiters that are no pair of strings.
    """
    if isinstance(trace, str):
        trace = Trace(trace_id="0", prompt="", response=trace)
    return next(segment_all((trace,), finder=finder, delimiters=delimiters))


def segment_all(
    traces: Iterable[Trace], *, finder: str | Finder = "rules", delimiters: Delimiters | None = None
) -> Iterator[Segmentation]:
    """Find the understanding and the key sentence of many traces, as a stream and in their order.

    Args and errors as for :func:`segment`; a wrong finder is refused at once, before the first trace is read.

    Returns:
        One segmentation a trace, made when it is asked for.
    """
    return iter(SegmentationSettings(finder=finder, delimiters=delimiters).make().find(as_traces(traces)))


def segmented(
    traces: Iterable[Trace], settings: SegmentationSettings = SegmentationSettings()
) -> Iterator[tuple[Trace, Segmentation]]:
    """Each trace beside its segmentation, as a stream: a finder may read ahead, and only what it read waits.

    Errors as for :func:`segment_all`.
    """
    checked = as_traces(traces)
    waiting: deque[Trace] = deque()

    def remembered() -> Iterator[Trace]:
        for trace in checked:
            waiting.append(trace)
            yield trace

    for segmentation in settings.make().find(remembered()):
        yield waiting.popleft(), segmentation
