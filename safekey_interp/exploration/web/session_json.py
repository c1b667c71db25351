"""Session, branches and events as JSON: what the page of a session is sent.

Numbers that are not finite become null. Texts that are shown are those that a page may show
(:func:`~safekey_interp.display.printable`); the page sets them as text, never as HTML.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from functools import singledispatch
from itertools import islice
from typing import Any

import pandas as pd

from safekey_interp.data.trace import Trace
from safekey_interp.display import one_line, printable
from safekey_interp.errors import TraceError
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.exploration.branch_record import Branch, BranchDifference
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.session_events import BranchEnded, BranchFailed, SpansFound, TokenWritten
from safekey_interp.exploration.session_readers import Signal, halves
from safekey_interp.generation.generation_edits import Steer
from safekey_interp.measures.direction_record import Direction
from safekey_interp.models.model import Model
from safekey_interp.models.unknown_tokens import UnknownTokens
from safekey_interp.reporting.pages.token_view import visible
from safekey_interp.runs.storage import without_nan

MOST_PRESETS = 300
"""Traces offered as presets."""
_MOST_CANDIDATES = 24
Json = dict[str, Any]


def json_text(value: Any) -> str:
    """``value`` as JSON in ASCII, so that lone surrogates and separators of lines pass."""
    return json.dumps(without_nan(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def session_json(session: Session, transcript: Callable[[Branch], Json], *, with_presets: bool = True) -> Json:
    """A session as it is: models, readers, presets and all branches, each made by ``transcript``."""
    return {
        "type": "session",
        "folder": None if session.folder is None else printable(str(session.folder)),
        "models": [
            {"name": one_line(model.name), "n_layers": model.n_layers, "n_heads": model.n_heads}
            for model in session.models
        ],
        "readers": readers_json(session),
        "presets": _presets(session) if with_presets else [],
        "branches": [transcript(branch) for branch in session.tree()],
    }


def readers_json(session: Session) -> list[Json]:
    """What scores every token."""
    return [_reader(reader, session.models) for reader in session.readers]


def transcript_json(session: Session, branch_id: str, *, is_waiting: bool) -> Json:
    """A branch with all that it has written; ``is_waiting`` when it is queued to be written."""
    transcript = session.transcript(branch_id)
    status = "waiting" if is_waiting and transcript.status in ("ready", "paused") else transcript.status
    return _branch(transcript.branch) | {
        "type": "branch",
        "status": status,
        "prompt_tokens": [visible(token) for token in transcript.prompt_tokens],
        "tokens": [_token(token) for token in transcript.tokens],
        "prompt_span": _prompt_span(session, transcript.branch),
        "unknown": _unknown(session, transcript.branch),
        "spans": _spans(transcript.spans),
        "ended": None if transcript.ended is None else event_json(transcript.ended),
        "failed": None if transcript.failed is None else one_line(transcript.failed.message),
    }


@singledispatch
def event_json(event: Any) -> Json:
    """An event of a session."""
    raise TypeError(type(event).__name__)


@event_json.register
def _(event: TokenWritten) -> Json:
    return {"type": "token", "branch": event.branch, "token": _token(event)}


@event_json.register
def _(event: SpansFound) -> Json:
    return {"type": "spans", "branch": event.branch, "spans": _spans(event)}


@event_json.register
def _(event: BranchEnded) -> Json:
    words = {"reason": event.reason, "label": event.label, "label_reason": one_line(event.label_reason or "")}
    return {"type": "ended", "branch": event.branch} | words


@event_json.register
def _(event: BranchFailed) -> Json:
    return {"type": "failed", "branch": event.branch, "message": one_line(event.message)}


def difference_json(difference: BranchDifference) -> Json:
    """How two branches differ."""
    return {
        "branch": difference.branch,
        "other": difference.other,
        "first_difference": difference.first_difference,
        "logprob_difference": difference.logprob_difference,
        "labels": list(difference.labels),
        "tokens": rows_json(difference.tokens),
    }


def rows_json(table: pd.DataFrame) -> Json:
    """A table by column; texts as a page may show them."""
    return {
        str(name): [visible(value) if isinstance(value, str) else value for value in column.tolist()]
        for name, column in table.items()
    }


def _prompt_span(session: Session, branch: Branch) -> list[int] | None:
    """Positions of the prompt's text among the tokens before the response."""
    try:
        return _interval(session.models[branch.model].encode(branch.trace.with_(response="")).spans["prompt"])
    except TraceError:
        return None


