"""What happens to the key sentence when it may not look at the prompt, or at the understanding?

Attention knockout (Geva et al. 2023, arXiv 2304.14767): in some layers and heads the queries of K, or of the token
before it, may not see a span. The effect is a difference, knocked out less as it is:

    effect     of K's own mean log-probability                                           nats a token
    aha_effect of the mean log-probability of safe key sentences less that of go-aheads  nats a token

Below 0, the span had spoken for K, or for a safe one. Beside each span stands its control: as many random keys
(:mod:`safekey_interp.capture.knockout`), the mean over the draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch

from safekey_interp.capture.check import check_attention
from safekey_interp.capture.context import evaluating
from safekey_interp.capture.knockout import Cut, Knockout, knocked_out
from safekey_interp.capture.stream import on_threads, threads_for
from safekey_interp.continuations import Continuation, score, with_own_sentence, with_sentence
from safekey_interp.errors import InputError, TraceError
from safekey_interp.key_sentence_bank import KeySentences, bank_for, spelled
from safekey_interp.segmentation import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models import Model
    from safekey_interp.trace import Trace

FromSpan = Literal["key_sentence", "decision", "decision+key_sentence"]
"""Queries: K's own tokens, the token before K, or both."""
CUT_SPANS = ("prompt", "understanding", "template", "first_token")
"""Spans that can be hidden."""
By = Literal["together", "layer", "head"]
"""What is knocked out at once: all chosen layers, one after another, or one head after another."""
RANDOM = "random"


class Place(NamedTuple):
    """Layers and heads in which a span is hidden."""

    layers: tuple[int, ...]
    """Layers."""
    heads: tuple[int, ...] | None
    """Heads; all when None."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is measured of each trace."""

    from_span: FromSpan
    to_spans: tuple[str, ...]
    places: tuple[Place, ...]
    n_random: int
    seed: int
    bank: KeySentences | None

    @property
    def draws(self) -> tuple[int | None, ...]:
        """None is the span itself, a number one of its random sets."""
        return (None, *range(self.n_random))


