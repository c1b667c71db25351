"""Monitor of a response: probe scores while the model writes, with a conformal threshold.

The threshold is split conformal: of n calibration traces on benign prompts, each with the largest score of any token
of its response, the ⌈(1 − α)(n + 1)⌉-th smallest. A further benign trace of the same kind passes it with a probability
of at most α (Vovk et al. 2005), whatever the scores' distribution; which kinds of prompts are benign is the
caller's choice. Tokens of some positions alone may count, such as those of the reasoning: while the model writes,
where these lie is what the text so far says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from safekey_interp.capture.capture_request import expressions
from safekey_interp.data.span_expressions import check_spans
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.requests import Request
from safekey_interp.generation.sampling import Sampling
from safekey_interp.generation.token_stream import TokenStream
from safekey_interp.generation.written_text import WrittenText
from safekey_interp.measures.control_directions import ControlKind
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.early_detection import conformal_rank
from safekey_interp.measures.probes import Probe
from safekey_interp.measures.token_scorer import token_scorers
from safekey_interp.measures.trajectory import score_tokens
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import segment, segmented


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A score that benign traces seldom pass."""

    value: float
    """A token with a higher score raises the alarm."""
    false_positive_rate: float
    """At most so many benign traces raise it, in expectation."""
    n: int
    """Benign traces that it was calibrated on."""
    left_out: int
    """Traces that were not benign, or could not be read."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """One token as it is written."""

    number: int
    """0 for the first token of the response."""
    text: str
    """What it adds to the response."""
    score: float
    """The probe's or direction's score on the state at this token."""
    control_mean: float
    """Mean score of control directions on the same state; NaN without any."""
    control_sd: float
    """Their standard deviation: a score within mean ± 1.96 sd is what meaningless labels give, too."""
    alarm: bool
    """Whether this score or an earlier one of those that count is above the threshold."""
    counts: bool = True
    """Whether the token is at one of the positions."""


def calibrate(
    model: Model,
    traces: Iterable[Trace],
    reader: Probe | Direction,
    *,
    false_positive_rate: float = 0.05,
    positions: Sequence[str] | None = None,
    finder: str = "rules",
) -> Threshold:
    """The threshold that a stated share of benign traces passes at most.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: with responses; those labelled benign count. Not those that the reader was fitted on.
        reader: a probe or direction that knows its layer and site.
        false_positive_rate: α, of whole traces.
        positions: span expressions of the tokens of a response that count, such as ``["reasoning"]``; all when None.
        finder: finds U and K; any does, unless positions name them.

    Returns:
        The threshold in the reader's unit (log-odds of a probe, length along a direction), with how many traces set it
        and how many were left out.

    Raises:
        InputError: a rate outside (0, 1), or too few benign traces for it: at least 1/α − 1 are needed; an
            expression that cannot be parsed, or a span that no trace has.
    """
    conformal_rank(10**9, false_positive_rate)  # another rate is refused before the forward passes
    known = list(traces)
    benign = [trace for trace in known if trace.label == "benign"]
    found = largest_scores(model, benign, reader, positions=positions, finder=finder)
    n = len(found)
    rank = conformal_rank(n, false_positive_rate)
    return Threshold(
        value=sorted(score for _, score in found)[rank - 1],
        false_positive_rate=false_positive_rate,
        n=n,
        left_out=len(known) - n,
    )


def largest_scores(
    model: Model,
    traces: Iterable[Trace],
    reader: Probe | Direction,
    *,
    positions: Sequence[str] | None = None,
    finder: str = "rules",
) -> list[tuple[str, float]]:
    """A reader's largest score in each trace, behind its id, without the traces that have none; arguments and errors as
    for :func:`calibrate`."""
    wanted = None if positions is None else expressions(positions, "positions")
    encodings, counted = [], []
    own: set[str] = set()
    for trace, segmentation in segmented(traces, SegmentationSettings(finder=finder)):
        own.update(trace.span_names)
        try:
            encoding = model.encode(trace, segmentation)
            rows = counted_tokens(encoding, wanted)
        except TraceError:
            continue
        if rows:
            encodings.append(encoding)
            counted.append(rows)
    check_spans(wanted or (), own)
    scores = score_tokens(model, encodings, token_scorers(reader, controls=()))
    return [
        (encoding.trace_id, float(score[0]["score"][rows].max()))
        for encoding, score, rows in zip(encodings, scores, counted, strict=True)
    ]


def watch(
    model: Model,
    prompt: str | Trace,
    reader: Probe | Direction,
    *,
    threshold: Threshold | float | None = None,
    control: ControlKind | None = "shuffled_labels",
    sampling: Sampling | None = None,
    prefill: str = "",
    positions: Sequence[str] | None = None,
    finder: str = "rules",
) -> Iterator[Watched]:
    """The model's response, token by token, each with its score.

    Args:
        model: from ``load`` or ``from_hf``.
        prompt: a user text, or a trace whose prompt and earlier turns are asked.
        reader: a probe or direction that knows its layer and site.
        threshold: from :func:`calibrate`, or a score; no alarm when None.
        control: kind of control scored with each token (:mod:`~safekey_interp.measures.control_directions`), or None.
        sampling: greedy when None; of one sample.
        prefill: what the response begins with; not among what is yielded.
        positions: span expressions of the tokens that count for the alarm, such as ``["reasoning"]``; all when None.
            Spans of the response are looked for in what is written so far.
        finder: finds U and K there, where positions name them.

    Yields:
        One :class:`Watched` a new token. Stop iterating, and the model stops writing.

    Raises:
        InputError: the reader does not fit the model, brings no controls of this kind, or a position cannot be parsed
            or names a span that neither is built in nor one of the prompt's.
        TraceTooLong: prompt and response do not fit the positions that the model reads.
    """
    if isinstance(reader, list | tuple):
        raise InputError(f"reader: got a list of {len(reader)}, expected one probe or direction")
    [scorer] = token_scorers(reader, controls=() if control is None else (control,))
    if len(scorer.vector) != model.d_model:
        raise InputError(f"reader: got one for states of width {len(scorer.vector)}, expected {model.d_model}")
    trace = prompt if isinstance(prompt, Trace) else Trace(trace_id="0", prompt=prompt, response="")
    trace = trace.with_(response="", given={}, spans={})
    wanted = None if positions is None else expressions(positions, "positions")
    check_spans(wanted or (), trace.span_names)
    request = Request(trace=trace, prefill=prefill)
    limit = threshold.value if isinstance(threshold, Threshold) else math.inf if threshold is None else threshold
    found_by = SegmentationSettings(finder=finder).make()
    stream = TokenStream(model, request, sampling or Sampling(), finder=found_by, scorers=[scorer])
    text, alarm = WrittenText(model.tokenizer, request, stream.prompt), False
    stream.advance()  # prompt and prefill
    for number, read in enumerate(iter(stream.advance, None)):
        added, score = text.write(read.ids[-1]), float(read.scores[0]["score"][-1])
        counts = wanted is None or _ends_at(model, trace.with_(response=text.text), wanted, finder)
        alarm = alarm or (counts and score > limit)
        controls = {
            f"control_{moment}": float(read.scores[0][f"{control}_{moment}"][-1]) if control else math.nan
            for moment in ("mean", "sd")
        }
        yield Watched(number=number, text=added, score=score, alarm=alarm, counts=counts, **controls)


def counted_tokens(encoding: Encoding, positions: Sequence[str] | None) -> list[int]:
    """Positions of the response's tokens at any of some span expressions, ascending; of all its tokens when None."""
    response = range(encoding.response_start, len(encoding.input_ids))
    if positions is None:
        return list(response)
    named = {position for expression in positions for position in encoding.positions(expression)}
    return [position for position in response if position in named]


def _ends_at(model: Model, trace: Trace, positions: Sequence[str], finder: str) -> bool:
    """Whether the last token of what is written so far counts."""
    try:
        encoding = model.encode(trace, segment(trace, finder=finder))
        return len(encoding.input_ids) - 1 in counted_tokens(encoding, positions)
    except TraceError:
        return False
