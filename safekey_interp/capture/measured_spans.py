"""Spans that a run measures: those of the built-in question, or a user's own queries, keys and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safekey_interp.capture.capture_request import (
    FIRST_TOKEN,
    RECIPE,
    STATE_POSITIONS,
    CaptureRequest,
    SpanPairs,
    expressions,
    span_pairs,
)
from safekey_interp.errors import InputError

KEYS = ("prompt", "template", FIRST_TOKEN)
"""Keys of a user's own queries, unless some are named."""
_EXAMPLES_OF = {"map": "key_sentence", "decision": "decision"}


class MeasuredSpans(NamedTuple):
    """What a run measures, as span expressions (:mod:`safekey_interp.data.span_expressions`)."""

    pairs: SpanPairs | None = RECIPE
    """Spans between which attention is measured; None for no attention."""
    positions: tuple[str, ...] = STATE_POSITIONS
    """Where states are averaged; none for no states."""

    @property
    def is_recipe(self) -> bool:
        """Whether they are those of the built-in question: what key sentences look at."""
        return self == BUILT_IN

    @property
    def expressions(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((*(self.pairs.queries + self.pairs.keys if self.pairs else ()), *self.positions)))

    @property
    def request(self) -> CaptureRequest:
        """What a forward pass measures of them."""
        return CaptureRequest(
            attention=self.pairs is not None,
            states=bool(self.positions),
            spans=self.pairs or RECIPE,
            positions=self.positions,
        )

    @property
    def maps(self) -> Mapping[str, str]:
        """Query whose attention on every token of the examples is kept, by the name of its map."""
        if self.is_recipe:
            return _EXAMPLES_OF
        return {query: query for query in self.pairs.queries} if self.pairs else {}

    def record(self) -> dict[str, Any]:
        """What ``run.json`` says of them among the settings; nothing of the recipe."""
        if self.is_recipe:
            return {}
        pairs = {name: list(spans) for name, spans in (self.pairs or SpanPairs((), ()))._asdict().items()}
        return pairs | {"positions": list(self.positions)}


BUILT_IN = MeasuredSpans()
"""Those of the built-in question."""


def measured_spans(
    queries: Sequence[str] | None, keys: Sequence[str] | None, positions: Sequence[str] | None
) -> MeasuredSpans:
    """What is measured: the built-in question where nothing is named, else what is.

    Args:
        queries: tokens that attend; no attention is measured when None.
        keys: tokens that are attended to; :data:`KEYS` when None.
        positions: where states are averaged; the queries when None.

    Raises:
        InputError: an expression that cannot be parsed, a string in place of a list, keys without a query, or nothing.
    """
    if queries is None and keys is None and positions is None:
        return BUILT_IN
    if queries is None and keys is not None:
        raise InputError(f"keys: got {', '.join(keys)} without queries, expected the tokens that attend to them, too")
    pairs = None if queries is None else span_pairs(queries, KEYS if keys is None else keys)
    states = (pairs.queries if pairs else ()) if positions is None else expressions(positions, "positions")
    if pairs is None and not states:
        raise InputError("positions: got none, expected a list of span expressions such as ['last(prompt)']")
    return MeasuredSpans(pairs, states)


def spans_in(manifest: Mapping[str, Any]) -> MeasuredSpans:
    """What a run measured, from its ``run.json``."""
    settings = manifest.get("settings") or {}
    if "positions" not in settings:
        return BUILT_IN
    queries, keys = (tuple(settings.get(name) or ()) for name in ("queries", "keys"))
    return MeasuredSpans(SpanPairs(queries, keys) if queries else None, tuple(settings["positions"]))
