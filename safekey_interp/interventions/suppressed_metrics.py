"""Metrics under suppression: what is read out of a trace when all later tokens may not see a sentence, or another span.

    effect = metric with the span hidden − metric as it is          nats per token, or the metric's unit

The control hides as many random earlier keys from the same queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.errors import TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.likelihood import NOT_FINITE, Batch, score
from safekey_interp.interventions.effect_metrics import Readout, Subject
from safekey_interp.interventions.effects import TESTED, about_first
from safekey_interp.segmentation.segmenter import Segmentation

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

RANDOM_KEYS = "random_keys"
"""The kind of control: as many random earlier keys as the span has."""


class Source(NamedTuple):
    """What is hidden."""

    number: int
    """Of the sentence, or of the expression."""
    part: str
    """``understanding``, ``key_sentence`` or ``rest``; or the expression."""
    expression: str
    """Its tokens."""


@dataclass(frozen=True, kw_only=True)
class SuppressedMetrics:
    """A readout of traces with one span after another hidden from all later tokens."""

    model: Model
    readout: Readout
    n_random: int
    """Random sets of keys a span."""
    seed: int
    max_length: int | None = None

    def table(self, trace: Trace, segmentation: Segmentation, sources: Sequence[Source]) -> pd.DataFrame:
        """All rows of one trace.

        Raises:
            TraceError: it cannot be read out, nothing is read behind a source, or a number is not finite.
        """
        parts = self.readout.rows(self.model, trace, segmentation, self.max_length)
        subject = Subject(trace, segmentation, parts)
        cuts = {source: self._cuts(subject, source) for source in sources}
        cuts = {source: of for source, of in cuts.items() if any(cut.queries for cut in of)}
        if not cuts:
            raise TraceError(trace.trace_id, "nothing that is read out lies behind a span that is hidden")
        untouched = [Cut(trace_id=trace.trace_id, queries=(), keys=(), layers=frozenset()) for _ in subject.rows]
        values, n_keys, is_short = self._read(subject, [untouched, *cuts.values()])
        baseline = values[0][0]
        rows: list[dict[str, Any]] = []
        for source, of_source, keys, short in zip(cuts, values[1:], n_keys[1:], is_short[1:], strict=True):
            for draw, of_draw in enumerate(of_source, start=-1):
                # Fewer earlier keys than the span has: no such control.
                read = np.full(len(of_draw), np.nan) if draw >= 0 and short[draw + 1].any() else of_draw
                for metric, before, value in zip(self.readout.names, baseline, read, strict=True):
                    rows.append(
                        {
                            "source": source.number,
                            "source_part": source.part,
                            "control": TESTED if draw < 0 else RANDOM_KEYS,
                            "draw": draw,
                            "metric": metric,
                            "baseline": before,
                            "value": value,
                            "effect": value - before,
                            "n_k": int(keys[draw + 1].max()),
                        }
                    )
        return self.readout.with_units(about_first(pd.DataFrame(rows), subject.about))

    def _cuts(self, subject: Subject, source: Source) -> list[Cut]:
        """Of each draw, the span itself first, those of each row; a row that ends with the span has no query."""
        return [
            self._cut(subject.trace, row, row.positions(source.expression), draw)
            for draw in range(-1, self.n_random)
            for row in subject.rows
        ]

    def _cut(self, trace: Trace, row: Continuation, keys: Sequence[int], draw: int) -> Cut:
        queries = tuple(range(keys[-1] + 1, len(row.ids))) if len(keys) else ()
        return Cut(
            trace_id=trace.trace_id,
            queries=queries,
            keys=tuple(keys) if queries else (),
            layers=frozenset(range(self.model.n_layers)) if queries else frozenset(),
            draw=None if draw < 0 else draw,
        )

    def _read(
        self, subject: Subject, families: Sequence[Sequence[Cut]]
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Of each family of cuts, which go row by row: metrics (draw, metric); keys hidden and whether they were too
        few, (draw, row). Raises TraceError where a number is not finite."""
        cuts = [cut for family in families for cut in family]
        n_rows = len(subject.rows)
        n_keys, is_short = np.zeros(len(cuts), np.int64), np.zeros(len(cuts), bool)

        @contextmanager
        def cutting(batch: Batch) -> Iterator[None]:
            of_batch = [cuts[number] for number in batch.rows]
            hiding = Knockout(of_batch, n_heads=self.model.n_heads, starts=batch.starts, seed=self.seed)
            with knocked_out(self.model, hiding) as cut:
                yield
            n_keys[batch.rows], is_short[batch.rows] = cut.n_keys, cut.is_short

        rows = [list(subject.rows) * (len(family) // n_rows) for family in families]
        firsts = [[cut.queries[0] for cut in family if cut.queries] for family in families]
        lengths = [len(row.ids) for row in subject.rows]
        n_unchanged = [min(first, default=max(lengths)) for first in firsts]
        n_needed = [cut.n_needed for cut in cuts]
        scores = score(self.model, rows, around=cutting, n_unchanged=n_unchanged, n_needed=n_needed)
        values = [self.readout.values(each.numpy().reshape(-1, n_rows), subject.parts) for each in scores]
        if not all(np.isfinite(each).all() for each in values):
            raise TraceError(subject.trace.trace_id, NOT_FINITE)
        edges = np.cumsum([len(family) for family in families])[:-1]
        keys, short = ([part.reshape(-1, n_rows) for part in np.split(each, edges)] for each in (n_keys, is_short))
        return values, keys, short
