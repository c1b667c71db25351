"""Trajectory of a probe's score, or of another metric, token by token, around the key sentence.

What a metric says before K can be asked at every token of a trace: with ``t`` in the place of its position,

    probe(FILE)                  score of the state of token t, beside control directions (:mod:`~.measures.trajectory`)
    logit_difference("a", "b")   logit of one token minus another's, as the next token behind t
    logprob("text"), aha         of texts behind t, in place of what the trace has there        (teacher forcing)

``key_sentence`` and ``logprob(EXPR)`` are read where they stand, and a function says itself where it is read: these
have no trajectory. A text is scored behind each token, with what comes before computed once for a block of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.streaming import on_threads, threads_for
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.inserted_text import with_text
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import score
from safekey_interp.interventions.metric_kinds import DECIDING, Aha, Metric, NextTokens, RecordScore, TextLogprob
from safekey_interp.interventions.metric_registry import MetricLike, parse_metrics
from safekey_interp.interventions.trajectory_record import INTERVENTION
from safekey_interp.measures.control_directions import DEFAULT_CONTROLS, N_DRAWS, ControlKind
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.measures.trajectory import read_trajectory, score_trajectory
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.encoding import Encoding
    from safekey_interp.models.model import Model

_BLOCK = 16
"""Tokens in a row whose texts share what comes before the first."""


def measure_trajectory(
    model: Model,
    traces: Iterable[Trace],
    readers: Probe | Direction | Sequence[Probe | Direction] | None = None,
    *,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    bank: KeySentences | None = None,
    align: str = "key_sentence",
    controls: Sequence[ControlKind] = DEFAULT_CONTROLS,
    n_random: int = N_DRAWS,
    seed: int = 0, finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """The score, or another metric, at every token of every trace.

    Args:
        model: and ``bank``, ``finder`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: any number; those without the point of alignment are left out.
        readers: probes or directions that know their layer and site; fitted on other traces than these.
        metric: in their place, one or several of ``probe(FILE)``, ``logit_difference("a", "b")``, ``logprob("text")``
            and ``aha``, each without ``at``; probes apart from the others.
        align: where offset 0 lies: at the first token of a span expression, such as K, or with ``reasoning_end`` at the
            first token behind the reasoning.
        controls: kinds of control (:mod:`safekey_interp.measures.control_directions`) of probes and directions:
            ``shuffled_labels`` (of a probe, probes fitted to shuffled labels), ``covariance``, ``isotropic``.
        n_random: control directions of each kind a reader; fewer of shuffled labels where its groups allow no more.
        seed: seed of the isotropic ones.

    Returns:
        One row per trace, reader and token: trace_id, group, label, aha (what K decides), reader (its number), layer,
        site, position (of the token), offset (from the point of alignment), part (template, prompt, understanding,
        key_sentence, rest), token (its text), score, and for each kind of control ``<kind>_mean`` and ``<kind>_sd``
        (over its draws, of their scores on the same state). Of other metrics than probes: metric and unit in place of
        layer and site, no control, and score is the metric's number, NaN where the tokenizer joins the text to the
        token. ``attrs["left_out"]`` maps the other traces to their reasons.

    Raises:
        InputError: no trace can be measured; readers and a metric, or neither; a reader or metric that does not fit the
            model, that is read where it stands, or that brings no controls of a kind; an expression that cannot be
            parsed, or names a span that no trace has.
    """
    INTERVENTION.check(align=align)
    if (readers is None) == (metric is None):
        both = "both" if metric is not None else "neither"
        raise InputError(f"readers, metric: got {both}, expected probes and directions, or a metric")
    read = [] if metric is None else list(map(_at_every_token, parse_metrics(metric)))
    records = [each.source for each in read if isinstance(each, RecordScore)]
    finding: dict[str, Any] = {"finder": finder, "delimiters": delimiters}
    about: dict[str, Any] = {"align": align, "max_length": max_length, "on_trace": on_trace}
    if len(records) == len(read):
        drawn: dict[str, Any] = {"controls": controls, "n_random": n_random, "seed": seed}
        return score_trajectory(model, traces, records if readers is None else readers, **drawn, **finding, **about)
    if records:
        raise InputError(
            "metric: got probe(FILE) beside others, whose controls differ; expected them in a run of their own"
        )
    bound = [each.bind(model, bank) for each in read]
    columns = [{"metric": name, "unit": each.unit} for each in bound for name in each.names]

    def values(chosen: Sequence[tuple[Trace, Encoding]]) -> list[list[dict[str, np.ndarray]]]:
        with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
            return [[{"score": number} for each in bound for number in _values(model, *one, each).T] for one in chosen]

    return read_trajectory(model, traces, values, columns, settings=SegmentationSettings(**finding), **about)


def _at_every_token(metric: Metric) -> Metric:
    """A metric that can be read at every token; raises InputError for another."""
    if not isinstance(metric, RecordScore | NextTokens | TextLogprob | Aha):
        raise InputError(
            f"metric {metric.name}: it is read where it stands, and a trajectory at every token; expected probe(FILE), "
            'logit_difference("a", "b"), logprob("text") or aha'
        )
    usual = metric.source.position if isinstance(metric, RecordScore) else ""
    if metric.at != (usual or DECIDING):
        raise InputError(f"metric {metric.name}: a trajectory reads it at every token; leave 'at {metric.at}' out")
    return metric


def _values(model: Model, trace: Trace, encoding: Encoding, metric: Metric) -> Float[np.ndarray, "pos name"]:
    """A metric at every token of a trace; NaN where it cannot be read."""
    if isinstance(metric, NextTokens):
        return _logit_differences(model, encoding, metric.ids)
    texts = [metric.text] if isinstance(metric, TextLogprob) else list(_bank(metric).sentences)
    rows: dict[int, list[Continuation]] = {}
    for position in range(len(encoding.input_ids)):
        try:
            rows[position] = [with_text(model, trace, encoding, f"token({position})", text) for text in texts]
        except TraceError:  # the tokenizer joins a text to this token
            continue
    blocks: dict[int, list[int]] = {}
    for position in rows:
        blocks.setdefault(position // _BLOCK, []).append(position)
    families = [[row for position in block for row in rows[position]] for block in blocks.values()]
    numbers = np.full((len(encoding.input_ids), len(metric.names)), np.nan)
    if rows:
        scores = torch.cat(list(score(model, families))).numpy()
        numbers[list(rows)] = metric.values(scores.reshape(len(rows), len(texts)))
    return numbers


def _bank(metric: Metric) -> KeySentences:
    assert isinstance(metric, Aha)
    assert metric.bank is not None
    return metric.bank


def _logit_differences(model: Model, encoding: Encoding, ids: tuple[int, int]) -> Float[np.ndarray, "pos 1"]:
    """Of two next tokens, behind every token."""
    batch = encoding.input_ids[None].to(model.device)
    logits = model.hf(input_ids=batch, use_cache=False).logits[0][:, list(ids)].double().cpu().numpy()
    return logits[:, :1] - logits[:, 1:]
