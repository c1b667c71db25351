"""Forward passes of a knockout's conditions.

They run in three rounds, with the beginnings that their rows share computed once: the model as it is, spans and
parts of them hidden; random keys elsewhere, where the first round found enough of them in every kind of layer; and,
trace by trace, so that no more than one trace's donors stand in memory, other traces' spans in place. All sentences of
a condition go through the model in one sequence where they are cut alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out
from safekey_interp.capture.prefix_cache import KeptPrefix, common_prefix
from safekey_interp.capture.resample_ablation import Resampling, SpanKeys, Swap, read_matched, resampled
from safekey_interp.generation.likelihood import Around, Batch, score
from safekey_interp.interventions.donors import OTHER, SAME
from safekey_interp.interventions.effects import TESTED
from safekey_interp.interventions.knockout_plan import (
    DOSE,
    OUTSIDE,
    Case,
    Measured,
    Place,
    Plan,
    queries_of,
)

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


_Change = TypeVar("_Change", Cut, Swap)


class _Row(NamedTuple):
    """One row that goes through the model."""

    case: int
    """Number of its case."""
    condition: int
    """Number of its condition in the case; -1 for the model as it is."""
    sentence: int
    """Number of its sentence."""


def measure_cases(model: Model, cases: Sequence[Case], plan: Plan) -> list[Measured]:
    """Scores of every sentence of every case under each of its conditions, NaN where a control does not exist."""
    measured, prefix = [_empty(case) for case in cases], KeptPrefix(model)
    hidden = _numbers(cases, TESTED, DOSE)
    short = _hide(model, cases, [[-1, *of] for of in hidden], plan, measured, prefix=prefix)
    elsewhere = _numbers(cases, OUTSIDE)
    for case, of_case, of, without in zip(cases, measured, elsewhere, short, strict=True):
        of_case.exists[[i for i in of if case.conditions[i][:2] in without]] = False
        of[:] = [i for i in of if of_case.exists[i]]
    _hide(model, cases, elsewhere, plan, measured, prefix=prefix)
    for c, of in enumerate(_numbers(cases, SAME, OTHER)):
        if of:
            _resample(model, cases[c], of, plan, measured[c], prefix=prefix)
    return measured


def _empty(case: Case) -> Measured:
    n, m = len(case.conditions), len(case.sentences)
    exists = np.array([condition.exists for condition in case.conditions], bool)
    return Measured(np.full(m, np.nan), np.full((n, m), np.nan), exists, np.zeros(n, np.int64), np.zeros(n, np.int64))


def _numbers(cases: Sequence[Case], *kinds: str) -> list[list[int]]:
    """Of each case, the conditions of these kinds that exist."""
    return [[i for i, each in enumerate(case.conditions) if each.exists and each.control in kinds] for case in cases]


def _hide(
    model: Model,
    cases: Sequence[Case],
    chosen: Sequence[Sequence[int]],
    plan: Plan,
    measured: Sequence[Measured],
    *,
    prefix: KeptPrefix,
) -> list[set[tuple[Place, str]]]:
    """Rows with keys hidden; fills ``measured``.

    Returns:
        Of each case, the places and spans where the pool of random keys is too small for some sentence.
    """
    rows = _rows(cases, chosen)
    cuts, alike = _together(cases, rows, [_cut(cases[row.case], row, plan) for row in rows])
    n_keys, n_pool, is_short = (np.zeros(len(rows), kind) for kind in (np.int64, np.int64, bool))

    @contextmanager
    def cutting(batch: Batch) -> Iterator[None]:
        of_batch = [cuts[number] for number in batch.rows]
        placed: Any = {"starts": batch.starts, "depths": batch.depths}
        with knocked_out(model, Knockout(of_batch, n_heads=model.n_heads, seed=plan.seed, **placed)) as cut:
            yield
        for number, some in enumerate(batch.alike):
            n_keys[some], n_pool[some], is_short[some] = cut.n_keys[number], cut.n_pool[number], cut.is_short[number]

    n_needed = [cut.n_needed for cut in cuts]
    _score(model, cases, rows, cutting, measured, alike=alike, n_needed=n_needed, prefix=prefix)
    short: list[set[tuple[Place, str]]] = [set() for _ in cases]
    for number, row in enumerate(rows):
        if row.condition < 0:
            continue
        case, of_case = cases[row.case], measured[row.case]
        condition = case.conditions[row.condition]
        if is_short[number]:
            short[row.case].add((condition.place, condition.span))
        if row.sentence == case.counted:
            of_case.n_keys[row.condition] = n_keys[number]
            if condition.control == TESTED:
                same = [i for i, other in enumerate(case.conditions) if other[:2] == condition[:2]]
                of_case.n_pool[same] = n_pool[number]
    return short


def _resample(
    model: Model, case: Case, chosen: Sequence[int], plan: Plan, measured: Measured, *, prefix: KeptPrefix
) -> None:
    """Rows of one case with other traces' keys in place; fills ``measured``."""
    given: dict[tuple[str, str, tuple[int, ...]], SpanKeys] = {}
    rows = _rows([case], [chosen])
    swaps: list[Swap] = []
    for row in rows:
        condition, sentence = case.conditions[row.condition], case.sentences[row.sentence]
        donor, span = condition.donor, condition.span
        assert donor is not None
        keys, theirs = tuple(sentence.positions(span)), donor.spans[span]
        which = (donor.trace_id, span, keys)
        if keys and which not in given:  # a row that ends before the span has nothing to replace
            n = min(len(keys), len(theirs))
            given[which] = read_matched(model, donor.ids, theirs[len(theirs) - n :], keys[len(keys) - n :])
        swaps.append(
            Swap(
                queries=tuple(queries_of(sentence, plan.from_span)) if keys else (),
                keys=keys,
                given=given.get(which, {}),
                layers=frozenset(condition.place.layers),
                heads=condition.place.chosen_heads,
            )
        )

    merged, alike = _together([case], rows, swaps)

    @contextmanager
    def swapping(batch: Batch) -> Iterator[None]:
        of_batch = [merged[number] for number in batch.rows]
        placed: Any = {"starts": batch.starts, "depths": batch.depths}
        with resampled(model, Resampling(of_batch, n_heads=model.n_heads, **placed)):
            yield

    n_needed = [swap.n_needed for swap in swaps]
    _score(model, [case], rows, swapping, [measured], alike=alike, n_needed=n_needed, prefix=prefix)
    measured.n_keys[list(chosen)] = [
        swap.n_given for row, swap in zip(rows, swaps, strict=True) if row.sentence == case.counted
    ]


