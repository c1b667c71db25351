"""Streams of traces through a model: segmented, encoded, grouped by length, measured, never all in memory.

Traces come in file order, in chunks, and leave in file order. A chunk's batches depend on the chunk alone, so that a
run that stopped between chunks resumes as if it had not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from safekey_interp.capture.batch_memory import token_budget
from safekey_interp.capture.batch_runner import LeftOut, Measured, measure_batch
from safekey_interp.capture.batches import plan_batches
from safekey_interp.capture.capture_request import DEFAULT_REQUEST, CaptureRequest
from safekey_interp.capture.kept_batches import KeptBatches
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.stream_settings import BatchSize, StreamSettings
from safekey_interp.data.span_checks import with_known_spans
from safekey_interp.data.span_expressions import NumberedSpan, span_references
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.unknown_tokens import UnknownTokens
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

CHUNK = 256
"""Traces of a chunk: what a killed run may have to do again."""

SMALL = 256
"""Width of a model that one thread serves as well as several."""

_T = TypeVar("_T")


def fixed_size(batch_size: BatchSize) -> int | None:
    """The number that a caller fixed; None for ``auto``, where as many go together as fit."""
    return None if batch_size == "auto" else batch_size


class Encoder(Protocol):
    """A model, or what encodes traces for one."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        ...

    @property
    def encode(self) -> Callable[..., Encoding]:
        """As :meth:`safekey_interp.models.model.Model.encode`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One trace on its way: prepared, then measured or left out."""

    trace: Trace
    """The trace."""
    segmentation: Segmentation
    """Where U and K lie in it."""
    encoding: Encoding | None = None
    """Its tokens; None when it could not be encoded."""
    measured: Measured | None = None
    """Result of the forward pass; None when left out."""
    left_out: str | None = None
    """Why it was left out, in words."""


def in_chunks(items: Iterable[_T], size: int = CHUNK) -> Iterator[list[_T]]:
    """The items in consecutive lists."""
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk


def prepare(
    model: Encoder, traces: Iterable[Trace], settings: StreamSettings, request: CaptureRequest = DEFAULT_REQUEST
) -> Iterator[Entry]:
    """Segment and encode traces; those that cannot be measured come out with their reason.

    Args:
        model: the model, or what encodes for it.
        traces: any number.
        settings: how they are segmented and encoded.
        request: what is measured of each.

    Raises:
        InputError: an expression names a span that no trace has; at the end, unless the traces are a list.

    Warns:
        UserWarning: at the end, if more than a twentieth of the tokens is unknown to the tokenizer.
    """
    unknown = UnknownTokens(model.tokenizer)
    for trace, segmentation in segmented(with_known_spans(traces, request.needs), settings):
        entry = encoded(model, Entry(trace=trace, segmentation=segmentation), settings, request)
        if entry.encoding is not None:
            unknown.add_ids(entry.encoding.input_ids.tolist())
        yield entry
    unknown.warn(model.name)


def encoded(model: Encoder, entry: Entry, settings: StreamSettings, request: CaptureRequest) -> Entry:
    """A segmented trace with its tokens, or with the reason why it cannot be measured; at once where it has either."""
    if entry.encoding is not None or entry.left_out is not None:
        return entry
    trace, segmentation = entry.trace, entry.segmentation
    none, needs = f"no key sentence: {segmentation.reason}", request.needs
    if not needs and trace.response and segmentation.key_sentence is None:
        return replace(entry, left_out=none)
    try:
        encoding = model.encode(
            trace, segmentation, max_length=settings.max_length, rendering=settings.rendering, reads=request.reads
        )
        absent = [name for name in needs if not len(encoding.positions(name))]
    except TraceError as error:
        return replace(entry, left_out=error.reason)
    left_out = None
    if not needs and trace.response and encoding.spans["key_sentence"] is None:
        left_out = "no token of its own lies in the key sentence"
    elif needs and len(absent) == len(needs):
        sought = [any(map(_found_by_finder, span_references([name]))) for name in needs]
        no_token = f"no token in {', '.join(needs)}"
        if segmentation.key_sentence is not None or not any(sought):
            left_out = no_token
        else:
            left_out = none if all(sought) else f"{no_token}; {none}"
    return replace(entry, encoding=encoding, left_out=left_out)


def _found_by_finder(span: str | NumberedSpan) -> bool:
    return (span.kind if isinstance(span, NumberedSpan) else span) in ("understanding", "key_sentence")


