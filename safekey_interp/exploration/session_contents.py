"""Contents of a session: its models, presets and readers, and the tree of its branches, to be read, named and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from safekey_interp.data.trace import Trace
from safekey_interp.exploration.branch_code import code_of
from safekey_interp.exploration.branch_readings import BranchReadings
from safekey_interp.exploration.branch_record import Branch, BranchCode, Transcript
from safekey_interp.exploration.branch_tree import BranchTree
from safekey_interp.exploration.session_files import write_branches
from safekey_interp.exploration.session_readers import SessionReader, Signal, signals
from safekey_interp.models.model import Model


class SessionContents(BranchReadings):
    """What a session holds."""

    def __init__(
        self, models: tuple[Model, ...], traces: tuple[Trace, ...], tree: BranchTree, settings: Mapping[str, Any]
    ) -> None:
        self._models, self._traces, self._tree, self._settings = models, traces, tree, settings
        self._signals: dict[tuple[str, ...], dict[str, Signal]] = {}

    @property
    def models(self) -> tuple[Model, ...]:
        """Its models; a branch names its own by number."""
        return self._models

    @property
    def traces(self) -> tuple[Trace, ...]:
        """Presets for prompts."""
        return self._traces

    @property
    def readers(self) -> tuple[SessionReader, ...]:
        """What scores every token."""
        return tuple(self._tree.readers)

    @property
    def folder(self) -> Path | None:
        """The run folder; None for none."""
        return None if self._tree.log is None else self._tree.log.path

    def branch(self, branch_id: str) -> Branch:
        """A branch as it is now. Raises InputError where there is none of this id."""
        return self._tree.state(branch_id).branch

    def tree(self) -> tuple[Branch, ...]:
        """All branches, parents before their children, in the order in which they were made."""
        return tuple(state.branch for state in self._tree.states())

    def signals(self, traces: Sequence[Trace]) -> dict[str, Signal]:
        """What the first reader says of traces at the tokens that it reads, by the id of a trace.

        Traces that have no such token are left out, and all of them where there is no threshold. What was read once is
        kept.
        """
        readers = self.readers
        if not readers or not traces:
            return {}
        asked = (readers[0].name, *(trace.trace_id for trace in traces))
        if asked not in self._signals:
            with self._tree.lock:
                self._signals[asked] = signals(readers[0], self._models, traces, self._settings["finder"])
        return self._signals[asked]

    def controls(self, branch: Branch | str) -> tuple[Branch, ...]:
        """All random controls of a branch, in the order in which they were drawn."""
        branch_id = self._tree.state(branch).branch_id
        return tuple(each for each in self.tree() if each.control_of == branch_id)

    def transcript(self, branch: Branch | str) -> Transcript:
        """What a branch has read and written so far, with scores and spans."""
        return self._tree.state(branch).transcript()

    def rename(self, branch: Branch | str, name: str) -> Branch:
        """Call a branch something else."""
        return self._tree.rename(self._tree.state(branch), name)

    def delete(self, branch: Branch | str) -> tuple[str, ...]:
        """Delete a branch with all that came from it; ids of what is gone. What runs is cancelled."""
        return self._tree.delete(self._tree.state(branch))

    def code(self, branch: Branch | str) -> BranchCode:
        """Python and a command that repeat a branch."""
        branches = {each.branch_id: each for each in self.tree()}
        return code_of(
            self._tree.state(branch).branch, branches, self._models, self.folder,
            before=lambda branch_id, position: self._tree.state(branch_id).text_before(position),
        )  # fmt: skip

    def save_traces(self, path: str | Path, branches: Iterable[Branch | str] | None = None) -> int:
        """Write responses as traces to a JSONL file that ``probe`` reads; how many they are.

        Args:
            path: the file; it is replaced.
            branches: all that have a response when None.
        """
        chosen = self._tree.states() if branches is None else [self._tree.state(each) for each in branches]
        return write_branches(Path(path), [state for state in chosen if state.tokens])

    def close(self) -> None:
        """Pause what runs and release the folder; the session cannot be used any more."""
        for state in self._tree.states():
            state.must_stop = True
        with self._tree.lock:
            self._tree.forget_prefixes()
            if self._tree.log is not None:
                with self._tree.changes:
                    self._tree.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
