"""Attention masses between the spans of each trace, with their baselines.

For a query span Q and a key span S, per layer and head:

- ``mass`` = mean over q in Q of Σ_{k in S} p_qk, in [0, 1] (the paper's measure; SafeKey, arXiv 2505.16186, averages it
  over the last layer's heads).
- ``mass_rest``: the same renormalised without the sequence's first token: the mean over Q of Σ over S without it,
  divided by the mean of the row totals without it. What a sink takes counts in neither.
- ``uniform_mass``: the mass if each row spread its attention evenly over the keys that it sees (a window counts, a sink
  does not); ``lift`` = mass / uniform_mass, NaN where the span is out of sight.
- ``random_mass``: mean mass of ``n_random`` keys drawn among those that every row sees, outside S and the first token.
- ``matched_mass``: the distance-matched baseline: what Q would give to S if attention were a function of distance
  alone, as U's rows show it (:mod:`safekey_interp.capture.distance_baseline`; for other query spans, the rows before
  them); ``matched_mass_other``: the same from rows of the other sentences (X; for the deciding token K, too). U lies
  next to K, so lift alone confounds content with distance. Where attention is a function of distance alone, mass /
  matched_mass is 1.
- ``entropy``: of the rows over the keys that they see, nats, averaged over Q.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from einops import rearrange, repeat

from safekey_interp.capture.batch_runner import AttentionArrays, Backend
from safekey_interp.capture.capture_request import CaptureRequest, span_pairs
from safekey_interp.capture.streaming import BatchSize, StreamSettings, measure_stream
from safekey_interp.data.trace import Trace
from safekey_interp.measures.attention_summary import without_first
from safekey_interp.measures.published_attention import RENDERINGS, Style, checked_style
from safekey_interp.measures.trace_tables import concatenate_tables
from safekey_interp.models.model import Model


def measure_attention(
    model: Model,
    traces: Iterable[Trace],
    *,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    backend: Backend = "hf",
    n_random: int = 20,
    seed: int = 0,
    style: Style = "paper",
    on_batch: Callable[[int], None] = lambda n: None,
) -> pd.DataFrame:
    """Attention between the spans of each trace, per layer and head.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: any number.
        queries: span expressions (:mod:`safekey_interp.data.span_expressions`) of the tokens that attend; the key
            sentence, the token before it and the understanding when None.
        keys: span expressions of the tokens that are attended to; prompt, understanding, template, first token and key
            sentence when None. Given either, every query is measured to every key.
        layers: layers to measure; all when None.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        batch_size: traces a forward pass.
        max_length: most tokens up to the end of K.
        backend: ``hf`` (fast) or ``bridge`` (TransformerLens).
        n_random: draws of each random key set.
        seed: seed of the draws.
        style: ``paper`` reads each trace as the model would have seen it; ``released`` as the reference's public
            attention script does: the prompt and right behind it the first half of the response, without a chat
            template; a trace whose K does not end there is left out.
        on_batch: called with the number of traces after each batch.

    Returns:
        One row per trace, layer, head and pair of spans that the trace has: trace_id, layer, head, from_span, to_span,
        mass, mass_rest, uniform_mass, lift, random_mass, matched_mass, matched_mass_other, entropy (nats), n_q, n_k,
        n_random. NaN on layers without a pattern (linear attention), and in a baseline that fewer than half of the
        pairs of query and key have. ``attrs["left_out"]`` maps the other traces to their reasons, and
        ``attrs["layers_without_pattern"]`` lists such layers.

    Raises:
        ModelError: the model's attention cannot be read.
        InputError: no trace can be measured.
    """
    spans = span_pairs(queries, keys)
    request = CaptureRequest(
        states=False, layers=model.layer_numbers(layers), n_random=n_random, seed=seed, spans=spans
    )
    settings = StreamSettings(
        finder=finder,
        delimiters=delimiters,
        batch_size=batch_size,
        max_length=max_length,
        backend=backend,
        rendering=RENDERINGS[checked_style(style)],
    )
    numbers = request.layers or range(model.n_layers)
    tables, left_out, without = [], {}, ()
    for entry in measure_stream(model, traces, request, settings, on_batch=on_batch):
        if entry.measured is None or entry.measured.attention is None:
            left_out[entry.trace.trace_id] = entry.left_out or "not measured"
            continue
        if not entry.measured.attention.n_q.any():
            left_out[entry.trace.trace_id] = "no response, so that no sentence has attention to measure"
            continue
        without = entry.measured.layers_without_pattern
        tables.append(attention_table(entry.trace.trace_id, entry.measured.attention, numbers))
    table = concatenate_tables(tables, left_out, "no trace has a sentence whose attention can be measured")
    for column in ("trace_id", "from_span", "to_span"):
        table[column] = table[column].astype("category")
    table.attrs |= {"layers_without_pattern": list(without), "n_layers": model.n_layers, "style": style}
    return table


def token_attention(
    model: Model,
    trace: Trace,
    *,
    queries: Sequence[str] | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Attention of one trace's query spans on every token up to the last of them.

    Args:
        model: from ``load`` or ``from_hf``.
        trace: the trace.
        queries: span expressions; the key sentence, the token before it and the understanding when None.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        layers: which layers, negative ones counted from the last; all when None.

    Returns:
        One row per layer, head, query span and token: layer, head, from_span, position, token (its text), weight: the
        mean over the span's rows, in [0, 1].

    Raises:
        InputError: the trace cannot be measured.
    """
    spans = span_pairs(queries, None if queries is None else ())
    request = CaptureRequest(states=False, layers=model.layer_numbers(layers), token_weights=True, spans=spans)
    settings = StreamSettings(finder=finder, delimiters=delimiters)
    entries = measure_stream(model, [trace], request, settings, token_weights_of={trace.trace_id})
    [measured] = [entry.measured for entry in entries if entry.measured is not None]
    assert measured.token_weights is not None
    assert measured.attention is not None
    encoding, present = measured.encoding, np.flatnonzero(measured.attention.n_q)
    weights = measured.token_weights[:, :, present]
    numbers = request.layers or range(model.n_layers)
    index = pd.MultiIndex.from_product(
        [numbers, range(weights.shape[1]), [spans.queries[q] for q in present], range(encoding.end)],
        names=["layer", "head", "from_span", "position"],
    ).to_frame(index=False)
    tokens = np.asarray([encoding.text[start:end] for start, end in encoding.offsets[: encoding.end]], dtype=object)
    return index.assign(
        token=tokens[index["position"]], weight=rearrange(weights, "layer head query token -> (layer head query token)")
    )


