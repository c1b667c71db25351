"""Keys and values of branches, kept within a limit of memory, for those that begin alike."""

from __future__ import annotations

from safekey_interp.exploration.branch_state import BranchState


class KeptPrefixes:
    """The branches whose keys and values are kept, those used last at the end."""

    def __init__(self, memory_gb: float) -> None:
        """Keep none yet.

        Args:
            memory_gb: most memory, GB (10⁹ bytes); what branches share counts for each.
        """
        self._most = memory_gb * 1e9
        self._kept: dict[str, BranchState] = {}
        self._sizes: dict[str, int] = {}

    def use(self, state: BranchState) -> None:
        """Count a branch as the one that was used last, and drop the oldest where all are too large."""
        self._kept.pop(state.branch_id, None)
        self._kept[state.branch_id] = state
        self._sizes[state.branch_id] = state.n_bytes
        idle = [name for name, each in self._kept.items() if not (each is state or each.is_running)]
        while idle and sum(self._sizes.values()) > self._most:
            self.forget(idle.pop(0))

    def forget(self, branch_id: str) -> None:
        """Drop a branch."""
        if (state := self._kept.pop(branch_id, None)) is not None:
            del self._sizes[branch_id]
            state.drop()

    def longest(self, state: BranchState) -> tuple[BranchState, int] | None:
        """The branch that has read most of the tokens which a new one begins with, with the same changes and the same
        readers, and how many, fewer than all; None for none."""
        best: tuple[BranchState, int] | None = None
        readers = [reader.name for reader in state.readers]
        for other in self._kept.values():
            if other is state or other.model is not state.model:
                continue
            if [reader.name for reader in other.readers] != readers:
                continue
            n = _common(state, other)
            if best is None or n > best[1]:
                best = other, n
        return best


def _common(state: BranchState, other: BranchState) -> int:
    """Tokens from the first on that both have, with the same changes."""
    mine, its = state.stream, other.stream
    patched = {at for each in (state, other) if each.patched is not None for at in each.patched.positions}
    most = min(len(mine.ids) - 1, its.n_read)
    for at in range(most):
        if mine.ids[at] != its.ids[at] or mine.row.changes(at) != its.row.changes(at) or at in patched:
            return at
    return max(0, most)
