"""What was a run: its model, its data, its settings and versions, and which of these make it the same run?

``identity`` decides: a folder is continued when it agrees, whatever the files are called and wherever they lie. Data
are the same when the traces read from them are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from safekey_interp.identity import tokenizer_hash, version_of, versions_of
from safekey_interp.version import __version__

if TYPE_CHECKING:
    from safekey_interp.datasets import TraceSource
    from safekey_interp.models import Model
    from safekey_interp.trace import Trace

_VERSIONS = ("torch", "transformers", "transformer-lens", "numpy", "pandas", "scikit-learn", "tokenizers")
_OF_PLAN = ("chunk",)
_OF_MODEL = ("architecture", "dtype", "attn", "weights_sha256")


class Content(NamedTuple):
    """Traces as they were read."""

    n: int
    """How many."""
    sha256: str
    """Hash of everything that they say, in their order."""


def content_of(traces: Iterable[Trace]) -> Content:
    """Read every trace once for :class:`Content`."""
    digest, n = hashlib.sha256(), 0
    for trace in traces:
        n += 1
        said = [trace.trace_id, trace.prompt, trace.response, trace.label, trace.source, trace.group]
        turns = [[turn.role, turn.content] for turn in trace.messages]
        given = {name: [span.start, span.end] for name, span in trace.given.items()}
        digest.update(json.dumps([*said, turns, given, dict(trace.meta)], default=str).encode() + b"\n")
    return Content(n, digest.hexdigest())


def manifest_of(
    model: Model,
    source: TraceSource,
    content: Content,
    settings: Mapping[str, Any],
    *,
    plan: Mapping[str, Any],
    seed: int,
    command: Sequence[str],
) -> dict[str, Any]:
    """Everything that ``run.json`` says when a run begins."""
    record = dict(model.record())
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    data = {"sources": list(source.names), "sha256": source.sha256, "traces_sha256": content.sha256}
    return {
        "safekey_interp": __version__,
        "command": list(command),
        "model": record,
        "data": data | {"n_read": content.n, "n_surrogates": source.n_surrogates},
        "settings": listed,
        "versions": versions_of(_VERSIONS),
        "seed": seed,
        "plan": dict(plan),
        "layers_without_pattern": [],
        "timings": {},
        "identity": {
            "model": {name: record[name] for name in _OF_MODEL}
            | {"device": record["device"].split(":")[0], "tokenizer_sha256": tokenizer_hash(model.tokenizer)},
            "data": {"traces_sha256": content.sha256, "n_read": content.n},
            "settings": listed,
            "plan": {name: plan[name] for name in _OF_PLAN if name in plan},
            "seed": seed,
            "version": __version__,
            "libraries": {name: version_of(name) for name in ("torch", "transformers")},
        },
    }
