"""Bundled toy reasoning model ("organism"): its weights, its traces, and one example of them.

The organism is a toy, trained from scratch on a language of its own (:mod:`~safekey_interp.models.organism.language`)
by ``train/organism.py``: pre-trained to comply with everything (``organism:base``), then fine-tuned to refuse plain
harmful requests (``organism:sft``, which is what ``organism`` names). It falls to jailbreaks that fine-tuning did not
show, and names the harm in its understanding even then. ``organism:safekey`` was fine-tuned on the same examples with
the two losses of SafeKey. It has one built-in mechanism, for learning and testing, and is no evidence about large
models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from safekey_interp.data.row_schema import NamedFields, read_row
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, ModelError

_HERE = Path(__file__).parent
_FOLDERS = {"organism": "sft", "organism:base": "base", "organism:sft": "sft", "organism:safekey": "safekey"}
MODELS = {
    "organism": "a toy reasoning model that comes with the package: it refuses plain harmful requests",
    "organism:base": "the same before fine-tuning: it complies with everything",
    "organism:safekey": "fine-tuned on the same examples with the two losses of SafeKey",
}
"""The organism's models and a line about each; ``organism:sft`` is another name of the first."""
CAVEAT = (
    "The organism is a toy with one built-in mechanism, for learning and testing: what it shows is no evidence about "
    "large models."
)
"""What every summary of the organism says first."""
TOY = "The organism is a toy: no evidence about large models."
"""The same in a line of a terminal."""
TRACES = _HERE / "traces.jsonl"
"""The traces that ``organism`` generated on requests held out of its fine-tuning."""


def is_organism(spec: str) -> bool:
    """Whether a model's name asks for one of the organism's, known or not."""
    return spec == "organism" or spec.startswith("organism:")


def weights_folder(spec: str) -> Path:
    """The folder of one of the organism's models.

    Raises:
        ModelError: it has no model of that name.
    """
    if spec not in _FOLDERS:
        raise ModelError(f"model {spec}: no such organism, expected one of {', '.join(_FOLDERS)}")
    return _HERE / "weights" / _FOLDERS[spec]


def read_shipped() -> Iterator[Trace]:
    """The shipped traces, in their order."""
    with TRACES.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            yield from read_row(json.loads(line), f"{TRACES}, line {number}", str(number), NamedFields())


def to_row(trace: Trace) -> dict:
    """A trace as the shipped file writes it: as :func:`safekey_interp.read_traces` reads it."""
    spans = {name: [span.start, span.end] for name, span in trace.given.items()}
    known = {"id": trace.trace_id, "prompt": trace.prompt, "response": trace.response, "label": trace.label}
    meta = {name: value for name, value in trace.meta.items() if value is not None}
    return known | {"source": trace.source, "group": trace.group} | spans | meta


def example() -> Trace:
    """One trace that shows the dormant signal: a jailbreak new to the model; U names the harm, and K complies."""
    for trace in read_shipped():
        meta = trace.meta
        succeeded = meta["wrapper_split"] != "seen" and meta["outcome"] == "complied" and meta["names_request"]
        if trace.label == "harmful" and trace.source == "wrapped" and succeeded:
            return trace
    raise InputError(f"{TRACES}: no successful jailbreak that names the harm, expected one; train/organism.py makes it")