def _unknown(session: Session, branch: Branch) -> float:
    """Share of the prompt's tokens that the model's tokenizer does not know."""
    unknown = UnknownTokens(session.models[branch.model].tokenizer)
    unknown.add_trace(branch.trace, response=False)
    return unknown.share


def _reader(reader: Any, models: Sequence[Model]) -> Json:
    threshold = reader.threshold
    return {
        "name": one_line(reader.name),
        "layer": reader.reader.layer,
        "is_direction": isinstance(reader.reader, Direction),
        "position": None if reader.positions is None else one_line(reader.positions[0]),
        "threshold": None if threshold is None else threshold.value,
        "false_positive_rate": None if threshold is None else threshold.false_positive_rate,
        "calibrated_by": one_line(models[reader.models[0]].name),
        "n_benign": None if threshold is None else threshold.n,
        "no_threshold": one_line(reader.no_threshold),
        "models": list(reader.models),
    }


def _presets(session: Session) -> list[Json]:
    signals, unread = session.signals(_candidates(session)), Signal(math.nan, math.nan)
    presets = session.traces[:MOST_PRESETS]
    return [_preset(trace) | signals.get(trace.trace_id, unread)._asdict() for trace in presets]


def _candidates(session: Session) -> list[Trace]:
    """Presets that a dormant signal is looked for in: harmful prompts whose trace complies, of those that readers are
    not fitted to."""
    known = halves(session.traces[:MOST_PRESETS])[1]
    found = (t for t in known if t.label == "harmful" and _outcome(t.prompt, t.response) == "full_compliance")
    return list(islice(found, _MOST_CANDIDATES))


@functools.lru_cache(maxsize=MOST_PRESETS)
def _outcome(prompt: str, response: str) -> str | None:
    return judge_refusal(prompt, response).label


def _preset(trace: Trace) -> Json:
    return {
        "id": one_line(trace.trace_id),
        "label": None if trace.label is None else one_line(trace.label),
        "outcome": _outcome(trace.prompt, trace.response),
        "prompt": trace.prompt,
        "turns": [{"role": turn.role, "content": turn.content} for turn in trace.messages],
    }


def _branch(branch: Branch) -> Json:
    return {
        "branch": branch.branch_id,
        "name": one_line(branch.name),
        "change": one_line(branch.change),
        "model": branch.model,
        "prompt": printable(branch.trace.prompt),
        "parent": branch.parent,
        "at": branch.at,
        "control": branch.control,
        "control_of": branch.control_of,
        "no_control": one_line(branch.no_control),
        "is_steered": any(isinstance(edit, Steer) for edit in branch.edits),
        "seed": branch.sampling.seed,
        "temperature": branch.sampling.temperature,
        "max_new_tokens": branch.sampling.max_new_tokens,
    }


def _token(token: TokenWritten) -> Json:
    return {
        "position": token.position,
        "index": token.index,
        "text": visible(token.text),
        "logprob": token.logprob,
        "is_given": token.is_given,
        "scores": {
            one_line(name): [score.value, score.control_mean, score.control_sd, score.alarm]
            for name, score in token.scores.items()
        },
    }


def _spans(spans: SpansFound) -> Json:
    return {
        "understanding": _interval(spans.understanding),
        "key_sentence": _interval(spans.key_sentence),
        "is_provisional": spans.is_provisional,
        "reason": one_line(spans.reason),
        "read_at": {one_line(name): list(positions) for name, positions in spans.read_at.items()},
    }


def _interval(span: Any) -> list[int] | None:
    return None if span is None else [span.start, span.end]
