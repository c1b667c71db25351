"""Token trees: several continuations of one beginning in one sequence, what they have in common once.

    behind "… U":   Hmm, → that could …        one sequence:  Hmm, that could let me First …
                         → let me …
                    First …

Each token sees the beginning, those before it on its path and itself, and has the position that it has on its path. So
many continuations cost their different tokens, one copy of the beginning's keys and no padding (tree attention: Cai
et al. 2024, arXiv 2401.10774, there for speculative decoding). A layer's own mask (sliding window, chunks, padding)
says what a token sees at its position; the tree hides what does not lie on its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.attention_hook import observed_attention
from safekey_interp.capture.attention_mask import causal_or, without
from safekey_interp.capture.prefix_cache import has_prefix_cache
from safekey_interp.models.model import Model


class TokenTree(NamedTuple):
    """Continuations in one sequence."""

    ids: list[int]
    """Tokens, each behind those before it on its path."""
    depths: list[int]
    """How many tokens lie before it on its path."""
    parents: list[int]
    """The token before it; -1 for a first one."""
    paths: list[list[int]]
    """Of each continuation, where its tokens are."""

    @property
    def is_path(self) -> bool:
        """Whether there is one path alone, which a causal mask is right for."""
        return self.depths == list(range(len(self.depths)))


def token_tree(rows: Sequence[Sequence[int]]) -> TokenTree:
    """The tree of some continuations, each a list of token ids; an empty one has an empty path."""
    tree = TokenTree([], [], [], [])
    known: dict[tuple[int, int], int] = {}
    for row in rows:
        path: list[int] = []
        for depth, token in enumerate(row):
            step = (path[-1] if path else -1, token)
            if step not in known:
                known[step] = len(tree.ids)
                for values, value in zip(tree, (token, depth, step[0]), strict=False):
                    values.append(value)  # type: ignore[arg-type]
            path.append(known[step])
        tree.paths.append(path)
    return tree


@dataclass(frozen=True, kw_only=True)
class TreeBatch:
    """Trees side by side, one a row of a forward pass, padded on the right."""

    ids: Int64[Tensor, "row pos"]
    """Tokens."""
    depths: Int64[Tensor, "row pos"]
    """Each token's, which is its place behind the beginning."""
    sees: Bool[Tensor, "#row pos pos"] | None
    """Which tokens lie on the path to which, itself included; None where all rows are single paths."""
    paths: list[list[list[int]]]
    """Of each row and continuation, where its tokens are."""

    @classmethod
    def of(cls, trees: Sequence[TokenTree]) -> TreeBatch:
        """The trees; equal ones may be one object."""
        width = max(len(tree.ids) for tree in trees)
        ids = torch.zeros((len(trees), width), dtype=torch.int64)
        depths = torch.arange(width).repeat(len(trees), 1)
        for row, tree in enumerate(trees):
            ids[row, : len(tree.ids)] = torch.tensor(tree.ids, dtype=torch.int64)
            depths[row, : len(tree.ids)] = torch.tensor(tree.depths, dtype=torch.int64)
        sees = None
        if not all(tree.is_path for tree in trees):
            different = trees[:1] if all(tree is trees[0] for tree in trees) else trees
            sees = torch.stack([_sees(tree, width) for tree in different])
        return cls(ids=ids, depths=depths, sees=sees, paths=[tree.paths for tree in trees])


def _sees(tree: TokenTree, width: int) -> Bool[Tensor, "pos pos"]:
    sees = torch.eye(width, dtype=torch.bool)
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            sees[node] |= sees[parent]
    return sees


def packs(model: Model) -> bool:
    """Whether trees can go through a model: it keeps keys of a beginning, and its masks can be changed."""
    return has_prefix_cache(model) and find_layout(model.hf).decoder._can_set_attn_implementation()


class _TreeMask:
    """Joins each layer's mask with the trees."""

    def __init__(self, trees: TreeBatch) -> None:
        self._depths, self._sees = trees.depths, trees.sees
        self._joined: list[tuple[Tensor | None, Tensor]] = []

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """The mask of a layer; called by the attention hook."""
        for own, joined in self._joined:
            if own is attention_mask:
                return joined
        own = causal_or(attention_mask, query.shape[2], key.shape[2], query.device)
        self._joined.append((attention_mask, self._join(own)))
        return self._joined[-1][1]

    def _join(self, own: Tensor) -> Tensor:
        """What is seen at each token's position, of the beginning and of its path."""
        assert self._sees is not None
        sees, depths = self._sees.to(own.device), self._depths[: len(self._sees)].to(own.device)
        before = own.shape[-1] - own.shape[-2]
        columns = torch.arange(before, device=own.device).expand(len(depths), before)
        columns = torch.cat([columns, before + depths], dim=1)
        n = max(len(own), len(depths))
        rows = torch.arange(n, device=own.device)[:, None, None]
        at_positions = own.expand(n, *own.shape[1:])[rows, :, depths[:, :, None], columns[:, None, :]]
        hidden = torch.nn.functional.pad(~sees, (before, 0))[:, None]
        return without(at_positions.movedim(-1, 1), hidden)


@contextmanager
def seeing_trees(model: Model, trees: TreeBatch) -> Iterator[None]:
    """A block whose forward passes of ``model.hf`` have trees behind their beginnings.

    Observers of attention that come later see the masks of the trees.
    """
    if trees.sees is None:
        yield
        return
    with observed_attention(model.hf, _TreeMask(trees)):
        yield
