"""Metrics of an intervention: what is read out of a changed forward pass, as one registry.

    aha                          log-probability of the bank's safe and compliant sentences, and their difference
    key_sentence                 of the trace's own K
    logprob(EXPR)                of the tokens of a span, as they stand
    logprob("text")              of a text behind a position
    logit_difference("a", "b")   logit of one token minus another's, as the next token at a position
    probe(FILE)                  score of a state by a saved probe or direction, at its layer

Log-probabilities are means over tokens, in nats per token. All but ``key_sentence`` and ``logprob(EXPR)`` take a
position, a span expression, behind ``at``:  ``logprob(" No") at last(prompt)``. Without, that is
``before(key_sentence)``; of a probe, the position of its record. A text stands behind the position's last token;
``logit_difference`` and ``probe`` are means over its tokens.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from safekey_interp.data.span_expressions import parse_span
from safekey_interp.data.trace import replace_surrogates
from safekey_interp.errors import InputError
from safekey_interp.interventions.metric_kinds import (
    DECIDING,
    Aha,
    FunctionMetric,
    Metric,
    NextTokens,
    OwnKeySentence,
    RecordScore,
    SpanLogprob,
    TextLogprob,
)
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probe_files import kind_of_record
from safekey_interp.measures.probes import Probe

MetricLike = str | Metric | Callable[..., Any]
"""A metric, its notation, or a function ``(logits, encoding) -> number``."""
_TEXT = r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\''
_PIECE = re.compile(rf"{_TEXT}|.", re.DOTALL)
_TEXTS = re.compile(rf"\s*(?:{_TEXT})\s*(?:,\s*(?:{_TEXT})\s*)*\Z", re.DOTALL)
_NAME = re.compile(r"\s*(\w+)\s*")
_AT = re.compile(r"\s*(?:at\b(.*))?\Z", re.DOTALL)


def _aha(inside: str | None, at: str | None) -> Metric:
    if inside is not None:
        raise InputError("expected aha, or aha at EXPR")
    return Aha(at=at or DECIDING)


def _key_sentence(inside: str | None, at: str | None) -> Metric:
    if inside is not None or at is not None:
        raise InputError("expected key_sentence alone, which is read where it stands")
    return OwnKeySentence()


def _logprob(inside: str | None, at: str | None) -> Metric:
    if not (inside or "").strip():
        raise InputError('expected logprob("text"), logprob("text") at EXPR, or logprob(EXPR)')
    assert inside is not None
    texts = _texts(inside)
    if texts is None:
        if at is not None:
            raise InputError(
                f"{inside.strip()} is a span, which is read where it stands; expected a text in quotes, or no at"
            )
        parse_span(inside.strip())
        return SpanLogprob(at=inside.strip())
    if len(texts) != 1 or not texts[0].strip():
        raise InputError('expected one text that is not empty: logprob("text")')
    return TextLogprob(text=texts[0], at=at or DECIDING)


def _logit_difference(inside: str | None, at: str | None) -> Metric:
    texts = _texts(inside or "")
    if texts is None or len(texts) != 2:
        raise InputError('expected two tokens in quotes: logit_difference("a", "b")')
    return NextTokens(texts=(texts[0], texts[1]), at=at or DECIDING)


def _probe(inside: str | None, at: str | None) -> Metric:
    texts = _texts(inside or "")
    path = texts[0] if texts and len(texts) == 1 else (inside or "").strip()
    if not path or (texts and len(texts) != 1):
        raise InputError("expected the file of a probe or direction: probe(FILE)")
    record: Any = {"Probe": Probe, "Direction": Direction}.get(kind_of_record(path), Probe)
    source = record.load(path)
    return RecordScore(source=source, file=PurePath(path).name, at=at or source.position or DECIDING)


METRICS: dict[str, Callable[[str | None, str | None], Metric]] = {
    "aha": _aha,
    "key_sentence": _key_sentence,
    "logprob": _logprob,
    "logit_difference": _logit_difference,
    "probe": _probe,
}
"""What is between the brackets and behind ``at`` to a metric, by name."""


def parse_metric(given: MetricLike) -> Metric:
    """A metric from its notation.

    Args:
        given: the notation at the top of this module; a function ``(logits, encoding) -> number``; or a metric.

    Raises:
        InputError: what is wrong, and what is expected.
    """
    if isinstance(given, Metric):
        return given
    if isinstance(given, Probe | Direction):
        return RecordScore(source=given, file=f"layer {given.layer}", at=given.position or DECIDING)
    if callable(given):
        return FunctionMetric(function=given)
    if not isinstance(given, str):
        raise InputError(f"metric: got a value of type {type(given).__name__}, expected a text or a function")
    name, inside, at = _parts(given)
    if name not in METRICS:
        raise InputError(
            f"metric: got {given!r}, expected one of {', '.join(METRICS)}, such as "
            """logprob("text") at last(prompt), logit_difference("a", "b") or probe(FILE)"""
        )
    try:
        if at is not None:
            at = DECIDING if parse_span(at) == parse_span(DECIDING) else at
        return METRICS[name](inside, at)
    except InputError as error:
        raise InputError(f"metric {given!r}: {error}") from None


def _parts(text: str) -> tuple[str, str | None, str | None]:
    """Name, what is between its brackets, and the position; an empty name where the text has another form."""
    name = _NAME.match(text)
    if name is None:
        return "", None, None
    begin, depth, inside = name.end(), 0, None
    if text[begin : begin + 1] == "(":
        for piece in _PIECE.finditer(text, begin):
            depth += {"(": 1, ")": -1}.get(piece[0], 0)
            if depth == 0:
                inside, begin = text[begin + 1 : piece.start()], piece.end()
                break
    at = _AT.match(text, begin)
    if at is None:
        return "", None, None
    return name[1], inside, None if at[1] is None else at[1].strip()


def parse_metrics(given: MetricLike | Sequence[MetricLike]) -> tuple[Metric, ...]:
    """One metric, or several, each once; errors as for :func:`parse_metric`."""
    several: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    metrics = [parse_metric(each) for each in several]
    if not metrics:
        raise InputError("metric: got none, expected one or several, such as key_sentence")
    names = [name for metric in metrics for name in metric.names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"metric: got {twice} twice, expected each once; give a function a label of its own")
    return tuple(metrics)


def _texts(inside: str) -> list[str] | None:
    """The texts in quotes; None where something else is there."""
    if not _TEXTS.match(inside):
        return None
    try:
        return [replace_surrogates(ast.literal_eval(text.replace("\n", "\\n"))) for text in re.findall(_TEXT, inside)]
    except (SyntaxError, ValueError):
        raise InputError("expected texts in quotes, with \\\\ for a backslash") from None
