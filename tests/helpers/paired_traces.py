"""Pairs of traces for patching, their rows, and a model whose logits are linear in every state."""

from __future__ import annotations

import copy

import pandas as pd
import reference_forward
import tiny_models
import torch

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.trace import Trace
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.key_sentence_bank import GENERAL, KeySentences
from safekey_interp.interventions.activation_patching import patch
from safekey_interp.interventions.effect_metrics import find_subjects
from safekey_interp.interventions.intervention_parts import POSITIONS
from safekey_interp.interventions.trace_pairs import TracePair
from safekey_interp.models.model import Model, from_hf

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[1:4])
ONE_TOKEN = KeySentences(safe=("should",), go_ahead=("I",))


def pairs(n: int = 3) -> list[TracePair]:
    traces = reference_forward.with_spans(n)
    return [TracePair(traces[i - 1], traces[i]) for i in range(1, n)]


def rows_of(model: Model, trace: Trace, bank: KeySentences = SMALL) -> tuple[Continuation, ...]:
    [subject], _ = find_subjects(model, [trace], bank, StreamSettings(finder="given"))
    return subject.rows


def patched(model: Model, of: list[TracePair], **options: object) -> pd.DataFrame:
    return patch(model, of, **({"bank": SMALL, "finder": "given", "positions": tuple(POSITIONS)} | options))  # type: ignore[arg-type]


class Gain(torch.nn.Module):
    """A norm without its division: linear."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.weight * states


def linear_model() -> Model:
    """Attention that sees all tokens alike, no MLP, no division by a norm: logits are linear in every state."""
    like = tiny_models.tiny_model("llama")
    hf = copy.deepcopy(like.hf)
    with torch.no_grad():
        for layer in hf.model.layers:
            layer.self_attn.q_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.o_proj.weight.mul_(0.3)
            layer.input_layernorm = Gain(layer.input_layernorm.weight)
        hf.model.norm = Gain(hf.model.norm.weight)
    return from_hf(hf, like.tokenizer, spec="linear")
