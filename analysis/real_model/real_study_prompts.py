"""Prompts of the study: training, development and tests, drawn apart from one another, near-duplicates left out.

Read from the folder of data at run time; nothing of it is kept in the project. Two prompts are near-duplicates when
their TF-IDF vectors of letters (runs of three to five, within words) have a cosine of ``LEAST_ALIKE`` or more. The
tests are drawn first, then development apart from them, then training apart from both and from all of XSTest.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from analysis.real_model.real_study_design import (
    DATA_SEED,
    DEVELOPMENT,
    LEAST_ALIKE,
    MOST_PROMPT,
    TESTS,
    Sizes,
)
from analysis.real_model.real_study_wrappers import Split, wrappers_of
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError
from safekey_interp.segmentation.sentence_splitter import sentences

HARMFUL = ("prompts_jailbreakbench", "prompts_strongreject", "prompts_malicious_instruct")
HARMLESS, STAR1, XSTEST = "prompts_harmless", "star1", "xstest_prompts"
PLAIN = "plain"
"""The wrapper of a request without one."""

Form = Literal["how", "question", "imperative"]
FORMS: tuple[Form, ...] = get_args(Form)
_HOW = re.compile(r"(?:how (?:do|can|could|would|should) (?:i|you|we|one)|how to) (.+)", re.IGNORECASE)
_ASKS = re.compile(
    r"(?:what|why|who|when|where|which|how|is|are|can|could|may|should|do|does|did|would|will|has|have)\b",
    re.IGNORECASE,
)
_STATES = re.compile(r"(?:i|i'm|my|we|our|you|he|she|it|they|there|this|the|an?|so|seems?|hi|hello)\b", re.IGNORECASE)


class Asked(NamedTuple):
    """A request and what it is about in a sentence of U."""

    form: Form
    """How it asks."""
    content: str
    """What follows ``how to``, the question as it stands, or the task, without its last mark."""


def form_of(prompt: str) -> Asked | None:
    """The form of a prompt, by its first words; None for one of several sentences, or that states something: a sentence
    of U could not restate it."""
    text = prompt.strip()
    if "\n" in text or len(sentences(text, 0, len(text))) != 1 or _STATES.match(text):
        return None
    if match := _HOW.fullmatch(text):
        return Asked("how", match[1].rstrip("?.! "))
    if _ASKS.match(text) or text.endswith("?"):
        return Asked("question", f"{text.rstrip('?.! ')}?")
    return Asked("imperative", text[:1].lower() + text[1:].rstrip(".! "))


class Prompts(NamedTuple):
    """What is asked and what may be trained on."""

    tests: tuple[Trace, ...]
    """Requests of the tests in their order; ``meta`` has wrapper, family and the plain ``request``, ``group`` ties the
    forms of one prompt."""
    development: tuple[Trace, ...]
    harmful: tuple[Trace, ...]
    """Traces of STAR-1 that may be trained on."""
    harmless: tuple[Trace, ...]
    """Prompts that may be trained on."""


def read_prompts(data: Path) -> Prompts:
    """All prompts, drawn with ``DATA_SEED``.

    Args:
        data: folder of the files.

    Raises:
        InputError: a file is missing, or too few prompts are left.
    """
    pools = {name: _read(data, name) for name in (*HARMFUL, HARMLESS, STAR1, XSTEST)}
    alike = Alike([trace.prompt for pool in pools.values() for trace in pool])
    rng = random.Random(DATA_SEED)
    for pool in pools.values():
        rng.shuffle(pool)
    xstest = _xstest(pools[XSTEST], TESTS.xstest)
    # Test prompts stay clear of one another alone: that one looks like an XSTest prompt is what XSTest is for.
    taken: list[Trace] = []
    chosen = [
        _drawn(pools[source], n, taken, alike)
        for sizes in (TESTS, DEVELOPMENT)
        for source, n in (*((source, sizes.harmful) for source in HARMFUL), (HARMLESS, sizes.harmless))
    ]
    n_sources = len(chosen) // 2
    every = [*taken, *pools[XSTEST]]
    return Prompts(
        tests=(*_asked(chosen[:n_sources], TESTS, "test"), *xstest),
        development=tuple(_asked(chosen[n_sources:], DEVELOPMENT, "development")),
        harmful=tuple(alike.apart(pools[STAR1], every)),
        harmless=tuple(alike.apart(pools[HARMLESS], every)),
    )


class Alike:
    """Near-duplicates among prompts.

    Args:
        prompts: all prompts that will be compared: the document frequencies are theirs.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit(prompts)

    def apart(self, pool: Iterable[Trace], others: Sequence[Trace]) -> list[Trace]:
        """Those of a pool that are no near-duplicate of any other, nor of one before them in the pool."""
        candidates = list(pool)
        rows: Any = self._vectors.transform([trace.prompt for trace in [*others, *candidates]])
        alike = (rows @ rows.T).toarray() >= LEAST_ALIKE
        kept = list(range(len(others)))
        for row in range(len(others), len(alike)):
            if not alike[row, kept].any():
                kept.append(row)
        return [candidates[row - len(others)] for row in kept[len(others) :]]


def _read(data: Path, name: str) -> list[Trace]:
    """Prompts of a file that are short enough and that a sentence of U can restate."""
    file = data / f"{name}.jsonl"
    if not file.is_file():
        raise InputError(f"--data: {file} is missing, expected a folder with {name}.jsonl (REAL_STUDY.md, Data)")
    short = (trace for trace in read_traces(file) if len(trace.prompt) <= MOST_PROMPT)
    return [trace.with_(source=name) for trace in short if form_of(trace.prompt) is not None]


def _drawn(pool: Sequence[Trace], n: int, taken: list[Trace], alike: Alike) -> list[Trace]:
    """The first ``n`` that are apart from one another and from those that are taken; they are taken then."""
    known = {trace.trace_id for trace in taken}
    left = alike.apart([trace for trace in pool if trace.trace_id not in known], taken)
    if len(left) < n:
        raise InputError(f"{pool[0].source}: {len(left)} prompts are left, expected {n}")
    taken += left[:n]
    return left[:n]


def _asked(drawn: Sequence[Sequence[Trace]], sizes: Sizes, split: Split) -> list[Trace]:
    """Requests plain and in wrappers; each wrapper gets as many prompts of each label."""
    forms, asked = wrappers_of(split), []
    for label in ("harmful", "benign"):
        prompts = [trace for pool in drawn for trace in pool if trace.label == label]
        for number, trace in enumerate(prompts):
            about = {"request": trace.prompt, "wrapper": PLAIN, "family": PLAIN}
            asked.append(trace.with_(group=trace.trace_id, meta=about, source="plain"))
            for turn in range(sizes.wrappers):
                form = forms[(number * sizes.wrappers + turn) % len(forms)]
                wrapped = {"request": trace.prompt, "wrapper": form.name, "family": form.family}
                name = f"{trace.trace_id} {form.name}"
                text = form.around(trace.prompt)
                asked.append(
                    trace.with_(trace_id=name, prompt=text, group=trace.trace_id, meta=wrapped, source="wrapped")
                )
    return asked


def _xstest(pool: Sequence[Trace], n: int) -> list[Trace]:
    """As many of each label; twins keep their group."""
    about = {"wrapper": PLAIN, "family": PLAIN}
    return [
        trace.with_(meta=about | {"request": trace.prompt}, source="xstest")
        for label in ("harmful", "benign")
        for trace in [trace for trace in pool if trace.label == label][:n]
    ]
