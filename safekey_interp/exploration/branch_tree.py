"""Tree of a session's branches, and the one lock under which they are written, a forward pass at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, replace
from threading import RLock
from typing import Any

from safekey_interp.capture.batch_runner import is_out_of_memory
from safekey_interp.data.trace import replace_surrogates
from safekey_interp.errors import InputError, SafekeyError, first_line
from safekey_interp.exploration.branch_files import (
    branch_of,
    branch_record,
    ended_of,
    spans_of,
    spans_record,
    token_of,
    token_record,
)
from safekey_interp.exploration.branch_record import Branch
from safekey_interp.exploration.branch_state import BranchState
from safekey_interp.exploration.kept_prefixes import KeptPrefixes
from safekey_interp.exploration.patched_states import PatchedStates, patched_from
from safekey_interp.exploration.session_events import BranchEnded, BranchFailed, Event, SpansFound, TokenWritten
from safekey_interp.exploration.session_log import SessionLog
from safekey_interp.exploration.session_readers import SessionReader
from safekey_interp.generation.token_stream import Around, TokenStream
from safekey_interp.models.model import Model
from safekey_interp.segmentation.finder_registry import Finder


class BranchTree:
    """All branches of a session."""

    def __init__(self, models: Sequence[Model], finder: Finder, memory_gb: float) -> None:
        """Begin without a branch.

        Args:
            models: those that write.
            finder: finds U and K.
            memory_gb: most memory of keys and values.
        """
        self.lock = RLock()
        """Held for one forward pass, and whenever branches are changed."""
        self.log: SessionLog | None = None
        """Where branches are saved; None for nowhere."""
        self.readers: list[SessionReader] = []
        """Score every token; a branch takes those that there are when it begins."""
        self._models, self._finder = models, finder
        self._states: dict[str, BranchState] = {}
        self._prefixes = KeptPrefixes(memory_gb)
        self._patches: dict[str, PatchedStates] = {}
        self._next = 0

    def new_id(self) -> str:
        """An id that was never given."""
        self._next += 1
        return str(self._next - 1)

    def make(self, branch: Branch) -> BranchState:
        """The state of a branch that is not in the tree."""
        model = self._models[branch.model]
        return BranchState(
            branch,
            model,
            self._finder,
            readers=lambda: [each for each in self.readers if branch.model in each.models],
            around=lambda: self._around(branch),
        )

    def add(self, branches: Iterable[Branch]) -> None:
        """Put new branches into the tree. Raises TraceError, InputError where one cannot be begun; then none is."""
        states = [self.make(branch) for branch in branches]
        with self.lock:
            for state in states:
                self._states[state.branch_id] = state
            try:
                for state in states:
                    if state.branch.edits or state.branch.patch:
                        _ = state.stream  # positions of edits are looked for when it begins
            except BaseException:
                for state in states:
                    del self._states[state.branch_id]
                raise
            for state in states:
                self._write(branch=None if self.log is None else branch_record(state.branch, self.log.directions))
            self._flush()

    def state(self, branch: Branch | str) -> BranchState:
        """The state of a branch. Raises InputError where there is none."""
        branch_id = branch if isinstance(branch, str) else branch.branch_id
        if branch_id not in self._states:
            known = ", ".join(self._states) or "none"
            raise InputError(f"branch: got {branch_id!r}, expected one of the session's: {known}")
        return self._states[branch_id]

    def states(self) -> list[BranchState]:
        """Of all branches, in the order in which they were made."""
        return list(self._states.values())

    def run(self, state: BranchState) -> Generator[Event]:
        """Write a branch to its end, or until it is stopped."""
        with self.lock:
            if state.is_running:
                raise InputError(f"branch {state.branch_id}: is being run elsewhere")
            state.is_running = True
            state.stop.clear()
        try:
            while not (state.stop.is_set() or state.is_deleted):
                with self.lock:
                    events = self._advance(state)
                yield from events
                if state.ended is not None or state.failed is not None:
                    break
        finally:
            with self.lock:
                state.is_running = False

    def rename(self, state: BranchState, name: str) -> Branch:
        """Call a branch something else."""
        with self.lock:
            state.branch = replace(state.branch, name=replace_surrogates(name))
            self._write(renamed={"branch": state.branch_id, "name": state.branch.name})
            self._flush()
        return state.branch

    def delete(self, state: BranchState) -> tuple[str, ...]:
        """Delete a branch with its control and all that came from them."""
        gone = {state.branch_id}
        for each in self.states():  # children come behind their parents
            if each.branch.parent in gone or each.branch.control_of in gone:
                gone.add(each.branch_id)
        with self.lock:
            self._remove(gone)
            self._write(deleted={"branches": sorted(gone, key=int)})
            self._flush()
        return tuple(sorted(gone, key=int))

    def restore(self, log: SessionLog) -> None:
        """Take up the branches of a session that was saved, and save to it from now on."""
        for kind, record in log.lines():
            if kind == "branch":
                state = self.make(branch_of(record, log.directions))
                self._states[state.branch_id] = state
                self._next = max(self._next, int(state.branch_id) + 1)
            elif kind == "deleted":
                self._remove(record["branches"])
            elif (known := self._states.get(record["branch"])) is not None:
                _restore(known, kind, record)
        self.log = log

    def stream_under(self, state: BranchState, under: BranchState) -> TokenStream:
        """A branch's tokens as another branch's model and changes would read them."""
        if state is under:
            return state.stream
        changed = replace(under.branch, trace=state.branch.trace, prefill=state.branch.prefill)
        made = self.make(changed)
        made.tokens = state.tokens
        return made.stream

    def forget_prefixes(self) -> None:
        """Drop all keys and values."""
        for state in self.states():
            self._prefixes.forget(state.branch_id)

    def _advance(self, state: BranchState) -> list[Event]:
        """One pass of a branch, with what is written down of it."""
        events: list[Event] = []
        try:
            if state.is_fresh and not state.tokens:
                self._begin(state, events)
            n = len(events)
            while len(events) == n and state.ended is None:
                for event in state.advance():
                    events.append(event)  # one by one: those before an error count
        except (SafekeyError, RuntimeError, MemoryError, OSError) as error:
            state.failed = BranchFailed(branch=state.branch_id, message=self._why(error, state))
            events.append(state.failed)
        else:
            self._prefixes.use(state)
        for event in events:
            self._record(event, state)
        self._flush()
        return events

    def _begin(self, state: BranchState, events: list[Event]) -> None:
        """Take over what another branch has read."""
        _ = state.stream
        state.is_fresh = False
        found = self._prefixes.longest(state, self._patches)
        if found is not None:
            events.extend(state.begin_as(*found))

    def _why(self, error: Exception, state: BranchState) -> str:
        if is_out_of_memory(error):
            self.forget_prefixes()
            n = len(state.prompt.ids) + len(state.tokens)
            return f"out of memory at {n} tokens; shorten the prompt, or take a smaller model"
        return " ".join(first_line(error).split())

    def _around(self, branch: Branch) -> Sequence[Around]:
        if branch.patch is None:
            return ()
        if branch.branch_id not in self._patches:
            source, own = self.state(branch.patch.source), self._states.get(branch.branch_id) or self.make(branch)
            name = branch.patch.positions
            places = source.encoding.positions(name), own.encoding.positions(name)
            if source.model is not own.model:
                raise InputError("patch: got states of another model, expected a branch of the same")
            self._patches[branch.branch_id] = patched_from(source.stream, *places, branch.patch.layers)
        return [self._patches[branch.branch_id].applied]

    def _remove(self, gone: Iterable[str]) -> None:
        for branch_id in gone:
            if (state := self._states.pop(branch_id, None)) is not None:
                state.is_deleted = True
                state.stop.set()
            self._prefixes.forget(branch_id)
            self._patches.pop(branch_id, None)

    def _record(self, event: Event, state: BranchState) -> None:
        if self.log is None:
            return
        if isinstance(event, TokenWritten):
            self._write(token=token_record(event))
        elif isinstance(event, SpansFound):
            self._write(spans=spans_record(event))
        elif isinstance(event, BranchEnded):
            self._write(ended=asdict(event))
            self.log.write_scores(state.branch_id, state.tokens)
        else:
            self._write(failed=asdict(event))

    def _write(self, **line: Any) -> None:
        if self.log is not None:
            self.log.write(**line)

    def _flush(self) -> None:
        if self.log is not None:
            self.log.flush()


def _restore(state: BranchState, kind: str, record: dict[str, Any]) -> None:
    """What one line of a log says of a branch."""
    if kind == "token":
        state.tokens.append(token_of(record))
        state.failed = None
    elif kind == "spans":
        state.spans = spans_of(record)
    elif kind == "ended":
        state.ended = ended_of(record)
    elif kind == "failed":
        state.failed = BranchFailed(**record)
    elif kind == "renamed":
        state.branch = replace(state.branch, name=record["name"])
