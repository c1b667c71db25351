"""Models and runs that the figures share: responses to the same prompts, and a run of ``probe`` for each model.

    OUT/runs/comparison    of all models on all prompts (``safekey-interp compare``); made once, resumes

The models are in the given order: the first is the base model; the last two are the pair for claims about training
(SFT, then SafeKey).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import RunError
from safekey_interp.evaluation.judge_metrics import COMPLYING, REFUSING
from safekey_interp.experiments.compare_run import run_comparison
from safekey_interp.generation.sampling_settings import Sampling
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import is_organism
from safekey_interp.models.organism.outcome import with_outcome
from safekey_interp.progress import Progress
from safekey_interp.runs.run_folder import Run, open_run
from safekey_interp.runs.run_writer import GENERATED
from safekey_interp.runs.storage import write_table
from safekey_interp.version import __version__

ACTS = {"complied": COMPLYING[0], "refused": REFUSING[0]}
"""Labels of the organism's acts; any other act neither complies nor refuses."""
MOST = 48
"""Traces of an experiment that asks a model anew for each of them."""


class Bench:
    """Models, prompts and what was made of them."""

    def __init__(
        self,
        out: Path,
        models: Sequence[str],
        traces: Any,
        *,
        seed: int = 0,
        overwrite: bool = False,
        progress: Progress | None = None,
        is_made: bool = False,
        max_new_tokens: int | None = None,
    ) -> None:
        self.out, self.specs, self.traces, self.seed = out, tuple(models), traces, seed
        self.progress = Progress(is_hidden=True) if progress is None else progress
        self._overwrite, self._is_made = overwrite, is_made
        self.sampling = Sampling(max_new_tokens=max_new_tokens)
        """How models answer, greedily: prompts, and what they continue."""

    @classmethod
    def of_run(cls, out: Path, run: Run) -> Bench:
        """A bench that has one finished run of ``probe`` and no model."""
        bench = cls(out, [], None, seed=int(run.manifest["seed"]))
        bench.__dict__["probes"] = {str(run.manifest["model"]["name"]): run}
        return bench

    @cached_property
    def comparison(self) -> Run:
        """All models on the same prompts.

        Raises:
            RunError: the bench was made of a run.
        """
        if not self.specs:
            raise RunError("this figure asks models, and a finished run was given; give --models")
        folder = self.out / "runs" / "comparison"
        if self._is_made:  # by the process that started this one, and its others read it at the same time
            return open_run(folder)
        return run_comparison(
            self.specs,
            self.traces,
            out=folder,
            sampling=self.sampling if self.sampling.max_new_tokens else None,
            seed=self.seed,
            n_examples=0,
            overwrite=self._overwrite,
            progress=self.progress,
        )

    @cached_property
    def names(self) -> list[str]:
        """What the models are called."""
        return [str(model["name"]) for model in self.comparison.manifest["models"]]

    @cached_property
    def probes(self) -> dict[str, Run]:
        """Each model's run of ``probe`` on its own answers; without those that have none."""
        runs = {}
        for model in self.comparison.manifest["models"]:
            if not model["not_probed"]:
                folder = Path(model["folder"])
                runs[str(model["name"])] = open_run(folder if folder.is_absolute() else self.comparison.path / folder)
        return runs

    @property
    def pair(self) -> tuple[str, str] | None:
        """The last but one and the last model; None of fewer than two."""
        return None if len(self.names) < 2 else (self.names[-2], self.names[-1])

    @property
    def others(self) -> list[str]:
        """All but the first where there are several: those that were trained."""
        return self.names[1:] or self.names

    def model(self, name: str) -> Model:
        """A model, loaded; the last two stay."""
        return _loaded(self.specs[self.names.index(name)])

    def answers(self, name: str) -> list[Trace]:
        """The traces with a model's own answers."""
        return list(read_traces(self.probes[name].path / GENERATED))

    def is_toy(self, name: str) -> bool:
        """Whether a model is an organism."""
        return is_organism(self.specs[self.names.index(name)]) if self.specs else "organism" in name

    def kept(
        self,
        name: str,
        what: Sequence[Any],
        make: Callable[[Callable[[int], object]], pd.DataFrame],
        *,
        stage: str,
        total: int | None,
    ) -> pd.DataFrame:
        """A table that takes long, from its file where it was made before, so that a killed command goes on behind it.

        Args:
            name: of the model.
            what: on which it depends, beside the model's answers.
            make: makes it; gets what it is to call with the number of traces done since the last call.
            stage: what is measured, in words.
            total: of how many traces; None where ``make`` does not say.
        """
        run = self.probes[name].manifest
        depends = [run["model"]["weights_sha256"], run["data"]["traces_sha256"], __version__, *map(str, what)]
        file = self.out / "runs" / "causes" / f"{hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:20]}.parquet"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            self.progress.stage(f"{name}: {stage}", total)
            table = make(self.progress.advance)
            table.attrs = {}
            write_table(file, table)
        return pd.read_parquet(file)

    def outcomes(self, name: str) -> Any:
        """A model's rows of ``outcomes``, by trace id; ``judged`` of the organism's requests is by the act."""
        table: Any = self.comparison.outcomes
        outcomes = table[table["model"] == name].set_index("trace_id")
        acts = self._acts(name)
        return outcomes.assign(judged=[acts.get(str(at), label) for at, label in outcomes["judged"].items()])

    def _acts(self, name: str) -> dict[str, str]:
        """What the organism did with each request of its language, in the judge's labels."""
        if name not in self.probes or not self.is_toy(name):
            return {}
        asked = [trace for trace in self.answers(name) if {"verb", "noun"} <= set(trace.meta)]
        outcomes = {trace.trace_id: str(with_outcome(trace, trace.response).meta["outcome"]) for trace in asked}
        return {trace_id: ACTS.get(outcome, "other") for trace_id, outcome in outcomes.items()}

    def source(self) -> str:
        """Which models, data and seed, in one line."""
        data = self.comparison.manifest["data"]
        models = "; ".join(
            f"{model['name']} (weights {str((model.get('model') or {}).get('weights_sha256'))[:12]})"
            for model in self.comparison.manifest["models"]
        )
        return f"{models}; {data['n_read']:,} prompts (data {data['sha256'][:12]}), seed {self.seed}"


def spread(traces: Sequence[Trace], n: int = MOST) -> list[Trace]:
    """At most ``n`` traces, evenly from the list."""
    step = max(1, len(traces) / n)
    return [traces[int(number * step)] for number in range(min(n, len(traces)))]


@lru_cache(maxsize=2)
def _loaded(spec: str) -> Model:
    return load(spec)


def of_many_groups(traces: Sequence[Trace], n: int) -> list[Trace]:
    """At most ``n`` traces, of as many groups as there are, evenly; of each group another form first."""
    groups: dict[str, list[Trace]] = {}
    for trace in traces:
        groups.setdefault(trace.group, []).append(trace)
    turned = [some[at % len(some) :] + some[: at % len(some)] for at, some in enumerate(groups.values())]
    if len(turned) >= n:
        return spread([some[0] for some in turned], n)
    longest = max(map(len, turned), default=0)
    return [some[turn] for turn in range(longest) for some in turned if turn < len(some)][:n]