def knockout(
    model: Model,
    traces: Iterable[Trace],
    from_span: FromSpan = "key_sentence",
    to_span: str | Sequence[str] = ("prompt", "understanding"),
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    by: By = "together",
    window: int = 1,
    bank: KeySentences | None = None,
    aha: bool = True,
    n_random: int = 20,
    seed: int = 0,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    max_length: int | None = None,
    on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:
    """How K's log-probability changes when its queries may not see a span, beside random keys.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: any number; those without U or K are left out.
        from_span: the queries: ``key_sentence``, ``decision`` (the token before K, which predicts K's first), or
            ``decision+key_sentence``, all that predict K.
        to_span: one or several of ``prompt``, ``understanding``, ``template``, ``first_token``; or ``random``, random
            sets of as many keys as U has.
        layers: layers in which the span is hidden; all when None.
        heads: heads in which it is hidden; all when None.
        by: ``together`` hides in all these layers and heads at once, ``layer`` in one layer after another, ``head`` in
            one head of one layer after another.
        window: with ``by="layer"``, so many consecutive ones of the layers at once.
        bank: key sentences for the aha difference; ``bank_for`` the tokenizer when None.
        aha: measure the aha difference, too; costs a pass for each sentence of the bank.
        n_random: draws of each random set.
        seed: seed of the draws.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        max_length: most tokens up to the end of K.
        on_trace: called with 1 after each trace.

    Returns:
        One row per trace, place, span and control: trace_id, group, label, from_span, to_span (a span, or ``random``),
        matched_to (the span; for ``random``, the one whose number of keys it has), layer (the first), n_layers, head
        (-1 for all), logprob and effect (nats a token of K), aha and aha_effect (nats a token; NaN without ``aha``),
        effect_sd and aha_effect_sd (over the draws; NaN for a span), n_q, n_k (most keys in sight that were hidden in
        a layer), n_draws. ``attrs["left_out"]`` maps the other traces to their reasons.

    Raises:
        InputError: an unknown span, layer or head, no trace to measure, or a bank that the tokenizer cannot spell.
        ModelError: the model's attention cannot be reached.
    """
    if aha:
        bank = bank_for(model.tokenizer) if bank is None else spelled(model.tokenizer, bank)
    plan = _Plan(
        from_span=_one_of("from_span", from_span, get_args(FromSpan)),
        to_spans=_spans(to_span),
        places=places_of(model, layers, heads, by=by, window=window),
        n_random=_count("n_random", n_random, 1),
        seed=_count("seed", seed, 0),
        bank=bank if aha else None,
    )
    check_attention(model)
    tables, left_out = [], {}
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for trace, found in segmented(traces, finder=finder, delimiters=delimiters):
            try:
                own = with_own_sentence(model, trace, found, max_length=max_length)
                table = _measured(model, trace, own, _banked(model, trace, found, plan.bank), plan)
            except TraceError as error:
                left_out[trace.trace_id] = str(error).removeprefix(f"trace {trace.trace_id}: ")
            else:
                if table is None:
                    left_out[trace.trace_id] = "the model's log-probabilities are not finite"
                elif table.empty:
                    left_out[trace.trace_id] = "it has none of the spans"
                else:
                    tables.append(table)
            on_trace(1)
    if not tables:
        example = next((f"trace {name}: {reason}" for name, reason in left_out.items()), "there are none")
        raise InputError(f"no trace has a key sentence and a span that could be hidden from it; {example}")
    table = pd.concat(tables, ignore_index=True)
    table.attrs["left_out"] = left_out
    return table


def places_of(
    model: Model, layers: Sequence[int] | None, heads: Sequence[int] | None, *, by: By = "together", window: int = 1
) -> tuple[Place, ...]:
    """Where a span is hidden, one place after another.

    Raises:
        InputError: an unknown layer, head or way, or a window that is longer than the layers.
    """
    _one_of("by", by, get_args(By))
    numbers = model.layer_numbers(layers) or tuple(range(model.n_layers))
    chosen = None if heads is None else tuple(heads)
    for head in chosen or ():
        if not 0 <= head < model.n_heads:
            raise InputError(f"heads: got {head}, expected from 0 to {model.n_heads - 1}")
    if not 1 <= window <= len(numbers) or (window > 1 and by != "layer"):
        raise InputError(f"window: got {window}, expected from 1 to {len(numbers)}, and above 1 only with by='layer'")
    if by == "together":
        return (Place(numbers, chosen),)
    if by == "layer":
        return tuple(Place(numbers[i : i + window], chosen) for i in range(len(numbers) - window + 1))
    each = range(model.n_heads) if chosen is None else chosen
    return tuple(Place((layer,), (head,)) for layer in numbers for head in each)


def _banked(model: Model, trace: Trace, found: Segmentation, bank: KeySentences | None) -> list[Continuation]:
    return [] if bank is None else [with_sentence(model, trace, found, sentence) for sentence in bank.sentences]


class _Condition(NamedTuple):
    """A place, a span, and which set of keys stands for it."""

    place: Place
    span: str
    draw: int | None


def _measured(
    model: Model, trace: Trace, own: Continuation, banked: Sequence[Continuation], plan: _Plan
) -> pd.DataFrame | None:
    """All rows of one trace; None where a number is not finite."""
    present = [span for span in plan.to_spans if len(own.encoding.positions(_matched_to(span)))]
    conditions = [
        _Condition(place, span, draw)
        for place in plan.places
        for span in present
        for draw in plan.draws
        if span != RANDOM or draw is not None
    ]
    sentences = [own, *banked]
    clean = [Cut(trace_id=trace.trace_id, queries=(), keys=(), layers=frozenset())] * len(sentences)
    cuts = clean + [_cut(trace, sentence, one, plan) for one in conditions for sentence in sentences]
    n_keys = np.zeros(len(cuts), np.int64)
    rows = sentences * (1 + len(conditions))

    @contextmanager
    def cutting(numbers: Sequence[int]) -> Iterator[None]:
        cut = Knockout([cuts[number] for number in numbers], n_heads=model.n_heads, seed=plan.seed)
        with knocked_out(model, cut):
            yield
        n_keys[numbers] = cut.n_keys

    scores = score(model, rows, around=cutting).numpy()
    if not np.isfinite(scores).all():
        return None
    scores, n_keys = (one.reshape(1 + len(conditions), len(sentences)) for one in (scores, n_keys))
    n_safe = 0 if plan.bank is None else len(plan.bank.safe)
    aha = (
        scores[:, 1 : 1 + n_safe].mean(1) - scores[:, 1 + n_safe :].mean(1) if banked else np.full(len(scores), np.nan)
    )
    about = {"trace_id": trace.trace_id, "group": trace.group, "label": trace.label, "from_span": plan.from_span}
    out = []
    for place, span, is_control in _cells(conditions):
        which = [
            1 + i
            for i, one in enumerate(conditions)
            if (one.place, one.span, one.draw is not None) == (place, span, is_control)
        ]
        by_own, by_aha = scores[which, 0] - scores[0, 0], aha[which] - aha[0]
        out.append(
            about
            | {
                "to_span": RANDOM if is_control else span,
                "matched_to": _matched_to(span),
                "layer": place.layers[0],
                "n_layers": len(place.layers),
                "head": -1 if place.heads is None or len(place.heads) != 1 else place.heads[0],
                "logprob": scores[0, 0],
                "effect": by_own.mean(),
                "aha": aha[0],
                "aha_effect": by_aha.mean(),
                "effect_sd": by_own.std(ddof=1) if len(which) > 1 else np.nan,
                "aha_effect_sd": by_aha.std(ddof=1) if len(which) > 1 else np.nan,
                "n_q": len(_queries(own, plan.from_span)),
                "n_k": int(n_keys[which, 0].max()),
                "n_draws": len(which) if is_control else 0,
            }
        )
    return pd.DataFrame(out).astype({"label": object})


def _cells(conditions: Iterable[_Condition]) -> Iterator[tuple[Place, str, bool]]:
    """The rows of the table: each place and span, itself and its control."""
    yield from dict.fromkeys((one.place, one.span, one.draw is not None) for one in conditions)


def _cut(trace: Trace, sentence: Continuation, condition: _Condition, plan: _Plan) -> Cut:
    heads = condition.place.heads
    return Cut(
        trace_id=trace.trace_id,
        queries=tuple(_queries(sentence, plan.from_span)),
        keys=tuple(sentence.encoding.positions(_matched_to(condition.span))),
        layers=frozenset(condition.place.layers),
        heads=None if heads is None else frozenset(heads),
        draw=condition.draw,
    )


def _queries(sentence: Continuation, from_span: FromSpan) -> range:
    """Positions of the queries; K's last token is one of them, although it predicts nothing of K."""
    first = sentence.start - (from_span != "key_sentence")
    return range(first, sentence.start if from_span == "decision" else len(sentence.ids))


def _matched_to(span: str) -> str:
    return "understanding" if span == RANDOM else span


def _spans(to_span: str | Sequence[str]) -> tuple[str, ...]:
    spans = (to_span,) if isinstance(to_span, str) else tuple(dict.fromkeys(to_span))
    if not spans:
        raise InputError(f"to_span: got none, expected some of {', '.join((*CUT_SPANS, RANDOM))}")
    for span in spans:
        _one_of("to_span", span, (*CUT_SPANS, RANDOM))
    return spans


def _one_of(name: str, value: Any, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise InputError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
    return value


def _count(name: str, value: int, least: int) -> int:
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name}: got {value!r}, expected a whole number of at least {least}")
    return value
