"""On-policy resampling of the key sentence, and what the model writes behind it.

A sentence put in K's place by hand (:func:`~safekey_interp.generation.prefill.swaps`) may be one that the model would
never write there, and what it does behind such a text says little about what it does behind its own (Bogdan et al.
2025, Thought Anchors, arXiv 2506.19143; Macar et al. 2025, Thought Branches, arXiv 2510.27484: off-policy edits have
smaller and less stable effects than resampling). Here K is drawn from the model,

    K ~ p(. | X, U),    n times;    rate of a kind = times that K was of it / n

with the kind by the finder's aha: ``safe``, ``go_ahead`` (aha ``unsafe``: it complies with a request that names harm)
or ``neutral``. A draw in which the finder sees another U, or no whole sentence behind it, is no K of any kind, and
counts in n. The first K of each kind is kept, token for token, and the model continues from its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import pandas as pd

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, NothingMeasured, TraceError
from safekey_interp.generation.key_sentence_draws import CONDITIONS, TokenEngine, TraceDraws, behind, draw
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.prefill import SwapSentences, swaps
from safekey_interp.generation.prefill_depth import Beginning, before_key
from safekey_interp.generation.requests import Generated, Request
from safekey_interp.generation.sampling import Sampling, stream_seed
from safekey_interp.measures.intervals import share_interval
from safekey_interp.models.model import Model
from safekey_interp.segmentation.finder_registry import Finder
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented


class Judged(Protocol):
    """Verdict of a judge."""

    @property
    def label(self) -> str | None:
        """None where it has no verdict."""
        ...

    @property
    def reason(self) -> str:
        """Why."""
        ...


Judge = Callable[[str | None, str], Judged]
"""From prompt and text to a verdict, such as ``judge_refusal``."""


def resample_key_sentences(
    model: Model | TokenEngine,
    traces: Iterable[Trace],
    *,
    judge: Judge | None = None,
    n_tries: int = 32,
    per_kind: int = 1,
    key_tokens: int = 64,
    sampling: Sampling | None = None,
    answering: Sampling | None = None,
    sentences: SwapSentences | None = None,
    finder: str | Finder = "rules",
    delimiters: tuple[str, str] | None = None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Key sentences drawn from the model behind each trace's X and U, and what it answers behind one of each kind.

    Args:
        model: from ``load`` or ``from_hf``; or an engine whose tokens are known (local or vLLM).
        traces: with responses, whose X and U stay; those without K are left out.
        judge: reads each answer, its new text alone: such as ``judge_refusal``; none when None.
        n_tries: draws of K for each trace, all of them made: the rates do not depend on what came first.
        per_kind: draws of each kind that are continued, the first ones.
        key_tokens: tokens of a draw at most; a K that is longer is no K.
        sampling: temperature, top_p and seed of the draws of K; temperature 1 when None: what the model itself would
            write. Draws depend on seed, trace id and number of the draw alone.
        answering: how the model continues behind K, and with how many tokens at most; greedy when None, as behind
            sentences of a bank.
        sentences: also put sentences of this bank in K's place, off-policy, and have the model continue them alike.
        finder: finds U and K in traces and draws; not ``given``, which finds nothing in new text.
        delimiters: marks of the reasoning; the known families' when None.
        batch_size: draws at once, of a local model.

    Returns:
        One row per trace, condition (``safe``, ``go_ahead``, ``neutral``) and sample, and one where no such K came:
        trace_id, group, label, condition, sample (from 0), on_policy (False in rows of ``sentences``), n_tries,
        n_of_kind, n_no_key (draws without K), rate (n_of_kind / n_tries, in [0, 1]) with rate_low and rate_high (95 %,
        over the draws), tries (number of this draw, from 1), key_sentence, prefill (up to the end of K),
        continuation (behind it), response, cut, judged (the judge's label), reason (why there is no label or no
        continuation, else the judge's), depth (NA; for
        :func:`~safekey_interp.generation.prefill.summarise_outcomes`). Texts are NA where a kind never came, counts
        and rates off-policy. ``attrs["left_out"]`` maps traces that could not be resampled to the reason.

    Raises:
        InputError: no trace can be resampled, greedy sampling, a number below 1, an engine without tokens, or the
            finder ``given``.
        ModelError: the engine gives up.
    """
    drawing = sampling or Sampling(temperature=1.0)
    settings = SegmentationSettings(finder=finder, delimiters=delimiters)
    _check(drawing, finder, n_tries=n_tries, per_kind=per_kind, key_tokens=key_tokens)
    engine = _engine(model, batch_size)
    left_out: dict[str, str] = {}
    draws: dict[str, TraceDraws] = {}
    for trace, segmentation in segmented(traces, settings):
        if trace.trace_id in draws:
            raise InputError(f"trace {trace.trace_id}: given twice, expected ids of their own")
        try:
            draws[trace.trace_id] = TraceDraws(trace, segmentation, _beginning(engine, trace, segmentation, key_tokens))
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
    if not draws:
        raise NothingMeasured("no trace whose key sentence can be resampled", left_out)
    draw(engine, draws, drawing, settings, n_tries=n_tries, per_kind=per_kind, key_tokens=key_tokens)
    answers = _continuations(engine, draws.values(), answering or Sampling(), drawing.seed, sentences)
    rows = []
    for of_trace in draws.values():
        for condition in CONDITIONS:
            counts = _counts(of_trace, condition, n_tries)
            for sample, drawn in enumerate(of_trace.kept.get(condition) or [None]):
                answer = answers.get((of_trace.trace.trace_id, condition, sample, True))
                about = {"sample": sample, "on_policy": True, **counts, "tries": drawn.number if drawn else None}
                about["key_sentence"] = drawn.key.text(drawn.generated.response) if drawn else None
                rows.append(_row(of_trace.trace, condition, about, answer, judge))
        for condition in CONDITIONS if sentences is not None else ():
            answer = answers.get((of_trace.trace.trace_id, condition, 0, False))
            about = dict.fromkeys(counts) | {"sample": 0, "on_policy": False, "tries": None}
            about["key_sentence"] = answer.request.prefill[len(of_trace.beginning.text) :] if answer else None
            rows.append(_row(of_trace.trace, condition, about, answer, judge))
    integers = ("n_tries", "n_of_kind", "n_no_key", "tries", "depth")
    types = dict.fromkeys(integers, "Int64") | {"label": object, "judged": object, "cut": "boolean"}
    table = pd.DataFrame(rows).astype(types)
    table.attrs["left_out"] = left_out
    return table


