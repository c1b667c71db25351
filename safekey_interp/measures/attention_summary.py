"""Summaries of attention over traces, by layer and by head, with confidence intervals.

Each trace is first averaged over heads (or kept per head), then traces are summarised as ratios of means, Σ mass / Σ
uniform rather than the mean of ratios, which short spans would dominate. Intervals are 95 % over groups
(:mod:`safekey_interp.measures.intervals`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from einops import rearrange, reduce

from safekey_interp.capture.batch_runner import AttentionArrays
from safekey_interp.capture.capture_request import FIRST_TOKEN, RECIPE, SpanPairs
from safekey_interp.measures.intervals import group_codes, ratio_of_means, ratio_of_sums

QUANTITIES = (
    *("mass", "uniform_mass", "random_mass", "matched_mass", "matched_mass_other"),
    *("rest", "off_first", "entropy"),
)
"""What is kept of a trace, layer and pair: ``rest`` is the mass, ``off_first`` the row total without first token;
``random_mass`` is scaled to the span's uniform share, so that fewer keys in sight are not taken for less attention."""

_VALUES_AT_ONCE = 1 << 20
_MEASURES = {
    "mass": ("mass", None),
    "mass_rest": ("rest", "off_first"),
    "uniform_mass": ("uniform_mass", None),
    "random_mass": ("random_mass", None),
    "matched_mass": ("matched_mass", None),
    "matched_mass_other": ("matched_mass_other", None),
    "lift": ("mass", "uniform_mass"),
    "lift_over_random": ("mass", "random_mass"),
    "lift_over_matched": ("mass", "matched_mass"),
    "lift_over_matched_other": ("mass", "matched_mass_other"),
    "entropy": ("entropy", None),
}


class TraceSummary(NamedTuple):
    """One trace's attention, small enough to keep for every trace."""

    by_layer: np.ndarray
    """(layer, pair, quantity) float32, mean over heads."""
    by_head: np.ndarray
    """(layer, head, pair, quantity) float32."""


def summarise_trace(arrays: AttentionArrays) -> TraceSummary:
    """The quantities of one trace; NaN where a span is absent or a layer has no pattern."""
    q, k = map(list, zip(*arrays.spans.pairs, strict=True))
    n_heads = arrays.mass.shape[1]
    others, total = without_first(arrays)
    uniform = np.repeat(arrays.uniform[:, None], n_heads, axis=1)
    by_head = np.stack(
        [
            arrays.mass[..., q, k],
            uniform[..., q, k],
            _random_at_like_share(arrays)[..., q, k],
            arrays.matched[..., q, k],
            arrays.matched_other[..., q, k],
            others[..., q, k],
            total[..., q],
            np.where(arrays.n_k > 0, arrays.entropy[..., None], np.nan)[..., q, k],
        ],
        axis=-1,
    ).astype(np.float32)
    return TraceSummary(reduce(by_head, "layer head pair quantity -> layer pair quantity", "mean"), by_head)


def without_first(arrays: AttentionArrays) -> tuple[np.ndarray, np.ndarray]:
    """Masses without the first token, (layer, head, query_span, key_span), and row totals without it.

    NaN where the span is the first token itself.
    """
    first = arrays.mass[..., arrays.spans.columns.index(FIRST_TOKEN)]
    others = arrays.mass - np.where(arrays.holds_first, first[..., None], 0.0)
    only_first = arrays.holds_first & (arrays.n_k == 1)
    return np.where(only_first, np.nan, others), arrays.total - first


def _random_at_like_share(arrays: AttentionArrays) -> np.ndarray:
    """The random control, scaled to the share that the span would have if attention were uniform.

    A random set may have fewer keys than the span, and all its keys are in sight where some of the span's are not;
    uniform attention must give a ratio of 1 all the same.
    """
    even = arrays.n_random * arrays.even_key[..., None]
    scale = np.divide(arrays.uniform, even, out=np.full_like(arrays.uniform, np.nan), where=even > 0)
    return arrays.random * scale[:, None]


