"""Run of an intervention on a file of traces.

    read and check -> plan pieces -> measure each -> one table -> its summary -> findings -> page

As in a run of probes, nothing is written before the data, the model, the options and the folder are known to be usable;
a killed run resumes after its last whole piece; processes that a launcher starts share the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from safekey_interp.capture.pass_cost import Cost, counted_passes
from safekey_interp.capture.streaming import threads_for, token_budget
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError, NothingMeasured
from safekey_interp.experiments.answer_outcomes import judge_of_answers
from safekey_interp.experiments.experiment_settings import InterventionSettings
from safekey_interp.experiments.intervene_pieces import Piece, Work, piece_size, places_to_confirm, plan_work
from safekey_interp.experiments.intervention_cost import intervention_cost
from safekey_interp.experiments.most_moved import most_moved
from safekey_interp.experiments.probe_chunks import join_tables
from safekey_interp.interventions.intervention_options import complete_options, recorded
from safekey_interp.interventions.intervention_record import Function, Intervention, load_function
from safekey_interp.interventions.intervention_registry import Name, choose_variant, find_intervention
from safekey_interp.interventions.two_stages import join_stages
from safekey_interp.models.chat_template import tokenizer_hash
from safekey_interp.models.unknown_tokens import check_known
from safekey_interp.progress import Progress
from safekey_interp.reporting.findings.intervention_findings import find
from safekey_interp.runs.manifest import manifest_of
from safekey_interp.runs.multiprocess import all_parts, my_share
from safekey_interp.runs.run_folder import Run
from safekey_interp.runs.run_session import RunSession, run_session
from safekey_interp.runs.run_writer import RunWriter
from safekey_interp.runs.storage import read_json, write_aside, write_json, write_table
from safekey_interp.segmentation.finder_registry import WITHOUT_MEMORY
from safekey_interp.segmentation.finder_trust import FinderTrust
from safekey_interp.segmentation.once_finder import OnceFinder
from safekey_interp.segmentation.segmenter import segmented

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

_TABLE, _LEFT_OUT = "effects.parquet", "left_out.json"


def run_intervention(
    kind: Name,
    model: Model,
    traces: Any,
    *,
    out: str | Path,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    max_length: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    chunk: int | None = None,
    keep_directions: bool = False,
    allow_unknown: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Intervene on every trace and write a run folder.

    Args:
        kind: ``knockout``, ``patch``, ``paths``, ``edges``, ``direction``, ``suppress``, ``lens``, ``trajectory``, or
            the name of one that was registered (``register_intervention``).
        model: from ``load`` or ``from_hf``.
        traces: what ``read_traces`` reads, or what it returned.
        out: the run folder; a run of the same settings and data in it is resumed, or returned when it is complete.
        finder: finder of U and K.
        delimiters: marks of the reasoning; the known families' when None.
        max_length: most tokens up to the end of K; longer traces are left out and named.
        seed: seed of every draw.
        limit: draw so many traces by ``seed``; for ``traces`` that are not read yet.
        chunk: traces between two points from which a killed run resumes; 16 of a small model, one of others, when
            None.
        keep_directions: leave directions that were fitted, on all traces, in the folder's ``directions``.
        allow_unknown: accept traces of which more than 5 % of the tokens are unknown to the model's tokenizer.
        overwrite: delete a run that is there.
        command: what the user typed, for the record.
        progress: shows how far the run is; bars in a notebook, and nothing elsewhere, when None.
        **options: of the intervention's function: ``knockout``, ``patch``, ``steer``, ``suppress``, ``logit_lens``,
            ``measure_trajectory``; of ``direction`` with ``generate=True``, those of responses that are then written
            (``scales``, ``max_new_tokens`` …). Without ``directions``, or ``readers``, directions are fitted on folds
            of the requests and used on the others (``fit_layers``, ``fit_position``, ``label_by``, ``n_folds``).
            ``metric`` says what is read out (:mod:`safekey_interp.interventions.metric_registry`).

    Returns:
        The run: ``effects`` (the function's table), ``summary`` (means with intervals, beside the control's),
        ``findings``. Its page is drawn by ``report.write_report``.

    Raises:
        InputError: the data cannot be read, the options do not fit, or nothing can be measured; then nothing stays.
        ModelError: the model's attention or states cannot be reached.
        RunError: the folder cannot be used.
    """
    intervention, options = choose_variant(find_intervention(kind), options)
    checked = InterventionSettings(finder=finder, delimiters=delimiters, max_length=max_length, seed=seed, chunk=chunk)
    full = complete_options(intervention, model, options)
    judge = judge_of_answers(model) if intervention.is_judged else None
    if keep_directions and "fit_layers" not in full:
        raise InputError(f"keep_directions: {kind} fits none here; leave it out")
    with run_session(out, overwrite=overwrite, progress=progress) as session:
        session.progress.stage("reading", None)
        source = read_traces(traces, limit=limit, seed=seed).check()
        read, content = list(source), source.content
        if intervention.adapt is not None:
            full = load_function(intervention.adapt)(full, read)
        confirm = places_to_confirm(intervention, model, read, full, checked)
        settings = checked.spans | {"finder_identity": checked.identity, "keep_directions": keep_directions}
        settings |= {} if confirm is None else {"confirm": confirm}
        settings |= recorded(full) | ({} if judge is None else {"judge": judge.record()})
        full |= {} if judge is None else {"judge": judge}
        plan = {"chunk": chunk or piece_size(model), "max_tokens": token_budget(model), "threads": threads_for(model)}
        manifest: dict[str, Any] = manifest_of(
            model.record(),
            tokenizer_hash(model.tokenizer),
            source.record(),
            settings,
            plan=plan,
            seed=seed,
            command=command,
        )
        manifest |= {"kind": "intervention", "intervention": intervention.name}
        manifest["identity"]["intervention"] = intervention.name
        if (run := session.finished(manifest)) is not None:
            return run
        check_known(model.tokenizer, read, model.name, allowed=allow_unknown)
        session.progress.stage("preparing", None)
        reading = counted_passes(model, session.progress.passed)
        with reading, session.team.after_first(finder not in WITHOUT_MEMORY):
            checked = replace(checked, finder=OnceFinder(checked.make(), read))
            work = plan_work(intervention, model, read, full, checked, n_confirmed=confirm)
        if intervention.cost is not None and session.team.is_first:
            session.progress.say(load_function(intervention.cost)(work.whole_options, work.n))
        done = session.done_parts(manifest)
        n = len(work.pieces)
        left = [work.pieces[i] for i in range(n) if not {i + k * n for k in range(work.n_rounds)} <= done]
        estimate = partial(intervention_cost, intervention, model, work, checked, left)
        cost = session.progress.starts(lambda: estimate(n_processes=session.team.world_size))
        session.lap("estimating")
        with session.writing(manifest) as writer:
            if session.team.is_first:
                writer.manifest["finder_trust"] = FinderTrust.of(segmented(read, checked)).record()
            task = _Task(intervention, model, read, work, checked, session, cost).after_first_round(writer)
            task.assemble(writer, task.measure(writer))
            if session.team.is_first and keep_directions:
                _keep(work, content.sha256, session.path / "directions")
            session.lap("measuring")
        return session.result()


