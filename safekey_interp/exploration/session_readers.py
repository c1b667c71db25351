"""Readers of a session: probes and directions that score every token, each with the threshold of its alarm."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.state_collection import collect_states
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.trace import Trace
from safekey_interp.display import one_line
from safekey_interp.errors import InputError, SafekeyError, TraceError
from safekey_interp.exploration.session_events import TokenScore
from safekey_interp.generation.likelihood import score, with_own_sentence
from safekey_interp.generation.monitor import Threshold, calibrate, counted_tokens, largest_scores
from safekey_interp.generation.token_stream import ReadTokens
from safekey_interp.interventions.directions import fit_directions
from safekey_interp.measures.control_directions import ControlKind
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.measures.token_scorer import TokenScorer
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import segmented

_CONTROLS: tuple[ControlKind, ...] = ("shuffled_labels", "covariance", "isotropic")
"""Kinds of control, the strongest first."""
_CALIBRATED_ON = 200
"""Most benign traces that a threshold is calibrated on; the interval of a rate of 5 % is ± 3 points there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionReader:
    """A probe or direction under a name."""

    name: str
    """Unique in the session; a printable line."""
    reader: Probe | Direction
    """What scores."""
    scorer: TokenScorer
    """The same with its control directions."""
    control: ControlKind
    """Kind of control scored beside it: the strongest that it brings."""
    threshold: Threshold | None
    """Calibrated on the session's benign traces (its ``false_positive_rate`` is to be shown beside the alarm line);
    None where these are too few."""
    no_threshold: str
    """Why there is none, in one line; empty where there is one."""
    models: tuple[int, ...]
    """Numbers of the session's models that it fits."""

    @property
    def positions(self) -> tuple[str, ...] | None:
        """Span expression of the tokens that it reads, and that its threshold is calibrated at; None for all."""
        return _positions_of(self.reader)

    def read_at(self, encoding: Encoding) -> tuple[int, ...]:
        """Positions of these tokens in a response, as far as its spans are found; ascending."""
        return tuple(counted_tokens(encoding, self.positions))


def make_reader(
    reader: Probe | Direction,
    models: Sequence[Model],
    *,
    name: str | None,
    taken: Sequence[str],
    benign: Sequence[Trace],
    false_positive_rate: float,
    finder: str,
    seed: int,
) -> SessionReader:
    """A reader with controls and threshold.

    Args:
        reader: that knows its layer and site.
        models: the session's.
        name: its name; made from its place when None.
        taken: names of the others.
        benign: traces that the threshold is calibrated on.
        false_positive_rate: of the threshold.
        finder: finds U and K.
        seed: of isotropic controls.

    Raises:
        InputError: it fits none of the models, does not know its place, or the name is taken.
    """
    fits = tuple(number for number, model in enumerate(models) if _fits(reader, model))
    if not fits:
        raise InputError(
            f"reader: got one for states of width {reader.d_model} at layer {reader.layer}, expected one that fits "
            f"{', '.join(f'{model.name} (width {model.d_model}, {model.n_layers} layers)' for model in models)}"
        )
    kind = type(reader).__name__.lower()
    made = f"{kind} at {reader.position or reader.site}, layer {reader.layer}"
    chosen = one_line(name or "") or next(
        one for number in range(1, len(taken) + 2) if (one := _numbered(made, number)) not in taken
    )
    if chosen in taken:
        raise InputError(f"reader: the name {chosen!r} is taken; choose another")
    threshold, why = None, ""
    try:
        threshold = calibrate(
            models[fits[0]],
            _spread(benign),
            reader,
            false_positive_rate=false_positive_rate,
            positions=_positions_of(reader),
            finder=finder,
        )
    except SafekeyError as error:
        why = str(error)
    return reader_of(reader, models, name=chosen, threshold=threshold, why=why, seed=seed)


def reader_of(
    reader: Probe | Direction, models: Sequence[Model], *, name: str, threshold: Threshold | None, why: str, seed: int
) -> SessionReader:
    """A reader whose name and threshold are known; the other arguments as in :func:`make_reader`."""
    control, scorer = _with_controls(reader, seed)
    fits = tuple(number for number, model in enumerate(models) if _fits(reader, model))
    return SessionReader(
        name=name, reader=reader, scorer=scorer, control=control, threshold=threshold, no_threshold=why, models=fits
    )


