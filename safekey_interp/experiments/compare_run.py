"""Run of a comparison of models: each in turn answers, is probed and released; then tables, then findings.

    models/NAME/generated.jsonl    its responses, as ``probe --generate`` keeps them
    models/NAME/                   a run of ``probe`` on them
    outcomes, comparison           one row a trace and model; one row a measure, model or pair of models
    attention_by_layer, separability    those of the models' runs, with a column ``model``
    series                       of checkpoints of one training: every measure and its controls by step

A killed comparison resumes in the middle of a model's responses or probes. Other weights or sampling are refused by the
file of responses, other settings or data by the model's run and by the comparison. A series takes in checkpoints that
were saved since, and keeps those that training has deleted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from safekey_interp.capture.streaming import BatchSize
from safekey_interp.data.class_labels import LabelBy, check_label_by
from safekey_interp.data.conditions import check_by
from safekey_interp.data.trace_reader import TraceSource, read_traces
from safekey_interp.errors import InputError
from safekey_interp.experiments.compare_cost import comparison_cost
from safekey_interp.experiments.compare_judges import SuiteJudges, opinions, suites_record
from safekey_interp.experiments.compare_models import (
    ProbedModel,
    answered,
    measured_before,
    of_run,
    probed,
    short_hash,
)
from safekey_interp.experiments.compare_outcomes import traces_of
from safekey_interp.experiments.compare_tables import assemble_comparison
from safekey_interp.experiments.experiment_settings import ComparisonSettings
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models.model_list import NamedModel
from safekey_interp.models.model_series import compared_models
from safekey_interp.models.unknown_tokens import check_known
from safekey_interp.progress import Progress
from safekey_interp.runs.manifest import new_manifest, versions_of
from safekey_interp.runs.memory_release import release_memory
from safekey_interp.runs.run_folder import Run
from safekey_interp.runs.run_session import run_session
from safekey_interp.runs.run_writer import RunWriter

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

KIND = "comparison"
_VERSIONS = ("torch", "transformers", "numpy", "pandas", "scikit-learn", "scipy", "tokenizers")


def run_comparison(
    models: Sequence[Model | str | Path | Run] = (),
    traces: Any = None,
    *,
    out: str | Path,
    series: str | None = None,
    sampling: Sampling | None = None,
    keep_responses: bool = False,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    label_by: LabelBy = "label",
    by: str | None = "source",
    seed: int = 0,
    limit: int | None = None,
    n_examples: int = 12,
    judges: SuiteJudges | None = None,
    load_options: Mapping[str, Any] | None = None,
    allow_unknown: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Give the same prompts to several models, judge and probe each, and write how they differ into a run folder.

    Args:
        models: several, or one alone: from ``load`` or ``from_hf``, what ``load`` reads, or folders of finished runs,
            whose traces are taken as they are (of ``probe``) or whose model is (of ``train``). Beside a series, the
            model before training, or none.
        traces: what ``read_traces`` reads, or what it returned; needed unless all are runs of ``probe``. Their own
            responses are not read.
        out: the run folder; one of the same settings and data is resumed, or returned when it is complete.
        series: checkpoints of one training, as a pattern of folders (``run/checkpoint-*``) or as revisions of a hub
            model (``owner/name@step512,step1000``); each is held against the first.
        sampling: how responses are drawn, one of each prompt; greedy when None.
        keep_responses: give every model the traces' own responses (teacher forcing), so that only what it looks at and
            knows differs.
        finder: finder of U and K.
        delimiters: marks of the reasoning; the known families' when None.
        batch_size: traces a forward pass of the probes, or ``auto``.
        max_length: most tokens up to the end of K; longer traces are left out of the probes and named.
        label_by: the column of the two classes that AUROC is of: ``label``, ``aha`` (each trace's own outcome),
            ``source`` or a name in ``meta``.
        by: the column that tells conditions apart: ``source``, or a name in ``meta``; None for nothing.
        seed: seed of every draw.
        limit: draw so many traces by ``seed``; for ``traces`` that are not read yet.
        n_examples: prompts that are shown side by side.
        judges: those that the authors of suites use, to see the answers to their prompts besides ``refusal``.
        load_options: further arguments of ``load``, for models given by name.
        allow_unknown: accept prompts of which more than 5 % of the tokens are unknown to a model's tokenizer.
        overwrite: delete a run that is there.
        command: what the user typed, for the record.
        progress: shows how far the run is; bars in a notebook, and nothing elsewhere, when None.

    Returns:
        The run: ``run.comparison`` and ``run.outcomes``; its page is drawn by ``report.write_report``.

    Raises:
        InputError: no model, one twice, a series without steps, no prompts, or data that cannot be read.
        ModelError: a model cannot be loaded or asked.
        RunError: a folder cannot be used, or holds a run of other settings or other data.
    """
    wanted, asked = sampling or Sampling(seed=seed), judges or SuiteJudges()
    checked = ComparisonSettings(
        finder=finder,
        delimiters=delimiters,
        keep_responses=keep_responses,
        batch_size=batch_size,
        max_length=max_length,
        label_by=label_by,
        by=by,
        seed=seed,
        n_examples=n_examples,
    )
    if wanted.n != 1:
        raise InputError(f"sampling: got {wanted.n} samples of each prompt, expected 1")
    with run_session(out, overwrite=overwrite, progress=progress) as session:
        session.progress.stage("reading", None)
        sides = compared_models(models, series, at_least=1)
        sides = sides if series is None or overwrite else measured_before(session.path, sides)
        source = _prompts(sides, traces, limit, seed)
        check_by(source, by)
        check_label_by(source, label_by)
        for named in (*sides, asked):
            named.check(load_options or {})
        if keep_responses and not any(trace.response for trace in source):
            raise InputError("keep_responses: no trace has a response, expected some; without it, the models answer")
        settings = {name: value for name, value in checked.to_dict().items() if name not in ("seed", "n_examples")}
        settings |= {"finder_identity": checked.identity, "examples": n_examples}
        settings |= {"sampling": wanted.record(), "judges": asked.record()}
        manifest = _manifest(_named(sides, series, len(models)), source, settings, seed, command)
        manifest["data"]["suites"] = suites_record(source, asked)
        session.check_same_task(manifest)
        names = ("finder", "delimiters", "batch_size", "max_length", "label_by", "by", "seed")
        probe = {name: getattr(checked, name) for name in names} | {"command": command, "allow_unknown": allow_unknown}
        if session.progress.is_dry:
            if (complete := session.finished(manifest)) is not None:
                return complete
            about = {"sampling": None if keep_responses else wanted, "probe": probe, "load_options": load_options or {}}
            tell = session.progress
            tell.starts(partial(comparison_cost, sides, list(source), partial(_OfModel, progress=tell), **about))
        session.lap("reading")
        with session.writing(manifest) as writer:
            done: list[ProbedModel] = []
            for side in sides:
                if side.run is not None:
                    done.append(of_run(side, side.run))
                    continue
                shown = _OfModel(side.name, session.progress)
                model = side.model(load_options or {})
                check_known(model.tokenizer, source, side.name, response=keep_responses, allowed=allow_unknown)
                folder = session.path / "models" / side.folder
                asking: Any = {"sampling": wanted, "by": by, "allow_unknown": allow_unknown, "processes": session.team}
                given = list(source) if keep_responses else answered(model, source, folder, progress=shown, **asking)
                done.append(probed(side, model, given, folder, options=probe, progress=shown))
                del model
                release_memory()
                torch.cuda.empty_cache()
                session.lap(side.name)
            if session.team.is_first and not _is_known(writer, done):
                second = opinions(done, asked, load_options=load_options or {}, progress=session.progress)
                about: Any = {"by": by, "seed": seed, "n_examples": n_examples, "progress": session.progress}
                assemble_comparison(writer, done, second, **about)
                session.lap("comparing")
        return session.result()