def _rows(cases: Sequence[Case], chosen: Sequence[Sequence[int]]) -> list[_Row]:
    return [
        _Row(c, condition, sentence)
        for c, (case, of) in enumerate(zip(cases, chosen, strict=True))
        for condition in of
        for sentence in range(len(case.sentences))
    ]


def _together(
    cases: Sequence[Case], rows: Sequence[_Row], changes: Sequence[_Change]
) -> tuple[list[_Change], list[list[list[int]]]]:
    """Changes of rows with the queries of all that share one, and by case the places in it of rows that share one.

    Sentences of one condition do where the same keys up to the first query are hidden from the same positions.
    """
    merged, alike = list(changes), []
    number = 0
    for c, of_case in groupby(rows, lambda row: row.case):
        sentences, place, groups = cases[c].sentences, 0, []
        ids = [sentence.ids for sentence in sentences]
        for _ in range(len(list(of_case)) // len(sentences)):
            for change, some in merge_changes(changes[number : number + len(sentences)], ids):
                groups.append([place + i for i in some])
                for i in some:
                    merged[number + i] = change
            number, place = number + len(sentences), place + len(sentences)
        alike.append(groups)
    return merged, alike


def merge_changes(changes: Sequence[_Change], ids: Sequence[Int64[Tensor, " pos"]]) -> list[tuple[_Change, list[int]]]:
    """Changes of rows, one for all that may share a sequence, and the numbers of these rows.

    Args:
        changes: one a row.
        ids: of each row.
    """
    by_first: dict[int, list[int]] = {}
    for number, change in enumerate(changes):
        by_first.setdefault(change.queries[0] if change.queries else -1, []).append(number)
    merged: list[tuple[_Change, list[int]]] = []
    for some in by_first.values():
        one = _merged([changes[number] for number in some], [ids[number] for number in some])
        merged += [(changes[number], [number]) for number in some] if one is None else [(one, some)]
    return merged


def _merged(changes: Sequence[_Change], ids: Sequence[Int64[Tensor, " pos"]]) -> _Change | None:
    """One change that is that of each row at its positions; None where there is none."""
    one = replace(changes[0], queries=tuple(sorted({at for change in changes for at in change.queries})))
    for change, own in zip(changes, ids, strict=True):
        if replace(change, queries=()) != replace(one, queries=()):
            return None
        if tuple(change.queries) != tuple(at for at in one.queries if at < len(own)):
            return None
    if not one.queries:
        return one
    # In a tree a key stands at its position where all rows have what comes before it: the first query's own may be one.
    first = one.queries[0]
    n_alike = max(first, one.keys[-1] + 1 if one.keys else 0)
    return one if n_alike <= first + 1 and common_prefix(ids, n_alike) == n_alike else None


def _cut(case: Case, row: _Row, plan: Plan) -> Cut:
    return case.untouched() if row.condition < 0 else case.cut(case.conditions[row.condition], row.sentence, plan)


def _score(
    model: Model,
    cases: Sequence[Case],
    rows: Sequence[_Row],
    around: Around,
    measured: Sequence[Measured],
    *,
    alike: Sequence[Sequence[Sequence[int]]],
    n_needed: Sequence[int],
    prefix: KeptPrefix,
) -> None:
    """Score the rows, which go by case, and put each number where it belongs."""
    families = [[cases[c].sentences[row.sentence] for row in part] for c, part in groupby(rows, lambda row: row.case)]
    n_unchanged = [cases[c].n_unchanged for c, _ in groupby(rows, lambda row: row.case)]
    passed: Any = {"alike": alike, "n_unchanged": n_unchanged, "n_needed": n_needed, "prefix": prefix}
    scored = score(model, families, around=around, **passed)
    scores = [value for family in scored for value in family.tolist()]
    for row, value in zip(rows, scores, strict=True):
        of_case = measured[row.case]
        if row.condition < 0:
            of_case.baseline[row.sentence] = value
        else:
            of_case.scores[row.condition, row.sentence] = value
