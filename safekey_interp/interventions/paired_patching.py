"""Patching between paired traces: what activation patching and path patching share.

Traces of one request and different kinds are paired (:mod:`~safekey_interp.interventions.trace_pairs`), read out, and
patched pair by pair: the source's activations into the target's run, beside those of other requests' traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.streaming import StreamSettings, on_threads, threads_for
from safekey_interp.data.span_checks import PartOf, span_names_of
from safekey_interp.data.trace_list import as_traces
from safekey_interp.errors import NothingMeasured, TraceError
from safekey_interp.interventions.effect_metrics import Readout, Subject, find_subjects, other_traces, readout_of
from safekey_interp.interventions.intervention_record import Prepared
from safekey_interp.interventions.trace_pairs import TracePair, adapted_source, find_pairs
from safekey_interp.measures.trace_tables import concatenate_tables

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

TableOf = Callable[[Subject, Subject, Sequence[Subject]], pd.DataFrame]
"""Rows of one pair, from its source, its target and the control's donors; raises TraceError where it has none."""
_NO_GAP = 1e-6
"""Nats below which source and target are the same, so that a share of their difference means nothing."""


def table_of_pairs(
    model: Model,
    traces: Iterable[Trace | TracePair],
    readout: Readout,
    settings: StreamSettings,
    table_of: TableOf,
    *,
    source: str,
    label_by: str | None,
    positions: Sequence[str],
    n_random: int,
    seed: int,
    others: Sequence[Subject] | None,
    on_trace: Callable[[int], object],
) -> pd.DataFrame:
    """The rows of every pair; ``attrs["left_out"]`` says why other targets have none.

    Args:
        model: and ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: traces, which are paired, or pairs.
        readout: what is read out.
        settings: how U and K are found, and the longest trace.
        table_of: rows of one pair.
        source: and ``label_by``, ``positions``, ``n_random``, ``seed``, ``others``: as in
            :func:`~safekey_interp.interventions.activation_patching.patch`.

    Raises:
        InputError: no pair can be measured.
    """
    items = traces if isinstance(traces, PartOf) else list(as_traces(traces, TracePair))
    source = adapted_source({"source": source, "label_by": label_by}, items)["source"]
    pairs, left_out = all_pairs(items, source, label_by, settings)
    unique = {trace.trace_id: trace for pair in pairs for trace in pair}
    known = PartOf(unique.values(), span_names_of(items))
    subjects, unfit = find_subjects(model, known, readout, settings, spans=positions)
    left_out |= unfit
    by_id = {subject.trace.trace_id: subject for subject in subjects}
    targets = [by_id[name] for name in dict.fromkeys(pair.target.trace_id for pair in pairs) if name in by_id]
    pool = targets if others is None else others
    tables = []
    with torch.no_grad(), evaluating(model.hf), on_threads(threads_for(model)):
        for pair in pairs:
            names = [trace.trace_id for trace in pair]
            try:
                for name in names:
                    if name not in by_id:
                        raise TraceError(name, left_out[name])
                donor, target = (by_id[name] for name in names)
                controls = list(islice(other_traces(pool, target.trace, seed), n_random))
                tables.append(table_of(donor, target, controls))
            except TraceError as error:
                left_out[names[1]] = error.reason
            on_trace(1)
    return concatenate_tables(tables, left_out, "no pair of traces can be patched")


def prepare_pairs(model: Model, traces: Sequence[Trace], options: Mapping[str, Any], **finding: Any) -> Prepared:
    """The pairs of a run, and all their targets, from which controls are chosen.

    Raises:
        NothingMeasured: there is no pair.
    """
    settings = StreamSettings(**finding)
    pairs, left_out = all_pairs(traces, options["source"], options.get("label_by"), settings)
    targets = {pair.target.trace_id: pair.target for pair in pairs}
    readout = readout_of(model, options.get("metric"), options["bank"])
    others, _ = find_subjects(model, PartOf(targets.values(), span_names_of(traces)), readout, settings)
    return Prepared(pairs, {"others": others}, left_out)


def all_pairs(
    items: Sequence[Trace | TracePair], source: str, label_by: str | None, settings: StreamSettings
) -> tuple[list[TracePair], dict[str, str]]:
    """The pairs that are given, those of the traces, and why other targets are left out. Raises NothingMeasured."""
    given = [item for item in items if isinstance(item, TracePair)]
    single = [item for item in items if not isinstance(item, TracePair)]
    paired, left_out = find_pairs(single, settings, source=source, label_by=label_by)
    if not given and not paired:
        what = "outcomes" if label_by is None else f"values of {label_by}"
        why = f"no pair of traces of one request and different {what}; requests are equal prompts"
        raise NothingMeasured(f"{why}, or what --group-field names", left_out)
    return [*given, *paired], left_out


def effect_columns(
    names: Sequence[str],
    target: Float[np.ndarray, " metric"],
    source: Float[np.ndarray, " metric"],
    value: Float[np.ndarray, "change metric"],
) -> dict[str, np.ndarray]:
    """Columns of changes, metric by metric: the metric in both runs and changed, its effect and share of the gap."""
    n, gap, effect = len(value), source - target, value - target
    share = np.divide(effect, gap, out=np.full_like(effect, np.nan), where=np.abs(gap) > _NO_GAP)
    by_change = {"metric": np.array(names), "target": target, "source": source, "value": value}
    by_change |= {"effect": effect, "gap": gap, "share": share}
    return {
        name: rearrange(column, "change metric -> (change metric)") if column.ndim == 2 else np.tile(column, n)
        for name, column in by_change.items()
    }