def _prompts(sides: Sequence[NamedModel], traces: Any, limit: int | None, seed: int) -> TraceSource:
    """What the models are asked; what the first run holds when all are runs."""
    if traces is None:
        if any(side.run is None for side in sides):
            raise InputError("traces: got none, expected prompts or traces to give to the models")
        assert sides[0].run is not None
        traces = list(traces_of(sides[0].run))
    return read_traces(traces, limit=limit, seed=seed).check()


def _named(sides: Sequence[NamedModel], series: str | None, n_base: int) -> list[list[str]]:
    """The models as the identity of the comparison has them; a series may gain checkpoints, and is its base alone.

    The weights behind a name are in the identity of the model's own run, so that names are compared before loading.
    """
    kept = sides if series is None else sides[:n_base]
    named = [
        [side.name, "model" if side.run is None else short_hash(side.run.manifest.get("identity"))] for side in kept
    ]
    return named if series is None else [*named, ["checkpoints", "series"]]


def _manifest(
    named: list[list[str]], source: TraceSource, settings: dict[str, Any], seed: int, command: Sequence[str]
) -> dict[str, Any]:
    content = source.content
    data = {"traces_sha256": content.sha256, "n_read": content.n}
    return new_manifest(
        command,
        settings,
        seed,
        identity={"models": named, "data": data, "seed": seed},
        kind=KIND,
        models=[],
        data={"sources": list(source.names), "sha256": source.sha256, **data},
        versions=versions_of(_VERSIONS),
    )


def _is_known(writer: RunWriter, done: Sequence[ProbedModel]) -> bool:
    """Whether the comparison that is there was made of these very runs."""
    known = [(one.get("name"), one.get("probes")) for one in writer.manifest.get("models") or []]
    return writer.is_complete and known == [(one.record["name"], one.record["probes"]) for one in done]


class _OfModel(Progress):
    """Progress whose stages and lines name a model."""

    def __init__(self, name: str, progress: Progress) -> None:
        super().__init__(is_hidden=progress.is_hidden)
        self._name, self._progress = re.sub(r"^organism:", "", name)[-12:], progress

    def stage(self, name: str, total: int | None, passes: float | None = None) -> None:
        self._progress.stage(f"{self._name}: {name}", total, passes)

    def advance(self, n: int) -> None:
        self._progress.advance(n)

    def passed(self, n: int = 1) -> None:
        self._progress.passed(n)

    def say(self, line: str) -> None:
        self._progress.say(f"{self._name}: {line}")

    def close(self) -> None:
        self._progress.close()
