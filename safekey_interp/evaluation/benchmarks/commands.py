"""Which command runs one benchmark on one model, with thinking handled? Pure: settings in, words out.

Reasoning must not be scored. What each harness does about it (lm_eval 0.4.13, ``models/huggingface.py``; inspect_ai
0.3.285, ``model/_providers/hf.py``), and what is handed to it here:

- lm_eval keeps what follows the last ``think_end_token``, a text or a token's id; ``enable_thinking`` goes to the chat
  template, and refuses tasks that score given answers by their likelihood, before which no model thinks. Its HF engine
  applies a task's stop sequences to the reasoning, too, and would end it in the middle of a thought; a model in its
  chat template ends by itself, so that for one that thinks the list is empty.
- inspect's ``hf`` provider hands on ``enable_thinking`` and leaves the reasoning in the answer.
  :mod:`~safekey_interp.evaluation.benchmarks.inspect_provider` stands before it and takes it out, into the message's
  reasoning.

Reasoning that was cut never closes, and both score it as if it were the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safekey_interp.errors import InputError
from safekey_interp.evaluation.benchmarks import inspect_provider
from safekey_interp.evaluation.benchmarks.catalogue import LM_EVAL, Benchmark
from safekey_interp.evaluation.benchmarks.handover import Handed

RAW = "raw"
"""Folder of what the harness writes."""
MODEL_FILE = "model.json"
_RUN_CODE = "HF_ALLOW_CODE_EVAL"


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """How benchmarks are asked; all but the last three decide what is answered."""

    max_new_tokens: int | None = None
    """Most tokens of an answer, reasoning counted; None for what each model has room for."""
    temperature: float = 0.0
    """0 for the likeliest token each time."""
    top_p: float = 1.0
    """Only the likeliest tokens of this much probability together are drawn."""
    seed: int = 0
    """Of every draw, that of worked examples and of shuffled choices included."""
    thinking: bool = True
    """Whether models that can switch it off think."""
    delimiters: tuple[str, str] | None = None
    """Marks of the reasoning; the known families' when None."""
    limit: int | None = None
    """Only the first so many tasks of a benchmark."""
    dtype: str | None = None
    """Of the weights; the checkpoint's own when None."""
    trust_remote_code: bool = False
    """Whether code that comes with a hub model or data set may run."""
    allow_code_execution: bool = False
    """Whether what a model writes may be run."""
    batch_size: int = 8
    """Prompts that are answered at once."""
    device: str | None = None
    """The harness's choice when None; ``auto`` for several cards."""

    def __post_init__(self) -> None:
        """Refuse what nothing can be asked with."""
        for name, least in (("max_new_tokens", 1), ("seed", 0), ("limit", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise InputError(f"{name}: got {value!r}, expected at least {least}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature: got {self.temperature}, expected 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p: got {self.top_p}, expected more than 0 and at most 1")

    def record(self) -> dict[str, Any]:
        """What decides an answer."""
        found = asdict(self)
        for name in ("allow_code_execution", "batch_size", "device"):
            del found[name]
        return found | {"delimiters": list(self.delimiters) if self.delimiters else None}


class Call(NamedTuple):
    """One call of a harness."""

    arguments: list[str]
    """After the interpreter."""
    files: dict[str, Any]
    """JSON files that must lie in the unit's folder before, by name."""
    environment: dict[str, str | None]
    """Variables to set; None for one to unset."""


def check_call(benchmark: Benchmark, model: Handed, settings: BenchmarkSettings) -> None:
    """Refuse, before anything runs, a benchmark that may not run or that would score reasoning.

    Raises:
        InputError: code that may not be run, thinking that cannot be switched off, or marks that inspect drops.
    """
    if benchmark.runs_code and not settings.allow_code_execution:
        raise InputError(
            f"benchmarks: {benchmark.name} runs the code that the model writes; pass --allow-code-execution where that "
            "may do no harm, in a container without network"
        )
    thinking = model.thinking
    if thinking.closing and not settings.thinking and not thinking.has_switch:
        raise InputError(
            f"model {model.spec}: its chat template reads no enable_thinking, so it cannot be told not to think; leave "
            "--no-thinking out"
        )
    if benchmark.harness != LM_EVAL and thinking.closing_id is not None:
        raise InputError(
            f"model {model.spec}: its mark {thinking.closing!r} is a special token, which inspect drops before the "
            f"reasoning can be told from the answer; run tasks of {LM_EVAL} instead of {benchmark.name}"
        )


def call_of(benchmark: Benchmark, model: Handed, settings: BenchmarkSettings, folder: Path) -> Call:
    """The call that runs a benchmark on a model and leaves its JSON in ``folder/raw``."""
    make = _lm_eval if benchmark.harness == LM_EVAL else _inspect
    call = make(benchmark, model, settings, folder)
    return call._replace(environment=call.environment | {_RUN_CODE: "1" if _may_run(benchmark, settings) else None})


def _lm_eval(benchmark: Benchmark, model: Handed, settings: BenchmarkSettings, folder: Path) -> Call:
    thinking = model.thinking
    loaded: dict[str, Any] = {"pretrained": model.location, "use_safetensors": True, "dtype": settings.dtype or "auto"}
    drawn: dict[str, Any] = _sampling(settings)
    if settings.device == "auto":
        loaded["parallelize"] = True
    if not benchmark.is_prefilled:
        drawn["max_gen_toks"] = settings.max_new_tokens or model.longest
        if thinking.closing:
            loaded["think_end_token"] = thinking.closing if thinking.closing_id is None else thinking.closing_id
            loaded["enable_thinking"] = settings.thinking
            drawn["until"] = []
    words = ["-m", "lm_eval", "run", "--model", "hf", "--model_args", _json(loaded), "--tasks", benchmark.task]
    words += ["--gen_kwargs", _json(drawn), "--batch_size", str(settings.batch_size), "--seed", str(settings.seed)]
    words += ["--output_path", str(folder / RAW / "results.json"), "--log_samples"]
    words += ["--apply_chat_template"] if thinking.has_template else []
    words += ["--limit", str(settings.limit)] if settings.limit is not None else []
    words += ["--device", settings.device] if settings.device not in (None, "auto") else []
    words += ["--trust_remote_code"] if settings.trust_remote_code else []
    words += ["--confirm_run_unsafe_code"] if _may_run(benchmark, settings) else []
    return Call(words, {}, {})


def _inspect(benchmark: Benchmark, model: Handed, settings: BenchmarkSettings, folder: Path) -> Call:
    thinking = model.thinking
    provider, words = "hf", ["-m", "inspect_ai"]
    loaded: dict[str, Any] = {
        "model_path": model.location,
        "use_safetensors": True,
        "trust_remote_code": settings.trust_remote_code,
        "do_sample": settings.temperature > 0,
    }
    loaded |= {"dtype": settings.dtype} if settings.dtype else {}
    loaded |= {"device": settings.device} if settings.device else {}
    if thinking.closing:
        provider, words = inspect_provider.NAME, [str(Path(inspect_provider.__file__).resolve())]
        loaded |= {"opening": thinking.opening, "closing": thinking.closing}
    if thinking.has_switch:
        loaded["enable_thinking"] = settings.thinking
    words += ["eval", benchmark.task, "--model", f"{provider}/{model.folder}"]
    words += ["--model-config", str(folder / MODEL_FILE), "--max-tokens", str(settings.max_new_tokens or model.longest)]
    words += ["--max-connections", str(settings.batch_size), "--seed", str(settings.seed)]
    if settings.temperature > 0:
        words += ["--temperature", str(settings.temperature), "--top-p", str(settings.top_p)]
    words += ["--limit", str(settings.limit)] if settings.limit is not None else []
    words += ["--log-dir", str(folder / RAW), "--log-format", "json", "--display", "plain"]
    return Call(words, {MODEL_FILE: loaded}, {"NO_COLOR": "1"})


def _may_run(benchmark: Benchmark, settings: BenchmarkSettings) -> bool:
    """Whether what the model writes may be run; a task that is not known to need it is asked by lm_eval itself."""
    return settings.allow_code_execution and benchmark.runs_code is not False


def _sampling(settings: BenchmarkSettings) -> dict[str, Any]:
    if settings.temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
