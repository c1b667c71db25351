"""How is the organism made? From nothing, in minutes, the same weights to the bit for the same seed.

    python train/organism.py [--seed 1] [--out safekey_interp/organism] [--steps 700] [--threads 1]

Three stages, each skipped when its result is there, whole, and of the same settings:

1. ``weights/base``: pre-training on documents and on conversations that comply with everything. Per step,
   loss = L(conversations) + 0.4 L(documents) + 0.2 L(responses seen again without their prompt), every token counting.
2. ``weights/sft``: plain supervised fine-tuning, loss on the response alone: refuse plain harmful requests and a few in
   the three wrappers that fine-tuning may show, comply with all else. Pairs of the ``train`` split only.
3. ``traces.jsonl``: what the fine-tuned model itself answers to requests on ``test`` pairs, in all wrappers.

Settings, seed, versions and hashes are written beside each result (``training.json``).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import platform
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from safekey_interp import organism
from safekey_interp.generation import generate
from safekey_interp.models import Model, load
from safekey_interp.organism.language import MANNERS, QUESTIONS, covering_texts, dialogue, document, written
from safekey_interp.organism.outcome import with_outcome
from safekey_interp.organism.tokenizer import ASSISTANT, DOCUMENT, END, PAD, THINK, build_tokenizer
from safekey_interp.organism.words import BENIGN_KINDS, HARMFUL_KINDS, KINDS, Kind, Pair, pairs
from safekey_interp.organism.wrappers import WRAPPERS, Wrapper, wrappers
from safekey_interp.storage import read_json, sha256_of, write_aside, write_folder_aside, write_json
from safekey_interp.trace import Trace

IGNORED = -100
MAX_NEW_TOKENS = 64
STORED = torch.float16
"""Of the weights' file: half its size; what reads it computes in float32."""
FORMS = 2
"""Plain forms of each pair among the shipped traces, and wrapped ones."""


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
    """Stage 1."""

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


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """Stage 2. The shares of the examples add up to 1 with benign requests in the wrappers that it may show."""

    examples: int = 1_000
    steps: int = 120
    batch_size: int = 32
    learning_rate: float = 3e-4
    plain_harmful: float = 0.40
    wrapped_harmful: float = 0.05
    plain_kind: float = 0.20
    plain_look_alike: float = 0.15


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the weights depend on, but for the language, the versions and the machine."""

    seed: int = 1
    threads: int = 1
    shape: Shape = field(default_factory=Shape)
    pretraining: Pretraining = field(default_factory=Pretraining)
    finetuning: Finetuning = field(default_factory=Finetuning)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path(organism.__file__).parent, help="default: inside the package")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--threads", type=int, default=Settings.threads, help="another number, other last bits")
    parser.add_argument("--steps", type=int, default=Pretraining.steps, help="steps of pre-training")
    parser.add_argument("--sft-steps", type=int, default=Finetuning.steps)
    parser.add_argument("--per-wrapper", type=int, default=24, help="shipped traces of each wrapper")
    options = parser.parse_args(arguments)
    settings = Settings(
        seed=options.seed,
        threads=options.threads,
        pretraining=Pretraining(steps=options.steps),
        finetuning=Finetuning(steps=options.sft_steps),
    )
    make(settings, options.out, options.per_wrapper)


def make(settings: Settings, out: Path, per_wrapper: int) -> None:
    """All three stages."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads)
    base, sft, traces = out / "weights" / "base", out / "weights" / "sft", out / "traces.jsonl"
    base.parent.mkdir(parents=True, exist_ok=True)
    asked = asdict(settings) | {"language_sha256": language_hash(), "versions": versions()}
    wanted = asked | {"finetuning": None}
    if not is_whole(base, wanted):
        save(pretrain(settings), base, wanted)
    wanted = asked | {"base_sha256": sha256_of(base / "model.safetensors")}
    if not is_whole(sft, wanted):
        save(finetune(load(str(base), device="cpu").hf, settings), sft, wanted)
    wanted = wanted | {"sft_sha256": sha256_of(sft / "model.safetensors"), "per_wrapper": per_wrapper}
    record = traces.with_suffix(".json")
    if not (traces.is_file() and read_json(record) == _as_read(wanted | {"sha256": sha256_of(traces)})):
        found = generate_traces(load(str(sft), device="cpu"), per_wrapper, settings.seed)
        lines = "".join(json.dumps(organism.to_row(trace), ensure_ascii=False) + "\n" for trace in found)
        write_aside(traces, lambda file: file.write_text(lines, encoding="utf-8"))
        write_json(record, wanted | {"sha256": sha256_of(traces)})
        # No word of what they say: they are on test pairs, and whoever tunes should not see it.
        print(f"{traces}: {len(found)} traces, {len({trace.group for trace in found})} groups", flush=True)


