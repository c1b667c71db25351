"""Jobs of a probe's summaries, shared by the processes of a run, and their tables put together.

Jobs do not depend on one another: each goes to the next process that is free. Positions that have read the same words
make one job, since they share a text baseline. The jobs, and so the tables, are the same for one process and for many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from safekey_interp.capture.feature_states import FeatureStates
from safekey_interp.capture.hidden_states import States
from safekey_interp.data.class_labels import LabelBy
from safekey_interp.data.conditions import Conditions
from safekey_interp.measures.best_layers import AmongAll, over_all_places
from safekey_interp.measures.estimator_names import EstimatorName
from safekey_interp.measures.latent_effects import latent_effects
from safekey_interp.measures.layer_loop import LeftOut
from safekey_interp.measures.separability import separability_table
from safekey_interp.measures.text_baseline import text_read, with_own_words
from safekey_interp.measures.transfer import transfer_table
from safekey_interp.runs.processes import Team, workers
from safekey_interp.runs.storage import read_json, write_folder_aside, write_json

if TYPE_CHECKING:
    from safekey_interp.progress import Progress

CLASS = "class"
"""Column of each trace's class, among what is known of a run's traces."""
_LEFT_OUT = "left_out.json"
_AMONG_ALL = "among_all.parquet"


class Job(NamedTuple):
    """Work of one process."""

    name: str
    """Of its folder, when it makes one."""
    do: Callable[[], object]
    """Does the work."""
    steps: int = 0
    """Steps that it reports to the progress."""


def do_jobs(jobs: Sequence[Job], team: Team, tell: Progress) -> None:
    """Do the jobs, each in one process, and wait until all are done."""
    passed = 0
    for number, job in team.pull(list(enumerate(jobs))):
        tell.advance(sum(passed_job.steps for passed_job in jobs[passed:number]))
        job.do()
        passed = number + 1
    team.gather()


class StateProbes:
    """Separability of a run's states, and its transfer between conditions, as jobs."""

    def __init__(
        self,
        states: States,
        measured: pd.DataFrame,
        conditions: Conditions,
        *,
        label_by: LabelBy,
        estimator: EstimatorName,
        seed: int,
        texts: Mapping[str, Sequence[str | None]],
        folder: Path,
        tell: Progress,
    ) -> None:
        self._states, self._measured, self._conditions, self._tell = states, measured, conditions, tell
        self._folder = folder
        self._about: Any = {"label_by": label_by, "estimator": estimator, "seed": seed, "n_workers": workers()}
        self._labels = column(measured, CLASS)
        self._groups = list(measured["group"])
        spans = {name: column(measured, name) for name in ("prompt", "understanding", "key_sentence")}
        words = [dict(zip(spans, row, strict=True)) for row in zip(*spans.values(), strict=True)]
        known = {position: [text_read(position, row) for row in words] for position in states.positions}
        self._texts = with_own_words(known, texts)

    def jobs(self) -> list[Job]:
        """The jobs, each of which leaves a folder with its tables."""
        n_layers = len(self._states.layers)
        makers = {"separability": self._separability} | ({"transfer": self._transfer} if self._conditions.names else {})
        jobs = [
            Job(name, partial(write_folder_aside, self._folder / name, partial(maker, family)), len(family) * n_layers)
            for kind, maker in makers.items()
            for name, family in self._families(kind)
        ]
        # The longest first, so that nobody begins one while the others are done.
        return sorted(jobs, key=lambda job: -job.steps)

    def joined(self, kind: str, table: str) -> pd.DataFrame:
        """A table of all jobs of a kind, positions in their order; empty when there is none."""
        files = [job / f"{table}.parquet" for job in self._done(kind)]
        there = [file for file in files if file.is_file()]
        if not there:
            return pd.DataFrame()
        whole = pd.concat([pd.read_parquet(file) for file in there], ignore_index=True)
        if table == "separability":
            whole["p_value_over_all"] = _corrected([file.with_name(_AMONG_ALL) for file in there])
        place = {position: number for number, position in enumerate(self._states.positions)}
        return whole.sort_values("position", key=lambda names: names.map(place), kind="stable", ignore_index=True)

    def left_out(self, kind: str) -> list[dict[str, Any]]:
        """What all jobs of a kind left out, each reason once."""
        reasons = [tuple(reason.items()) for job in self._done(kind) for reason in read_json(job / _LEFT_OUT)]
        return [dict(reason) for reason in dict.fromkeys(reasons)]

    def _done(self, kind: str) -> list[Path]:
        return [folder for name, _ in self._families(kind) if (folder := self._folder / name).is_dir()]

    def _families(self, kind: str) -> list[tuple[str, list[str]]]:
        """Positions that share a job, with its name; an expression may be too long to name a folder."""
        families = _families(self._states.positions, self._texts)
        return [(f"{kind}-{number}", family) for number, family in enumerate(families)]

    def _separability(self, positions: Sequence[str], folder: Path) -> None:
        result = separability_table(
            self._states,
            self._labels,
            self._groups,
            self._texts,
            positions=positions,
            progress=_steps(self._tell),
            **self._about,
        )
        _write(folder, {"separability": result.table, "coordinates": result.coordinates}, result.left_out)
        pd.DataFrame(result.among_all, columns=list(AmongAll._fields)).to_parquet(folder / _AMONG_ALL, index=False)

    def _transfer(self, positions: Sequence[str], folder: Path) -> None:
        result = transfer_table(
            self._states,
            self._labels,
            self._groups,
            column(self._measured, "condition"),
            self._texts,
            conditions=self._conditions,
            positions=positions,
            progress=_steps(self._tell),
            **self._about,
        )
        _write(folder, {"transfer": result.table}, result.left_out)


class LatentProbes(StateProbes):
    """Separability of a run's latents of a sparse autoencoder, and those that differ most, as jobs."""

    def _separability(self, positions: Sequence[str], folder: Path) -> None:
        super()._separability(positions, folder)
        assert isinstance(self._states, FeatureStates)
        about = {name: self._about[name] for name in ("label_by", "seed")}
        found = latent_effects(self._states, self._labels, self._groups, positions=positions, **about)
        if not found.table.empty:
            found.table.to_parquet(folder / "latents.parquet", index=False)


def column(table: pd.DataFrame, name: str) -> list[str | None]:
    """A column of texts, None where there is none."""
    return [None if pd.isna(value) else value for value in table[name]]


def _families(positions: Sequence[str], texts: Mapping[str, Sequence[str | None]]) -> list[list[str]]:
    """Positions that have read the same words, together."""
    families: list[list[str]] = []
    for position in positions:
        same = (family for family in families if texts.get(family[0]) == texts.get(position))
        family = next(same, None)
        if family is None:
            families.append([position])
        else:
            family.append(position)
    return families


def _write(folder: Path, tables: Mapping[str, pd.DataFrame], left_out: Sequence[LeftOut]) -> None:
    for name, table in tables.items():
        if not table.empty:
            table.to_parquet(folder / f"{name}.parquet", index=False)
    write_json(folder / _LEFT_OUT, [reason._asdict() for reason in left_out])


def _corrected(files: Sequence[Path]) -> list[float]:
    """``p_value_over_all`` of the rows of several jobs' tables, corrected for the positions of all of them."""
    return over_all_places([AmongAll(*row) for file in files for row in pd.read_parquet(file).itertuples(index=False)])


def _steps(tell: Progress) -> Callable[[int, int], None]:
    last = 0

    def advance(done: int, total: int) -> None:
        nonlocal last
        tell.advance(done - last)
        last = done

    return advance
