"""Queue of a study's training runs: shares, times, repeatable arithmetic, and runs done again to compare the bits.

A study's cell is one training run with what is asked and measured of it; its folder is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from analysis.processors import processor
from safekey_interp.errors import InputError
from safekey_interp.runs.storage import read_json

if TYPE_CHECKING:
    import pandas as pd

    from safekey_interp.training.config import TrainingConfig


class Named(Protocol):
    """A cell of a study."""

    @property
    def name(self) -> str:
        """Its folder's name."""
        ...


CellOf = TypeVar("CellOf", bound=Named)


class Share(NamedTuple):
    """The part of a queue that one process takes."""

    number: int
    """From 1."""
    of: int
    """How many shares there are."""


def read_share(text: str) -> Share:
    """A share as a command has it, ``1/2``.

    Raises:
        InputError: it is no such thing.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    share = Share(*map(int, match.groups())) if match else Share(0, 0)
    if not 1 <= share.number <= share.of:
        raise InputError(f"--share: got {text!r}, expected I/N with I from 1 to N, such as 1/2")
    return share


def begin(threads: int = 1) -> None:
    """Make this process's arithmetic repeatable, on so many threads, and quiet."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def timed(what: str, do: Callable[[], object]) -> float:
    """Do something and print how long it took; the seconds of the clock."""
    wall, processor = time.perf_counter(), time.process_time()
    do()
    seconds = time.perf_counter() - wall
    print(f"{what}: {seconds:.0f} s, processor {time.process_time() - processor:.0f} s", flush=True)
    return seconds


class Again(NamedTuple):
    """A cell that was run again."""

    name: str
    is_same: bool
    """To the bit."""
    made_on: str
    """The processor of the first run; empty where it was not recorded."""
    outcomes: str = ""
    """How the outcomes of the two compare, where bits differ."""

    @property
    def is_failure(self) -> bool:
        """Whether the bits differ for another reason than a known other processor."""
        return not self.is_same and self.made_on in ("", processor())

    def __str__(self) -> str:
        if self.is_same:
            return f"{self.name}: the same bits"
        said = f"{self.name}: OTHER BITS; {self.outcomes}"
        if self.made_on == (here := processor()):
            return said
        first = f"made on {self.made_on}" if self.made_on else "made on a processor that was not recorded"
        return f"{said}; {first}, again on {here}, and bits repeat on one kind of processor"


class Rerun(NamedTuple, Generic[CellOf]):
    """How a study runs a cell again, and compares the first run and the second."""

    run: Callable[[CellOf], None]
    """Runs it, in a folder of its own."""
    bits: Callable[[CellOf], tuple[Any, Any]]
    """What must be the same, of both."""
    outcomes: Callable[[CellOf], tuple[pd.DataFrame, pd.DataFrame]]
    """What is compared where bits differ: requests of both, with ``outcome`` and ``counts`` (whether it is what the
    study counts)."""


def same_again(done: Mapping[CellOf, str], n: int, seed: int, rerun: Rerun[CellOf]) -> Iterable[Again]:
    """Run random cells again: of those that were made on this kind of processor, or of all where there are none.

    Args:
        done: the processor of each cell that is done.
        n: how many of them.
        seed: of the draw.
        rerun: how.
    """
    here = [cell for cell, made_on in done.items() if made_on == processor()]
    pool = here or list(done)
    chosen = random.Random(seed).sample(pool, min(n, len(pool)))
    print(f"{len(chosen)} of {len(done)} cells run again: {', '.join(cell.name for cell in chosen)}", flush=True)
    for cell in chosen:
        timed(f"{cell.name} again", lambda cell=cell: rerun.run(cell))
        first, second = rerun.bits(cell)
        is_same = first == second
        yield Again(cell.name, is_same, done[cell], "" if is_same else _compared(*rerun.outcomes(cell)))


def _compared(first: Any, second: Any) -> str:
    """What the study counts in two runs of the same requests, and how many of their outcomes agree."""
    same = (first["outcome"].to_numpy() == second["outcome"].to_numpy()).mean()
    counts = f"{first['counts'].mean():.3f} and again {second['counts'].mean():.3f}"
    return f"primary outcome {counts}, the same outcome in {same:.3f} of {len(first)} requests"


def print_again(found: Iterable[Again]) -> bool:
    """Print each cell when it has run again; whether none is a failure."""
    failures = 0
    for one in found:
        print(one, flush=True)
        failures += one.is_failure
    return not failures


_OPTIONS = (
    "model traces out spans prompt_spans finder delimiters held_out max_length head_weight query_mask_weight theta "
    "query_mask query_prompt key_weight shuffled_labels auxiliary_epochs head_layer epochs max_steps batch_size "
    "micro_batch_size packing learning_rate head_learning_rate betas weight_decay warmup schedule max_grad_norm seed "
    "precision gradient_checkpointing compile lora_rank lora_alpha lora_targets save_every save_total_limit "
    "probe_every probe_traces probe_queries probe_keys probe_positions key_sentences evaluate_every log_every "
    "log_gradient_norms_every patience save_dtype report_to"
)
_KNOWN = frozenset(_OPTIONS.split())
"""Options of training when the studies began."""


def settings_that_count(config: TrainingConfig, but: Collection[str]) -> dict[str, Any]:
    """The settings on which a run depends; an option that came later counts where it is not at its default, so that a
    run stays known.

    Args:
        config: of the training.
        but: options that name a place.
    """
    usual = type(config)().to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if name not in but and (name in _KNOWN or value != usual[name])
    }


def read_choice(file: Path, command: str) -> dict[str, Any]:
    """What a study's pilot wrote; its smallest effect on the log-odds is NaN where there was none.

    Args:
        file: of the choice.
        command: that makes it, for the message.

    Raises:
        InputError: there is none.
    """
    record = read_json(file)
    if record is None:
        raise InputError(f"{file}: no such file; `{command}` makes it")
    return record | {"log_odds": math.nan if record["log_odds"] is None else record["log_odds"]}


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON has it, keys in order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def result_hashes(record: Any, answers: pd.DataFrame) -> dict[str, str]:
    """Hashes of what two runs of a cell must have in common.

    Args:
        record: of its folder.
        answers: with responses and log-odds.
    """
    return {
        "identity": digest(record["identity"]),
        "weights": record["weights_sha256"],
        "answers": digest(answers.to_dict("list")),
        "mechanism": digest(record["mechanism"]),
    }


def as_read(value: Any) -> Any:
    """A record as it is read from JSON."""
    return json.loads(json.dumps(value))
