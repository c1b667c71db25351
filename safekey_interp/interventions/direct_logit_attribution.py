"""Direct logit attribution of attention heads (Elhage et al. 2021; Wang et al. 2022, arXiv 2211.00593).

At ``decision``, the last position before K: what a head adds to the residual stream there, through the final norm with
its scale held fixed, along the difference of the unembeddings of what a safe key sentence begins with and what a
compliant one begins with,

    effect(head) = scale · (mean_{t safe} W_t − mean_{t compliant} W_t) · α gain ⊙ out(head)          logits

so the effects of all heads, MLPs and the embedding sum to the difference of logits, before a bound on the logits (Gemma
2). Tokens that both kinds begin with say nothing; where nothing else is left (a bank whose kinds begin alike), all
tokens that only one kind's sentences have are taken. An effect is direct: what later layers make of the head is not in
it.

Any other two tokens, at any other position, are read with the metric ``logit_difference("a", "b") at EXPR``.

The control is the same along differences of as many random tokens of the vocabulary, made as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.batches import plan_batches
from safekey_interp.capture.head_outputs import HeadReading, HeadWrites, find_heads, read_heads
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.capture.streaming import (
    BatchSize,
    fixed_size,
    forward_cost,
    on_threads,
    threads_for,
    token_budget,
)
from safekey_interp.capture.unembedding import LogitReader, frozen_norm
from safekey_interp.errors import InputError, ModelError, NothingMeasured
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for
from safekey_interp.interventions.effect_metrics import (
    OwnTokens,
    Readout,
    Subject,
    bank_or_default,
    bank_tokens,
    find_subjects,
    own_tokens,
    readout_of,
)
from safekey_interp.interventions.effects import TESTED, about_first, summarise_effects
from safekey_interp.interventions.metric_kinds import NextTokens
from safekey_interp.interventions.metric_registry import MetricLike

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


def rank_heads(
    model: Model,
    traces: Iterable[Trace],
    *,
    layers: Sequence[int] | None = None,
    n_random: int = 20,
    metric: MetricLike | None = None,
    seed: int = 0,
    bank: KeySentences | None = None,
    finder: str = "rules", delimiters: tuple[str, str] | None = None,
    batch_size: BatchSize = "auto", backend: Backend = "hf",
) -> pd.DataFrame:  # fmt: skip
    """Direct effect of every head on what the key sentence begins with.

    Args:
        model: and ``bank``, ``finder`` … ``backend``: see :mod:`safekey_interp.interventions`.
        traces: with U and K.
        layers: layers whose heads are measured; all when None.
        n_random: random differences of tokens.
        metric: ``logit_difference("a", "b") at EXPR``, read at the expression's last token; the bank's when None.
        seed: of these; the same for every trace.

    Returns:
        One row per trace, layer, head and draw: trace_id, group, label, layer, head, control (``none``;
        ``random_tokens``, a random difference of tokens), draw (-1 for the bank's), effect (logits; above 0 for safe),
        total (the whole stream's, of which the heads' effects are parts), tokens (``first`` or ``own``, see above;
        ``given`` of a metric). ``attrs["layers_without_heads"]`` lists layers without such attention.

    Raises:
        InputError: no trace can be measured, or a layer is unknown; a metric of another kind.
        ModelError: the model's heads or norms cannot be read.
    """
    bank = bank_or_default(model, bank)
    readout = readout_of(model, metric, bank)
    given = _given_tokens(readout) if readout.is_chosen else None
    if n_random < 0:
        raise InputError(f"n_random: got {n_random}, expected 0 or more")
    numbers = model.layer_numbers(layers) or tuple(range(model.n_layers))
    heads = {layer: writes for layer, writes in find_heads(model.hf).items() if layer in numbers}
    if not heads:
        raise ModelError(f"model {model.spec}: none of the layers {list(numbers)} has heads that could be told apart")
    reader = LogitReader(model)
    subjects, left_out = find_subjects(model, traces, readout, StreamSettings(finder=finder, delimiters=delimiters))
    plan = plan_batches(
        [subject.own.n_own for subject in subjects],
        batch_size=fixed_size(batch_size),
        max_tokens=token_budget(model),
        cost=forward_cost(model),
    )
    tables: dict[int, pd.DataFrame] = {}
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for batch in plan:
            reading = _read(model, heads, [subjects[i].own.ids[: subjects[i].own.n_own] for i in batch], backend)
            for row, i in enumerate(batch):
                tokens = given or _own_tokens(subjects[i], bank)
                contrast = _contrast(reader, *tokens, n_random, seed)
                if contrast is None:
                    left_out[subjects[i].trace.trace_id] = "both kinds of key sentences have the same tokens"
                    continue
                by_head = [reading.outputs[layer][row] for layer in heads]
                effects = _effects(reader, reading.last[row], by_head, contrast.vectors)
                if not np.isfinite(effects.effects).all():
                    left_out[subjects[i].trace.trace_id] = "the model's states are not finite"
                    continue
                tables[i] = _table(subjects[i], list(heads), effects, contrast.tokens)
    if not tables:
        raise NothingMeasured("no trace can be measured", left_out)
    table = pd.concat([tables[i] for i in sorted(tables)], ignore_index=True)
    table.attrs |= {"left_out": left_out, "layers_without_heads": [n for n in numbers if n not in heads]}
    return table


def read_bank_effects(
    model: Model, reader: LogitReader, ids: Int64[Tensor, " pos"], *, n_random: int = 20, seed: int = 0
) -> pd.DataFrame:
    """Direct effect of every head at the last of some tokens, as :func:`rank_heads` has it at ``decision``.

    Args:
        model: the model.
        reader: of it.
        ids: the tokens.
        n_random: random differences of tokens.
        seed: of these.

    Returns:
        One row per layer and head: layer, head, effect (logits; above 0 for safe), control_mean and control_sd of the
        random differences.

    Raises:
        InputError: both kinds of the tokenizer's sentences have the same tokens.
        ModelError: the model's heads or norms cannot be read.
    """
    bank = bank_for(model.tokenizer)
    contrast = next(
        (
            made
            for first in (True, False)
            if (
                made := _contrast(
                    reader, bank_tokens(model.tokenizer, bank, first=first), "first" if first else "own", n_random, seed
                )
            )
        ),
        None,
    )
    if contrast is None:
        raise InputError("key sentences: both kinds have the same tokens; give a bank whose kinds differ")
    heads = find_heads(model.hf)
    reading = read_heads(model, heads, ids[None], torch.tensor([len(ids) - 1]))
    effects = _effects(
        reader, reading.last[0], [reading.outputs[layer][0] for layer in heads], contrast.vectors
    ).effects
    layers, n_heads = list(heads), effects.shape[-1]
    return pd.DataFrame(
        {
            "layer": np.repeat(layers, n_heads),
            "head": np.tile(np.arange(n_heads), len(layers)),
            "effect": effects[0].reshape(-1),
            "control_mean": effects[1:].mean(0).reshape(-1),
            "control_sd": effects[1:].std(0, ddof=1).reshape(-1),
        }
    )


def summarise_heads(table: pd.DataFrame) -> pd.DataFrame:
    """Mean direct effects of :func:`rank_heads` with intervals, the largest first.

    Args:
        table: from :func:`rank_heads`.

    Returns:
        layer, head, the columns of :func:`~safekey_interp.interventions.effects.summarise_effects`, and rank (1 for the
        largest absolute mean of its subset). ``p_value`` is of one head; ``p_value_over_all`` of a head that was picked
        because it is the largest. NaN where nothing is defined.
    """
    summary = summarise_effects(table, ["layer", "head"], joint=())
    size = summary["value"].abs().groupby([summary["subset"], summary["control_kind"]])
    summary["rank"] = size.rank(ascending=False, method="first").astype(int)
    subset = pd.Categorical(summary["subset"], categories=list(dict.fromkeys(summary["subset"])))
    order = pd.DataFrame({"subset": subset, "rank": summary["rank"]}).sort_values(["subset", "rank"]).index
    return summary.loc[order].reset_index(drop=True)


class _Contrast(NamedTuple):
    """Directions that are read: the bank's, then random ones."""

    vectors: Float[Tensor, "direction d_model"]
    tokens: str
    """``first`` or ``own``."""


class _Effects(NamedTuple):
    effects: Float[np.ndarray, "direction layer head"]
    totals: Float[np.ndarray, " direction"]
    """Of the whole stream."""


def _read(model: Model, heads: dict[int, HeadWrites], rows: Sequence[Tensor], backend: Backend) -> HeadReading:
    ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    at = torch.tensor([len(row) - 1 for row in rows])
    return read_heads(model, heads, ids, at, backend=backend)


def _given_tokens(readout: Readout) -> tuple[OwnTokens, str]:
    """The two tokens of a metric. Raises InputError where it has none."""
    [metric, *others] = readout.metrics
    if others or not isinstance(metric, NextTokens):
        raise InputError(f'metric: got {", ".join(readout.names)}, expected one logit_difference("a", "b")')
    return OwnTokens((metric.ids[0],), (metric.ids[1],)), "given"


def _own_tokens(subject: Subject, bank: KeySentences) -> tuple[OwnTokens, str]:
    """Tokens that the kinds of sentence begin with, else all that only one kind has."""
    tokens = own_tokens(subject, bank, first=True)
    return (tokens, "first") if all(tokens) else (own_tokens(subject, bank, first=False), "own")


def _contrast(reader: LogitReader, tokens: OwnTokens, which: str, n_random: int, seed: int) -> _Contrast | None:
    """None where the kinds have no tokens of their own."""
    if not all(tokens):
        return None
    weight: Any = reader.unembedding.linear.weight
    tested = _difference(weight, tokens)
    rng = np.random.default_rng(seed)
    vectors = [tested]
    for _ in range(n_random):
        drawn = rng.choice(len(weight), len(tokens.safe) + len(tokens.go_ahead), replace=False).tolist()
        random = _difference(weight, OwnTokens(tuple(drawn[: len(tokens.safe)]), tuple(drawn[len(tokens.safe) :])))
        vectors.append(random * (tested.norm() / random.norm().clamp(min=1e-30)))
    return _Contrast(torch.stack(vectors) * reader.unembedding.scale, which)


def _difference(weight: Tensor, tokens: OwnTokens) -> Tensor:
    safe, go_ahead = (weight[list(ids)].float().mean(0) for ids in tokens)
    return safe - go_ahead


def _effects(reader: LogitReader, last: Tensor, outputs: Sequence[Tensor], vectors: Tensor) -> _Effects:
    """Of one trace: the stream after the last layer, and each layer's (head, d_model)."""
    through = vectors.to(last.device) * frozen_norm(reader.norm, last[None]).to(last.device)
    by_layer = [einsum(through.to(out.device), out, "direction d, head d -> direction head").cpu() for out in outputs]
    total = einsum(through, last.float(), "direction d, d -> direction")
    return _Effects(torch.stack(by_layer, 1).numpy(), total.cpu().numpy())


def _table(subject: Subject, layers: Sequence[int], measured: _Effects, tokens: str) -> pd.DataFrame:
    n_directions, n_layers, n_heads = measured.effects.shape
    shape = {"direction": n_directions, "layer": n_layers, "head": n_heads}

    def spread(values: np.ndarray, axis: str) -> np.ndarray:
        rest = {name: size for name, size in shape.items() if name != axis}
        return repeat(values, f"{axis} -> (direction layer head)", **rest)

    draw = spread(np.arange(n_directions) - 1, "direction")
    table = pd.DataFrame(
        {
            "layer": spread(np.asarray(layers), "layer"),
            "head": spread(np.arange(n_heads), "head"),
            "control": np.where(draw < 0, TESTED, "random_tokens"),
            "draw": draw,
            "effect": rearrange(measured.effects, "direction layer head -> (direction layer head)"),
            "total": spread(measured.totals, "direction"),
            "tokens": tokens,
        }
    )
    return about_first(table, subject.about)
