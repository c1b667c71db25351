"""Reference rows of the distance-matched baseline: whose attention says how it falls with distance.

A query span has two references, so that where they disagree shows. Key sentence: rows of the understanding, and of the
prompt. Deciding token: rows of the understanding, and of the key sentence. Any other span: rows of the tokens before
it, and of the prompt. The understanding of the built-in question has none, since it is the reference there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from safekey_interp.capture.capture_request import RECIPE, SpanPairs
from safekey_interp.data.span_expressions import parse_span
from safekey_interp.models.encoding import Encoding

_MOST_ROWS, _MOST_OTHER_ROWS = 32, 16

Rows = Callable[[Encoding], np.ndarray]


class References(NamedTuple):
    """Reference rows of each query span."""

    rows: tuple[Rows, ...]
    """Positions of each reference's rows in a trace."""
    first: tuple[int | None, ...]
    """Per query span, its first reference; None without a baseline."""
    second: tuple[int | None, ...]
    """Per query span, its second reference."""

    def of(self, encoding: Encoding) -> list[np.ndarray]:
        """Positions of each reference's rows in a trace, of those that are read."""
        members = [rows(encoding) for rows in self.rows]
        return [where[where < encoding.end] for where in members]


def references_of(spans: SpanPairs) -> References:
    """The references of each query span."""
    rows: list[Rows] = [_of_understanding, prompt_rows, _of_key_sentence]
    first: list[int | None] = []
    second: list[int | None] = []
    built_in = {parse_span("key_sentence"): 1, parse_span("decision"): 2}
    for query in spans.queries:
        if (known := built_in.get(parse_span(query))) is not None:
            first.append(0)
            second.append(known)
        elif spans == RECIPE:
            first.append(None)
            second.append(None)
        else:
            first.append(len(rows))
            second.append(len(rows) + 1)
            rows += [partial(_before, query=query), partial(_of_prompt_without, query=query)]
    used = sorted({at for at in (*first, *second) if at is not None})
    place = {at: i for i, at in enumerate(used)} | {None: None}
    return References(
        tuple(rows[at] for at in used), tuple(place[at] for at in first), tuple(place[at] for at in second)
    )


def prompt_rows(encoding: Encoding) -> np.ndarray:
    """Positions of the prompt's tokens whose rows are read: at most 16, evenly spread."""
    return spread(encoding.positions("prompt"), _MOST_OTHER_ROWS)


def spread(positions: Sequence[int] | np.ndarray, most: int) -> np.ndarray:
    """At most so many of the positions, evenly spread, first and last among them."""
    where = np.asarray(positions, dtype=np.int64)
    if len(where) <= most:
        return where
    return where[np.linspace(0, len(where) - 1, most).round().astype(np.int64)]


def positions_of(encoding: Encoding, expression: str) -> np.ndarray:
    """Token positions of an expression, as an array."""
    return np.asarray(encoding.positions(expression), dtype=np.int64)


def _of_understanding(encoding: Encoding) -> np.ndarray:
    """U's rows without the deciding one, which is no reference for itself."""
    own = positions_of(encoding, "understanding")
    return spread(own[~np.isin(own, positions_of(encoding, "decision"))], _MOST_ROWS)


def _of_key_sentence(encoding: Encoding) -> np.ndarray:
    return spread(encoding.positions("key_sentence"), _MOST_OTHER_ROWS)


def _before(encoding: Encoding, query: str) -> np.ndarray:
    where = positions_of(encoding, query)
    return spread(np.arange(1, where[0]), _MOST_ROWS) if len(where) else where


def _of_prompt_without(encoding: Encoding, query: str) -> np.ndarray:
    prompt = positions_of(encoding, "prompt")
    return spread(prompt[~np.isin(prompt, positions_of(encoding, query))], _MOST_OTHER_ROWS)
