"""Logit lens on key sentences (nostalgebraist 2020): from which layer on does the model say its K?

A state of the residual stream is read as if no layer came after it,

    log p_l(t) = log softmax(unembed(norm(resid_post_l)))_t

with the model's own final norm, scale and bound, averaged over K's tokens, each read from the position before it. So
the last layer is the model's own output. The same for the bank's sentences in K's place, whole, and for the tokens that
only sentences of one kind begin with, at the last position before K; or for any span of the trace, and for any metric
that is read from logits. With a Jacobian lens, states are moved to the last layer before they are read
(:mod:`~safekey_interp.interventions.jacobian_transport`).

The control of K is the key sentence of another request in its place: what a layer says of any key sentence. Early
layers need not write in the unembedding's basis: a low value there says that the lens sees nothing, not that nothing is
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from torch import Tensor

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.capture_request import expressions
from safekey_interp.capture.residual_edits import Edit, Place
from safekey_interp.capture.streaming import BatchSize, StreamSettings, fixed_size, on_threads, threads_for
from safekey_interp.capture.unembedding import LogitReader
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import NOT_FINITE, with_sentence
from safekey_interp.interventions.effect_metrics import (
    OwnTokens,
    Readout,
    Subject,
    bank_or_default,
    find_subjects,
    other_traces,
    own_tokens,
    readout_of,
)
from safekey_interp.interventions.effects import P_VALUES, TESTED, about_first, summarise_effects, with_units
from safekey_interp.interventions.intervention_record import Prepared
from safekey_interp.interventions.jacobian_transport import JacobianTransport, read_jacobian_lens
from safekey_interp.interventions.lens_record import INTERVENTION
from safekey_interp.interventions.metric_kinds import RecordScore
from safekey_interp.interventions.metric_registry import MetricLike, parse_metrics
from safekey_interp.interventions.variant_scores import Branch, score_variants
from safekey_interp.measures.trace_tables import concatenate_tables
from safekey_interp.models.layer_numbers import layer_numbers

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

FIRST_TOKENS = ("first_difference", "first_safe", "first_go_ahead")
"""Log-probability that the next token is one that only a sentence of that kind begins with."""
_TOKENS_AT_ONCE = 256


def logit_lens(
    model: Model,
    traces: Iterable[Trace],
    *,
    layers: Sequence[int] | None = None,
    n_others: int = 3,
    positions: Sequence[str] | None = None,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    jacobian: JacobianTransport | str | Path | None = None,
    seed: int = 0, others: Sequence[Subject] | None = None, bank: KeySentences | None = None,
    finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    batch_size: BatchSize = "auto", backend: Backend = "hf", on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """What each layer says of K, of safe and of compliant key sentences, behind each trace's own U.

    Args:
        model: and ``metric``, ``bank``, ``seed`` … ``on_trace``: see :mod:`safekey_interp.interventions`. A ``probe``
            reads no logits and is refused.
        traces: with U and K, or with what else is read.
        layers: layers to read; all when None, of a Jacobian lens those that it has, and the last.
        positions: span expressions: the log-probability of the tokens there, as they stand. Short for the metric
            ``logprob(EXPR)``, of each.
        n_others: key sentences of other requests, put in each K's place as its control; other words than K's own.
        jacobian: Jacobian lens in place of the logit lens: a file, or a name of TransformerLens's registry.
        others: traces that they are chosen from; the measured ones when None.

    Returns:
        One row per trace, layer and metric: trace_id, group, label, layer, metric, control, draw, value (nats, of
        sentences a token), output (the model's own, that is the last layer's). Metrics: key_sentence; safe, go_ahead,
        difference (of the bank's sentences); first_safe, first_go_ahead, first_difference (NaN where both
        kinds begin with the same tokens); or those that were asked for, with their unit in the column ``unit``.
        ``control`` is ``none``, or ``other_requests`` for their key sentences.

    Raises:
        InputError: no trace can be measured, a layer is unknown, or the Jacobian lens is of another model.
        ModelError: the model's states cannot be read as logits.
    """
    bank = bank_or_default(model, bank)
    readout = _readout(model, metric, positions, bank)
    INTERVENTION.check(n_others=n_others, seed=seed)
    numbers = layer_numbers(layers, model.n_layers)
    if jacobian is not None:
        jacobian = read_jacobian_lens(jacobian)
        numbers = jacobian.layers(model, layers and numbers)
    reader = LogitReader(model)
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    subjects, left_out = find_subjects(model, traces, readout, settings)
    pool = subjects if others is None else others
    tables, size = [], fixed_size(batch_size)
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for subject in subjects:
            controls = _controls(model, subject, pool, n_others, seed) if readout.has_key_sentence else []
            first_tokens = None if readout.is_chosen else own_tokens(subject, bank, first=True)
            seen = _Seen(reader, jacobian, [*subject.rows, *controls], first_tokens, len(subject.rows) - 1)

            def edits_of(batch: Sequence[Branch], at: np.ndarray, seen: _Seen = seen) -> Mapping[Place, Edit]:
                return {Place(layer, "resid_post"): seen.reading(layer, batch, int(at[0, 0])) for layer in numbers}

            scores = score_variants(model, seen.rows, 1, edits_of, backend=backend, batch_size=size).numpy()
            table = _table(subject, seen, scores, numbers, readout)
            on_trace(1)
            if not np.isfinite(table.loc[table["metric"].isin(readout.names), ["value", "output"]].to_numpy()).all():
                left_out[subject.trace.trace_id] = NOT_FINITE
                continue
            tables.append(table)
    return concatenate_tables(tables, left_out, "no trace can be measured")


def prepare_lens(model: Model, traces: Sequence[Trace], options: Mapping[str, Any], **finding: Any) -> Prepared:
    """The traces of a run; the key sentences of all are each other's controls."""
    readout = _readout(model, options.get("metric"), options.get("positions"), options["bank"])
    others, _ = find_subjects(model, traces, readout, StreamSettings(**finding))
    return Prepared(list(traces), {"others": others}, {})


