"""Responses and judgements for experiments, in files that resume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError
from safekey_interp.evaluation.judge_metrics import REFUSING
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.experiments import compare_measures
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.new_text import new_text
from safekey_interp.generation.requests import Request
from safekey_interp.generation.response_run import write_responses
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models.model import Model
from safekey_interp.progress import Progress


def asked(
    model: Model, requests: Sequence[Request], file: Path, sampling: Sampling, *, progress: Progress | None = None
) -> Any:
    """Every request's answer, with ``refused`` (NA where the judge has no verdict).

    Args:
        model: who answers.
        requests: what is asked; each in the file once.
        file: .jsonl of the answers; those that are there are not asked for again.
        sampling: how it answers, greedily.
        progress: is told how far this is.

    Returns:
        One row a request: trace_id, group, label, condition, depth, share, refused (by the new text alone).
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    write_responses(LocalEngine(model), requests, out=file, sampling=sampling, progress=progress)
    rows = []
    for trace in read_traces(file):
        judged = judge_refusal(trace.prompt, new_text(trace.response, trace.meta.get("prefill") or ""))
        rows.append(
            {
                "trace_id": str(trace.meta.get("prompt_id") or trace.trace_id),
                "group": trace.group,
                "label": trace.label,
                "condition": trace.meta.get("condition"),
                "depth": trace.meta.get("depth"),
                "share": trace.meta.get("share"),
                "refused": None if judged.label is None else judged.label in REFUSING,
            }
        )
    table: Any = pd.DataFrame(rows)
    return table.astype({"refused": "boolean"})


def mean_of(values: Any, groups: Any) -> dict[str, Any]:
    """The mean of numbers, of a share or of a difference of shares with its 95 % interval over groups, and counts."""
    if not len(values):
        raise InputError("a mean of nothing")
    return compare_measures.mean_of(values, groups)