class _Task(NamedTuple):
    """A run while it is measured."""

    intervention: Intervention
    model: Model
    traces: Sequence[Trace]
    work: Work
    settings: InterventionSettings
    session: RunSession
    cost: Cost | None

    def after_first_round(self, writer: RunWriter) -> _Task:
        """The same with the table of its first round, where it has one."""
        if self.intervention.first_round is None:
            return self
        # Its folders lie behind those of the pieces.
        parts = self._round(
            writer, "first round", self.intervention.first_round, self.work.first, len(self.work.pieces)
        )
        tables = _tables(parts)
        others = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        return self._replace(work=self.work._replace(options=self.work.options | {"others": others}))

    def measure(self, writer: RunWriter) -> list[Path]:
        """Every piece's folder of every round; the processes share and measure those that are not done."""
        function, every, tables = self.intervention.measure, list[Path](), list[pd.DataFrame]()
        for number in range(self.work.n_rounds):
            pieces = self.work.round(tables, self.settings.seed)
            name = "measuring" if number == self.work.n_rounds - 1 else ("estimating", "screening")[number]
            parts = self._round(writer, name, function, pieces, number * len(pieces))
            every += parts
            of_round = _tables(parts)
            if not of_round:
                break
            tables.append(pd.concat(of_round, ignore_index=True))
        return every

    def _round(
        self, writer: RunWriter, name: str, function: Function, pieces: Sequence[Piece], begin: int = 0
    ) -> list[Path]:
        """The folders of some pieces, numbered from ``begin`` on."""
        progress, n = self.session.progress, sum(len(piece.traces) for piece in pieces)
        share = my_share(writer, len(pieces), self.session.team, begin=begin)
        is_whole = self.work.stages is None and self.intervention.first_round is None
        progress.stage(name, n, self.cost.passes if self.cost and is_whole else None)
        progress.advance(n - sum(len(pieces[number - begin].traces) for number in share))
        with counted_passes(self.model, progress.passed):
            for number in share:
                writer.write_part(number, self._measured(function, pieces[number - begin]))
        return all_parts(writer, len(pieces), self.session.team, begin=begin)

    def assemble(self, writer: RunWriter, parts: Sequence[Path]) -> None:
        """Write the run's tables and findings from its pieces.

        Raises:
            NothingMeasured: they hold none; the run is then deleted.
        """
        left_out = dict(self.work.left_out)
        for part in parts:
            left_out |= read_json(part / _LEFT_OUT) or {}
        if not any(map(_has_table, parts)):
            self.session.team.gather()
            if self.session.team.is_first:
                writer.discard()
            raise NothingMeasured("no trace can be measured, nothing is kept", left_out)
        if not self.session.team.is_first:
            return
        self.session.progress.stage("summarising", None)
        path = writer.path
        writer.remove_results()
        if self.work.stages is None:
            join_tables(parts, _TABLE, path / _TABLE)
            effects = pd.read_parquet(path / _TABLE)
        else:
            effects = join_stages(pd.concat(_tables(parts), ignore_index=True))
            write_table(path / _TABLE, effects)
        summary = load_function(self.intervention.summarise)(effects)
        write_table(path / "summary.parquet", summary)
        write_json(path / _LEFT_OUT, left_out)
        write_json(path / "findings.json", find(self.intervention, effects, summary, left_out, writer.manifest))
        named = self.intervention.named(writer.manifest["settings"])
        write_json(path / "most_moved.json", most_moved(named, effects, summary, self.traces, self.settings))

    def _measured(self, function: Function, piece: Piece) -> Callable[[Path], None]:
        """Measure a piece; what is returned writes it."""
        progress, n_done = self.session.progress, 0

        def on_trace(n: int) -> None:
            nonlocal n_done
            n_done += n
            progress.advance(n)
            self.session.team.check()

        table: pd.DataFrame | None = None
        options = {**self.work.options, **piece.options, **piece.call, **self.settings.spans}
        try:
            found = load_function(function)(
                self.model, piece.traces, **options, seed=self.settings.seed, on_trace=on_trace
            )
            table, left_out = found, found.attrs["left_out"]
        except NothingMeasured as error:
            left_out = error.left_out
        progress.advance(len(piece.traces) - n_done)

        def fill(folder: Path) -> None:
            if table is not None:
                _plain(table.assign(**piece.columns)).to_parquet(folder / _TABLE, index=False, compression="zstd")
            write_json(folder / _LEFT_OUT, left_out)

        return fill


def _has_table(part: Path) -> bool:
    return (part / _TABLE).is_file()


def _tables(parts: Sequence[Path]) -> list[pd.DataFrame]:
    """The tables of the folders that have one."""
    return [pd.read_parquet(part / _TABLE) for part in parts if _has_table(part)]


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """With one type a column, whichever values a piece happens to have."""
    table.attrs = {}
    return table.astype({name: "string" for name in table.columns if table[name].dtype == object})


def _keep(work: Work, sha256: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for direction in work.directions:
        record = replace(direction, data_sha256=sha256)
        write_aside(folder / f"{direction.position}-layer-{direction.layer:03d}.safetensors", record.save)
