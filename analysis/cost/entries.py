"""All entries of the measurements, in the order in which they run."""

from __future__ import annotations

from analysis.cost import capture, edits, generation, probe, training_step
from analysis.cost.entry import Entry

ENTRIES: tuple[Entry, ...] = (
    *capture.ENTRIES,
    *probe.ENTRIES,
    *training_step.ENTRIES,
    *edits.ENTRIES,
    *generation.ENTRIES,
)
"""Names are unique."""