def summarise_lens(table: pd.DataFrame) -> pd.DataFrame:
    """Means over traces of :func:`logit_lens` with intervals, beside other requests' key sentences.

    Args:
        table: from :func:`logit_lens`.

    Returns:
        layer, metric and the columns of :func:`~safekey_interp.interventions.effects.summarise_effects` without its p.
        NaN where nothing is defined.
    """
    return with_units(summarise_effects(table, ["layer", "metric"], value="value").drop(columns=P_VALUES), table)


def _readout(
    model: Model,
    metric: MetricLike | Sequence[MetricLike] | None,
    positions: Sequence[str] | None,
    bank: KeySentences | None,
) -> Readout:
    chosen: list[MetricLike] = [] if metric is None else [*parse_metrics(metric)]
    chosen += [f"logprob({each})" for each in expressions(positions or (), "positions")]
    readout = readout_of(model, chosen or None, bank)
    for each in readout.metrics:
        if isinstance(each, RecordScore):
            raise InputError(f"metric: {each.name} reads states of its own layer, no logits; expected another metric")
    return readout


class _Seen:
    """What the layers say of the rows of one trace; filled while they run."""

    def __init__(
        self,
        reader: LogitReader,
        jacobian: JacobianTransport | None,
        rows: Sequence[Continuation],
        first_tokens: OwnTokens | None,
        decision_row: int,
    ) -> None:
        self.rows = rows
        self.logprobs: dict[int, np.ndarray] = {}
        """By layer, each row's mean log-probability, nats per token."""
        self.first: dict[int, np.ndarray] = {}
        """By layer, :data:`FIRST_TOKENS`; none where they are not asked for."""
        self._reader, self._jacobian = reader, jacobian
        self._first_tokens, self._decision_row = first_tokens, decision_row

    def reading(self, layer: int, batch: Sequence[Branch], begin: int) -> Edit:
        """An edit that changes nothing and reads the positions that predict each row's sentence."""

        def read(states: Tensor) -> Tensor:
            known = self.logprobs.setdefault(layer, np.full(len(self.rows), np.nan))
            rows = [self.rows[branch.row] for branch in batch]
            if begin + states.shape[1] <= min(row.first_logit for row in rows):
                return states  # the rows' common beginning, before any sentence
            sentences = [(number, row) for number, row in enumerate(rows) if row.reader is None]
            if sentences:
                starts = [row.start - 1 - begin for _, row in sentences]
                predicting = [
                    states[number, start : start + row.n_tokens]
                    for start, (number, row) in zip(starts, sentences, strict=True)
                ]
                ids = torch.cat([row.ids[row.start :] for _, row in sentences])
                logprobs = self._logprobs(torch.cat(predicting), layer, ids).split(
                    [row.n_tokens for _, row in sentences]
                )
                for (number, _), of_row in zip(sentences, logprobs, strict=True):
                    known[batch[number].row] = of_row.mean()
                for (number, _), of_row in zip(sentences, predicting, strict=True):
                    if self._first_tokens is not None and batch[number].row == self._decision_row:
                        self.first[layer] = self._first(of_row[:1], layer, self._first_tokens)
            for number, row in enumerate(rows):
                if row.reader is not None:
                    read = states[number, row.first_logit - begin : len(row.ids) - begin]
                    known[batch[number].row] = float(row.reader.read(self._logits(read, layer)))
            return states

        return read

    def _logits(self, states: Tensor, layer: int) -> Tensor:
        return self._reader.logits(states if self._jacobian is None else self._jacobian.move(states, layer))

    def _logprobs(self, states: Tensor, layer: int, ids: Tensor) -> Tensor:
        parts = []
        for part, targets in zip(states.split(_TOKENS_AT_ONCE), ids.split(_TOKENS_AT_ONCE), strict=True):
            logprobs = self._logits(part, layer).log_softmax(-1)
            parts.append(logprobs.gather(-1, rearrange(targets, "token -> token 1").to(logprobs.device))[:, 0])
        return torch.cat(parts).double().cpu()

    def _first(self, state: Tensor, layer: int, first_tokens: OwnTokens) -> np.ndarray:
        safe, go_ahead = first_tokens
        if not safe or not go_ahead:
            return np.full(3, np.nan)
        logprobs = self._logits(state, layer)[0].log_softmax(-1)
        by_kind = [float(logprobs[list(tokens)].logsumexp(-1)) for tokens in (safe, go_ahead)]
        return np.array([by_kind[0] - by_kind[1], *by_kind])