class HeadSums:
    """Sums over traces per head, for each subset of the traces; added to as traces come."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}
        """Per subset, (layer, head, pair, quantity) float64 over the traces where the quantity is defined."""
        self.counts: dict[str, np.ndarray] = {}
        """Per subset, the number of such traces, of the same shape."""

    def add(self, by_head: np.ndarray, subsets: Iterable[str]) -> None:
        """Add one trace to each of its subsets."""
        subsets, defined = tuple(subsets), ~np.isnan(by_head)
        values = np.where(defined, by_head, 0.0).astype(np.float64)
        self.merge(dict.fromkeys(subsets, values), dict.fromkeys(subsets, defined.astype(np.int64)))

    def merge(self, sums: Mapping[str, np.ndarray], counts: Mapping[str, np.ndarray]) -> None:
        """Add the sums of another part of the traces."""
        for subset, values in sums.items():
            if subset not in self.sums:  # in C order, as safetensors writes them, whatever the order of the values
                self.sums[subset], self.counts[subset] = np.zeros(values.shape), np.zeros(values.shape, np.int64)
            self.sums[subset] += values
            self.counts[subset] += counts[subset]

    def table(self, layers: Sequence[int], spans: SpanPairs = RECIPE) -> pd.DataFrame:
        """Means over traces, one row per subset, layer, head and pair of spans; ``n`` is their number."""
        queries, keys = map(list, zip(*spans.names, strict=True))
        tables = []
        for subset in self.sums:
            with np.errstate(invalid="ignore"):
                means = self.sums[subset] / self.counts[subset]
            _, n_heads, n_pairs, _ = means.shape
            index = pd.MultiIndex.from_product(
                [layers, range(n_heads), range(n_pairs)], names=["layer", "head", "pair"]
            ).to_frame(index=False)
            flat = rearrange(means, "layer head pair quantity -> (layer head pair) quantity")
            values = {name: flat[:, QUANTITIES.index(name)] for name in (*QUANTITIES[:5], "entropy")}
            with np.errstate(invalid="ignore", divide="ignore"):
                lift = np.where(values["uniform_mass"] > 0, values["mass"] / values["uniform_mass"], np.nan)
            counts = rearrange(self.counts[subset][..., 0], "layer head pair -> (layer head pair)")
            tables.append(
                pd.DataFrame(
                    {
                        "subset": subset,
                        "from_span": [queries[pair] for pair in index["pair"]],
                        "to_span": [keys[pair] for pair in index["pair"]],
                        "layer": index["layer"],
                        "head": index["head"],
                        **values,
                        "lift": lift,
                        "n": counts,
                    }
                )
            )
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def subset_masks(subsets: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Which traces are in each subset, from the subsets of each trace; without those that are all traces again."""
    names = list(dict.fromkeys(name for of_trace in subsets for name in of_trace))
    masks = {name: np.array([name in of_trace for of_trace in subsets]) for name in names}
    return {name: mask for name, mask in masks.items() if name == "all" or not mask.all()}