def attention_table(trace_id: str, arrays: AttentionArrays, layers: Sequence[int]) -> pd.DataFrame:
    """One trace's arrays as tidy rows; spans that the trace lacks have none."""
    spans = arrays.spans
    pairs = [(q, k) for q, k in spans.pairs if arrays.n_q[q] and arrays.n_k[k]]
    if not pairs:
        return pd.DataFrame()
    q, k = map(list, zip(*pairs, strict=True))
    n_layers, n_heads = arrays.mass.shape[:2]

    def per_head(values: np.ndarray) -> np.ndarray:
        return rearrange(values, "layer head pair -> (layer head pair)")

    def per_layer(values: np.ndarray) -> np.ndarray:
        return repeat(values, "layer pair -> (layer head pair)", head=n_heads)

    def per_pair(values: Sequence[str] | np.ndarray) -> np.ndarray:
        return repeat(np.asarray(values), "pair -> (layer head pair)", layer=n_layers, head=n_heads)

    rest = rest_mass(arrays)
    mass, uniform = arrays.mass[..., q, k], arrays.uniform[..., q, k]
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = np.where(uniform[:, None] > 0, mass / uniform[:, None], np.nan)
    return pd.DataFrame(
        {
            "trace_id": trace_id,
            "layer": repeat(
                np.asarray(layers, dtype=np.int16), "layer -> (layer head pair)", head=n_heads, pair=len(pairs)
            ),
            "head": repeat(
                np.arange(n_heads, dtype=np.int16), "head -> (layer head pair)", layer=n_layers, pair=len(pairs)
            ),
            "from_span": per_pair([spans.queries[i] for i in q]),
            "to_span": per_pair([spans.keys[i] for i in k]),
            "mass": per_head(mass),
            "mass_rest": per_head(rest[..., q, k]),
            "uniform_mass": per_layer(uniform),
            "lift": per_head(lift),
            "random_mass": per_head(arrays.random[..., q, k]),
            "matched_mass": per_head(arrays.matched[..., q, k]),
            "matched_mass_other": per_head(arrays.matched_other[..., q, k]),
            "entropy": per_head(arrays.entropy[..., q]),
            "n_q": per_pair(arrays.n_q[q].astype(np.int32)),
            "n_k": per_pair(arrays.n_k[k].astype(np.int32)),
            "n_random": per_layer(arrays.n_random[..., q, k].astype(np.int32)),
        }
    )


def rest_mass(arrays: AttentionArrays) -> np.ndarray:
    """Mass renormalised without the first token: (layer, head, query_span, key_span).

    NaN for the first token itself, and where it takes the whole row.
    """
    others, total = without_first(arrays)
    # Below float32's rounding of the row sum there is no rest to speak of.
    defined = total[..., None] > 1e-6
    return np.divide(others, total[..., None], out=np.full_like(others, np.nan), where=defined)
