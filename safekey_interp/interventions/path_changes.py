"""Changes of path patching: what a receiver makes of a stream in which one sender writes something else.

What is changed in the stream lies at positions that all rows of a trace have in common. A query input that is changed
there changes the head there; a key or value input changes it at all later positions, in every row. The logits are
changed at these positions alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.component_grid import component_grid
from safekey_interp.capture.direct_paths import (
    Receiver,
    Sender,
    is_path,
    parse_receiver,
    parse_sender,
    received_z,
    written_delta,
)
from safekey_interp.capture.places import Place
from safekey_interp.capture.streaming import in_chunks
from safekey_interp.errors import InputError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.likelihood import rows_that_fit
from safekey_interp.interventions.activation_swaps import Change, Swap, match_positions, read_states

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class Path(NamedTuple):
    """One path."""

    sender: Sender
    """What writes."""
    receiver: Receiver
    """What reads it."""


def find_paths(model: Model, senders: Sequence[str] | None, receivers: Sequence[str]) -> tuple[Path, ...]:
    """Every path from some senders to some receivers, sender by sender.

    Args:
        model: the model.
        senders: as in :func:`patch_paths`.
        receivers: likewise.

    Raises:
        InputError: one that the model does not have, or no path.
    """
    for name, value in (("senders", senders), ("receivers", receivers)):
        if isinstance(value, str) or (value is not None and not value):
            raise InputError(
                f"{name}: got {value!r}, expected a list such as {['0.head.1', 'logits'][name[0] == 'r']!r}"
            )
    if senders is None:
        places = component_grid(model, None, ("head", "mlp_out")).places
        writers = [Sender(place.layer, place.head) for place in places]
    else:
        writers = [parse_sender(text, model) for text in dict.fromkeys(senders)]
        # Refuses those that the model lacks, such as heads of layers without attention.
        for writer in writers:
            component_grid(model, [writer.layer], [writer.place.site])
    readers = [parse_receiver(text, model) for text in dict.fromkeys(receivers)]
    paths = tuple(Path(writer, reader) for writer in writers for reader in readers if is_path(writer, reader))
    if not paths:
        shown = ", ".join(map(str, writers[:3])), ", ".join(map(str, readers[:3]))
        raise InputError(
            f"receivers: got {shown[1]}, none of which reads behind the senders {shown[0]}; expected a later layer, or "
            "logits"
        )
    return paths


def changes_of(
    model: Model,
    paths: Sequence[Path],
    positions: Sequence[str],
    donor: Sequence[Continuation],
    target: Sequence[Continuation],
) -> Iterator[tuple[Path, str, int, Change]]:
    """Each path and position with the number of tokens and the change of what the receiver makes of it.

    Args:
        model: the model.
        paths: sender by sender.
        positions: span expressions; of those that a trace lacks there is no change.
        donor: rows of the trace whose activations the senders have.
        target: rows of the trace that is patched.
    """
    senders = dict.fromkeys(path.sender for path in paths)
    states = read_states(model, donor[0], [sender.place for sender in senders])
    last = Place(model.n_layers - 1, "resid_post")
    stream = read_states(model, target[0], [last])[last]
    shared = target[0].ids[None, : min(row.n_own for row in target)]
    matches = {position: match_positions(donor, target, position) for position in positions}
    for sender, of_sender in groupby(paths, lambda path: path.sender):
        receivers = [path.receiver for path in of_sender]
        for position, match in matches.items():
            if not match.target:
                continue
            where = list(match.target)
            delta = written_delta(model, shared, sender, where, states[sender.place][list(match.source)])
            for receiver in receivers:
                read = _Read(position, match.target, delta)
                if receiver.head is None:
                    change: Change = read.swap(last, stream[where] + delta[0, where].to(stream))
                else:
                    change = _received(model, receiver, read, shared, target)
                yield Path(sender, receiver), position, len(where), change


class _Read(NamedTuple):
    """What a receiver reads otherwise."""

    position: str
    where: tuple[int, ...]
    delta: Float[Tensor, "1 pos d_model"]

    def swap(self, place: Place, states: Float[Tensor, "changed width"]) -> Swap:
        """What it then has at these positions."""
        return Swap(place, self.position, self.where, states)


def _received(
    model: Model, receiver: Receiver, read: _Read, shared: Int64[Tensor, "1 pos"], rows: Sequence[Continuation]
) -> Change:
    """z of a head: with another query at those positions, as in all rows; with another key or value, row by row."""
    place, first = Place(receiver.layer, f"head.{receiver.head}"), read.where[0]
    if receiver.input == "q":
        return read.swap(place, received_z(model, shared, receiver, read.delta)[0, list(read.where)])
    width, swaps = max(len(row.ids) for row in rows), []
    for some in in_chunks(rows, rows_that_fit(model, width, 0)):
        # Padded on the right, where causality hides the padding.
        ids = torch.zeros((len(some), width), dtype=torch.int64)
        for number, row in enumerate(some):
            ids[number, : len(row.ids)] = row.ids
        delta = read.delta.new_zeros((len(some), width, read.delta.shape[-1]))
        delta[:, : read.delta.shape[1]] = read.delta
        z = received_z(model, ids, receiver, delta)
        for of_row, row in zip(z, some, strict=True):
            behind = tuple(range(first, len(row.ids)))
            swaps.append(Swap(place, read.position, behind, of_row[first : len(row.ids)]))
    return swaps