def _controls(model: Model, subject: Subject, pool: Sequence[Subject], n: int, seed: int) -> list[Continuation]:
    """Key sentences of other requests in this trace's K's place, each wording once."""
    wordings = {_key_sentence(subject)}
    controls: list[Continuation] = []
    for other in other_traces(pool, subject.trace, seed):
        text = _key_sentence(other)
        if len(controls) == n:
            break
        if text in wordings:
            continue
        wordings.add(text)
        # One too long to stand behind this U is passed over.
        with suppress(TraceError):
            controls.append(with_sentence(model, subject.trace, subject.segmentation, text))
    return controls


def _key_sentence(subject: Subject) -> str:
    assert subject.segmentation.key_sentence is not None
    return subject.segmentation.key_sentence.text(subject.trace.response)


def _table(subject: Subject, seen: _Seen, output: np.ndarray, layers: Sequence[int], readout: Readout) -> pd.DataFrame:
    n = len(subject.rows)
    last = readout.values(output[:, :n], subject.parts)[0]
    rows: list[dict[str, Any]] = []
    for layer in layers:
        values = seen.logprobs[layer][None]
        read = zip(readout.names, readout.values(values[:, :n], subject.parts)[0], last, strict=True)
        first = ((name, value, np.nan) for name, value in zip(FIRST_TOKENS, seen.first.get(layer, ()), strict=False))
        for metric, value, out in (*read, *first):
            rows.append(
                {"layer": layer, "metric": metric, "control": TESTED, "draw": -1, "value": value, "output": out}
            )
        for draw, (value, out) in enumerate(zip(values[0, n:], output[0, n:], strict=True)):
            about = {"layer": layer, "metric": "key_sentence", "control": "other_requests", "draw": draw}
            rows.append(about | {"value": value, "output": out})
    return readout.with_units(about_first(pd.DataFrame(rows), subject.about))
