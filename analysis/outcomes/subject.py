"""Subject: a model under study, requests for it, and the outcome of its answers.

The experiments of this folder are the same for all models; what differs is here: the toy language knows its outcomes by
construction (:mod:`analysis.outcomes.organism_subject`), of the trained SmolLM2 they are judged
(:mod:`analysis.outcomes.smollm2_subject`).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.generation.local_engine import generate
from safekey_interp.models.model import Model, load
from safekey_interp.progress import Progress
from safekey_interp.runs.storage import read_json, write_json
from safekey_interp.version import __version__

Split = Literal["development", "test"]
PARTS = ("fit", "scale", "threshold")
"""What requests serve that detectors are made with: their classifier, their scale, their alarm."""
_KEPT_TOGETHER = 2
"""Batches of answers that are kept in one file."""


class Settings(NamedTuple):
    """What an experiment does on a subject."""

    max_new_tokens: int
    key_tokens: int
    """Of a draw of K, at most."""
    batch_size: int
    """Answers that are decoded together."""
    temperature: float
    """Of draws."""
    detection_tests: tuple[str, ...]
    """Sets of requests that detectors are tested on."""
    n_detection: int
    """Requests of each wrapper and label that detectors are made with and tested on."""
    every_layer: int
    """Probes read one of so many layers."""
    head_sets: tuple[int, ...]
    """Numbers of heads that are ablated together."""
    rankings: tuple[str, ...]
    """Of heads."""
    n_ablated: int
    """Requests of each wrapper and label; those that are complied with are answered with ablated heads."""
    n_random: int
    """Sets of heads of each kind beside them."""
    ranked_on: int
    """Successful jailbreaks that heads are ranked on, at most."""
    n_resampled: int
    """Requests of each wrapper and label whose sentences are drawn anew."""
    draws: int
    """Responses before and behind each sentence, and draws of K."""


class Subject(ABC):
    """A model that answers requests, and what becomes of its answers.

    Args:
        name: of the model, as ``load`` takes it.
        data: folder of public prompts; None where none are read.
        out: folder in which answers and draws are kept, so that a killed run does not ask for them again; None to keep
            nothing.
    """

    settings: Settings
    untrained: str
    """A model with the same tokens that was not trained to reason about safety."""

    def __init__(self, name: str, data: Path | None = None, out: Path | None = None) -> None:
        self.name, self.data, self.out = name, data, out
        self.progress = Progress()
        """Of what takes long."""

    @cached_property
    def model(self) -> Model:
        """The model."""
        return load(self.name)

    @cached_property
    def reader(self) -> Model:
        """The untrained model, which reads the answers of the other."""
        return load(self.untrained)

    @cached_property
    def _weights(self) -> str:
        return self.model.fingerprint()

    def digest(self, what: str, texts: Sequence[str]) -> str:
        """Of what is kept; arguments as for :meth:`kept`."""
        depends = "\0".join([self._weights, __version__, what, str(self.settings.max_new_tokens), *texts])
        return hashlib.sha256(depends.encode()).hexdigest()[:20]

    def kept(self, what: str, texts: Sequence[str], make: Callable[[], Any]) -> Any:
        """What was made of these texts before with this model, else what is made now; of JSON's kinds.

        Args:
            what: names it, and what edits the model.
            texts: on which it depends.
            make: makes it.
        """
        if self.out is None:
            return make()
        file = self.out / f"{self.key}-{self.digest(what, texts)}.json"
        if (found := read_json(file)) is None:
            found = {"what": what, "made": make()}
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, found)
        return found["made"]

    @property
    def key(self) -> str:
        """Of tables."""
        return self.name.replace(":", "-")

    @abstractmethod
    def judged(self, trace: Trace, response: str) -> Trace:
        """A request with its response: ``outcome`` (``complied``, ``refused``, or another) and ``well_formed`` in meta,
        and the spans of U and K given where both can be read."""

    @abstractmethod
    def attacks(self, split: Split, n: int, seed: int) -> list[Trace]:
        """Harmful and benign requests in the wrappers of a split, at most ``n`` of a label in each wrapper."""

    @abstractmethod
    def detection_requests(self, n: int, seed: int) -> list[Trace]:
        """Requests to make detectors with and to test them on; about ``n`` of a label in each wrapper."""

    @abstractmethod
    def part_of(self, trace: Trace) -> str:
        """What such a request serves: one of :data:`PARTS` or of the tests."""

    def opinions(self, traces: Sequence[Trace], texts: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """Readers that learn nothing, by name: (trace, prefix), higher for compliance.

        Args:
            traces: answers.
            texts: of each prefix, the reasoning so far by trace.
        """
        return {}

    def continued(self, trace: Trace, text: str) -> str:
        """The outcome of what is written behind a prefill that may end within the reasoning."""
        # The mark stands before text that begins in the middle of the reasoning, so that a cut one has no answer.
        return self.judged(trace, f"<think>\n{text}").meta["outcome"]

    def answered(self, asked: Sequence[Trace], edit: str = "") -> list[Trace]:
        """What the model answers, greedily; within a block that edits it, what it answers then.

        Args:
            asked: requests.
            edit: names what edits the model.
        """
        # Edited ones are one of many; who asks for them counts them.
        progress = Progress(is_hidden=True) if edit else self.progress
        responses: list[str] = []
        step = _KEPT_TOGETHER * self.settings.batch_size
        with progress:
            progress.stage(f"{self.name}: answers", len(asked))
            for start in range(0, len(asked), step):
                some = asked[start : start + step]
                responses += self.kept(
                    f"answers {edit}", [trace.prompt for trace in some], lambda some=some: self._asked(some)
                )
                progress.advance(len(some))
        return [self.judged(trace, response) for trace, response in zip(asked, responses, strict=True)]

    def _asked(self, some: Sequence[Trace]) -> list[str]:
        settings = self.settings
        return generate(self.model, some, max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)


def is_jailbreak(trace: Trace) -> bool:
    """Whether a harmful request is complied with."""
    return trace.label == "harmful" and trace.meta["outcome"] == "complied"


_FAMILIES = {"organism": "OrganismSubject", "smollm2": "SmolLM2Subject"}


def subject_of(name: str, data: Path | None = None, out: Path | None = None) -> Subject:
    """The subject of a model.

    Raises:
        InputError: there is none for it, or it needs a folder of data.
    """
    family = name.split(":", maxsplit=1)[0]
    if family not in _FAMILIES:
        raise InputError(f"--models: got {name!r}, expected a model of {', '.join(_FAMILIES)}")
    module = importlib.import_module(f"analysis.outcomes.{family}_subject")
    return getattr(module, _FAMILIES[family])(name, data, out)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with what all experiments take."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--models", nargs="+", default=["organism:sft", "organism:safekey"])
    parser.add_argument("--data", type=Path, help="folder of public prompts, for smollm2:sft and smollm2:safekey")
    parser.add_argument("--out", type=Path, help="folder of answers and draws; what is there is not asked for again")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    quiet_libraries()
    return parser
