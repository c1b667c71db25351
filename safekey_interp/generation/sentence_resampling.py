"""Resampling of sentences of the reasoning (Thought Anchors: Bogdan et al. 2025, arXiv 2506.19143).

Responses are drawn from the model before each sentence s of a trace's reasoning, and behind the last one. With an
outcome y of a response (refused or not), the importance of s is what keeping it changes:

    importance(s) = E[y | all up to the end of s] − E[y | all before s]

in [−1, 1]: behind s it is kept, before s the model writes it anew (their resampling importance, as a signed difference
of shares; they take the divergence of the answers' distributions). Where the model writes s again word for word,
nothing was changed: ``importance_other`` takes, before s, only responses that go on with another sentence (their
counterfactual importance takes those of another meaning, by embeddings). K alone, by kind, is drawn by
:mod:`~safekey_interp.generation.key_sentence_resampling`; :func:`safekey_interp.suppress` hides a sentence instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.new_text import new_text
from safekey_interp.generation.prefill_depth import beginning
from safekey_interp.generation.requests import Request
from safekey_interp.measures.intervals import difference_of_shares
from safekey_interp.segmentation.finder_registry import Finder
from safekey_interp.segmentation.named_spans import sentence_spans
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented

MOST = 12
"""First sentences of the reasoning that are resampled unless the caller says otherwise."""
Outcome = Callable[[str | None, str], float | bool | None]
"""From prompt and new text to whether the outcome came, in [0, 1]; None where that cannot be told."""
_END = "end"
_NEEDED = ("prompt_id", "condition", "sample", "prefill", "response", "group", "label", "prompt")


class SentenceRequests(NamedTuple):
    """Requests of an experiment by sentence."""

    requests: list[Request]
    """Of the conditions ``sentence N, PART``: all before sentence N (from 0) is given; PART is that sentence's
    (``understanding``, ``key_sentence``, ``rest``), and ``end`` behind the last."""
    left_out: dict[str, str]
    """Why traces are not asked, by trace id."""


class _Drawn(NamedTuple):
    """One response, before a sentence or behind the last."""

    row: dict[str, Any]
    part: str
    value: float | None
    """Its outcome."""

    @property
    def goes_on(self) -> str:
        """What was written behind its prefill."""
        return self.row["response"][len(self.row["prefill"]) :].lstrip()


def sentence_requests(
    tokenizer: Any,
    traces: Iterable[Trace],
    *,
    most: int = MOST,
    finder: str | Finder = "rules",
    delimiters: tuple[str, str] | None = None,
) -> SentenceRequests:
    """What to ask to resample each sentence of the reasoning: the response up to it, from the very tokens of the trace.

    Args:
        tokenizer: of the model that is to answer; None of an endpoint, which is given the text.
        traces: with the responses whose sentences are resampled.
        most: first sentences of the reasoning that are taken; each costs as many responses as samples are drawn.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.

    Returns:
        Of each trace, one request more than it has sentences (at most ``most`` of them).

    Raises:
        InputError: fewer than one sentence is asked for.
    """
    if most < 1:
        raise InputError(f"most: got {most}, expected at least 1 sentence")
    requests: list[Request] = []
    left_out: dict[str, str] = {}
    for trace, segmentation in segmented(traces, SegmentationSettings(finder=finder, delimiters=delimiters)):
        try:
            requests += _of_trace(tokenizer, trace, segmentation, most)
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
    return SentenceRequests(requests, left_out)


def sentence_importance(responses: str | Path | pd.DataFrame, outcome: Outcome) -> pd.DataFrame:
    """How much each sentence changes an outcome, from the responses before and behind it.

    Args:
        responses: the file that ``generate --resample sentences`` wrote (:func:`sentence_requests`), or its rows.
        outcome: reads each response, its new text alone: such as
            ``lambda prompt, text: ski.judge_refusal(prompt, text).label == "full_refusal"``.

    Returns:
        One row per trace and sentence that is resampled and kept: trace_id, group, label, source and source_part (its
        number and part, as in ``suppress``), text, rate_kept and rate_resampled (in [0, 1]), importance (kept minus
        resampled) with low and high (95 %, over the samples; NaN below ten of each), n_kept, n_resampled (responses
        with an outcome), importance_other, low_other, high_other, n_other (against resampled responses that go on with
        another sentence). ``attrs["outcomes"]`` has the outcome of each response, for :func:`summarise_importance`.

    Raises:
        InputError: not such a file, or no sentence has responses before and behind it.
    """
    table = _read(responses)
    numbers: Any = table["condition"].str.extract(r"^sentence (\d+), (\w+)$")
    if numbers.isna().to_numpy().any():
        raise InputError("responses: got conditions that are no sentences, expected those of sentence_requests")
    drawn: dict[tuple[str, int], list[_Drawn]] = {}
    for row, number, part in zip(table.to_dict("records"), numbers[0], numbers[1], strict=True):
        value = outcome(row["prompt"], new_text(row["response"], row["prefill"]))
        value = None if value is None else float(value)
        drawn.setdefault((row["prompt_id"], int(number)), []).append(_Drawn(row, part, value))
    rows: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    for (trace_id, number), before in sorted(drawn.items()):
        behind = drawn.get((trace_id, number + 1), [])
        if before[0].part == _END or not behind:
            continue
        first = before[0].row
        text = behind[0].row["prefill"][len(first["prefill"]) :].strip()
        about = {"trace_id": trace_id, "group": first["group"], "label": first["label"]}
        about |= {"source": number, "source_part": before[0].part}
        kept, resampled = _values(behind), _values(before)
        other = _values([one for one in before if not one.goes_on.startswith(text)])
        rates = {"rate_kept": _mean(kept), "rate_resampled": _mean(resampled), **_difference(resampled, kept)}
        rates |= {"n_kept": len(kept), "n_resampled": len(resampled), **_difference(other, kept, "_other")}
        rows.append(about | {"text": text} | rates | {"n_other": len(other)})
        for side, values in (("kept", kept), ("resampled", resampled)):
            outcomes += [about | {"side": side, "value": value} for value in values]
    if not rows:
        raise InputError("responses: no sentence has responses before and behind it; draw them behind it, too")
    found = pd.DataFrame(rows)
    found.attrs["outcomes"] = outcomes
    return found


def summarise_importance(table: pd.DataFrame) -> pd.DataFrame:
    """Importance by part of the reasoning, over traces.

    Args:
        table: from :func:`sentence_importance`.

    Returns:
        One row per label and part (``understanding``, ``key_sentence``, ``rest``): label, source_part, rate_kept,
        rate_resampled, importance with low and high (95 % over groups, that is prompts; NaN below ten), n_sentences,
        n_traces, n_groups, n (responses with an outcome).
    """
    outcomes: Any = pd.DataFrame(table.attrs["outcomes"])
    rows: list[dict[str, Any]] = []
    grouped: Any = outcomes.groupby(["label", "source_part"], dropna=False, sort=False)
    for (label, part), held in grouped:
        sides = {name: held[held["side"] == name] for name in ("resampled", "kept")}
        values = {name: (side["value"].to_numpy(float), list(side["group"])) for name, side in sides.items()}
        low, high = difference_of_shares(values["resampled"], values["kept"])
        rates = {f"rate_{name}": sides[name]["value"].mean() for name in ("kept", "resampled")}
        counts = {"n_sentences": len(held[["trace_id", "source"]].drop_duplicates())}
        counts |= {"n_traces": held["trace_id"].nunique(), "n_groups": held["group"].nunique(), "n": len(held)}
        about = {"label": label, "source_part": part, **rates}
        about |= {"importance": rates["rate_kept"] - rates["rate_resampled"], "low": low, "high": high}
        rows.append(about | counts)
    order = {part: number for number, part in enumerate(("understanding", "key_sentence", "rest"))}
    rows.sort(key=lambda row: (str(row["label"]), order[row["source_part"]]))
    return pd.DataFrame(rows)


def _of_trace(tokenizer: Any, trace: Trace, segmentation: Segmentation, most: int) -> list[Request]:
    spans = list(islice(sentence_spans(segmentation), most + 1))
    if not trace.response or not spans:
        raise TraceError(trace.trace_id, "its reasoning has no sentence")
    cuts = [(part, span.start) for part, span in spans[:most]]
    cuts.append((_END, spans[most][1].start if len(spans) > most else spans[-1][1].end))
    requests = []
    for number, (part, end) in enumerate(cuts):
        condition = f"sentence {number}, {part}"
        if tokenizer is None:
            requests.append(Request(trace=trace, prefill=trace.response[:end], condition=condition))
            continue
        given = beginning(tokenizer, trace, end)
        request = given.request(trace, len(given.ends), share=0.0, condition=condition)
        requests.append(replace(request, share=None))
    return requests


def _values(drawn: list[_Drawn]) -> list[float]:
    """Outcomes, of responses that have one."""
    return [one.value for one in drawn if one.value is not None]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _difference(resampled: list[float], kept: list[float], suffix: str = "") -> dict[str, float]:
    """Kept minus resampled with its interval over samples, which are independent of one another."""
    before = resampled, [f"before {number}" for number in range(len(resampled))]
    behind = kept, [f"behind {number}" for number in range(len(kept))]
    low, high = difference_of_shares(before, behind)
    return {f"importance{suffix}": _mean(kept) - _mean(resampled), f"low{suffix}": low, f"high{suffix}": high}


def _read(responses: str | Path | pd.DataFrame) -> pd.DataFrame:
    if isinstance(responses, pd.DataFrame):
        table = responses
    else:
        try:
            lines = Path(responses).read_text(encoding="utf-8").splitlines()
            table = pd.DataFrame([json.loads(line) for line in lines if line.strip()])
        except (OSError, ValueError) as error:
            raise InputError(f"{responses}: cannot be read ({error}); expected a file of responses") from None
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        raise InputError(
            f"responses: no columns {', '.join(missing)}; expected a file of generate --resample sentences"
        )
    return table
