"""Kinds of metrics: which rows of a trace each needs, and its numbers from what is read of them.

What they are called and how they are written is in :mod:`safekey_interp.interventions.metric_registry`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float

from safekey_interp.capture.residual_edits import Place
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.inserted_text import with_text
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for, spelled
from safekey_interp.generation.likelihood import with_own_sentence, with_sentence
from safekey_interp.generation.row_readings import (
    FunctionOfLogits,
    LogitDifference,
    RowReader,
    StateScore,
    TokenLogprob,
)
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.measures.token_scorer import TokenScorer
from safekey_interp.models.tokenisation import single_token

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.encoding import Encoding
    from safekey_interp.models.model import Model
    from safekey_interp.segmentation.segmenter import Segmentation

DECIDING = "before(key_sentence)"
"""Where a metric is read unless something else is said."""


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """One metric: the rows that it needs of a trace, and its numbers from what is read of them."""

    at: str = DECIDING
    """Where it is read: a span expression."""
    unit: ClassVar[str] = "nats per token"

    @property
    @abstractmethod
    def name(self) -> str:
        """As in the column ``metric``, and as :func:`parse_metric` reads it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its numbers."""
        return (self.name,)

    @property
    def record(self) -> Any:
        """What ``run.json`` says of it."""
        return self.name

    def bind(self, model: Model, bank: KeySentences | None) -> Metric:
        """The same for one model. Raises InputError where it does not fit."""
        return self

    @abstractmethod
    def rows(
        self, model: Model, trace: Trace, segmentation: Segmentation, max_length: int | None
    ) -> tuple[Continuation, ...]:
        """What of a trace goes through the model. Raises TraceError where it cannot be read."""

    def values(self, by_row: Float[np.ndarray, "variant row"]) -> Float[np.ndarray, "variant name"]:
        """Its numbers from those of its rows; a linear map."""
        return by_row

    def _at(self) -> str:
        return "" if self.at == DECIDING else f" at {self.at}"


@dataclass(frozen=True, kw_only=True)
class Aha(Metric):
    """Safe minus compliant sentences of a bank, and each kind's mean."""

    bank: KeySentences | None = None

    @property
    def name(self) -> str:
        """Its notation."""
        return f"aha{self._at()}"

    @property
    def names(self) -> tuple[str, ...]:
        """The difference, and both means."""
        return tuple(f"{name}{self._at()}" for name in ("difference", "safe", "go_ahead"))

    def bind(self, model: Model, bank: KeySentences | None) -> Metric:
        """Raises InputError where it does not fit the model."""
        return replace(self, bank=bank_for(model.tokenizer) if bank is None else spelled(model.tokenizer, bank))

    def rows(self, model, trace, segmentation, max_length):
        """As for :meth:`Metric.rows`."""
        assert self.bank is not None
        if self.at == DECIDING:
            return tuple(with_sentence(model, trace, segmentation, text) for text in self.bank.sentences)
        encoding = _encoded(model, trace, segmentation, self.at, max_length)
        return tuple(with_text(model, trace, encoding, self.at, text) for text in self.bank.sentences)

    def values(self, by_row):
        """The three numbers."""
        assert self.bank is not None
        n = len(self.bank.safe)
        safe = reduce(by_row[:, :n], "variant row -> variant", "mean")
        go_ahead = reduce(by_row[:, n : n + len(self.bank.go_ahead)], "variant row -> variant", "mean")
        return np.stack([safe - go_ahead, safe, go_ahead], axis=1)


@dataclass(frozen=True, kw_only=True)
class OwnKeySentence(Metric):
    """The trace's own key sentence."""

    name: ClassVar[str] = "key_sentence"  # type: ignore[misc]

    def rows(self, model, trace, segmentation, max_length):
        """As for :meth:`Metric.rows`."""
        return (with_own_sentence(model, trace, segmentation, max_length=max_length),)


@dataclass(frozen=True, kw_only=True)
class SpanLogprob(Metric):
    """The tokens of a span, each as the next token of the one before it."""

    @property
    def name(self) -> str:
        """Its notation."""
        return f"logprob({self.at})"

    def rows(self, model, trace, segmentation, max_length):
        """As for :meth:`Metric.rows`."""
        encoding = _encoded(model, trace, segmentation, self.at, max_length)
        where = [at for at in encoding.positions(self.at) if at > 0]
        if not where:
            raise TraceError(trace.trace_id, f"nothing comes before {self.at}, so that nothing predicts it")
        reader = TokenLogprob(positions=tuple(at - 1 for at in where), next_ids=encoding.input_ids[where])
        return (_row(encoding, reader, where[-1]),)