def token_scores(readers: Sequence[SessionReader], read: ReadTokens, number: int) -> dict[str, TokenScore]:
    """Scores of one token of those that a pass has read, by reader."""
    scores = {}
    for reader, values in zip(readers, read.scores, strict=True):
        value, mean, sd = (
            float(values[name][number]) for name in ("score", f"{reader.control}_mean", f"{reader.control}_sd")
        )
        alarm = reader.threshold is not None and value > reader.threshold.value
        scores[reader.name] = TokenScore(value=value, control_mean=mean, control_sd=sd, alarm=alarm)
    return scores


def fit_probe(model: Model, traces: Sequence[Trace], *, layer: int | None, position: str, finder: str) -> Probe:
    """A probe of the labels of traces.

    Args:
        model: the model.
        traces: with labels.
        layer: layer of the states; the one with the largest out-of-fold AUROC when None.
        position: span expression.
        finder: finds U and K.

    Raises:
        InputError: no trace can be read, or their labels are of one class.
    """
    layers = None if layer is None else [layer]
    read: Any = collect_states(model, traces, StreamSettings(finder=finder), layers=layers, positions=[position])
    states, kept = read[0], read[1]
    labels, groups = [trace.label for trace in kept], [trace.group for trace in kept]

    def fitted(number: int, **options: Any) -> Probe:
        place = states.layers[number]
        about = {"layer": place.layer, "site": place.site, "position": position, "model": model.name}
        return Probe.fit(states.matrix(number, position), labels, groups, **about, **options)

    numbers = [number for number, place in enumerate(states.layers) if place.site == "resid_post"]
    if len(numbers) == 1:
        return fitted(numbers[0])
    # Controls alone take time, and the layer is chosen without them.
    return fitted(max(numbers, key=lambda number: fitted(number, n_controls=0).auroc))


def fit_direction(model: Model, traces: Sequence[Trace], *, layer: int | None, position: str, finder: str) -> Direction:
    """The difference of the class means of the states of traces; arguments and errors as for :func:`fit_probe`."""
    if layer is None:
        layer = fit_probe(model, traces, layer=None, position=position, finder=finder).layer
    [direction] = fit_directions(model, traces, layers=[layer], positions=[position], finder=finder)
    return direction


class Signal(NamedTuple):
    """What a reader says of a trace, and how sure the model is of its key sentence."""

    margin: float
    """The reader's score at the tokens that it reads, minus its threshold; above 0 there is a signal."""
    certainty: float
    """Log-probability of the key sentence, nats; -inf without one."""


def signals(reader: SessionReader, models: Sequence[Model], traces: Sequence[Trace], finder: str) -> dict[str, Signal]:
    """Of each trace that has tokens which a reader reads, by its id; nothing where it has no threshold."""
    if reader.threshold is None:
        return {}
    model = models[reader.models[0]]
    own = {}
    for trace, segmentation in segmented(traces, SegmentationSettings(finder=finder)):
        with suppress(TraceError):
            own[trace.trace_id] = with_own_sentence(model, trace, segmentation)
    with torch.inference_mode(), evaluating(model.hf):
        means = score(model, [[sentence] for sentence in own.values()])
    certain = {name: own[name].n_tokens * float(mean) for name, [mean] in zip(own, means, strict=True)}
    found = largest_scores(model, traces, reader.reader, positions=reader.positions, finder=finder)
    return {name: Signal(value - reader.threshold.value, certain.get(name, -math.inf)) for name, value in found}


def halves(traces: Sequence[Trace]) -> tuple[list[Trace], list[Trace]]:
    """Traces in two, whole groups on one side: to fit on, and to calibrate on."""
    parts: tuple[list[Trace], list[Trace]] = ([], [])
    for trace in traces:
        parts[hashlib.sha256(trace.group.encode()).digest()[0] % 2].append(trace)
    return parts


def _positions_of(reader: Probe | Direction) -> tuple[str, ...] | None:
    """Span expression of the tokens that a reader was fitted at; None for all."""
    return (reader.position,) if reader.position else None


def _fits(reader: Probe | Direction, model: Model) -> bool:
    last = model.n_layers if reader.site == "ln_final" else model.n_layers - 1
    return reader.d_model == model.d_model and reader.layer <= last


def _with_controls(reader: Probe | Direction, seed: int) -> tuple[ControlKind, TokenScorer]:
    """With the strongest kind of control that it brings. Raises InputError where it does not know its place."""
    for kind in _CONTROLS[:-1]:
        with suppress(InputError):
            return kind, TokenScorer.of(reader, controls=(kind,), seed=seed)
    return _CONTROLS[-1], TokenScorer.of(reader, controls=_CONTROLS[-1:], seed=seed)


def _spread(traces: Sequence[Trace]) -> list[Trace]:
    step = max(1, -(-len(traces) // _CALIBRATED_ON))
    return list(traces[::step])


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} ({number})"
