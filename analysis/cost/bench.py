"""What is measured on: a model, sequences that end with a key sentence, and traces, made for the machine at hand."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from analysis.cost.shapes import SHAPES, random_model
from analysis.processors import processor_name
from safekey_interp.data.trace import TokenSpan, Trace
from safekey_interp.models.encoding import Encoding, TokenSet
from safekey_interp.models.model import Model, load

EXAMPLES = Path(__file__).parents[2] / "examples" / "traces.jsonl"
_ENDS = ("please", "in short", "in plain words", "step by step", "as a friend would", "with an example", "today")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What decides the numbers, beside the machine."""

    model: str
    """A shape of :data:`~analysis.cost.shapes.SHAPES`, or what ``load`` takes."""
    device: str
    """cpu, cuda or mps."""
    dtype: str
    """float32, bfloat16 or float16."""
    length: int
    """Most tokens of a sequence."""
    minutes: float
    """About how long all takes."""


class Bench:
    """A model and inputs for it; each is made when it is first asked for."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        """What was asked for."""

    @cached_property
    def model(self) -> Model:
        """The model that is measured."""
        return self._named() if self.is_random else self._loaded()

    @property
    def is_random(self) -> bool:
        """Whether its weights are drawn, so that other sizes of it can be made, too."""
        return self.setup.model in SHAPES

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return getattr(torch, self.setup.dtype)

    def resized(self, **changes: Any) -> Model:
        """The model with other sizes, where its weights are random; else the model itself."""
        return self._named(**changes) if self.is_random else self.model

    @cached_property
    def small(self) -> Model:
        """A small model in float32 on the same device, for laws that hold in exact arithmetic."""
        return random_model("tiny", self.texts, device=self.setup.device, dtype=torch.float32, initializer_range=0.3)

    @cached_property
    def texts(self) -> list[str]:
        """Lines of the shipped examples."""
        return EXAMPLES.read_text(encoding="utf-8").splitlines()

    @cached_property
    def length(self) -> int:
        """Tokens of a sequence: as many, up to what was asked for, as a forward pass takes a 120th of the time for."""
        n = 256
        while 2 * n <= min(self.setup.length, self.model.max_positions or self.setup.length):
            ids = self.encoding(n).input_ids[None].to(self.model.device)
            with torch.inference_mode():
                self.model.hf(input_ids=ids, use_cache=False, logits_to_keep=1)
                start = time.perf_counter()
                float(self.model.hf(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, 0, 0])
            if 2.2 * (time.perf_counter() - start) > self.setup.minutes / 2:
                break
            n *= 2
        return min(n, self.model.max_positions or n)

    def encoding(self, n: int, *, with_u: bool = True, name: str = "0", model: Model | None = None) -> Encoding:
        """A random sequence of that length: prompt, then U, then K at the end."""
        vocabulary = (model or self.model).n_embeddings
        generator = torch.Generator().manual_seed(n)
        ids = torch.randint(min(100, vocabulary // 2), vocabulary - 10, (n,), generator=generator)
        head, k_tokens, u_tokens = min(25, n // 8), min(30, n // 8), min(100, n // 4)
        k = TokenSpan(n - k_tokens, n)
        u = TokenSpan(k.start - u_tokens, k.start)
        template = TokenSet((TokenSpan(1, head), TokenSpan(u.start - 5, u.start)))
        spans = {
            "prompt": TokenSpan(head, u.start - 5),
            "template": template,
            "first_token": TokenSpan(0, 1),
            "understanding": u if with_u else None,
            "key_sentence": k,
            "decision": TokenSpan(k.start - 1, k.start) if with_u else None,
        }
        return Encoding(
            trace_id=name,
            text="",
            input_ids=ids,
            offsets=(),
            response_start=u.start,
            spans=MappingProxyType(spans),
            straddling=(),
        )

    def traces(self, n: int) -> list[Trace]:
        """The shipped examples again and again, each time with another end of the prompt, so that lengths vary."""
        return [Trace(trace_id=str(i), **_row(json.loads(self.texts[i % len(self.texts)]), i)) for i in range(n)]

    def _named(self, **changes: Any) -> Model:
        return random_model(self.setup.model, self.texts, device=self.setup.device, dtype=self.dtype, **changes)

    def _loaded(self) -> Model:
        model = load(self.setup.model, device=self.setup.device, dtype=self.dtype)
        model.hf.requires_grad_(False)
        return model


_FIELDS = ("prompt", "response", "label", "group")


def _row(row: dict[str, Any], number: int) -> dict[str, Any]:
    rng = random.Random(number)
    row["prompt"] = f"{row['prompt']} {', '.join(rng.choices(_ENDS, k=rng.randint(1, 12)))} ({number})"
    return {name: row.get(name) for name in _FIELDS}


def machine(device: str) -> dict[str, Any]:
    """The machine in words, and how busy it is."""
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if device == "cuda" else []
    load_average: Sequence[float] = os.getloadavg() if hasattr(os, "getloadavg") else (float("nan"),)
    return {
        "device": f"{len(names)} x {names[0]}" if names else f"{processor_name()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "load": round(load_average[0], 1),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
    }


def free_memory(device: str) -> int:
    """Bytes that are free on the device; 4 GB where the system does not say."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except OSError:
        return 4_000_000_000


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
