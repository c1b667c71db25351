"""Tree of a session's branches, and the one lock under which they are written, a forward pass at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any

from safekey_interp.capture.batch_runner import is_out_of_memory
from safekey_interp.data.trace import Trace, replace_surrogates
from safekey_interp.errors import InputError, RunError, SafekeyError, first_line
from safekey_interp.exploration.branch_files import branch_of, ended_of, spans_of, token_of
from safekey_interp.exploration.branch_record import Branch, StatePatch
from safekey_interp.exploration.branch_state import BranchState
from safekey_interp.exploration.kept_prefixes import KeptPrefixes
from safekey_interp.exploration.patched_states import PatchedStates, patched_from
from safekey_interp.exploration.session_events import BranchFailed, Event
from safekey_interp.exploration.session_log import SessionLog
from safekey_interp.exploration.session_readers import SessionReader
from safekey_interp.generation.sampling import Sampling
from safekey_interp.generation.token_stream import TokenStream
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
        """Held for one forward pass, and for what needs the model; what is known is read without it."""
        self.changes = RLock()
        """Held while the list of branches or the log is changed, never during a pass; taken behind :attr:`lock`."""
        self.log: SessionLog | None = None
        """Where branches are saved; None for nowhere."""
        self.readers: list[SessionReader] = []
        """Score every token; a branch takes those that there are when it begins."""
        self._models, self._finder = models, finder
        self._states: dict[str, BranchState] = {}
        self._prefixes = KeptPrefixes(memory_gb)
        self._next = 0

    def new_id(self) -> str:
        """An id that was never given."""
        with self.changes:
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
            patched=self._patched,
        )

    def source_of(self, patch: StatePatch, model: int) -> BranchState:
        """What states of a patch are read from, by a model of this number. Raises InputError where it is not there."""
        if isinstance(patch.source, str):
            return self.state(patch.source)
        return self.reading(patch.source, model)

    def reading(self, trace: Trace, model: int) -> BranchState:
        """A trace as a model of this number reads it. Raises TraceError where it cannot."""
        asked = trace.with_(response="", given={}, spans={})
        about: Any = dict.fromkeys(("branch_id", "name", "change"), "")
        return self.make(
            Branch(**about, model=model, trace=asked, prefill=trace.response, edits=(), sampling=Sampling())
        )

    def add(self, branches: Iterable[Branch]) -> None:
        """Put new branches into the tree. Raises TraceError, InputError where one cannot be begun; then none is."""
        states = [self.make(branch) for branch in branches]
        for state in states:
            if state.branch.edits or state.branch.patch:
                with self.lock:
                    _ = state.stream  # positions of edits are looked for when it begins
        with self.changes:
            if self.log is not None:
                self.log.write_branches(state.branch for state in states)
            self._states |= {state.branch_id: state for state in states}

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
            state.is_running, state.failed = True, None
            state.must_stop = False
        try:
            while True:
                with self.lock:
                    if state.must_stop or state.is_deleted:
                        break
                    events = self._advance(state)
                yield from events
                if state.ended is not None or state.failed is not None:
                    break
        finally:
            with self.lock:
                state.is_running = False

    def rename(self, state: BranchState, name: str) -> Branch:
        """Call a branch something else."""
        with self.changes:
            known = replace_surrogates(name)
            self._write(renamed={"branch": state.branch_id, "name": known})
            state.branch = replace(state.branch, name=known)
        return state.branch

    def delete(self, state: BranchState) -> tuple[str, ...]:
        """Delete a branch with its control and all that came from them."""
        gone = {state.branch_id}
        with self.lock, self.changes:
            for each in self.states():  # children come behind their parents
                if each.branch.parent in gone or each.branch.control_of in gone:
                    gone.add(each.branch_id)
            self._write(deleted={"branches": sorted(gone, key=int)})
            self._remove(gone)
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
        for state in self.states():
            if state.ended is not None:
                log.write_scores(state.branch_id, state.tokens)  # lost where the end was the last that was written
        self.log = log

    def stream_under(self, state: BranchState, under: BranchState) -> TokenStream:
        """A branch's tokens as another branch's model and changes would read them."""
        if state is under:
            return state.stream
        read = {name: getattr(state.branch, name) for name in ("trace", "prefill", "prefill_ids")}
        changed = replace(under.branch, **read)
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
            events.append(self._failed(error, state))
        else:
            self._prefixes.use(state)
        if self.log is not None:
            try:
                with self.changes:
                    self.log.write_events(events, state.tokens)
            except RunError as error:
                events.append(self._failed(error, state))
        return events

    def _begin(self, state: BranchState, events: list[Event]) -> None:
        """Take over what another branch has read."""
        _ = state.stream
        state.is_fresh = False
        found = self._prefixes.longest(state)
        if found is not None:
            events.extend(state.begin_as(*found))

    def _failed(self, error: Exception, state: BranchState) -> BranchFailed:
        """What an error is told as; the branch may be run again."""
        message = " ".join(first_line(error).split())
        if is_out_of_memory(error):
            self.forget_prefixes()
            n = state.prompt.response_start + len(state.tokens)
            message = f"out of memory at {n} tokens; shorten the prompt, or take a smaller model"
        state.failed = BranchFailed(branch=state.branch_id, message=message)
        return state.failed

    def _patched(self, state: BranchState) -> PatchedStates | None:
        patch = state.branch.patch
        if patch is None:
            return None
        source = self.source_of(patch, state.branch.model)
        if source.model is not state.model:
            raise InputError("patch: got states of another model, expected a branch of the same")
        places = source.encoding.positions(patch.positions), state.written.given.positions(patch.positions)
        return patched_from(source.stream, *places, patch.layers)

    def _remove(self, gone: Iterable[str]) -> None:
        for branch_id in gone:
            if (state := self._states.pop(branch_id, None)) is not None:
                state.is_deleted = True
                state.must_stop = True
            self._prefixes.forget(branch_id)

    def _write(self, **line: Any) -> None:
        if self.log is not None:
            self.log.write(line)


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