def summarise_layers(
    quantity: Callable[[str], np.ndarray],
    groups: Sequence[str],
    subsets: Mapping[str, np.ndarray],
    layers: Sequence[int],
    spans: SpanPairs = RECIPE,
) -> pd.DataFrame:
    """Means over traces by layer with intervals over groups.

    Args:
        quantity: one of :data:`QUANTITIES` -> (trace, layer, pair), from :func:`summarise_trace`.
        groups: group of each trace.
        subsets: per name, a boolean mask over traces.
        layers: the layers' numbers.
        spans: what the pairs are.

    Returns:
        subset, from_span, to_span, layer, measure, value, low, high, n, n_groups. ``measure`` is one of mass,
        mass_rest, uniform_mass, random_mass, matched_mass, matched_mass_other, lift, lift_over_random,
        lift_over_matched, lift_over_matched_other, entropy.
    """
    names = np.asarray([str(group) for group in groups], dtype=object)
    by_group: dict[str, _ByGroup] = {}
    for subset, chosen in subsets.items():
        if chosen.any():
            by_group[subset] = _by_group(names, chosen)
    parts: list[dict[str, Any]] = []
    pairs = spans.names
    for measure, (top, bottom) in _MEASURES.items():
        numerators = quantity(top)
        denominators = None if bottom is None else quantity(bottom)
        for subset, part in by_group.items():
            # Several layers at once, as columns, as long as they take no memory to speak of.
            n_at_once = max(1, _VALUES_AT_ONCE // (len(part.order) * len(pairs)))
            for start in range(0, len(layers), n_at_once):
                chosen = slice(start, start + n_at_once)
                numerator = _columns(numerators, part, chosen).astype(np.float64)
                denominator = np.ones_like(numerator) if denominators is None else _columns(denominators, part, chosen)
                where = {"layer": np.repeat(layers[chosen], len(pairs))}
                n_rows = numerator.shape[1]
                names = {"subset": [subset] * n_rows, "measure": [measure] * n_rows}
                parts.append(names | where | _layer_rows(numerator, denominator, part, pairs))
    if not parts:
        return pd.DataFrame()
    order = ["subset", "from_span", "to_span", "layer", "measure", "value", "low", "high", "n", "n_groups"]
    table = pd.DataFrame({name: list(chain.from_iterable(part[name] for part in parts)) for name in order})
    return table.loc[table["n"] > 0].reset_index(drop=True)


def summarise_attention(table: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Mean attention by layer with intervals over groups, from what ``measure_attention`` returned.

    Args:
        table: one row per trace, layer, head and pair of spans.
        groups: group of each trace id, for the intervals; each trace its own when None.

    Returns:
        from_span, to_span, layer, measure (mass, uniform_mass, matched_mass, matched_mass_other, lift,
        lift_over_matched, lift_over_matched_other), value, low, high (95 %), n. Traces are averaged over heads first;
        lifts are ratios of means.
    """
    keys = ["from_span", "to_span", "layer", "trace_id"]
    values = [*keys, "mass", "uniform_mass", "matched_mass", "matched_mass_other"]
    means: Any = table[values].groupby(keys, observed=True, as_index=False).mean()
    rows = []
    for place, part in means.groupby(keys[:3], observed=True):
        names = [str(name) for name in part["trace_id"]]
        owners = [groups[name] if groups else name for name in names]
        for measure, (top, bottom) in _MEASURES.items():
            if {top, bottom} <= {None, *means.columns}:
                numerator = part[[top]].to_numpy(np.float64)
                denominator = np.ones_like(numerator) if bottom is None else part[[bottom]].to_numpy(np.float64)
                ratio = ratio_of_means(numerator, denominator, owners)
                where = dict(zip(keys, place, strict=False)) | {"measure": measure}
                rows.append(where | ratio.estimate() | {"n": ratio.n[0]})
    return pd.DataFrame(rows)


class _ByGroup(NamedTuple):
    order: np.ndarray
    """Rows of a subset, sorted by group."""
    starts: np.ndarray
    """Where each group begins in that order."""


def _by_group(names: np.ndarray, chosen: np.ndarray) -> _ByGroup:
    rows = np.flatnonzero(chosen)
    codes = group_codes(names[rows])
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    return _ByGroup(rows[order], starts)


def _columns(values: np.ndarray, part: _ByGroup, layers: slice) -> np.ndarray:
    """A part's values of some layers as (trace, layer and pair)."""
    return rearrange(values[part.order, layers], "trace layer pair -> trace (layer pair)")


def _layer_rows(
    numerator: np.ndarray, denominator: np.ndarray, part: _ByGroup, pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    defined = ~(np.isnan(numerator) | np.isnan(denominator))
    top, bottom, count = (
        np.add.reduceat(np.where(defined, values, 0.0), part.starts, axis=0)
        for values in (numerator, denominator, np.ones_like(numerator))
    )
    ratio = ratio_of_sums(top, bottom, count)
    n_layers = numerator.shape[1] // len(pairs)
    return {
        "from_span": [query for query, _ in pairs] * n_layers,
        "to_span": [key for _, key in pairs] * n_layers,
        "value": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "n": ratio.n,
        "n_groups": ratio.n_groups,
    }
