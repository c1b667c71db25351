"""Stratified draw of traces by a seed, whole groups at a time.

Groups (traces of one request, twins) are drawn, so that what is compared within a request stays together: a stratum
holds the groups whose traces have the same labels and sources. Inside a stratum the groups are put in a random order;
the i-th of n stands at (i + 1/2) / n, and groups are taken by their places, so that every number of them holds each
stratum by its share, to the nearest group, and a larger draw holds the smaller one. The last group is cut where it does
not fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from safekey_interp.data.trace import Trace


class Membership(NamedTuple):
    """What a draw needs of a trace; little, since there may be millions."""

    group: int
    """Hash of its group."""
    stratum: int
    """Hash of its label and source."""


class Drawn(NamedTuple):
    """Which traces of a source are drawn."""

    places: np.ndarray
    """From 0, ascending."""
    of: int
    """Traces among which they were drawn."""


def membership(trace: Trace) -> Membership:
    """The group and the stratum of a trace."""
    return Membership(hash(trace.group), hash((trace.label, trace.source)))


def membership_array(members: Iterable[Membership]) -> np.ndarray:
    """Groups and strata as whole numbers, of shape (trace, 2)."""
    return np.fromiter((number for member in members for number in member), np.int64).reshape(-1, 2)


def drawn_places(pairs: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Places of the traces that are drawn.

    Args:
        pairs: from :func:`membership_array`, of all traces in order.
        limit: how many traces to draw.
        seed: of the draw.

    Returns:
        ``limit`` places from 0, ascending; all of them where there are no more.
    """
    if len(pairs) <= limit:
        return np.arange(len(pairs))
    groups, n_groups = _numbered(pairs[:, 0])
    strata = _strata(groups, _numbered(pairs[:, 1])[0], n_groups)
    rank = np.random.default_rng(seed).permutation(n_groups)
    by_stratum = np.lexsort((rank, strata))
    sizes = np.bincount(strata)
    inside = np.arange(n_groups) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.empty(n_groups)
    place[by_stratum] = (inside + 0.5) / sizes[strata[by_stratum]]
    turn = np.empty(n_groups, np.int64)
    turn[np.lexsort((rank, place))] = np.arange(n_groups)
    return np.sort(np.argsort(turn[groups], kind="stable")[:limit])


def _numbered(hashes: np.ndarray) -> tuple[np.ndarray, int]:
    """Values as numbers from 0 in the order in which they first stand (hashes differ between runs), and how many."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse], len(first)


def _strata(groups: np.ndarray, strata: np.ndarray, n_groups: int) -> np.ndarray:
    """The stratum of each group: its traces' strata as one."""
    pairs = np.unique(np.stack([groups, strata], axis=1), axis=0)
    kinds: dict[tuple[int, ...], int] = {}
    held = np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, n_groups)))
    return np.array([kinds.setdefault(tuple(each.tolist()), len(kinds)) for each in held])
