"""Measurement of one batch: arrays of attention and states, with any backend.

Out of memory halves the batch; a single trace that does not fit is named and left out, and so is one whose numbers are
not finite. The others are measured.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float32

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.bridge_backend import bridge_forward
from safekey_interp.capture.capture_request import CaptureRequest, SpanPairs
from safekey_interp.capture.host_copy import HostAnswers, answers_on_host
from safekey_interp.capture.recording import Captured, capture
from safekey_interp.capture.stream_settings import Backend
from safekey_interp.errors import ModelError
from safekey_interp.models.encoding import Encoding

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


@dataclass(frozen=True, kw_only=True)
class AttentionArrays:
    """Attention of one trace; NaN where a query span is absent or a layer has no pattern."""

    spans: SpanPairs
    """What the axes of spans are: its ``queries`` and its ``columns``."""
    mass: np.ndarray
    """(layer, head, query_span, key_span) in [0, 1]."""
    total: np.ndarray
    """(layer, head, query_span) row sums: 1 minus what a sink takes."""
    random: np.ndarray
    """(layer, head, query_span, key_span) mean mass of random key sets."""
    matched: np.ndarray
    """(layer, head, query_span, key_span) distance-matched baseline, first reference's rows."""
    matched_other: np.ndarray
    """(layer, head, query_span, key_span) the same, second reference's rows."""
    uniform: np.ndarray
    """(layer, query_span, key_span) mass of the uniform baseline."""
    even_key: np.ndarray
    """(layer, query_span) mass of one key that all rows see, in the uniform baseline."""
    entropy: np.ndarray
    """(layer, head, query_span) nats."""
    n_q: np.ndarray
    """(query_span) rows; 0 where absent."""
    n_k: np.ndarray
    """(key_span) keys; 0 where absent."""
    n_random: np.ndarray
    """(layer, query_span, key_span) keys of each random set."""
    holds_first: np.ndarray
    """(key_span) bool: whether the span holds the sequence's first token."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Result of one forward pass for one trace."""

    encoding: Encoding
    """The trace as the model read it."""
    attention: AttentionArrays | None
    """None unless asked for."""
    states: np.ndarray | None
    """(site, position, d_model) float32, NaN where a position is absent; None unless asked for."""
    features: np.ndarray | None
    """(position, feature) float32, NaN where a position is absent; None unless asked for."""
    token_weights: np.ndarray | None
    """(layer, head, query_span, token) float32 up to the encoding's end, on request."""
    layers_without_pattern: tuple[int, ...]
    """Layers of linear attention."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A trace that could not be measured."""

    encoding: Encoding
    """The trace."""
    reason: str
    """Why, in words."""


def measure_batch(
    model: Model,
    encodings: Sequence[Encoding],
    request: CaptureRequest,
    *,
    backend: Backend = "hf",
) -> list[Measured | LeftOut]:
    """Measure traces in one forward pass, or in several where memory does not hold it.

    Returns:
        One entry a trace, in the order given.

    Raises:
        ModelError: the model's attention cannot be read.
    """
    try:
        captured = _forward(model, Batch.of(encodings, pad_id=_pad_id(model)), request, backend)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = max(encoding.end for encoding in encodings)
    else:
        answers = answers_on_host(captured)
        states, features = _states(captured, answers), _features(captured, answers)
        return [_answer(captured, answers, states, features, row) for row in range(len(encodings))]
    # Outside the except block, so that the failed pass's tensors are free by now.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(encodings) == 1:
        return [LeftOut(encoding=encodings[0], reason=f"out of memory at {size} tokens, alone in its batch")]
    middle = len(encodings) // 2
    return [
        entry
        for half in (encodings[:middle], encodings[middle:])
        for entry in measure_batch(model, half, request, backend=backend)
    ]


def _forward(model: Model, batch: Batch, request: CaptureRequest, backend: Backend) -> Captured:
    with torch.inference_mode(), evaluating(model.hf):
        if backend == "bridge":
            captured = bridge_forward(model, batch, request)
        else:
            with capture(model, batch, request, stop=True) as captured:
                # Where the pass runs to its end, one position is the fewest logits that a causal model computes.
                keep = (
                    {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.hf.forward).parameters else {}
                )
                model.hf(**batch.inputs(model.device), **keep)
    if request.attention and not captured.attention:
        raise ModelError(
            f"model {model.spec}: no layer of {type(model.hf).__name__} showed its attention; expected an architecture "
            "that goes through transformers' attention interface and hands keyword arguments on to its layers"
        )
    return captured


def _answer(
    captured: Captured, answers: HostAnswers, states: np.ndarray | None, features: np.ndarray | None, row: int
) -> Measured | LeftOut:
    encoding = captured.batch.encodings[row]
    attention = _attention(captured, answers, row) if captured.request.attention else None
    unfit = _not_finite(answers, row)
    if unfit is not None:
        return LeftOut(encoding=encoding, reason=unfit)
    return Measured(
        encoding=encoding,
        attention=attention,
        states=None if states is None else states[row],
        features=None if features is None else features[row],
        token_weights=_token_weights(captured, answers, row) if captured.request.token_weights else None,
        layers_without_pattern=captured.layers_without_pattern if captured.request.attention else (),
    )


