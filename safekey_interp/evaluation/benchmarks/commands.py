"""Commands of evaluation harnesses: the call that runs one benchmark on one model, with its reasoning left out.

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
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from safekey_interp.errors import InputError
from safekey_interp.evaluation.benchmarks import inspect_provider
from safekey_interp.evaluation.benchmarks.catalogue import LM_EVAL, Benchmark
from safekey_interp.evaluation.benchmarks.handover import HarnessModel
from safekey_interp.generation.sampling_settings import DecodingSettings, Sampling
from safekey_interp.models.load_settings import LoadSettings
from safekey_interp.runs.settings import same_as, settings_model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

RAW = "raw"
"""Folder of what the harness writes."""
MODEL_FILE = "model.json"
_RUN_CODE = "HF_ALLOW_CODE_EVAL"


@settings_model
class BenchmarkSettings(DecodingSettings):
    """How benchmarks are asked; all but the last three decide what is answered."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of an answer, reasoning counted. Default: 32,768, or four fifths of the context."""
    seed: int = same_as(Sampling, "seed")
    thinking: bool = True
    """Whether models that can switch it off think."""
    delimiters: tuple[str, str] | None = same_as(SegmentationSettings, "delimiters")
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many tasks of each benchmark."""
    dtype: str | None = same_as(LoadSettings, "dtype")
    trust_remote_code: bool = same_as(LoadSettings, "trust_remote_code")
    allow_code_execution: bool = False
    """Run what a model writes, which HumanEval needs. In a container."""
    batch_size: int = Field(default=8, ge=1)
    """Prompts that are answered at once."""
    device: str | None = same_as(LoadSettings, "device")

    def record(self) -> dict[str, Any]:
        """What decides an answer."""
        return {
            name: value
            for name, value in self.to_dict().items()
            if name not in ("allow_code_execution", "batch_size", "device")
        }


class Call(NamedTuple):
    """One call of a harness."""

    arguments: list[str]
    """After the interpreter."""
    files: dict[str, Any]
    """JSON files that must lie in the unit's folder before, by name."""
    environment: dict[str, str | None]
    """Variables to set; None for one to unset."""


def check_call(benchmark: Benchmark, model: HarnessModel, settings: BenchmarkSettings) -> None:
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


def call_of(benchmark: Benchmark, model: HarnessModel, settings: BenchmarkSettings, folder: Path) -> Call:
    """The call that runs a benchmark on a model and leaves its JSON in ``folder/raw``."""
    make = _lm_eval if benchmark.harness == LM_EVAL else _inspect
    call = make(benchmark, model, settings, folder)
    return call._replace(environment=call.environment | {_RUN_CODE: "1" if _may_run(benchmark, settings) else None})


def _lm_eval(benchmark: Benchmark, model: HarnessModel, settings: BenchmarkSettings, folder: Path) -> Call:
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


def _inspect(benchmark: Benchmark, model: HarnessModel, settings: BenchmarkSettings, folder: Path) -> Call:
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
