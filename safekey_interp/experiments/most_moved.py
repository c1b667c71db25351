"""Texts of the trace that an intervention moved most, which the run's page shows: its tables hold numbers alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from safekey_interp.experiments.compare_examples import shortened
from safekey_interp.reporting.trace_effects import trace_effects
from safekey_interp.segmentation.segmenter import segment

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.experiments.experiment_settings import InterventionSettings
    from safekey_interp.interventions.intervention_record import Intervention


def most_moved(
    intervention: Intervention, effects: Any, summary: Any, traces: Iterable[Trace], settings: InterventionSettings
) -> dict[str, str | None]:
    """``trace_id``, ``prompt``, and of the built-in question ``understanding`` and ``key_sentence``.

    Args:
        intervention: its record, with the words of its settings.
        effects: its table.
        summary: its summary.
        traces: those that were read.
        settings: how U and K are found.

    Returns:
        Nothing where no trace has an effect.
    """
    moved = trace_effects(intervention, effects, summary)
    trace = moved and next((trace for trace in traces if trace.trace_id == moved.most["trace_id"]), None)
    if not trace:
        return {}
    texts = {"trace_id": trace.trace_id, "prompt": shortened(trace.prompt)}
    if not intervention.is_plain:
        found = segment(trace, finder=settings.finder, delimiters=settings.delimiters)
        for name in ("understanding", "key_sentence"):
            span = getattr(found, name)
            texts[name] = span and shortened(trace.response[span.start : span.end])
    return texts
