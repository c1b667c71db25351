"""Activations of components as one array: any positions, layers and components of many traces (``ski.states``).

    found = ski.states(model, traces, positions=["decision"], components=("attn_out", "mlp_out"))
    found.array[:, 0, 3, 1]        (trace, d_model): what the MLP of the fourth layer adds at ``decision``

Components have TransformerLens's names and meanings (:mod:`~safekey_interp.capture.places`). Everything is averaged
over a position's tokens inside the forward pass, so that memory does not grow with the length of traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from safekey_interp.capture.capture_request import CaptureRequest, expressions
from safekey_interp.capture.component_grid import component_grid
from safekey_interp.capture.places import HeadValues
from safekey_interp.capture.state_array import RowFile, StateArray, WordsRead, about_trace
from safekey_interp.capture.stream_settings import Backend
from safekey_interp.capture.streaming import CHUNK, BatchSize, StreamSettings, measure_entries, prepare
from safekey_interp.errors import InputError

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

_CHUNK_BYTES = 2**28


def states(
    model: Model,
    traces: Iterable[Trace],
    *,
    positions: Sequence[str] = ("decision",),
    layers: Sequence[int] | None = None,
    components: Sequence[str] = ("resid_post",),
    head: HeadValues = "z",
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    backend: Backend = "hf",
    on_batch: Callable[[int], None] = lambda n: None,
) -> StateArray:
    """States of traces as one array: of any components, layers and positions, in one forward pass a batch.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: any number, of which a few hundred are in memory at once.
        positions: span expressions, such as ``decision`` or ``last(prompt)``; the states of several tokens are
            averaged. A trace that has none of them is left out.
        layers: layers to read, negative ones counted from the last; all when None.
        components: of ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out`` (both as they are added
            to the stream), ``projected`` (attention before a norm that follows), ``ln_final`` (behind the last layer,
            whatever ``layers`` says), ``head`` (every head, as ``head.0``, ``head.1`` …) and single heads (``head.3``).
        head: of heads, ``z`` (values before the output projection: the last axis is d_head, and heads stand alone) or
            ``output`` (what the head adds to the stream, of d_model).
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        batch_size: traces a forward pass.
        max_length: most tokens up to the end of K.
        backend: ``hf`` (fast) or ``bridge`` (TransformerLens).
        on_batch: called with the number of traces after each batch.

    Returns:
        The array, float32, with the names of its axes, its traces and those left out.

    Raises:
        InputError: no trace can be measured; an unknown layer or component; a position that cannot be parsed, or that
            no trace has; a component that the model lacks in all layers asked for (``resid_mid`` of a parallel block);
            z of heads beside other components.
    """
    wanted = expressions(positions, "positions")
    if not wanted:
        raise InputError("positions: got none, expected a list of span expressions such as ['decision']")
    _check(components, head)
    axes = component_grid(model, layers, components, head)
    places = axes.places
    request = CaptureRequest(attention=False, positions=wanted, places=places, head=head)
    settings = StreamSettings(
        finder=finder, delimiters=delimiters, batch_size=batch_size, max_length=max_length, backend=backend
    )
    at = [axes.layers.index(place.layer) for place in places], [axes.components.index(place.site) for place in places]
    row_bytes = 4 * model.d_model * len(wanted) * len(axes.layers) * len(axes.components)
    chunk = max(1, min(CHUNK, _CHUNK_BYTES // row_bytes))
    entries = prepare(model, traces, settings, request)
    rows, words, about, left_out = RowFile(), WordsRead(wanted), [], {}
    for entry in measure_entries(model, entries, request, settings, chunk_size=chunk, on_batch=on_batch):
        if entry.measured is None or entry.measured.states is None:
            left_out[entry.trace.trace_id] = entry.left_out or "not measured"
            continue
        shape = (len(wanted), len(axes.layers), len(axes.components), entry.measured.states.shape[-1])
        row = np.full(shape, np.nan, np.float32)
        row[:, at[0], at[1]] = entry.measured.states.swapaxes(0, 1)
        rows.add(row)
        words.add(entry.measured.encoding)
        about.append(about_trace(entry.trace, entry.segmentation))
    return StateArray(
        array=rows.array(),
        index=pd.DataFrame(about, dtype=object),
        positions=wanted,
        layers=axes.layers,
        components=axes.components,
        head=head,
        model=model.spec,
        left_out=left_out,
        words=words.at,
    )


def _check(components: Sequence[str], head: HeadValues) -> None:
    if head not in get_args(HeadValues):
        raise InputError(f"head: got {head!r}, expected one of {', '.join(get_args(HeadValues))}")
    of_heads = [] if isinstance(components, str) else [name.partition(".")[0] == "head" for name in components]
    if head == "z" and any(of_heads) and not all(of_heads):
        raise InputError(
            f"components: got {', '.join(components)}; z of heads has d_head numbers and others have d_model, so that "
            "one array cannot hold both; ask for heads alone, or for head='output'"
        )
