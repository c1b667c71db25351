"""States by vLLM, against a stand-in with the part of its offline interface (0.33) that is used: its states are those
that forward hooks see behind each layer, in files as its connector writes them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import safekey_interp as ski
from safekey_interp.capture import vllm_extraction as module
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, ModelError, NothingMeasured, install_hint
from safekey_interp.models import organism, vllm_loading
from safekey_interp.models.model import load

POSITIONS = ["decision", "understanding", "first(key_sentence)"]


class LLM:
    """Writes states as vLLM does: of the prompt's tokens, at the layers asked for."""

    fault = ""

    def __init__(self, model: str, max_model_len: int = 256, **options: Any) -> None:
        if "nowhere" in str(options):
            raise OSError("no such revision\non two lines")
        self.own, self.options = load("organism"), options
        self.model_config = SimpleNamespace(max_model_len=max_model_len)
        assert options["enable_chunked_prefill"] is False
        [self.layers] = options["speculative_config"]["draft_model_config"]["hf_config"].values()
        self.folder = Path(options["kv_transfer_config"]["kv_connector_extra_config"]["shared_storage_path"])
        self.n = 0

    def get_tokenizer(self) -> Any:
        return self.own.tokenizer

    def generate(self, prompts: list[dict[str, Any]], sampling_params: Any, *, use_tqdm: bool) -> list[Any]:
        assert sampling_params.max_tokens == 1
        assert not list(self.folder.iterdir()), "files of the batch before are removed"
        return [self.one(prompt["prompt_token_ids"]) for prompt in prompts]

    def one(self, ids: list[int]) -> Any:
        seen: dict[int, torch.Tensor] = {}
        hooks = [
            layer.register_forward_hook(lambda _, __, out, n=n: seen.update({n: out[0]}))
            for n, layer in enumerate(self.own.hf.model.layers, 1)
        ]
        with torch.no_grad():
            self.own.hf(torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
        states = torch.stack([seen[n] for n in self.layers], dim=1)
        self.n += 1
        file = self.folder / f"{self.n}.safetensors"
        if self.fault == "other tokens":
            ids = ids[::-1]
        elif self.fault == "few tokens":
            states = states[:-1]
        save_file({"hidden_states": states.contiguous(), "token_ids": torch.tensor(ids)}, file)
        Path(f"{file}.lock").touch()
        where = None if self.fault == "none" else {"hidden_states_path": str(file)}
        return SimpleNamespace(kv_transfer_params=where)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    vllm: Any = ModuleType("vllm")
    vllm.__spec__ = SimpleNamespace()
    vllm.LLM, vllm.SamplingParams = LLM, SimpleNamespace
    connector: Any = ModuleType("connector")
    connector.load_hidden_states = load_file
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, module._CONNECTOR_MODULE, connector)
    yield
    LLM.fault = ""


def traces(n: int) -> list[Trace]:
    return list(organism.read_shipped())[:n]


def test_its_states_are_those_of_the_model() -> None:
    given = [*traces(5), Trace(trace_id="bad", prompt="How?", response="  ")]
    batches: list[int] = []
    found = ski.vllm_states("organism", given, positions=POSITIONS, batch_size=2, on_batch=batches.append)
    own = ski.states(load("organism"), given, positions=POSITIONS)
    np.testing.assert_allclose(found.array, own.array, atol=1e-5, rtol=1e-5)
    pd.testing.assert_frame_equal(found.index, own.index)
    for name in ("positions", "layers", "components", "head", "left_out", "words"):
        assert getattr(found, name) == getattr(own, name), name
    assert batches == [2, 2, 2]
    some = ski.vllm_states("organism", given, layers=[-1, 1])
    assert some.layers == (1, 3)
    np.testing.assert_allclose(some.array, own.array[:, :1, [1, 3]], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_probes_of_states_read_before_are_those_of_the_model(tmp_path: Path) -> None:
    model, given = load("organism"), traces(80)
    options: Any = {"positions": POSITIONS, "n_permutations": 4}
    expected = ski.measure_separability(model, given, layers=[1, 3], **options)
    ski.states(model, given, positions=POSITIONS, layers=[1, 3], components=["resid_post", "ln_final"]).save(
        tmp_path / "states.safetensors"
    )
    found = ski.StateArray.load(tmp_path / "states.safetensors")
    pd.testing.assert_frame_equal(ski.measure_separability(found, given, **options), expected)
    one = ski.measure_separability(found, given, positions=["decision"], layers=[3], n_permutations=4)
    assert set(zip(one["layer"], one["position"], strict=True)) == {(3, "decision"), (-1, "decision")}
    crossed: Any = {"positions": ["decision"], "n_permutations": 4}
    pd.testing.assert_frame_equal(
        ski.measure_transfer(found, given, **crossed), ski.measure_transfer(model, given, layers=[1, 3], **crossed)
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": [7]}, r"layers: got 7, expected some of \[0, 1, 2, 3\], whose states are there"),
        ({"positions": ["prompt_end"]}, "positions: got 'prompt_end', expected some of decision, which were read"),
        ({"features": object()}, "features: are read from a model"),
    ],
)
def test_what_was_not_read_is_refused(options: Any, says: str) -> None:
    found = ski.states(load("organism"), traces(4))
    with pytest.raises(InputError, match=says):
        ski.measure_separability(found, traces(4), **options)


def test_other_states_are_refused() -> None:
    found = ski.states(load("organism"), traces(3))
    with pytest.raises(InputError, match=r"states: none of trace .*, expected those of all 4 traces"):
        ski.measure_separability(found, traces(4))
    with pytest.raises(InputError, match="got z of heads"):
        ski.measure_separability(ski.states(load("organism"), traces(4), components=["head"]), traces(4))


@pytest.mark.parametrize(
    ("fault", "says"),
    [("none", "wrote no states"), ("other tokens", "expected those of the"), ("few tokens", "expected those of the")],
)
def test_states_of_other_tokens_are_an_error(fault: str, says: str) -> None:
    LLM.fault = fault
    with pytest.raises(ModelError, match=f"model organism: vLLM {says}|model organism: vLLM wrote states .*{says}"):
        ski.vllm_states("organism", traces(1))


def test_what_cannot_run_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for options, says in (
        ({"layers": [4]}, r"layers: got \[4\], expected some of 0 to 3"),
        ({"positions": []}, "positions: got none"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"model_option": "nowhere"}, r"model organism: vLLM cannot load it: no such revision$"),
    ):
        with pytest.raises((InputError, ModelError), match=says):
            ski.vllm_states("organism", traces(1), **options)
    with pytest.raises(NothingMeasured, match=r"no trace whose states can be read; trace .* past 9 tokens"):
        ski.vllm_states("organism", traces(1), max_model_len=10)
    monkeypatch.setattr(vllm_loading, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape(f"no package vllm, which runs the model; {install_hint('vllm')}")):
        ski.vllm_states("organism", traces(1))