def summarise_rates(table: pd.DataFrame) -> pd.DataFrame:
    """How often the model itself writes a key sentence of each kind.

    Args:
        table: from :func:`resample_key_sentences`.

    Returns:
        One row per label and condition, and one of the condition ``none`` for draws without K: label, condition, rate
        (mean over traces, in [0, 1]) with low and high (95 % over groups; NaN below ten), n_traces, n_groups,
        n_never (traces in which none came), n_tries (a trace).
    """
    own: Any = table[table["on_policy"] & (table["sample"] == 0)]
    none = own.drop_duplicates("trace_id")
    none = none.assign(condition="none", n_of_kind=none["n_no_key"], rate=none["n_no_key"] / none["n_tries"])
    rows = []
    grouped: Any = pd.concat([own, none]).groupby(["label", "condition"], dropna=False, sort=False)
    for (label, condition), part in grouped:
        rate, groups = part["rate"].to_numpy(float), list(part["group"])
        interval = share_interval(rate, groups)._asdict()
        counts = {"n_traces": len(part), "n_groups": len(set(groups)), "n_never": int((part["n_of_kind"] == 0).sum())}
        n_tries = int(part["n_tries"].iloc[0])
        about = {"label": label, "condition": condition, "rate": rate.mean()}
        rows.append(about | interval | counts | {"n_tries": n_tries})
    return pd.DataFrame(rows)


