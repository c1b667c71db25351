"""Decoding under edits: which tokens each edit changes, pass by pass, and the hooks that change them.

A pass of a batch holds the prompts, or one new token a row. When it begins, each edit's positions are read from the
text so far; what a token then gets, it keeps: a pass that computes earlier tokens again (a row alone, whole) does to
each what was done to it before. Without an edit, nothing is attached.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safekey_interp.capture.attention_hook import observed_attention
from safekey_interp.capture.decoding_passes import HiddenPairs, told_of_passes
from safekey_interp.capture.residual_edits import Place, ablate, add, edited
from safekey_interp.generation.generation_edits import Ablate, GenerationEdit, HideSpan, Steer
from safekey_interp.generation.requests import Request
from safekey_interp.generation.tokens import PromptTokens
from safekey_interp.generation.written_positions import WrittenPositions
from safekey_interp.segmentation.finder_registry import Finder

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

Keys = tuple[int, ...]
"""Positions that a token does not see."""
_CHANGES = {Steer: add, Ablate: ablate}


class EditedRow:
    """What the edits of one request do to its tokens, from the first on."""

    def __init__(
        self, tokenizer: Any, request: Request, prompt: PromptTokens, finder: Finder, ends: Collection[int] = ()
    ) -> None:
        """Find the positions that are known before the first new token.

        Args:
            tokenizer: the model's.
            request: what is asked, with its edits.
            prompt: its tokens.
            finder: finds U and K.
            ends: tokens that end a response; nothing is done to them and behind them.

        Raises:
            InputError: an unknown position.
            TraceError: a position that is neither there nor found later.
        """
        self.edits: tuple[GenerationEdit, ...] = request.edits
        """The edits."""
        self.done: list[list[bool | Keys]] = [[] for _ in self.edits]
        """Of each edit and token: whether its states are changed, or the keys that it does not see."""
        self.n_prompt = len(prompt.ids)
        """Tokens of prompt and prefill."""
        self._ends = ends
        self._n_known, self._has_ended = 0, False
        self._written = None
        if any(edit.positions is not None for edit in self.edits):
            self._written = WrittenPositions(tokenizer, request, prompt, finder)
        self._reach(self.n_prompt)

    def read(self, tokens: Sequence[int], begin: int) -> None:
        """Tokens are about to be read.

        Args:
            tokens: all of a pass.
            begin: position of the first; below 0 where it is padding.
        """
        for position in range(max(begin, self._n_known), begin + len(tokens)):
            token = tokens[position - begin]
            self._has_ended |= token in self._ends
            if self._written is not None and not self._has_ended:
                self._written.write(token)
            self._reach(position + 1)

    def touched(self) -> tuple[tuple[int, ...], ...]:
        """Of each edit, the tokens whose states it changed, or that it hid something from."""
        return tuple(tuple(at for at, value in enumerate(values) if value) for values in self.done)

    def changes(self, position: int) -> tuple[Any, ...]:
        """What is done to a token that its states depend on: two rows of the same tokens and changes have the same."""
        return tuple(
            (*_key(edit), seen)
            for edit, values in zip(self.edits, self.done, strict=True)
            if (seen := _seen(values[position], position))
        )

    def _reach(self, end: int) -> None:
        for edit, values in zip(self.edits, self.done, strict=True):
            values.extend(self._of(edit, range(self._n_known, end)))
        self._n_known = end

    def _of(self, edit: GenerationEdit, tokens: range) -> list[Any]:
        if self._has_ended:
            return [False] * len(tokens)
        if edit.positions is None:
            return [True] * len(tokens)
        assert self._written is not None
        found = [frozenset(self._written.positions(name)) for name in edit.positions]
        if not isinstance(edit, HideSpan):
            inside = frozenset[int]().union(*found)
            return [token in inside for token in tokens]
        keys: Keys = tuple(sorted(found[0]))
        return [keys if (token in found[1] if edit.from_ else token not in found[0]) else () for token in tokens]


def _key(edit: GenerationEdit) -> tuple[Any, ...]:
    """What an edit does, wherever it does it."""
    layers = None if edit.layers is None else tuple(edit.layers)
    if isinstance(edit, HideSpan):
        return "hide", layers, None if edit.heads is None else tuple(edit.heads)
    return type(edit).__name__, layers, edit.direction.layer, edit.direction.site, edit.vector.tobytes()


def _seen(done: bool | Keys, position: int) -> bool | Keys:
    """Of what is hidden from a token, what it would see."""
    return done if isinstance(done, bool) else tuple(key for key in done if key < position)


class _Group(NamedTuple):
    """Rows of a batch whose edit of one number does the same kind of change at one place."""

    number: int
    change: Any
    vectors: Float[Tensor, "row d_model"]
    """Of every row of the batch; zeros where a row has no part."""
    rows: frozenset[int]


class EditedDecoding:
    """The edits of a batch while it is decoded."""

    def __init__(self, model: Model, rows: Sequence[EditedRow]) -> None:
        """Collect what is to be done where.

        Args:
            model: the model.
            rows: one a row of the batch.
        """
        self.rows = rows
        """One a row of the batch."""
        self._model = model
        self._groups = _groups(model, rows)
        self._hides = [
            (row, number, edit, model.layer_numbers(edit.layers))
            for row, one in enumerate(rows)
            for number, edit in enumerate(one.edits)
            if isinstance(edit, HideSpan)
        ]
        widest = max((one.n_prompt for one in rows), default=0)
        self._whole = list(range(len(rows))), [widest - one.n_prompt for one in rows]
        self._in_pass, self._starts = self._whole
        self._begin = self._n = 0
        self._made: dict[Any, Any] = {}

    def alike(self, row: int) -> Any:
        """What tells a row's edits of its prompt from another's."""
        one = self.rows[row]
        return tuple(map(id, one.edits)), tuple(map(tuple, one.done))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which passes of the batch are edited; nothing stays attached behind it."""
        with ExitStack() as stack:
            if self._groups or self._hides:
                stack.enter_context(told_of_passes(self._model.hf, self.begins))
            if self._groups:
                changes = {place: partial(self._changed, place) for place in self._groups}
                stack.enter_context(edited(self._model, changes))
            if self._hides:
                stack.enter_context(observed_attention(self._model.hf, HiddenPairs(self._pairs)))
            yield

    @contextmanager
    def passing(self, rows: Sequence[int], *, padded: bool = True) -> Iterator[None]:
        """A block in which passes hold some rows of the batch alone, with their padding or without."""
        starts = [self._whole[1][row] if padded else 0 for row in rows]
        self._in_pass, self._starts = list(rows), starts
        try:
            yield
        finally:
            self._in_pass, self._starts = self._whole

    def begins(self, ids: Int64[Tensor, "row pos"], n_past: int) -> None:
        """A pass begins; behind ``n_past`` tokens of each row, padding counted."""
        self._begin, self._n = n_past, ids.shape[1]
        self._made.clear()
        for row, start, tokens in zip(self._in_pass, self._starts, ids.tolist(), strict=True):
            self.rows[row].read(tokens, n_past - start)

    def _changed(self, place: Place, states: Float[Tensor, "row pos d_model"]) -> Tensor:
        for group in self._groups[place]:
            inside = self._inside(group)
            if inside is not None:
                moved = group.change(states, group.vectors[self._in_pass].to(states.device))
                states = torch.where(rearrange(inside, "row pos -> row pos 1").to(states.device), moved, states)
        return states

    def _inside(self, group: _Group) -> Bool[Tensor, "row pos"] | None:
        """The tokens of the pass that a group changes; None for none."""
        key = (group.number, group.rows)
        if key not in self._made:
            inside = np.zeros((len(self._in_pass), self._n), bool)
            for at, (row, start) in enumerate(zip(self._in_pass, self._starts, strict=True)):
                if row in group.rows:
                    skipped = max(0, start - self._begin)
                    values = self.rows[row].done[group.number]
                    first = self._begin - start + skipped
                    inside[at, skipped:] = values[first : self._begin - start + self._n]
            self._made[key] = torch.as_tensor(inside) if inside.any() else None
        return self._made[key]

    def _pairs(self, layer: int) -> Bool[Tensor, "row heads q_pos k_pos"] | None:
        """The pairs that a layer hides in the pass; None for none."""
        hides = [one for one in self._hides if one[3] is None or layer in one[3]]
        key = tuple(one[:2] for one in hides)
        if key not in self._made:
            by_head = any(edit.heads is not None for _, _, edit, _ in hides)
            n_heads = self._model.n_heads if by_head else 1
            pairs = np.zeros((len(self._in_pass), n_heads, self._n, self._begin + self._n), bool)
            for row, number, edit, _ in hides:
                heads = list(edit.heads) if edit.heads is not None else list(range(n_heads))
                for at in (at for at, one in enumerate(self._in_pass) if one == row):
                    start = self._starts[at]
                    for query in range(max(0, start - self._begin), self._n):
                        keys: Any = self.rows[row].done[number][self._begin + query - start] or ()
                        columns = [key + start for key in keys if key + start < pairs.shape[-1]]
                        pairs[at, np.asarray(heads)[:, None], query, columns] = True
            self._made[key] = torch.as_tensor(pairs) if pairs.any() else None
        return self._made[key]


def _groups(model: Model, rows: Sequence[EditedRow]) -> dict[Place, list[_Group]]:
    found: dict[Place, dict[tuple[int, type], dict[int, np.ndarray]]] = {}
    for row, one in enumerate(rows):
        for number, edit in enumerate(one.edits):
            if not isinstance(edit, HideSpan):
                for place in edit.places(model):
                    found.setdefault(place, {}).setdefault((number, type(edit)), {})[row] = edit.vector
    groups = {}
    for place, by_change in found.items():
        groups[place] = []
        for (number, kind), vectors in sorted(by_change.items(), key=lambda item: item[0][0]):
            stacked = np.zeros((len(rows), model.d_model))
            for row, vector in vectors.items():
                stacked[row] = vector
            tensor = torch.as_tensor(stacked, dtype=torch.float32)
            groups[place].append(_Group(number, _CHANGES[kind], tensor, frozenset(vectors)))
    return groups
