"""Attention edges of single heads, and of sets of heads, cut between two spans.

An edge is cut in a head where the queries of one span may not see the keys of another, in that head alone; a set of
heads may lie in any layers (:mod:`safekey_interp.capture.attention_mask` joins the cut with each layer's own mask).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.capture.streaming import StreamSettings
from safekey_interp.data.span_checks import with_known_spans
from safekey_interp.errors import TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.likelihood import NOT_FINITE, Batch, score
from safekey_interp.interventions.effect_metrics import Readout, Subject
from safekey_interp.interventions.effects import about_first
from safekey_interp.interventions.knockout_passes import merge_changes
from safekey_interp.segmentation.segmenter import segmented

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


class Head(NamedTuple):
    """One attention head."""

    layer: int
    """Its layer."""
    head: int
    """Its number there."""

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


class Edge(NamedTuple):
    """From which tokens attention goes to which."""

    from_span: str
    """The queries: a span expression."""
    to_span: str
    """The keys: another."""


Ends: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""Positions of queries and of keys in one row."""


class Edges(NamedTuple):
    """A trace with both ends of an edge."""

    subject: Subject
    """The trace, and what is read out of it."""
    ends: tuple[Ends, ...]
    """Queries and keys of each of its rows."""

    @property
    def cuts(self) -> list[Cut]:
        """The cut of each row, in no layer."""
        name = self.subject.trace.trace_id
        return [Cut(trace_id=name, queries=queries, keys=keys, layers=frozenset()) for queries, keys in self.ends]

    @property
    def n_needed(self) -> list[int]:
        """Tokens of each row that a cut has to find in a pass."""
        return [cut.n_needed for cut in self.cuts]

    @property
    def n_unchanged(self) -> int:
        """Tokens before the first query of any row."""
        return min(queries[0] for queries, _ in self.ends if queries)


class SingleCuts(NamedTuple):
    """What cutting an edge does in one trace: in no head, in all, and in each by itself."""

    trace_id: str
    """The trace."""
    group: str
    """Its request."""
    values: Float[np.ndarray, "two_and_head metric"]
    """The metrics."""

    @property
    def effects(self) -> Float[np.ndarray, "one_and_head metric"]:
        """Of the cut in all heads, and in each."""
        return self.values[1:] - self.values[0]

    def rows(self) -> pd.DataFrame:
        """Columns trace_id, group, cut (the number of its value), metric (its number) and value."""
        cut, metric = np.indices(self.values.shape).reshape(2, -1)
        table = pd.DataFrame({"cut": cut, "metric": metric, "value": self.values.reshape(-1)})
        return about_first(table, {"trace_id": self.trace_id, "group": self.group})

    @classmethod
    def of_rows(cls, table: pd.DataFrame) -> list[SingleCuts]:
        """From rows of several traces."""
        cuts = []
        for name, rows in table.groupby("trace_id", sort=False):
            values: Any = rows.pivot_table(index="cut", columns="metric", values="value", dropna=False)
            cuts.append(cls(str(name), str(rows["group"].iloc[0]), values.to_numpy(np.float64)))
        return cuts


def find_edges(
    model: Model, traces: Iterable[Trace], edge: Edge, readout: Readout, settings: StreamSettings
) -> tuple[list[Edges], dict[str, str]]:
    """The traces with both ends of an edge, and why the others are left out.

    Raises:
        InputError: an expression names a span that no trace has.
    """
    found, left_out = [], {}
    known = with_known_spans(traces, (*edge, *readout.expressions))
    for trace, segmentation in segmented(known, settings):
        try:
            rows = readout.rows(model, trace, segmentation, settings.max_length)
            found.append(_edges(Subject(trace, segmentation, rows), edge))
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
    return found, left_out


def _edges(subject: Subject, edge: Edge) -> Edges:
    ends = tuple((tuple(row.positions(edge.from_span)), tuple(row.positions(edge.to_span))) for row in subject.rows)
    name = subject.trace.trace_id
    if not any(queries for queries, _ in ends):
        raise TraceError(name, f"no token of {edge.from_span} lies before what is read out")
    if not any(keys for _, keys in ends):
        raise TraceError(name, f"it has no {edge.to_span}")
    if not any(queries and keys and queries[-1] >= keys[0] for queries, keys in ends):
        raise TraceError(name, f"no token of {edge.from_span} could see {edge.to_span}")
    return Edges(subject, ends)


def cut_each(
    model: Model, edges: Edges, sets: Sequence[frozenset[Head]], readout: Readout
) -> Float[np.ndarray, "set metric"]:
    """The metrics of a trace with the edge cut in each set of heads; an empty set cuts nothing.

    Raises:
        TraceError: a number is not finite.
    """
    rows = edges.subject.rows
    family: list[Continuation] = [row for _ in sets for row in rows]
    ends, groups = list(edges.ends), []
    for one, some in merge_changes(edges.cuts, [row.ids for row in rows]):
        groups.append(some)
        for number in some:
            ends[number] = one.queries, one.keys

    @contextmanager
    def cutting(batch: Batch) -> Iterator[None]:
        chosen = [divmod(number, len(rows)) for number in batch.rows]
        layers = sorted({head.layer for which, _ in chosen for head in sets[which]})
        with ExitStack() as stack:
            for layer in layers:
                cuts = [_cut(edges, ends[number], sets[which], layer) for which, number in chosen]
                placed: Any = {"starts": batch.starts, "depths": batch.depths}
                stack.enter_context(knocked_out(model, Knockout(cuts, n_heads=model.n_heads, **placed)))
            yield

    alike = [[number * len(rows) + i for i in group] for number in range(len(sets)) for group in groups]
    options: Any = {"n_unchanged": [edges.n_unchanged], "n_needed": edges.n_needed * len(sets)}
    [scores] = score(model, [family], around=cutting, alike=[alike], **options)
    values = readout.values(scores.numpy().reshape(len(sets), len(rows)), edges.subject.parts)
    if not np.isfinite(values).all():
        raise TraceError(edges.subject.trace.trace_id, NOT_FINITE)
    return values


def _cut(edges: Edges, ends: Ends, heads: frozenset[Head], layer: int) -> Cut:
    of_layer = frozenset(head.head for head in heads if head.layer == layer)
    queries, keys = ends if of_layer else ((), ())
    layers = frozenset([layer]) if queries and keys else frozenset()
    name = edges.subject.trace.trace_id
    return Cut(trace_id=name, queries=queries if layers else (), keys=keys, layers=layers, heads=of_layer)