def _check(sampling: Sampling, finder: str | Finder, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name}: got {value}, expected at least 1")
    if sampling.is_greedy:
        raise InputError(
            "sampling: got temperature 0, which draws one K again and again; expected a temperature above 0"
        )
    if finder == "given":
        raise InputError("finder: got 'given', which finds no K in new text; expected rules, llm or a finder of yours")


def _engine(model: Model | TokenEngine, batch_size: int) -> TokenEngine:
    if isinstance(model, Model):
        return LocalEngine(model, batch_size=batch_size)
    if not hasattr(model, "tokenizer"):
        raise InputError(f"engine {model.name}: its tokens are not known here; expected a local model or vLLM")
    return model


def _beginning(engine: TokenEngine, trace: Trace, segmentation: Segmentation, key_tokens: int) -> Beginning:
    """Everything before K; raises TraceError where there is no K, or no room."""
    beginning = before_key(engine.tokenizer, trace, segmentation)
    n, most = len(beginning.ids), engine.max_positions
    if most is not None and n + key_tokens > most:
        raise TraceError(
            trace.trace_id, f"{n} tokens before K and {key_tokens} of a draw go past {most}; lower key_tokens"
        )
    return beginning


def _continuations(
    engine: TokenEngine, draws: Iterable[TraceDraws], answering: Sampling, seed: int, sentences: SwapSentences | None
) -> dict[tuple[str, str, int, bool], Generated]:
    """What the model writes behind each K; by trace, condition, sample and on_policy."""
    requests: dict[tuple[str, str, int, bool], Request] = {}
    for of_trace in draws:
        name = of_trace.trace.trace_id
        for condition, kept in of_trace.kept.items():
            for sample, drawn in enumerate(kept):
                requests[name, condition, sample, True] = behind(engine.tokenizer, drawn, condition, sample)
        if sentences is not None:
            for swap in swaps(of_trace.trace, of_trace.segmentation, sentences, seed=seed):
                if swap.condition in CONDITIONS:
                    requests[name, swap.condition, 0, False] = replace(swap, condition=f"{swap.condition}, given")
    if not requests:
        return {}
    # Streams of their own: those of the draws would tie an answer to the K before it.
    how = replace(answering, n=1, seed=stream_seed(answering.seed, "behind the key sentence", 0))
    if how.max_new_tokens is None:
        how = replace(how, max_new_tokens=engine.usual_limit(list(requests.values())))
    key_of = {request.key: key for key, request in requests.items()}
    return {key_of[answer.request.key]: answer for answer in engine.generate(list(requests.values()), how)}


def _counts(of_trace: TraceDraws, condition: str, n_tries: int) -> dict[str, Any]:
    n_of_kind = of_trace.counts[condition]
    interval = share_interval([1.0] * n_of_kind + [0.0] * (n_tries - n_of_kind), range(n_tries))
    return {
        "n_tries": n_tries,
        "n_of_kind": n_of_kind,
        "n_no_key": n_tries - sum(of_trace.counts.values()),
        "rate": n_of_kind / n_tries,
        "rate_low": interval.low,
        "rate_high": interval.high,
    }


def _row(
    trace: Trace, condition: str, about: Mapping[str, Any], answer: Generated | None, judge: Judge | None
) -> dict[str, Any]:
    verdict = judge(trace.prompt, answer.new_text) if judge and answer else None
    if answer is None:
        n_tries = about["n_tries"]
        why = f"none of {n_tries} draws was {condition}" if about["on_policy"] else "the bank has no such sentence"
    else:
        why = verdict.reason if verdict else "nobody was asked to judge"
    prefill = answer.request.prefill if answer else None
    return {
        "trace_id": trace.trace_id,
        "group": trace.group,
        "label": trace.label,
        "condition": condition,
        **about,
        "prefill": prefill,
        "continuation": answer.response[len(prefill or "") :] if answer else None,
        "response": answer.response if answer else None,
        "cut": answer.cut if answer else None,
        "judged": verdict.label if verdict else None,
        "reason": why,
        "depth": None,
    }