def measure_chunk(
    model: Model,
    entries: Sequence[Entry],
    request: CaptureRequest,
    settings: StreamSettings,
    *,
    token_weights_of: Collection[str] = (),
    kept: KeptBatches | None = None,
    on_batch: Callable[[int], None] = lambda n: None,
) -> list[Entry]:
    """Measure prepared traces, grouped by length.

    Args:
        model: the model.
        entries: from :func:`prepare`.
        request: what is asked of each.
        settings: how they are grouped.
        token_weights_of: traces whose attention on every token is kept, too.
        kept: the chunk's batches that an earlier attempt measured; those of this one are added.
        on_batch: called with the number of traces after each batch.

    Returns:
        The entries in the order given, each measured or left out.
    """
    done = list(entries)
    open_rows = [i for i, entry in enumerate(entries) if entry.left_out is None]
    on_batch(len(entries) - len(open_rows))
    lengths = [_encoding(entries[i]).end for i in open_rows]
    size = fixed_size(settings.batch_size)
    plan = plan_batches(lengths, batch_size=size, max_tokens=token_budget(model), cost=forward_cost(model))
    for number, batch in enumerate(plan):
        rows = [open_rows[i] for i in batch]
        encodings = [_encoding(entries[i]) for i in rows]
        answers = None if kept is None else kept.read(number, encodings)
        if answers is None:
            answers = _measured(model, encodings, request, settings, token_weights_of)
            if kept is not None:
                kept.add(number, answers)
        for i, answer in zip(rows, answers, strict=True):
            is_left_out = isinstance(answer, LeftOut)
            change: Any = {"left_out": answer.reason} if is_left_out else {"measured": answer}
            done[i] = replace(entries[i], **change)
        on_batch(len(rows))
    return done


def _measured(
    model: Model,
    encodings: Sequence[Encoding],
    request: CaptureRequest,
    settings: StreamSettings,
    token_weights_of: Collection[str],
) -> list[Measured | LeftOut]:
    """One batch; attention on every token of those alone of which it is kept."""
    keeps = [encoding.trace_id in token_weights_of for encoding in encodings]
    request = replace(request, token_weights=any(keeps))
    with on_threads(threads_for(model)):
        answers = measure_batch(model, encodings, request, backend=settings.backend)
    return [
        answer if keep or isinstance(answer, LeftOut) else replace(answer, token_weights=None)
        for answer, keep in zip(answers, keeps, strict=True)
    ]


def measure_stream(
    model: Model, traces: Iterable[Trace], request: CaptureRequest, settings: StreamSettings, **options: Any
) -> Iterator[Entry]:
    """Segment, encode and measure traces of any number, in file order; errors as for :func:`measure_entries`."""
    yield from measure_entries(model, prepare(model, traces, settings, request), request, settings, **options)


def measure_entries(
    model: Model,
    entries: Iterable[Entry],
    request: CaptureRequest,
    settings: StreamSettings,
    *,
    chunk_size: int = CHUNK,
    **options: Any,
) -> Iterator[Entry]:
    """Measure prepared traces of any number, in their order.

    Args:
        model: the model.
        entries: from :func:`prepare`.
        request: what is asked of each.
        settings: how they are grouped.
        chunk_size: traces whose results are in memory at once.
        **options: those of :func:`measure_chunk`.

    Raises:
        ModelError: the model's attention cannot be read.
        InputError: no trace is left to measure.
    """
    if request.attention:
        check_attention(model)
    any_measured, reason = False, None
    for chunk in in_chunks(entries, chunk_size):
        for entry in measure_chunk(model, chunk, request, settings, **options):
            any_measured |= entry.measured is not None
            if entry.left_out and reason is None:
                reason = f"trace {entry.trace.trace_id}: {entry.left_out}"
            yield entry
    if not any_measured:
        raise InputError(f"no trace can be measured; {reason or 'there are none'}")


def _encoding(entry: Entry) -> Encoding:
    assert entry.encoding is not None
    return entry.encoding


def forward_cost(model: Model) -> int:
    """Overhead of a forward pass, in tokens: measured on a CPU; kernel launches on a GPU."""
    return 32 if model.device.type == "cpu" else 1_024


def threads_for(model: Model) -> int:
    """Threads of a forward pass on a CPU: one for a small model, where a second waits more than it works, and waits
    for long when another program has its core."""
    return 1 if model.d_model <= SMALL else torch.get_num_threads()


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    """Have torch compute with so many threads inside the block."""
    before = torch.get_num_threads()
    if before == n:  # setting it takes as long as a small layer
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