def _layers(captured: Captured) -> Sequence[int]:
    return range(captured.n_layers) if captured.request.layers is None else captured.request.layers


def _attention(captured: Captured, answers: HostAnswers, row: int) -> AttentionArrays:
    spans, rows = captured.request.spans, captured.rows
    n_spans = len(spans.columns)
    encoding = captured.batch.encodings[row]
    example = next(iter(captured.attention.values()))
    n_heads, n_queries, n_columns = example.masses.shape[1:]
    n_layers = len(_layers(captured))
    columns = np.full((n_layers, n_heads, n_queries, n_columns), np.nan, np.float32)
    matched, matched_other = (np.full((n_layers, n_heads, n_queries, n_spans), np.nan, np.float32) for _ in range(2))
    entropy = np.full((n_layers, n_heads, n_queries), np.nan, np.float32)
    uniform = np.full((n_layers, n_queries, n_spans), np.nan, np.float32)
    even_key = np.full((n_layers, n_queries), np.nan, np.float32)
    n_random = np.zeros((n_layers, n_queries, n_spans), np.int32)
    for i, layer in enumerate(_layers(captured)):
        answer = answers.attention.get(layer)
        if answer is not None:
            columns[i] = answer["masses"][row]
            matched[i] = answer["matched"][row]
            matched_other[i] = answer["matched_other"][row]
            entropy[i] = answer["entropy"][row]
            keys = captured.attention[layer].keys
            uniform[i] = keys.uniform[row]
            even_key[i] = keys.even_key[row]
            n_random[i] = keys.n_random[row]
    n_q = rows.counts[row]
    n_k = np.array([len(encoding.positions(name)) for name in spans.columns])
    absent = n_q == 0
    columns[:, :, absent] = np.nan
    entropy[:, :, absent] = np.nan
    uniform[:, absent] = np.nan
    blocks = rearrange(columns[..., :-1], "layer head query (kind span) -> kind layer head query span", span=n_spans)
    mass, random = (np.where(n_k > 0, block, np.nan) for block in blocks)
    none_drawn = rearrange(n_random == 0, "layer query span -> layer 1 query span")
    return AttentionArrays(
        spans=spans,
        mass=mass,
        total=columns[..., -1],
        random=np.where(none_drawn, np.nan, random),
        matched=matched,
        matched_other=matched_other,
        uniform=np.where(n_k > 0, uniform, np.nan),
        even_key=even_key,
        entropy=entropy,
        n_q=n_q,
        n_k=n_k,
        n_random=n_random,
        holds_first=np.array([0 in encoding.positions(name) for name in spans.columns]),
    )


def _states(captured: Captured, answers: HostAnswers) -> Float32[np.ndarray, "row site position width"] | None:
    """NaN at sites that the model lacks, and at positions that a trace lacks; None unless asked for."""
    if not captured.request.states:
        return None
    sites = captured.request.sites(captured.n_layers)
    example = next(iter(answers.states.values()))
    stacked = np.full((len(example), len(sites), *example.shape[1:]), np.nan, np.float32)
    for number, site in enumerate(sites):
        if site in answers.states:
            stacked[:, number] = answers.states[site]
    stacked.swapaxes(1, 2)[~_there(captured)] = np.nan
    return stacked


def _features(captured: Captured, answers: HostAnswers) -> Float32[np.ndarray, "row position feature"] | None:
    """NaN at positions that a trace lacks; None unless asked for."""
    if answers.features is None:
        return None
    return np.where(_there(captured)[..., None], answers.features, np.float32(np.nan))


def _there(captured: Captured) -> Bool[np.ndarray, "row position"]:
    """Whether each trace has each position."""
    names = captured.request.positions
    return np.array(
        [[len(encoding.positions(name)) > 0 for name in names] for encoding in captured.batch.encodings], bool
    )


def _token_weights(captured: Captured, answers: HostAnswers, row: int) -> np.ndarray:
    encoding, start = captured.batch.encodings[row], captured.batch.starts[row]
    shape = next(iter(answers.attention.values()))["token_weights"].shape[1:3]
    weights = np.full((len(_layers(captured)), *shape, encoding.end), np.nan, np.float32)
    for i, layer in enumerate(_layers(captured)):
        if layer in answers.attention:
            weights[i] = answers.attention[layer]["token_weights"][row, ..., start : start + encoding.end]
    return weights


def _not_finite(answers: HostAnswers, row: int) -> str | None:
    for site, states in answers.states.items():
        if not np.isfinite(states[row]).all():
            return f"the model's states are not finite (first at {site.site} of layer {site.layer})"
    if answers.features is not None and not np.isfinite(answers.features[row]).all():
        return "the SAE's latents are not finite"
    for layer, answer in answers.attention.items():
        if not np.isfinite(answer["masses"][row]).all():
            return f"the model's attention is not finite (first at layer {layer})"
    return None


def _pad_id(model: Model) -> int:
    pad_id = model.tokenizer.pad_token_id
    # Some tokenizers have a padding token that the model never got an embedding for; any will do, since nobody sees it.
    return pad_id if pad_id is not None and pad_id < model.n_embeddings else 0


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says so, on any device."""
    # CUDA's error has a class; the CPU's, MPS's and cuBLAS's have only words.
    words = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)
