"""Trajectory of a probe's or direction's score, token by token, around the key sentence.

Every token's state is scored by a probe or a direction (:mod:`safekey_interp.measures.token_scorer`), and traces are
laid over one another at K's first token, at that of any other span, or where the reasoning ends: there, models that
recognised the harm all along have been seen to drop it, the "refusal cliff" (arXiv 2510.06036).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.batches import plan_batches
from safekey_interp.capture.residual_edits import edited
from safekey_interp.capture.streaming import forward_cost, in_chunks, on_threads, threads_for, token_budget
from safekey_interp.data.span_checks import with_known_spans
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.measures.control_directions import DEFAULT_CONTROLS, N_DRAWS, ControlKind
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.intervals import mean_interval
from safekey_interp.measures.probes import Probe
from safekey_interp.measures.state_scores import StateScores
from safekey_interp.measures.token_scorer import TokenScorer, token_scorers
from safekey_interp.measures.trace_tables import concatenate_tables
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented

REASONING_END = "reasoning_end"
"""Alignment at the first token behind the reasoning, its closing mark included in it."""
_CHUNK = 64


def score_trajectory(
    model: Model,
    traces: Iterable[Trace],
    readers: Probe | Direction | Sequence[Probe | Direction],
    *,
    align: str = "key_sentence",
    controls: Sequence[ControlKind] = DEFAULT_CONTROLS,
    n_random: int = N_DRAWS,
    seed: int = 0,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:
    """The score of every token of every trace.

    Args:
        model: and the other arguments, what is returned, and errors: as for
            :func:`~safekey_interp.interventions.metric_trajectory.measure_trajectory`.
    """
    scorers = token_scorers(readers, controls=controls, n_random=n_random, seed=seed)
    for scorer in scorers:
        if len(scorer.vector) != model.d_model:
            raise InputError(f"readers: got one for states of width {len(scorer.vector)}, expected {model.d_model}")

    def scores(chosen: Sequence[tuple[Trace, Encoding]]) -> list[list[dict[str, np.ndarray]]]:
        return score_tokens(model, [encoding for _, encoding in chosen], scorers)

    places = [{"layer": scorer.layer, "site": scorer.site} for scorer in scorers]
    settings = SegmentationSettings(finder=finder, delimiters=delimiters)
    about: dict[str, Any] = {"align": align, "max_length": max_length, "on_trace": on_trace}
    return read_trajectory(model, traces, scores, places, settings=settings, **about)


def read_trajectory(
    model: Model,
    traces: Iterable[Trace],
    numbers_of: Callable[[Sequence[tuple[Trace, Encoding]]], list[list[dict[str, np.ndarray]]]],
    columns_of: Sequence[Mapping[str, Any]],
    *,
    align: str,
    settings: SegmentationSettings,
    max_length: int | None,
    on_trace: Callable[[int], object],
) -> pd.DataFrame:
    """Numbers of every token of every trace, as a table.

    Args:
        model: encodes the traces.
        traces: any number.
        numbers_of: some of them to their numbers: of each trace and reader, columns of (token,).
        columns_of: what tells the readers apart, a record each.
        align: and ``max_length``, ``on_trace``: as in :func:`score_trajectory`.
        settings: how U and K are found.
    """
    known = with_known_spans(traces, () if align == REASONING_END else (align,))
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    for chunk in in_chunks(segmented(known, settings), _CHUNK):
        kept: list[tuple[Trace, Segmentation, Encoding, int]] = []
        for trace, segmentation in chunk:
            try:
                encoding = model.encode(trace, segmentation)
                kept.append((trace, segmentation, encoding, _origin(trace, segmentation, encoding, align, max_length)))
            except TraceError as error:
                left_out[trace.trace_id] = error.reason
        numbers = numbers_of([(trace, encoding) for trace, _, encoding, _ in kept])
        for (trace, segmentation, encoding, origin), by_reader in zip(kept, numbers, strict=True):
            for number, (of_reader, columns) in enumerate(zip(columns_of, by_reader, strict=True)):
                about = {
                    "trace_id": trace.trace_id,
                    "group": trace.group,
                    "label": trace.label,
                    "aha": segmentation.aha,
                }
                place = {"reader": number, **of_reader}
                tables.append(pd.DataFrame(about | place | _tokens(encoding, origin) | columns))
        on_trace(len(chunk))
    return concatenate_tables(tables, left_out, "no trace can be measured")


def score_tokens(
    model: Model, encodings: Sequence[Encoding], scorers: Sequence[TokenScorer]
) -> list[list[dict[str, np.ndarray]]]:
    """Scores of all tokens, reduced inside the forward pass: no state is kept.

    Returns:
        For each encoding and scorer: score, and mean and sd of each kind of control, each (token,) float64.
    """
    out: list[list[dict[str, np.ndarray]]] = [[] for _ in encodings]
    lengths = [len(encoding.input_ids) for encoding in encodings]
    plan = plan_batches(lengths, max_tokens=token_budget(model), cost=forward_cost(model))
    scores = StateScores(scorers)
    reading = edited(model, scores.edits)
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)), reading:
        for batch in plan:
            # Padded on the right without a mask: causality hides the padding.
            ids = torch.zeros((len(batch), max(lengths[i] for i in batch)), dtype=torch.int64)
            for row, i in zip(ids, batch, strict=True):
                row[: lengths[i]] = encodings[i].input_ids
            model.hf.get_decoder()(input_ids=ids.to(model.device), use_cache=False)
            for row, i in enumerate(batch):
                out[i] = [
                    {name: values[row, : lengths[i]] for name, values in columns.items()} for columns in scores.values
                ]
    return out


def summarise_trajectory(
    table: pd.DataFrame, *, by: str = "label", offsets: tuple[int, int] = (-40, 40)
) -> pd.DataFrame:
    """Mean score by offset, with 95 % intervals over groups: a curve a class, or of ``all`` where no trace has one.

    Args:
        table: from :func:`~safekey_interp.interventions.metric_trajectory.measure_trajectory`.
        by: ``label`` or ``aha``: what the curves are by.
        offsets: first and last offset.

    Returns:
        reader, metric and unit (of a table with these), ``by``, offset, score, low, high, for each kind of control
        ``<kind>_mean`` and ``<kind>_sd`` (means over traces: where control directions lie, and how far they spread), n
        (traces that reach so far), n_groups.

    Raises:
        InputError: an unknown ``by``.
    """
    if by not in ("label", "aha"):
        raise InputError(f"by: got {by!r}, expected label or aha")
    if bool(table[by].isna().all()):
        table = table.assign(**{by: "all"})
    inside = table[table["offset"].between(*offsets) & table[by].notna() & table["score"].notna()]
    controls = [f"{control}_{moment}" for control in trajectory_controls(table) for moment in ("mean", "sd")]
    rows = []
    curves: Any = inside.groupby(["reader", by, "offset"], observed=True, sort=True)
    for (reader, subset, offset), part in curves:
        groups = list(part["group"])
        means = mean_interval(part[["score", *controls]].to_numpy(np.float64), groups)
        interval = {"score": means.value[0], "low": means.low[0], "high": means.high[0]}
        interval |= dict(zip(controls, means.value[1:], strict=True))
        rows.append(
            {"reader": reader, by: subset, "offset": offset} | interval | {"n": len(part), "n_groups": len(set(groups))}
        )
    summary = pd.DataFrame(rows)
    if "metric" in table.columns and rows:
        read: Any = table.drop_duplicates("reader").set_index("reader")
        for at, column in enumerate(("metric", "unit"), start=1):
            summary.insert(at, column, summary["reader"].map(read[column]))
    return summary


def trajectory_controls(table: Any) -> list[str]:
    """Kinds of control that a table or summary of a trajectory has, the one that decides first."""
    return [kind for kind in get_args(ControlKind) if f"{kind}_sd" in table.columns]


def _origin(trace: Trace, segmentation: Segmentation, encoding: Encoding, align: str, max_length: int | None) -> int:
    n = len(encoding.input_ids)
    if max_length is not None and n > max_length:
        raise TraceError(trace.trace_id, f"{n} tokens, more than {max_length}")
    if align != REASONING_END:
        where = encoding.positions(align)
        if not len(where):
            none = f"no key sentence: {segmentation.reason}"
            raise TraceError(trace.trace_id, none if align == "key_sentence" else f"no token in {align}")
        return where[0]
    if segmentation.region != "reasoning":
        raise TraceError(trace.trace_id, "no reasoning that could end")
    end = len(encoding.text) - len(trace.response) + segmentation.reasoning.end
    return next((i for i, (_, stop) in enumerate(encoding.offsets) if stop > end and i >= encoding.response_start), n)


def _tokens(encoding: Encoding, origin: int) -> dict[str, Any]:
    n = len(encoding.input_ids)
    part = np.full(n, "rest", dtype=object)
    part[: encoding.response_start] = "template"
    for name in ("prompt", "understanding", "key_sentence"):
        part[list(encoding.positions(name))] = name
    texts = [encoding.text[start:end] for start, end in encoding.offsets]
    return {"position": np.arange(n), "offset": np.arange(n) - origin, "part": part, "token": texts}
