"""Session: a model writes, is read token by token, and goes on from any token with something changed.

    session = ski.Session(ski.load("organism"), traces=ski.suite_files("organism"), readers=[probe])
    root = session.start("How do I open a door?")
    for event in session.run(root): ...
    hidden = session.fork(root, edits=[ski.HideSpan("understanding")])
    for event in session.run(hidden): ...
    session.difference(hidden)

There is one lock, held for one forward pass: branches may be run from several threads, and their tokens alternate.
What was written is read, renamed and begun without it. Nothing of the model is changed between two passes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from safekey_interp.data.trace import Message, Trace
from safekey_interp.errors import InputError
from safekey_interp.exploration.branch_plan import forked, root_branch
from safekey_interp.exploration.branch_record import Branch, StatePatch, SwapKind
from safekey_interp.exploration.branch_tree import BranchTree
from safekey_interp.exploration.session_contents import SessionContents
from safekey_interp.exploration.session_events import Event, TokenWritten
from safekey_interp.exploration.session_files import models_of, new_log, presets_of, readers_of, write_reader
from safekey_interp.exploration.session_log import SessionLog
from safekey_interp.exploration.session_readers import SessionReader, fit_direction, fit_probe, halves, make_reader
from safekey_interp.generation.generation_edits import GenerationEdit, check_edits
from safekey_interp.generation.sampling import Sampling
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

Reader = Probe | Direction


class Session(SessionContents):
    """One or several models, and the tree of what they wrote; a context manager that releases its folder."""

    def __init__(
        self,
        models: Model | Sequence[Model],
        *,
        traces: str | Path | Iterable[Trace] = (),
        readers: Reader | Sequence[Reader] | Mapping[str, Reader] = (),
        false_positive_rate: float = 0.05,
        out: str | Path | None = None,
        seed: int = 0,
        memory_gb: float = 1.0,
        finder: str = "rules",
        delimiters: tuple[str, str] | None = None,
    ) -> None:
        """Begin without a branch.

        Args:
            models: from ``load`` or ``from_hf``.
            traces: presets for prompts, and what readers are fitted and thresholds calibrated on; a file or traces.
            readers: probes or directions that know their layer and site, by name or in order.
            false_positive_rate: of the alarm thresholds, calibrated on the benign traces.
            out: the run folder, written as the session goes; nothing is kept on disk when None.
            seed: of draws and controls that name none of their own.
            memory_gb: most memory for the keys and values of branches, GB; the oldest are dropped and computed again
                when they are needed.
            finder: finds U and K.
            delimiters: marks of the reasoning; the known families' when None.

        Raises:
            InputError: no model, a reader that fits none of them, or two of one name.
            RunError: the folder holds something else, or another process writes to it.
        """
        found = (models,) if isinstance(models, Model) else tuple(models)
        if not found:
            raise InputError("models: got none, expected one from ski.load, or several")
        settings = {"finder": finder, "delimiters": delimiters, "seed": seed, "rate": false_positive_rate}
        self._seed = seed
        found_by = SegmentationSettings(finder=finder, delimiters=delimiters).make()
        super().__init__(found, presets_of(traces), BranchTree(found, found_by, memory_gb), settings)
        several = [readers] if isinstance(readers, Reader) else readers
        named = several.items() if isinstance(several, Mapping) else [(None, reader) for reader in several]
        for name, reader in named:
            self.add_reader(reader, name=name)
        if out is not None:
            log = self._tree.log = new_log(Path(out), found, settings, self._traces)
            for reader in self._tree.readers:
                write_reader(log, reader)

    @classmethod
    def open(
        cls, folder: str | Path, *, models: Model | Sequence[Model] | None = None, memory_gb: float = 1.0,
        device: str | None = None, trust_remote_code: bool = False,
    ) -> Session:  # fmt: skip
        """A session that was saved, to be gone on with.

        Args:
            folder: its run folder.
            models: its models; loaded by their names when None.
            memory_gb: as in :class:`Session`.
            device: and ``trust_remote_code``: as for ``load``, of models that are loaded here.

        Raises:
            RunError: no session's folder, or another process writes to it.
            ModelError: a model cannot be loaded, or is not the one that wrote it.
        """
        log = SessionLog(Path(folder), None)
        try:
            given = [models] if isinstance(models, Model) else models
            found = models_of(log.manifest, given, device=device, trust_remote_code=trust_remote_code)
            known = dict(log.manifest["settings"])
            session = cls(
                found, traces=log.presets(), false_positive_rate=known.pop("rate"), memory_gb=memory_gb, **known
            )
            session._tree.readers += readers_of(log, found, session._seed)
            session._tree.restore(log)
        except BaseException:
            log.close()
            raise
        return session

    def add_reader(self, reader: Reader, *, name: str | None = None) -> SessionReader:
        """Score tokens that are written from now on with another probe or direction.

        Args:
            reader: that knows its layer and site.
            name: unique; made from layer and position when None.

        Raises:
            InputError: it fits none of the models, or the name is taken.
        """
        return self._add(reader, name, self._traces)

    def fit_reader(
        self, *, kind: Literal["probe", "direction"] = "probe", layer: int | None = None, position: str = "decision",
        model: int = 0, name: str | None = None,
    ) -> SessionReader:  # fmt: skip
        """Fit a probe, or a difference of class means, to the labels of the session's traces, on the spot, and add it.

        Args:
            kind: a direction moves states by the distance of the class means when steering at scale 1.
            layer: layer of the states; the one with the largest out-of-fold AUROC when None.
            position: span expression of the tokens whose mean state is read.
            model: number of the model.
            name: as in :meth:`add_reader`.

        Raises:
            InputError: no traces, or labels of one class alone.
        """
        if not 0 <= model < len(self._models):
            raise InputError(f"model: got {model}, expected one of 0 to {len(self._models) - 1}")
        fitted, calibrated = halves(self._traces)
        with self._tree.lock:
            fit = {"probe": fit_probe, "direction": fit_direction}[kind]
            made = fit(self._models[model], fitted, layer=layer, position=position, finder=self._settings["finder"])
            return self._add(made, name, calibrated)

    def start(
        self,
        prompt: str | Trace,
        *,
        turns: Sequence[Message] = (),
        system: str | None = None,
        prefill: str = "",
        model: int = 0,
        seed: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int = 512,
        name: str | None = None,
    ) -> Branch:
        """A new root; nothing is written until it is run.

        Args:
            prompt: a user text, or a trace whose prompt and turns are asked and whose response is not read.
            turns: earlier turns, before the prompt.
            system: system text, before these.
            prefill: what the response begins with.
            model: number of the model.
            seed: of the draws; the session's when None. What is written is what ``ski.generate`` returns for it.
            temperature: 0 for the likeliest token each time.
            top_p: share of the probability that is drawn from.
            max_new_tokens: largest number of new tokens; fewer where the model reads no further.
            name: what it is called; made from the prompt when None.

        Raises:
            InputError: no such model, or a number out of its range.
            TraceError: the chat template refuses the conversation, or the prompt fills all that the model reads.
        """
        sampling = Sampling(
            temperature=temperature,
            top_p=top_p,
            seed=self._seed if seed is None else seed,
            max_new_tokens=max_new_tokens,
        )
        if not 0 <= model < len(self._models):
            raise InputError(f"model: got {model}, expected one of 0 to {len(self._models) - 1}")
        branch = root_branch(
            self._tree.new_id(), prompt, turns=turns, system=system, prefill=prefill, model=model, sampling=sampling,
            name=name,
        )  # fmt: skip
        self._tree.add([branch])
        return branch

    def fork(
        self,
        branch: Branch | str,
        *,
        at: int | None = None,
        text: str | None = None,
        edits: GenerationEdit | Sequence[GenerationEdit] = (),
        swap: SwapKind | None = None,
        patch: StatePatch | None = None,
        control: bool | int = True,
        name: str | None = None,
    ) -> Branch:
        """A branch that goes on from a token of another with something changed; nothing is written until it is run.

        The tokens before ``at`` are the parent's own. Where they are those of their text, what is read is exactly what
        ``ski.generate`` reads with ``prefill`` and ``edits`` of the branch; at a temperature, each token's draw is the
        parent's draw at that place.

        Args:
            branch: the parent, or its id.
            at: position of the first token of the parent that is left out, or the position behind its last; when None
                the first of the key sentence, and behind the last where there is none.
            text: what stands there instead, before the first new token.
            edits: what is changed in the model from the first token on, besides the parent's edits.
            swap: a key sentence of this kind in the place of K; at the key sentence alone.
            patch: states of another branch.
            control: whether to make its random control, too (:attr:`Branch.control`), or how many: as many random keys
                elsewhere for hidden ones, a random direction of equal norm, a neutral sentence for a swapped one,
                states of an answer to another prompt. What one draw does may be chance; :meth:`controls` gives all.
            name: what it is called; made from the change when None.

        Raises:
            InputError: no such branch, token, layer, head or span; ``text`` beside ``swap``; no key sentence to swap; a
                negative number of controls.
            TraceError: a position of an edit is not in what the branch begins with, and is not found later.
        """
        if control < 0:
            raise InputError(f"control: got {control}, expected at least 0")
        with self._tree.lock:
            parent = self._tree.state(branch)
            new = (edits,) if isinstance(edits, GenerationEdit) else tuple(edits)
            check_edits(parent.model, new, parent.branch.trace.span_names)
            branches = forked(
                self._tree, parent, at=at, text=text, edits=new, swap=swap, patch=patch, controls=int(control),
                name=name, seed=self._seed, traces=self._traces,
            )  # fmt: skip
            self._tree.add(branches)
        return branches[0]

    def run(self, branch: Branch | str) -> Generator[Event]:
        """Write a branch to its end, or go on with one that was stopped.

        Yields:
            Its tokens in order, those of the prefill first (each once: a branch that goes on yields new ones alone);
            spans whenever they change; at the end :class:`BranchEnded`, or :class:`BranchFailed` where an error stopped
            it. Stop iterating, or :meth:`cancel`, and it pauses after the token that is being written.

        Raises:
            InputError: no such branch, or it is being run elsewhere.
        """
        return self._tree.run(self._tree.state(branch))

    def step(self, branch: Branch | str) -> tuple[Event, ...]:
        """Write one token: the events up to and with it, or the end; errors as for :meth:`run`."""
        events: list[Event] = []
        for event in (written := self.run(branch)):
            events.append(event)
            if not (isinstance(event, TokenWritten) and event.is_given):
                break
        written.close()
        return tuple(events)

    def cancel(self, branch: Branch | str | None = None) -> None:
        """Pause a branch that runs in another thread, or all, after the token that is being written."""
        for state in self._tree.states() if branch is None else [self._tree.state(branch)]:
            state.must_stop = True

    def _add(self, reader: Reader, name: str | None, traces: Iterable[Trace]) -> SessionReader:
        """Add a reader whose threshold is calibrated on the benign ones of some traces."""
        with self._tree.lock:
            made = make_reader(
                reader,
                self._models,
                name=name,
                taken=[each.name for each in self._tree.readers],
                benign=[trace for trace in traces if trace.label == "benign" and trace.response],
                false_positive_rate=self._settings["rate"],
                finder=self._settings["finder"],
                seed=self._seed,
            )
            self._tree.readers.append(made)
            if self._tree.log is not None:
                write_reader(self._tree.log, made)
        return made
