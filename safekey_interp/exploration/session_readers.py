"""Readers of a session: probes and directions that score every token, each with the threshold of its alarm."""

from __future__ import annotations

from dataclasses import dataclass

from safekey_interp.generation.monitor import Threshold
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionReader:
    """A probe or direction under a name."""

    name: str
    """Unique in the session."""
    reader: Probe | Direction
    """What scores."""
    threshold: Threshold | None
    """Calibrated on the session's benign traces (its ``false_positive_rate`` is to be shown beside the alarm line);
    None where these are too few."""
    no_threshold: str
    """Why there is none, in one line; empty where there is one."""
    models: tuple[int, ...]
    """Numbers of the session's models that it fits."""
