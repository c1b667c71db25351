"""Top heads of an attention edge: how few heads carry what one span makes of another.

How much of a decision flows from U to the token before K, and through which heads? The edge between two spans is cut
in one head at a time (:mod:`~safekey_interp.interventions.edge_cuts`), in the k heads that rank first together, and in
all of them:

    effect = metric with the edge cut − metric as it is          share = effect / effect of the cut in all heads

Heads rank by the mean effect of their own cut in the direction of the cut in all, on the traces of other requests than
the one that is tested, so that a top head is not one that was picked for the same trace. The control cuts k random
heads of the same layers: where the effect is spread evenly, the top k move no more. Effects of single heads need not
sum to that of all: heads that do the same stand in for each other. Where a cut moves the metric up in some traces and
down in others (harmful and benign requests), measure these apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.component_grid import component_grid
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.streaming import StreamSettings, on_threads, threads_for
from safekey_interp.data.span_checks import PartOf
from safekey_interp.data.trace_list import as_traces
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.interventions.edge_cuts import Edge, Edges, Head, SingleCuts, cut_each, find_edges
from safekey_interp.interventions.edge_record import INTERVENTION
from safekey_interp.interventions.effect_metrics import Readout, readout_of
from safekey_interp.interventions.effects import TESTED, about_first, summarise_effects, with_units
from safekey_interp.interventions.intervention_record import Prepared
from safekey_interp.interventions.metric_registry import MetricLike
from safekey_interp.measures.trace_tables import concatenate_tables

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

_PLACE = ["from_span", "to_span", "cut", "layer", "head", "n_heads", "metric"]
_ALIKE = ["from_span", "to_span", "cut", "metric"]
"""Cuts that differ in the heads alone are one family, over which p is corrected."""


def cut_edges(
    model: Model,
    traces: Iterable[Trace],
    from_span: str = "before(key_sentence)",
    to_span: str = "understanding",
    *,
    top: Sequence[int] = (1, 2, 4, 8),
    layers: Sequence[int] | None = None,
    n_random: int = 20,
    n_ranked: int = 64,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    seed: int = 0, others: pd.DataFrame | None = None, bank: KeySentences | None = None,
    finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """How a metric changes when one span may not see another in single heads, in the top heads together, and in all.

    Args:
        model: and ``metric``, ``bank``, ``seed`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: of at least two requests; those without one of the spans are left out.
        from_span: the queries, a span expression.
        to_span: what is hidden from them, another.
        top: numbers of heads that are cut together.
        layers: layers whose heads are cut; all when None.
        n_random: random sets of as many heads, the same for every trace.
        n_ranked: traces at most that heads are ranked on, evenly spaced over all.
        others: the cuts in single heads of these, from :func:`cut_single_heads`; those of ``traces`` when None.

    Returns:
        One row per trace, cut, draw and metric: trace_id, group, label, from_span, to_span, cut (``head``, one head;
        ``top``, the first of the ranking; ``all``), layer, head (-1 for several), n_heads, heads (``LAYER.HEAD`` of
        each; empty for all), control (``none``; ``random_heads`` beside ``top``), draw, metric (difference, safe,
        go_ahead, key_sentence), unit (where a ``metric`` was asked for), baseline, value, effect, whole (the effect in
        all heads). Nats a token, or that unit. Heads are ranked by the first metric. Each trace costs ``2 + heads +
        len(top) · (1 + n_random)`` passes of what is read out.

    Raises:
        InputError: no trace to measure, fewer than two requests; an unknown span, metric or layer; more heads than
            there are.
        ModelError: the model's attention cannot be reached.
    """
    readout = readout_of(model, metric, bank)
    INTERVENTION.check(from_span=from_span, to_span=to_span, top=top, n_random=n_random, n_ranked=n_ranked, seed=seed)
    heads = heads_of(model, layers)
    too_many = next((k for k in top if k > len(heads)), None)
    if too_many is not None:
        raise InputError(f"top: got {too_many}, expected at most {len(heads)}, the heads of these layers")
    check_attention(model)
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    run = _Run(model, Edge(from_span, to_span), readout, heads)
    sets = list(_sets(len(heads), dict.fromkeys(top), n_random, seed))
    tables = []
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        found, left_out = run.find(traces if isinstance(traces, PartOf) else list(as_traces(traces)), settings)
        if others is None:
            singles = run.single_cuts(_spaced(found, n_ranked), left_out)
        else:
            singles = SingleCuts.of_rows(others) if len(others) else []
        known = {single.trace_id: single for single in singles}
        for edges in found:
            name = edges.subject.trace.trace_id
            try:
                single = known.get(name) or run.single(edges)
                tables.append(run.table(edges, single, run.ranked(singles, single), sets))
            except TraceError as error:
                left_out[name] = error.reason
            on_trace(1)
    why = f"no trace has {from_span}, {to_span} and what is read out"
    return concatenate_tables(tables, left_out, why)


def heads_of(model: Model, layers: Sequence[int] | None = None) -> tuple[Head, ...]:
    """The heads of some layers; of all when None. Raises InputError for layers that the model lacks."""
    places = component_grid(model, layers, ("head",)).places
    return tuple(Head(place.layer, place.head) for place in places if place.head is not None)


def cut_single_heads(
    model: Model,
    traces: Iterable[Trace],
    from_span: str = "before(key_sentence)",
    to_span: str = "understanding",
    *,
    layers: Sequence[int] | None = None,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    bank: KeySentences | None = None,
    finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
    **_: Any,
) -> pd.DataFrame:  # fmt: skip
    """The edge cut in no head, in all and in each: what heads are ranked by.

    Args:
        model: and all that is named: as in :func:`cut_edges`, whose other arguments have no effect.
        traces: those that heads are ranked on.

    Returns:
        One row per trace, cut (0 for none, 1 for all heads, then a head each) and metric (its number): trace_id, group,
        cut, metric, value.

    Raises:
        InputError: as for :func:`cut_edges`.
    """
    run = _Run(model, Edge(from_span, to_span), readout_of(model, metric, bank), heads_of(model, layers))
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        found, left_out = run.find(traces if isinstance(traces, PartOf) else list(as_traces(traces)), settings)
        tables = [single.rows() for single in run.single_cuts(found, left_out, on_trace)]
    return concatenate_tables(tables, left_out, f"no trace has {from_span}, {to_span} and what is read out")


def prepare_edges(model: Model, traces: Sequence[Trace], options: Mapping[str, Any], **finding: Any) -> Prepared:
    """The traces of a run, and those of them that heads are ranked on."""
    return Prepared(list(traces), {}, {}, list(_spaced(traces, options["n_ranked"])))


def summarise_edges(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effects of :func:`cut_edges` with intervals, and their shares of the cut in all heads, beside random heads.

    Args:
        table: from :func:`cut_edges`.

    Returns:
        from_span, to_span, cut, layer, head, n_heads, metric, unit (where the table has it), measure (effect; share,
        the ratio of means to the cut in all heads) and the columns of
        :func:`~safekey_interp.interventions.effects.summarise_effects`. NaN where nothing is defined.
    """
    tables = []
    for measure, over in (("effect", None), ("share", "whole")):
        part = summarise_effects(table, _PLACE, over=over, joint=_ALIKE)
        part.insert(len(_PLACE), "measure", measure)
        tables.append(part)
    return with_units(pd.concat(tables, ignore_index=True), table)


class _Set(NamedTuple):
    """Heads that are cut together, by their numbers in the ranking or, drawn at random, in the model."""

    numbers: tuple[int, ...]
    draw: int
    """-1 for the first of the ranking."""


def _sets(n: int, top: Iterable[int], n_random: int, seed: int) -> Iterator[_Set]:
    for k in top:
        yield _Set(tuple(range(k)), -1)
        for draw in range(n_random):
            chosen = np.random.default_rng([seed, k, draw]).permutation(n)[:k]
            yield _Set(tuple(sorted(chosen.tolist())), draw)


def _spaced(items: Sequence[Any], most: int) -> Sequence[Any]:
    return items[:: max(1, -(-len(items) // most))]


class _Run(NamedTuple):
    """What is the same for every trace."""

    model: Model
    edge: Edge
    readout: Readout
    heads: tuple[Head, ...]

    def find(self, traces: Sequence[Trace], settings: StreamSettings) -> tuple[list[Edges], dict[str, str]]:
        """The traces that have the edge, and why others are left out."""
        return find_edges(self.model, traces, self.edge, self.readout, settings)

    def single(self, edges: Edges) -> SingleCuts:
        """Raises TraceError where a number is not finite."""
        sets = [frozenset(), frozenset(self.heads), *(frozenset([head]) for head in self.heads)]
        trace = edges.subject.trace
        return SingleCuts(trace.trace_id, trace.group, cut_each(self.model, edges, sets, self.readout))

    def single_cuts(
        self, found: Sequence[Edges], left_out: dict[str, str], on_trace: Callable[[int], object] = lambda n: None
    ) -> list[SingleCuts]:
        """Those of each trace; of others, ``left_out`` says why they have none."""
        cuts = []
        for edges in found:
            try:
                cuts.append(self.single(edges))
            except TraceError as error:
                left_out[edges.subject.trace.trace_id] = error.reason
            on_trace(1)
        return cuts

    def ranked(self, others: Sequence[SingleCuts], own: SingleCuts) -> list[Head]:
        """Heads by the mean effect of their cut in other requests, those first that go furthest the way of all."""
        effects = [other.effects[:, 0] for other in others if other.group != own.group]
        if not effects:
            raise TraceError(own.trace_id, "there is no other request that heads could be ranked on")
        whole, *single = np.mean(effects, axis=0)
        order = np.argsort(-np.array(single) * (np.sign(whole) or 1.0), kind="stable")
        return [self.heads[number] for number in order]

    def table(self, edges: Edges, single: SingleCuts, ranked: Sequence[Head], sets: Sequence[_Set]) -> pd.DataFrame:
        """The rows of one trace. Raises TraceError where a number is not finite."""
        cut = [[(ranked if one.draw < 0 else self.heads)[number] for number in one.numbers] for one in sets]
        of_sets = cut_each(self.model, edges, list(map(frozenset, cut)), self.readout)
        baseline, of_all, *of_heads = single.values
        rows: list[tuple[dict[str, Any], np.ndarray]] = []
        for head, values in zip(self.heads, of_heads, strict=True):
            rows.append((_about("head", [head]), values))
        for one, heads, values in zip(sets, cut, of_sets, strict=True):
            rows.append((_about("top", heads, one.draw), values))
        rows.append((_about("all", self.heads), of_all))
        records = [
            self.edge._asdict()
            | about
            | {"metric": metric, "baseline": before, "value": value}
            | {"effect": value - before, "whole": whole - before}
            for about, values in rows
            for metric, before, value, whole in zip(self.readout.names, baseline, values, of_all, strict=True)
        ]
        return self.readout.with_units(about_first(pd.DataFrame(records), edges.subject.about))


def _about(cut: str, heads: Sequence[Head], draw: int = -1) -> dict[str, Any]:
    """The columns of a set of heads."""
    one = heads[0] if cut == "head" else Head(-1, -1)
    return {
        "cut": cut,
        "layer": one.layer,
        "head": one.head,
        "n_heads": len(heads),
        "heads": "" if cut == "all" else " ".join(map(str, heads)),
        "control": TESTED if draw < 0 else "random_heads",
        "draw": draw,
    }
