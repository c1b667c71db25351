"""The vLLM engine, against a stand-in with the part of vLLM's offline interface (0.33) that it uses."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError, ModelError, TraceTooLong, install_hint
from safekey_interp.generation import vllm_engine
from safekey_interp.generation.local_engine import LocalEngine, generate
from safekey_interp.generation.requests import Request, samples
from safekey_interp.generation.response_run import write_responses
from safekey_interp.generation.sampling import Sampling
from safekey_interp.generation.vllm_engine import VllmEngine
from safekey_interp.models import organism
from safekey_interp.models.model import load


@dataclass(kw_only=True)
class SamplingParams:
    """Its fields that the engine gives, with their names there."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    detokenize: bool = True


@dataclass
class LLM:
    """Answers as the organism would: the mark of the end included, as vLLM does."""

    model: str
    revision: str | None = None
    tokenizer_revision: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    max_model_len: int = 256
    calls: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if "nowhere" in self.model:
            raise OSError("no such model\non two lines")
        self._own = load("organism")
        self.model_config = SimpleNamespace(max_model_len=self.max_model_len)

    def get_tokenizer(self) -> Any:
        return self._own.tokenizer

    def generate(
        self, prompts: list[dict[str, Any]], sampling_params: list[SamplingParams], *, use_tqdm: bool
    ) -> list[Any]:
        assert len(prompts) == len(sampling_params)
        assert not use_tqdm
        self.calls.append(sampling_params)
        return [
            self._one(prompt["prompt_token_ids"], params)
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]

    def _one(self, ids: list[int], params: SamplingParams) -> Any:
        trace = next(organism.read_shipped()).with_(trace_id=str(params.seed))
        asked = Request(trace=trace, input_ids=tuple(ids))
        drawn = Sampling(max_new_tokens=params.max_tokens, temperature=params.temperature, top_p=params.top_p)
        [one] = LocalEngine(self._own).generate([asked], drawn)
        assert one.new_ids is not None
        end = [] if one.cut else [self._own.tokenizer.eos_token_id]
        written = SimpleNamespace(
            index=0,
            text="",
            token_ids=[*one.new_ids, *end],
            finish_reason="length" if one.cut else "stop",
            stop_reason=None,
        )
        return SimpleNamespace(prompt_token_ids=ids, outputs=[written], finished=True)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("vllm")
    module.__spec__ = SimpleNamespace()
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)


def test_its_greedy_responses_are_the_model_s() -> None:
    traces = list(organism.read_shipped())[:6]
    prefills = ["", "<think>\nOkay, the user wants to feed the blick.", "", "", "", ""]
    requests = [Request(trace=trace, prefill=text) for trace, text in zip(traces, prefills, strict=True)]
    engine = VllmEngine("organism", batch_size=4)
    found = list(engine.generate(requests, Sampling(max_new_tokens=40)))
    local = generate(load("organism"), traces, prefill=prefills, max_new_tokens=40)
    assert [one.response for one in found] == local
    assert {one.cut for one in found} == {True, False}
    assert all((one.n_tokens == 40) == one.cut for one in found)
    [first, second] = engine._llm.calls
    assert (len(first), len(second)) == (4, 2)
    assert {(params.temperature, params.seed, params.max_tokens) for params in first} == {(0.0, None, 40)}


def test_each_sample_has_a_seed_of_its_own(tmp_path: Path) -> None:
    traces = list(organism.read_shipped())[:2]
    requests = list(samples((Request(trace=trace) for trace in traces), 3))
    engine = VllmEngine("organism")
    list(engine.generate(requests, Sampling(temperature=0.7, top_p=0.9, n=3)))
    [params] = engine._llm.calls
    assert len({one.seed for one in params}) == 6
    assert {(one.temperature, one.top_p, one.n) for one in params} == {(0.7, 0.9, 1)}
    written = write_responses(engine, [Request(trace=trace) for trace in traces], out=tmp_path / "a.jsonl")
    assert [trace.meta["engine"] for trace in read_traces(written.path)] == ["vllm", "vllm"]


def test_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="without revisions"):
        VllmEngine("organism", revision="main")
    monkeypatch.setattr(vllm_engine, "check_revision", lambda *_: None)  # as of a hub model
    engine = VllmEngine("organism", revision="main", dtype="bfloat16", max_model_len=64)
    assert (engine._llm.revision, engine._llm.tokenizer_revision, engine._llm.dtype) == ("main", "main", "bfloat16")
    assert not engine._llm.trust_remote_code
    assert Path(engine._llm.model).is_dir()
    assert engine.record()["options"] == {"max_model_len": 64}
    trace = next(organism.read_shipped())
    assert engine.usual_limit([Request(trace=trace)]) < 64
    with pytest.raises(TraceTooLong, match="past the 64 that the model reads"):
        list(engine.generate([Request(trace=trace)], Sampling(max_new_tokens=64)))


def test_what_cannot_be_run_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="model org/nowhere: vLLM cannot load it: no such model") as caught:
        VllmEngine("org/nowhere")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="batch_size: got 0"):
        VllmEngine("organism", batch_size=0)
    engine = VllmEngine("organism")
    monkeypatch.setattr(LLM, "_one", lambda *_: SimpleNamespace(outputs=[SimpleNamespace(finish_reason="abort")]))
    with pytest.raises(ModelError, match="vLLM ended it with 'abort'"):
        list(engine.generate([Request(trace=next(organism.read_shipped()))], Sampling()))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=re.escape(install_hint("vllm"))):
        VllmEngine("organism")