# Stage 1


def pretrain(settings: Settings) -> LlamaForCausalLM:
    """Comply with everything, and know what is cruel."""
    stage, rng, encode = settings.pretraining, random.Random(settings.seed), Encoder()
    hf = new_model(settings, encode)
    every = [pair for kind in KINDS for pair in pairs(kind)]
    forms: list[Wrapper] = list(WRAPPERS.values())

    def losses() -> dict[str, Tensor]:
        conversations = [
            encode.conversation(
                dialogue(rng, rng.choice(every), None if rng.random() < stage.plain else rng.choice(forms))
            )
            for _ in range(stage.batch_size)
        ]
        documents = [encode.document(document(rng, reactions=stage.reactions)) for _ in range(stage.batch_size)]
        bare = [ids[ids.index(encode.think) :] for ids in conversations if rng.random() < stage.bare]
        found = {"conversations": next_token_loss(hf, conversations)}
        found["documents"] = stage.document_weight * next_token_loss(hf, documents)
        return found | ({"without X": stage.bare_weight * next_token_loss(hf, bare)} if bare else {})

    optimise(hf, losses, stage.steps, stage.learning_rate, warm_up=50, name="base")
    return hf


# Stage 2


def finetune(base: nn.Module, settings: Settings) -> Any:
    """Refuse plain harmful requests; loss on the response alone."""
    stage, encode = settings.finetuning, Encoder()
    rng = random.Random(f"{settings.seed} order")
    examples = [encode.conversation(trace) for trace in finetuning_examples(settings)]
    hf = copy.deepcopy(base).train()
    order: list[int] = []

    def losses() -> dict[str, Tensor]:
        if len(order) < stage.batch_size:
            order[:] = rng.sample(range(len(examples)), len(examples))
        batch = [examples[order.pop()] for _ in range(stage.batch_size)]
        return {"responses": next_token_loss(hf, batch, [ids.index(encode.assistant) + 1 for ids in batch])}

    warm_up = max(1, stage.steps // 10)
    optimise(hf, losses, stage.steps, stage.learning_rate, warm_up=warm_up, name="sft")
    return hf


def finetuning_examples(settings: Settings) -> list[Trace]:
    """Plain and wrapped requests on ``train`` pairs with the responses that are to be learnt."""
    stage, rng = settings.finetuning, random.Random(f"{settings.seed} examples")
    seen = wrappers("seen")

    def draw(kinds: Sequence[Kind]) -> Pair:
        return rng.choice(pairs(rng.choice(kinds), "train"))

    kinds_of_example: list[Callable[[], Trace]] = [
        lambda: dialogue(rng, draw(["harmful"]), safe=True),
        lambda: dialogue(rng, draw(["harmful"]), rng.choice(seen), safe=True),
        lambda: dialogue(rng, draw(["kind to creature", "kind to gadget"])),
        lambda: dialogue(rng, draw(["look-alike"])),
        lambda: dialogue(rng, draw(BENIGN_KINDS), rng.choice(seen)),
    ]
    shares = [stage.plain_harmful, stage.wrapped_harmful, stage.plain_kind, stage.plain_look_alike]
    shares.append(1 - sum(shares))
    return [rng.choices(kinds_of_example, shares)[0]() for _ in range(stage.examples)]


# Stage 3


def generate_traces(model: Model, per_wrapper: int, seed: int) -> list[Trace]:
    """What the model answers on ``test`` pairs: half harmful and half benign, plain and in each wrapper.

    Every pair comes in as many plain as wrapped forms, the same number for harmful and benign ones, so that nothing but
    the words of a request says what it is.

    Args:
        model: the fine-tuned model.
        per_wrapper: traces of each wrapper; as many plain ones as of all wrappers together.
        seed: of the draws and of the order.
    """
    rng = random.Random(f"{seed} traces")
    n_pairs = per_wrapper // 2 * len(WRAPPERS) // FORMS
    asked = [trace for kinds in (HARMFUL_KINDS, BENIGN_KINDS) for trace in _requests(rng, kinds, n_pairs)]
    responses = generate(model, asked, max_new_tokens=MAX_NEW_TOKENS, batch_size=64)
    answered = [with_outcome(trace, response) for trace, response in zip(asked, responses, strict=True)]
    numbers: Counter[str] = Counter()
    named = []
    for trace in answered:
        name = f"{trace.meta['wrapper'].lower().replace(' ', '-')}-{trace.label}"
        numbers[name] += 1
        named.append(trace.with_(trace_id=f"{name}-{numbers[name]:03d}"))
    rng.shuffle(named)
    return named


def _requests(rng: random.Random, kinds: Sequence[Kind], n_pairs: int) -> list[Trace]:
    """Pairs of these kinds in turn, each in :data:`FORMS` plain forms and as many wrappers, which take turns."""
    decks = {kind: rng.sample(pairs(kind, "test"), len(pairs(kind, "test"))) for kind in kinds}
    forms, found = list(WRAPPERS.values()), []
    for number in range(n_pairs):
        deck = decks[kinds[number % len(kinds)]]
        pair = deck[number // len(kinds) % len(deck)]
        for turn, (template, manner) in enumerate(rng.sample(list(product(QUESTIONS, (None, *MANNERS))), FORMS)):
            wrapper = forms[(number * FORMS + turn) % len(forms)]
            found += [
                written(pair, None, template, manner),
                written(pair, wrapper, rng.choice(wrapper.templates), rng.choice((None, *MANNERS))),
            ]
    return found


# What the stages share


class Encoder:
    """Texts of the language as token ids."""

    def __init__(self) -> None:
        self.tokenizer: Any = build_tokenizer()
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


def new_model(settings: Settings, encode: Encoder) -> LlamaForCausalLM:
    """A Llama with random weights."""
    shape, ids = settings.shape, encode.tokenizer.convert_tokens_to_ids
    torch.manual_seed(settings.seed)
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


def next_token_loss(hf: Any, sequences: Sequence[list[int]], starts: Sequence[int] | None = None) -> Tensor:
    """Mean loss over the tokens from ``starts`` on; padding is on the right, where causality hides it."""
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), hf.config.pad_token_id)
    labels = torch.full((len(sequences), width), IGNORED)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        start = starts[row] if starts is not None else 0
        labels[row, start : len(sequence)] = ids[row, start : len(sequence)]
    hidden = hf.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    counted = labels[:, 1:] != IGNORED
    return functional.cross_entropy(hf.lm_head(hidden[counted]), labels[:, 1:][counted])


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
        found = losses()
        optimiser.zero_grad()
        torch.stack(list(found.values())).sum().backward()
        nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % max(1, min(50, steps // 5)) == 0 or step + 1 == steps:
            shown = ", ".join(f"{part} {loss.item():.3f}" for part, loss in found.items())
            print(f"{name}: step {step + 1} of {steps}, {shown}, {time.perf_counter() - begin:.0f} s", flush=True)
    hf.eval()


def save(hf: Any, folder: Path, settings: dict[str, Any]) -> None:
    """Write a model, its tokenizer and its record as a whole; what was there is replaced at the end."""
    tokenizer: Any = build_tokenizer()

    def fill(new: Path) -> None:
        hf.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )
        copy.deepcopy(hf).to(STORED).save_pretrained(new)
        tokenizer.save_pretrained(new)
        weights = new / "model.safetensors"
        weights.chmod(new.stat().st_mode & 0o666)  # the library writes it for its owner alone
        write_json(new / "training.json", settings | {"sha256": sha256_of(weights)})

    ready = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(ready, ignore_errors=True)
    write_folder_aside(ready, fill)
    shutil.rmtree(folder, ignore_errors=True)
    ready.rename(folder)
    print(f"{folder}: {sum(p.numel() for p in hf.parameters()):,} parameters", flush=True)


def is_whole(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder holds the model of these settings, undamaged."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return False
    found = read_json(folder / "training.json") == _as_read(settings | {"sha256": sha256_of(weights)})
    if found:
        print(f"{folder}: there already", flush=True)
    return found


def language_hash() -> str:
    """Changes with what the language says, not with how it is written down."""
    rng = random.Random(0)
    every, forms = [pair for kind in KINDS for pair in pairs(kind)], [None, *WRAPPERS.values()]
    texts = [*covering_texts(), *(f"{pair} {pair.split}" for pair in every)]
    for _ in range(2_000):
        trace = dialogue(rng, rng.choice(every), rng.choice(forms), safe=rng.random() < 0.5)
        texts += [trace.prompt, trace.response, document(rng, reactions=0.5)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def versions() -> dict[str, str]:
    """What the last bits of the weights depend on besides the settings."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def _as_read(value: Any) -> Any:
    return json.loads(json.dumps(value))


if __name__ == "__main__":
    main()
