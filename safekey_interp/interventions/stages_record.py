"""Record of the two stages of an intervention: estimates of all places, exact passes of the first ones.

Part of its record (:mod:`~safekey_interp.interventions.intervention_record`); what is done with it is in
:mod:`~safekey_interp.interventions.two_stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stages:
    """How places are ranked and measured. ``measure`` takes ``only``, the places that it measures."""

    places: tuple[str, ...]
    """Columns that tell places apart, in the order of ``only``; those that the table has."""
    n_places: str | Callable[..., Any]
    """Model and complete options to their number; 0 where there is one stage alone."""
    n_variants: str | Callable[..., Any]
    """Complete options to the variants of each place whose passes are exact: its own and its controls'."""
    estimate: Mapping[str, Any]
    """Options with which ``measure`` estimates."""
    exact: Mapping[str, Any]
    """Options with which it is exact."""
    without_controls: Mapping[str, Any]
    """Options with which it has no controls."""

    def place(self, columns: Collection[str]) -> list[str]:
        """Those of the columns that tell a table's places apart."""
        return [name for name in self.places if name in columns]
