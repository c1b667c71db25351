"""Cost of a probe's run, estimated by a trial: forward passes of some traces, and the probes of one layer.

passes     of the trial's traces · (length of all traces / length of the trial's)
probes     of a layer a thread at one position, on random states of as many traces · layers / threads · positions
words      text baselines of as many prompts, drawn from the trial's · positions that have read other words
once       tables, findings and the record of the run, whatever the number of traces
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.pass_cost import NOTHING, Cost, trial
from safekey_interp.capture.places import Place
from safekey_interp.capture.streaming import Entry, StreamSettings, encoded, in_chunks, measure_chunk
from safekey_interp.experiments.probe_chunks import write_chunk
from safekey_interp.experiments.probe_survey import Survey
from safekey_interp.measures.separability import separability_table
from safekey_interp.measures.text_baseline import text_of
from safekey_interp.measures.transfer import transfer_table
from safekey_interp.runs.processes import workers

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_LONG = 3600.0
_ONCE = 0.6
"""Seconds of what is done once a run, as measured on two cores."""
_FEW_ROWS, _MOST_ROWS = 64, 1_000
"""Traces of random states; probes of more traces draw so many of them."""


def probe_cost(
    model: Model,
    request: CaptureRequest,
    settings: StreamSettings,
    overview: Survey,
    *,
    left: float,
    chunk: int,
    estimator: str,
    n_processes: int = 1,
) -> Cost:
    """What a run costs from here.

    Args:
        model: the model.
        request: what is asked of each forward pass.
        settings: how traces are prepared and grouped.
        overview: of the data.
        left: the part of the traces that is not measured yet.
        chunk: traces that are measured together.
        estimator: of the probes.
        n_processes: processes that share the work.
    """
    items = [(encoded(model, entry, settings, overview.spans.request), length) for entry, length in overview.sample]
    fit = [(entry, length) for entry, length in items if entry.left_out is None]
    cost = NOTHING
    if fit and left:
        measure = partial(_measure, model, request, settings, overview, chunk=chunk)
        tried, timed = trial(model, fit, measure)
        share = left * overview.n * overview.mean_length / sum(length for _, length in tried)
        cost = timed.times(share * len(fit) / len(items), at_once=n_processes)
    is_probed = request.states and overview.has_groups
    seconds = _seconds_of_probes(model, request, overview, estimator) / n_processes if is_probed else 0.0
    whole = replace(cost, seconds=cost.seconds + seconds + _ONCE)
    if whole.seconds < _LONG:
        return whole
    fewer = max(1, int(overview.n * _LONG / whole.seconds))
    n_layers = len(request.layers or range(model.n_layers))
    cheaper = ((f"--limit {fewer}", whole.seconds * fewer / overview.n),)
    if n_layers > 1:
        # Passes take as long with one layer as with all; what is made of each layer does not.
        cheaper += ((f"--layers with one of {n_layers}", cost.seconds + seconds / n_layers),)
    return replace(whole, cheaper=cheaper)


def _measure(
    model: Model,
    request: CaptureRequest,
    settings: StreamSettings,
    overview: Survey,
    some: Sequence[tuple[Entry, int]],
    *,
    chunk: int,
) -> None:
    layers = list(request.layers or range(model.n_layers))
    about: dict[str, Any] = {"conditions": overview.conditions, "spans": overview.spans, "states": request.states}
    for part in in_chunks([entry for entry, _ in some], chunk):
        measured = measure_chunk(model, part, request, settings, token_weights_of=set(overview.examples))
        with tempfile.TemporaryDirectory(prefix="safekey-trial-") as folder:
            write_chunk(Path(folder), measured, layers, overview.positions, **about)


class _RandomStates:
    """States of as many traces as there are, at one position of as many layers as are measured side by side."""

    positions = ("decision",)

    def __init__(self, n: int, width: int, labels: Sequence[str]) -> None:
        self.trace_ids = tuple(map(str, range(n)))
        self.layers = tuple(Place(layer, "resid_post") for layer in range(workers()))
        step = np.array([labels[0] == label for label in labels], np.float32)[:, None]
        self._states = np.random.default_rng(0).standard_normal((n, width), np.float32)
        self._states[:, :1] += 3 * step

    def matrix(self, layer_index: int, position: str) -> np.ndarray:
        return self._states


def _seconds_of_probes(model: Model, request: CaptureRequest, overview: Survey, estimator: str) -> float:
    """Seconds of the probes at every layer and position, side by side as they are made, and of the text baselines."""
    probes = partial(_seconds_of_one, model.d_model, overview, estimator)
    prompts = [entry.trace.prompt for entry, _ in overview.sample]
    probes(min(_FEW_ROWS, overview.n), prompts)  # the first takes long to import what it needs
    n = min(_MOST_ROWS, overview.n)
    of_states, with_words = probes(n), probes(n, prompts)
    n_places = len(request.sites(model.n_layers)) * len(request.positions)
    return of_states * n_places / workers() + max(0.0, with_words - of_states) * _n_readings(request, overview)


def _n_readings(request: CaptureRequest, overview: Survey) -> int:
    """Text baselines: positions that have read the same words share one."""
    sample = [entry for entry, _ in overview.sample]
    read = {
        name: tuple(text_of(entry.trace, entry.segmentation, name) for entry in sample) for name in request.positions
    }
    return len({texts if any(texts) else (name,) for name, texts in read.items()})


def _seconds_of_one(width: int, overview: Survey, estimator: str, n: int, prompts: Sequence[str] = ()) -> float:
    names, conditions = [name for name in overview.classes if name], overview.conditions
    labels = [names[number % 2] for number in range(n)]
    groups, states = [str(number // 2) for number in range(n)], _RandomStates(n, width, labels)
    texts = {"decision": [_shuffled(prompts[number % len(prompts)], number) for number in range(n)]} if prompts else {}
    about: dict[str, Any] = {"estimator": estimator, "n_workers": workers()}
    began = time.perf_counter()
    separability_table(states, labels, groups, texts, **about)
    if conditions.names:
        condition = [conditions.names[(number // 2) % len(conditions.names)] for number in range(n)]
        transfer_table(states, labels, groups, condition, texts, conditions=conditions, **about)
    return time.perf_counter() - began


def _shuffled(text: str, seed: int) -> str:
    """The words in another order, so that few pairs of words are in two texts, as in other prompts."""
    words = text.split()
    return " ".join(words[at] for at in np.random.default_rng(seed).permutation(len(words)))
