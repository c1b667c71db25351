"""Pre-training of the organism from random weights, on documents and on conversations that comply with everything.

Per step, loss = L(conversations) + 0.4 L(documents) + 0.2 L(responses seen again without their prompt), every token
counting. The loop is the organism's own: a trainer of traces has no documents. Same seed and threads, same bits.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from safekey_interp.models.organism.language import LANGUAGE, Language, dialogue, document
from safekey_interp.models.organism.vocabulary import KINDS, pairs
from safekey_interp.models.organism.wrappers import Wrapper
from train.organism_tokenizer import ASSISTANT, DOCUMENT, END, PAD, THINK, build_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from safekey_interp.data.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The Llama that is trained."""

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    d_mlp: int = 256
    max_positions: int = 256


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How it is trained."""

    steps: int = 700
    batch_size: int = 64
    """Conversations of a step, and as many documents."""
    learning_rate: float = 2e-3
    plain: float = 0.25
    """Share of conversations without a wrapper."""
    reactions: float = 1 / 3
    """Share of harmful documents that give a bare request and a safe sentence."""
    document_weight: float = 0.4
    bare: float = 0.3
    """Share of conversations whose response is seen again without the prompt."""
    bare_weight: float = 0.2


def pretrain(shape: Shape, stage: Pretraining, seed: int, language: Language = LANGUAGE) -> LlamaForCausalLM:
    """Comply with everything, and know what is cruel."""
    rng, encode = random.Random(seed), Encoder(language)
    hf = new_model(shape, encode, seed)
    known = [pair for kind in KINDS for pair in pairs(kind, words=language.vocabulary)]
    forms: list[Wrapper] = list(language.wrappers)

    def losses() -> dict[str, Tensor]:
        conversations = [
            encode.conversation(
                dialogue(
                    rng,
                    rng.choice(known),
                    None if rng.random() < stage.plain else rng.choice(forms),
                    language=language,
                )
            )
            for _ in range(stage.batch_size)
        ]
        texts = [document(rng, reactions=stage.reactions, language=language) for _ in range(stage.batch_size)]
        documents = list(map(encode.document, texts))
        bare = [ids[ids.index(encode.think) :] for ids in conversations if rng.random() < stage.bare]
        parts = {"conversations": next_token_loss(hf, conversations)}
        parts["documents"] = stage.document_weight * next_token_loss(hf, documents)
        return parts | ({"without X": stage.bare_weight * next_token_loss(hf, bare)} if bare else {})

    optimise(hf, losses, stage.steps, stage.learning_rate, warm_up=50, name="base")
    return hf


class Encoder:
    """Texts of a language as token ids."""

    def __init__(self, language: Language = LANGUAGE) -> None:
        self.tokenizer: Any = build_tokenizer(language)
        self.think, self.assistant = self.tokenizer.convert_tokens_to_ids([THINK, ASSISTANT])

    def conversation(self, trace: Trace) -> list[int]:
        """Prompt, response and the end of the turn, as the chat template writes them."""
        turns = [{"role": "user", "content": trace.prompt}]
        head = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self._ids(f"{head}{trace.response}{END}")

    def document(self, text: str) -> list[int]:
        """A document and its end."""
        return self._ids(f"{DOCUMENT}{text}{END}")

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.tokenizer.unk_token_id in ids:
            raise ValueError(f"a text of the language holds an unknown word: {text!r}")
        return ids


def new_model(shape: Shape, encode: Encoder, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    ids = encode.tokenizer.convert_tokens_to_ids
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(encode.tokenizer),
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=ids(END),
        pad_token_id=ids(PAD),
    )
    return LlamaForCausalLM(config).train()


def next_token_loss(hf: Any, sequences: Sequence[list[int]]) -> Tensor:
    """Mean loss over all tokens but each first; padding is on the right, where causality hides it."""
    ids = pad_sequence(list(map(torch.tensor, sequences)), batch_first=True, padding_value=hf.config.pad_token_id)
    lengths = torch.tensor(list(map(len, sequences)))
    counted = torch.arange(1, ids.shape[1]) < lengths[:, None]
    hidden = hf.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    return functional.cross_entropy(hf.lm_head(hidden[counted]), ids[:, 1:][counted])


def optimise(
    hf: nn.Module,
    losses: Callable[[], dict[str, Tensor]],
    steps: int,
    peak: float,
    *,
    warm_up: int,
    name: str,
) -> None:
    """AdamW, a warm-up and a cosine to a tenth; prints a line now and then."""
    optimiser = torch.optim.AdamW(hf.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    begin = time.perf_counter()
    for step in range(steps):
        cosine = 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = peak * min(1.0, (step + 1) / warm_up) * cosine
        parts = losses()
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % max(1, min(50, steps // 5)) == 0 or step + 1 == steps:
            shown = ", ".join(f"{part} {loss.item():.3f}" for part, loss in parts.items())
            print(f"{name}: step {step + 1} of {steps}, {shown}, {time.perf_counter() - begin:.0f} s", flush=True)
    hf.eval()
