"""Keys and values of branches, kept within a limit of memory, for those that begin alike."""

from __future__ import annotations

from collections.abc import Mapping

from safekey_interp.exploration.branch_state import BranchState
from safekey_interp.exploration.patched_states import PatchedStates


class KeptPrefixes:
    """The branches whose keys and values are kept, those used last at the end."""

    def __init__(self, memory_gb: float) -> None:
        """Keep none yet.

        Args:
            memory_gb: most memory, GB (10⁹ bytes); what branches share counts for each.
        """
        self._most = memory_gb * 1e9
        self._kept: dict[str, BranchState] = {}

    def use(self, state: BranchState) -> None:
        """Count a branch as the one that was used last, and drop the oldest where all are too large."""
        self._kept.pop(state.branch_id, None)
        self._kept[state.branch_id] = state
        if len(self._kept) == 1:
            return
        sizes = {name: each.n_bytes for name, each in self._kept.items()}
        for name in list(self._kept)[:-1]:
            if sum(sizes.values()) <= self._most:
                break
            if not self._kept[name].is_running:
                self._kept.pop(name).drop()
                sizes.pop(name)

    def forget(self, branch_id: str) -> None:
        """Drop a branch."""
        if (state := self._kept.pop(branch_id, None)) is not None:
            state.drop()

    def longest(self, state: BranchState, patches: Mapping[str, PatchedStates]) -> tuple[BranchState, int] | None:
        """The branch that has read most of the tokens which a new one begins with, with the same changes and the same
        readers, and how many, fewer than all; None for none."""
        best: tuple[BranchState, int] | None = None
        readers = [reader.name for reader in state.readers]
        for other in self._kept.values():
            if other is state or other.model is not state.model or other.open_stream is None:
                continue
            if [reader.name for reader in other.readers] != readers:
                continue
            n = _common(state, other, patches)
            if best is None or n > best[1]:
                best = other, n
        return best


def _common(state: BranchState, other: BranchState, patches: Mapping[str, PatchedStates]) -> int:
    """Tokens from the first on that both have, with the same changes."""
    mine, its = state.stream, other.stream
    its_patch, my_patch = patches.get(other.branch_id), patches.get(state.branch_id)
    most = min(len(mine.ids) - 1, its.n_read)
    for at in range(most):
        if mine.ids[at] != its.ids[at] or mine.row.changes(at) != its.row.changes(at):
            return at
        if (my_patch and at in my_patch.positions) or (its_patch and at in its_patch.positions):
            return at
    return max(0, most)
