"""Traces with shuffled labels, their hidden states, and a model whose K copies U."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.capture.state_collection import collect_states
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.models import organism
from safekey_interp.models.model import Model, from_hf, load
from safekey_interp.models.organism.language import COMPLIANT_SENTENCES, OPENINGS, SAFE_SENTENCES

BANK = KeySentences(safe=SAFE_SENTENCES[:1], go_ahead=(COMPLIANT_SENTENCES[0].format(manner=""),))
PER_CLASS = 11
"""Groups of each shuffled label, one trace each."""
SIZE = 1.0
"""Of a planted direction: the distance of the classes, in norms of the states' standard deviations."""
POSITION = "decision"
GIVEN: dict[str, Any] = {"finder": "given"}


class Held:
    """States in memory, of some rows; read as the measures read those in files."""

    def __init__(self, matrices: Sequence[np.ndarray], layers: Sequence[Any], trace_ids: Sequence[str]) -> None:
        self.layers, self.positions, self.trace_ids = tuple(layers), (POSITION,), tuple(trace_ids)
        self._matrices = list(matrices)

    def matrix(self, layer_index: int, position: str) -> np.ndarray:
        """States of one site; ``position`` is the only one."""
        return self._matrices[layer_index]

    def of(self, rows: np.ndarray, planted: np.ndarray | None = None) -> Held:
        """Some rows, with a vector a row and layer added."""
        parts = [matrix[rows] for matrix in self._matrices]
        if planted is not None:
            parts = [part + SIZE * np.linalg.norm(part.std(0)) * planted for part in parts]
        return Held(parts, self.layers, [self.trace_ids[row] for row in rows.tolist()])


@lru_cache
def toy() -> Model:
    """The model of every null."""
    return load("organism")


@lru_cache
def shipped() -> tuple[Trace, ...]:
    """Its traces that have a U and K."""
    return tuple(trace for trace in organism.read_shipped() if {"understanding", "key_sentence"} <= set(trace.given))


@lru_cache
def states() -> tuple[Held, dict[str, int]]:
    """States of all traces before K, and each trace's row."""
    collected, kept, _ = collect_states(toy(), shipped(), StreamSettings(**GIVEN), positions=[POSITION])
    matrices = [collected.matrix(at, POSITION) for at in range(len(collected.layers))]
    ids = [trace.trace_id for trace in kept]
    return Held(matrices, collected.layers, ids), {name: row for row, name in enumerate(ids)}


def shuffled(
    run: int, *, per_class: int = PER_CLASS, sources: Sequence[str] = ("",), of: Sequence[Trace] | None = None
) -> list[Trace]:
    """Traces of groups drawn at random, with labels that are drawn at random, group by group.

    Args:
        run: number of the run, the seed of all draws.
        per_class: groups of each label.
        sources: of each group one trace of each of these; the empty name stands for any.
        of: traces that they are drawn from; all when None.
    """
    rng = np.random.default_rng([run, 13])
    by_group: dict[str, list[Trace]] = {}
    for trace in shipped() if of is None else of:
        by_group.setdefault(trace.group, []).append(trace)
    full = [name for name, ones in by_group.items() if all(_from(ones, source) for source in sources)]
    names = rng.permutation(sorted(full))[: 2 * per_class]
    chosen = []
    for number, name in enumerate(names.tolist()):
        label = "harmful" if number < per_class else "benign"
        for source in sources:
            ones = _from(by_group[name], source)
            chosen.append(ones[int(rng.integers(len(ones)))].with_(label=label))
    return [chosen[at] for at in rng.permutation(len(chosen)).tolist()]


def _from(traces: Sequence[Trace], source: str) -> list[Trace]:
    return [trace for trace in traces if source in ("", trace.source)]


@lru_cache
def pool(n: int) -> tuple[Trace, ...]:
    """One trace of each of some groups, of both true labels, all called harmful."""
    groups = {trace.group: trace for trace in shuffled(0, per_class=len({other.group for other in shipped()}) // 2)}
    return tuple(trace.with_(label="harmful") for trace in list(groups.values())[:n])


@lru_cache
def copying() -> Model:
    """A model whose K copies U: attention is even over all tokens in sight, and a token that was seen becomes likelier.

    Queries and keys are 0, values and outputs the identity times a factor, MLPs give 0, and the unembedding is the
    embedding's transpose: the logit of a token rises with its share among those in sight.
    """
    tokenizer = toy().tokenizer
    width = 128
    kind: Any = CONFIG_MAPPING["llama"]
    config = kind(
        vocab_size=toy().hf.config.vocab_size,
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(torch.randn(config.vocab_size, width), dim=1)
        hf.model.embed_tokens.weight.copy_(vectors)
        hf.lm_head.weight.copy_(vectors)
        for layer in hf.model.layers:
            attention = layer.self_attn
            attention.q_proj.weight.zero_()
            attention.k_proj.weight.zero_()
            attention.v_proj.weight.copy_(torch.eye(width))
            attention.o_proj.weight.copy_(torch.eye(width))
            layer.mlp.down_proj.weight.zero_()
    return from_hf(hf, tokenizer, spec="copies what it sees")


def copied(traces: Sequence[Trace], run: int) -> list[Trace]:
    """Traces whose U says one thing where the shuffled label is harmful and another where it is benign, and K too."""
    rng = np.random.default_rng([run, 29])
    made = []
    for trace in traces:
        key_sentence = BANK.safe[0] if trace.label == "harmful" else BANK.go_ahead[0]
        words = key_sentence.rstrip(".").split(maxsplit=1)[1]
        understanding = f"{OPENINGS[int(rng.integers(len(OPENINGS)))]} {trace.meta['verb']} it, {words}."
        made.append(_written(trace, understanding, key_sentence))
    return made


def with_sentences(traces: Sequence[Trace], sentences: Sequence[str]) -> list[Trace]:
    """The traces with other key sentences."""
    return [
        _written(trace, trace.given["understanding"].text(trace.response), sentence)
        for trace, sentence in zip(traces, sentences, strict=True)
    ]


def _written(trace: Trace, understanding: str, key_sentence: str) -> Trace:
    own, old = trace.given["understanding"], trace.given["key_sentence"]
    head, between = trace.response[: own.start], trace.response[own.end : old.start]
    start = len(head) + len(understanding) + len(between)
    spans = {
        "understanding": CharSpan(len(head), len(head) + len(understanding)),
        "key_sentence": CharSpan(start, start + len(key_sentence)),
    }
    response = f"{head}{understanding}{between}{key_sentence}{trace.response[old.end :]}"
    return trace.with_(response=response, given=spans)


def key_sentence(trace: Trace) -> str:
    return trace.given["key_sentence"].text(trace.response)
