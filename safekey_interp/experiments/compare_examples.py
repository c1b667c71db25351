"""Examples of a comparison: prompts drawn by a seed among those where the models differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safekey_interp.segmentation.reasoning_span import answer_span

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.reporting.figures.figure_style import Table
    from safekey_interp.runs.run_folder import Run

MOST_SHOWN = 1_200
"""Characters of a prompt, of U, of K and of an answer that are kept."""


def examples(
    outcomes: Table,
    traces: Mapping[str, Mapping[str, Trace]],
    runs: Mapping[str, Run | None],
    names: Sequence[str],
    *,
    n: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Prompts with each model's sentences, answer and judgement.

    Of prompts that all models have, those come first in which verdicts or the key sentences' kinds differ, dealt out
    over labels and patterns of verdicts, so that one common pattern does not fill the page.

    Args:
        outcomes: every model's.
        traces: of each model, by trace id.
        runs: of each model; None when it was not probed.
        names: the models, in their order.
        n: how many are wanted.
        seed: of the choice.
    """
    by_id = outcomes.set_index(["trace_id", "model"])
    shared = [trace_id for trace_id in traces[names[0]] if all(trace_id in traces[name] for name in names)]
    patterns: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for trace_id in shared:
        rows = [by_id.loc[(trace_id, name)] for name in names]
        verdicts, decisions = ([str(row[column]) for row in rows] for column in ("judged", "aha"))
        alike = len(set(verdicts)) == 1 and len(set(decisions)) == 1
        patterns.setdefault((alike, (str(rows[0]["label"]), *verdicts, *decisions)), []).append(trace_id)
    queues = [sorted(patterns[key], key=lambda trace_id: _draw(seed, trace_id)) for key in sorted(patterns)]
    n_differing = sum(not alike for alike, _ in patterns)
    chosen: list[str] = []
    for some in (queues[:n_differing], queues[n_differing:]):
        while len(chosen) < n and any(some):
            chosen += [queue.pop(0) for queue in some if queue][: n - len(chosen)]
    texts = {name: None if run is None else _spans(run) for name, run in runs.items()}
    return [
        {
            "trace_id": trace_id,
            "prompt": shortened(traces[names[0]][trace_id].prompt),
            "label": _plain(by_id.loc[(trace_id, names[0])]["label"]),
            "condition": _plain(by_id.loc[(trace_id, names[0])]["condition"]),
            "sides": [
                _side(name, traces[name][trace_id], by_id.loc[(trace_id, name)], texts[name]) for name in names
            ],
        }
        for trace_id in chosen
    ]  # fmt: skip


def _side(name: str, trace: Trace, row: Any, spans: Any) -> dict[str, Any]:
    span = answer_span(trace.response)
    answer = None if span is None else trace.response[span.start : span.end].strip()
    sentences = {"understanding": None, "key_sentence": None}
    if spans is not None and trace.trace_id in spans.index:
        sentences = {column: shortened(_plain(spans.loc[trace.trace_id][column])) for column in sentences}
    facts = {column: _plain(row[column]) for column in ("judged", "reason", "aha", "hint", "cut")}
    return {"model": name, **sentences, "answer": shortened(answer), **facts}


def _spans(run: Run) -> Any:
    rows: Any = run.traces
    return None if rows is None else rows.set_index("trace_id")[["understanding", "key_sentence"]]


def _draw(seed: int, trace_id: str) -> str:
    return hashlib.sha256(f"{seed} {trace_id}".encode()).hexdigest()


def shortened(text: str | None) -> str | None:
    """At most :data:`MOST_SHOWN` characters of a text."""
    return text if text is None or len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} …"


def _plain(value: Any) -> Any:
    """A cell as JSON holds it."""
    import pandas as pd

    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value