@dataclass(frozen=True, kw_only=True)
class TextLogprob(Metric):
    """A text behind a position."""

    text: str

    @property
    def name(self) -> str:
        """Its notation."""
        return f"logprob({_quoted(self.text)}){self._at()}"

    def rows(self, model, trace, segmentation, max_length):
        """As for :meth:`Metric.rows`."""
        encoding = _encoded(model, trace, segmentation, self.at, max_length)
        return (with_text(model, trace, encoding, self.at, self.text),)


@dataclass(frozen=True, kw_only=True)
class NextTokens(Metric):
    """One token's logit minus another's."""

    texts: tuple[str, str]
    ids: tuple[int, int] = (0, 0)
    unit: ClassVar[str] = "logits"

    @property
    def name(self) -> str:
        """Its notation."""
        return f"logit_difference({', '.join(map(_quoted, self.texts))}){self._at()}"

    def bind(self, model: Model, bank: KeySentences | None) -> Metric:
        """Raises InputError where it does not fit the model."""
        token, other = (single_token(model.tokenizer, text) for text in self.texts)
        if token == other:
            raise InputError(f"{self.name}: got the same token twice, expected two")
        return replace(self, ids=(token, other))

    def rows(self, model, trace, segmentation, max_length):
        """As for :meth:`Metric.rows`."""
        encoding = _encoded(model, trace, segmentation, self.at, max_length)
        where = tuple(encoding.positions(self.at))
        return (_row(encoding, LogitDifference(positions=where, token=self.ids[0], other=self.ids[1]), where[-1]),)


@dataclass(frozen=True, kw_only=True)
class RecordScore(Metric):
    """A probe's or direction's score of states."""

    source: Probe | Direction = field(repr=False)
    file: str
    unit: ClassVar[str] = "score"

    @property
    def name(self) -> str:
        """Its notation."""
        position = self.source.position or DECIDING
        return f"probe({self.file})" + (f" at {self.at}" if self.at != position else "")

    @property
    def record(self) -> Any:
        """Its notation, and what it depends on."""
        return [self.name, self.source]

    def bind(self, model: Model, bank: KeySentences | None) -> Metric:
        """Raises InputError where it does not fit the model."""
        scorer = TokenScorer.of(self.source, controls=())
        if len(scorer.vector) != model.d_model:
            raise InputError(f"{self.name}: it scores states of width {len(scorer.vector)}, expected {model.d_model}")
        if scorer.site == "resid_post":
            model.layer_numbers([scorer.layer])
        return self

    def rows(self, model, trace, segmentation, max_length):
        """As for :meth:`Metric.rows`."""
        encoding = _encoded(model, trace, segmentation, self.at, max_length)
        where, scorer = tuple(encoding.positions(self.at)), TokenScorer.of(self.source, controls=())
        site: Any = scorer.site
        place = Place(model.n_layers if site == "ln_final" else scorer.layer, site)
        reader = StateScore(positions=where, place=place, vector=scorer.vector, bias=scorer.bias)
        return (_row(encoding, reader, where[-1]),)


@dataclass(frozen=True, kw_only=True)
class FunctionMetric(Metric):
    """A metric of your own, from the logits of a trace.

    ``function(logits, encoding)`` takes the logits of all tokens up to the last of ``at``, (pos, d_vocab) in float32,
    and the encoding, whose ``positions`` say where the spans lie; it returns a number, or a tensor of one, which
    attribution patching needs.
    """

    function: Callable[[torch.Tensor, Encoding], Any]
    """Logits and encoding to a number."""
    at: str = "end"
    """Tokens behind the last of this expression are not computed."""
    label: str = ""
    """What the tables call it; the function's own name when empty."""
    unit: str = "score"  # type: ignore[misc]
    """Its unit."""

    @property
    def name(self) -> str:
        """Its notation."""
        return self.label or getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def record(self) -> Any:
        """Its notation, and what it depends on."""
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):
            source = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        return [self.name, self.at, self.unit, hashlib.sha256(source.encode()).hexdigest()]

    def rows(self, model, trace, segmentation, max_length):
        """As for :meth:`Metric.rows`."""
        encoding = _encoded(model, trace, segmentation, self.at, max_length)
        reader = FunctionOfLogits(positions=(0,), function=self.function, encoding=encoding)
        return (_row(encoding, reader, encoding.positions(self.at)[-1]),)


def _row(encoding: Encoding, reader: RowReader, last: int) -> Continuation:
    """A trace up to the last token that is read."""
    return Continuation(encoding.input_ids[: last + 1], reader.positions[0] + 1, encoding, reader)


def _encoded(model: Model, trace: Trace, segmentation: Segmentation, at: str, max_length: int | None) -> Encoding:
    """The trace's tokens. Raises TraceError where it has none there."""
    encoding = model.encode(trace, segmentation, max_length=max_length, reads=(at,))
    if not len(encoding.positions(at)):
        without = "" if segmentation.key_sentence else f"; no key sentence: {segmentation.reason}"
        raise TraceError(trace.trace_id, f"no token in {at}{without}")
    return encoding


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
