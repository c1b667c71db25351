"""Outcomes of a comparison: each model's answer to each prompt by the judge, its key sentence and its understanding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from safekey_interp.data.conditions import condition_of
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.experiments.probe_chunks import SHOWN_AFTER
from safekey_interp.generation.new_text import new_text
from safekey_interp.runs.run_writer import GENERATED

if TYPE_CHECKING:
    import pandas as pd

    from safekey_interp.evaluation.judgement import Judgement
    from safekey_interp.progress import Progress
    from safekey_interp.runs.run_folder import Run

COLUMNS = (
    *("trace_id", "model", "group", "label", "source", "condition", "judged", "reason", "cut"),
    *("suite_judge", "suite_label", "suite_value", "suite_reason"),
    *("aha", "hint", "has_key_sentence", "status"),
)
"""Of ``outcomes``: ``judged`` is the judge's label, NA where it has none, for the ``reason`` named; ``cut`` is NA where
nobody knows; ``suite_*`` are the suite's own judge's, NA where it was not asked; ``aha``, ``hint`` and ``status`` are
those of the model's own run of ``probe``."""
_KEPT_SHORT = "the run folder keeps the beginning of this response alone"


def outcomes_of(
    name: str,
    traces: Iterable[Trace],
    run: Run | None,
    judgements: Mapping[str, Judgement],
    *,
    by: str | None,
    progress: Progress,
) -> pd.DataFrame:
    """One row for each trace of one model, :data:`COLUMNS`.

    Args:
        name: the model's.
        traces: with the model's responses.
        run: its run of ``probe``; None when nothing could be probed.
        judgements: of the suites' own judges, by trace id.
        by: the column that tells conditions apart.
        progress: shows how far this is.
    """
    import pandas as pd

    rows = []
    for trace in traces:
        short = trace.meta.get("kept_short") is True
        given = str(trace.meta.get("prefill") or "")
        judged = None if short else judge_refusal(trace.prompt, new_text(trace.response, given))
        second = judgements.get(trace.trace_id)
        rows.append(
            {
                "trace_id": trace.trace_id,
                "model": name,
                "group": trace.group,
                "label": trace.label,
                "source": trace.source,
                "condition": condition_of(trace, by),
                "judged": judged.label if judged else None,
                "reason": judged.reason if judged else _KEPT_SHORT,
                "cut": trace.meta.get("cut"),
                "suite_judge": second.judge if second else None,
                "suite_label": second.label if second else None,
                "suite_value": second.value if second else float("nan"),
                "suite_reason": second.reason if second else None,
            }
        )
        progress.advance(1)
    table: Any = pd.DataFrame(rows)
    probed: Any = None if run is None else run.traces
    if probed is None:
        table = table.assign(aha=None, hint=None, has_key_sentence=pd.NA, status="not probed")
    else:
        own = probed.assign(has_key_sentence=probed["key_sentence"].notna()).set_index("trace_id")
        segmented = own[["aha", "hint", "has_key_sentence", "status"]].reindex(table["trace_id"])
        table = table.join(segmented.reset_index(drop=True))
    others = {"cut": "boolean", "hint": "boolean", "has_key_sentence": "boolean", "suite_value": "float64"}
    return table[list(COLUMNS)].astype(dict.fromkeys(COLUMNS, "string") | others)


def traces_of(run: Run) -> Iterator[Trace]:
    """The traces of a finished run of ``probe`` with their responses.

    Where the model wrote them for the run they lie in it whole; else its table has them up to 2,000 characters after
    the key sentence, and a trace of which it may have less than there was says ``kept_short`` in its meta.
    """
    if (run.path / GENERATED).is_file():
        yield from read_traces(run.path / GENERATED)
        return
    rows: Any = run.traces
    for _, row in rows.fillna({"key_sentence_end": 0}).iterrows():
        about = {name: str(value) for name, value in row[["label", "source", "group"]].dropna().items()}
        meta = json.loads(row["meta"]) if isinstance(row["meta"], str) else {}
        yield Trace(
            trace_id=str(row["trace_id"]),
            prompt=str(row["prompt"]),
            response=str(row["response"]),
            meta=meta | {"kept_short": len(row["response"]) >= int(row["key_sentence_end"]) + SHOWN_AFTER},
            **about,  # type: ignore[arg-type]
        )
