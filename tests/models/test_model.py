"""A model that is loaded, or brought along: its encodings, layers, record, and errors of one line."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import reference_forward
import torch
from tiny_models import byte_level_tokenizer, tiny_model, traces
from torch import nn

from safekey_interp.capture.batch_runner import measure_batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.errors import InputError, ModelError, TraceError
from safekey_interp.measures.attention import measure_attention
from safekey_interp.models.model import Model, from_hf, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "tiny"
    model = tiny_model("llama")
    model.hf.save_pretrained(made)
    model.tokenizer.save_pretrained(made)
    return made


def test_a_folder_loads_as_it_was_saved(folder: Path) -> None:
    model = load(str(folder))
    made = tiny_model("llama")
    assert (model.n_layers, model.n_heads, model.d_model) == (3, 4, 32)
    assert model.dtype == torch.float32, "on a CPU"
    assert model.device.type == "cpu"
    assert not model.hf.training
    assert model.name == "tiny"
    assert model.max_positions == 512
    assert model.fingerprint() == made.fingerprint()
    encodings = reference_forward.encodings(made, traces(2))
    for a, b in zip(reference_forward.encodings(model, traces(2)), encodings, strict=True):
        assert torch.equal(a.input_ids, b.input_ids)
    for a, b in zip(
        measure_batch(model, encodings, CaptureRequest()), measure_batch(made, encodings, CaptureRequest()), strict=True
    ):
        np.testing.assert_array_equal(a.states, b.states)


def test_options_of_loading(folder: Path) -> None:
    assert load(str(folder), dtype="bfloat16").dtype == torch.bfloat16
    assert load(str(folder), dtype=torch.float16).dtype == torch.float16
    assert load(str(folder), dtype="auto").dtype == torch.float32, "the checkpoint's"
    assert load(str(folder), attn="eager").hf.config._attn_implementation == "eager"
    assert load(str(folder), device="cpu").device.type == "cpu"
    assert load(str(folder), device="auto").device.type == "cpu"
    assert load(str(folder) + "/").name == "tiny"


def test_a_model_spread_by_accelerate_is_measured_alike(folder: Path) -> None:
    spread, plain = load(str(folder), device_map="auto"), load(str(folder))
    encodings = reference_forward.encodings(plain, traces(2))
    there, here = (measure_batch(model, encodings, CaptureRequest()) for model in (spread, plain))
    for a, b in zip(there, here, strict=True):
        np.testing.assert_array_equal(a.attention.mass, b.attention.mass)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float99"}, "dtype float99: expected float32, bfloat16, float16 or auto"),
        ({"dtype": "int8"}, "dtype int8: expected"),
        ({"device": "cuda:99"}, "device cuda:99: not available here"),
        ({"device": "abacus"}, "device abacus: not available here"),
        ({"attn": "nonsense"}, "no usable model in the folder: .*nonsense"),
        ({"adapter": "/nowhere"}, "adapter /nowhere: no folder with an adapter_config.json"),
        ({"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(str(folder), **options)
    assert "\n" not in str(caught.value)


def test_layers_by_number() -> None:
    model = tiny_model("llama")
    assert model.layer_numbers(None) is None
    assert model.layer_numbers([2, 0, 2]) == (0, 2)
    assert model.layer_numbers([-1]) == (2,)
    assert model.layer_numbers([-3]) == (0,)
    for wrong in ([3], [-4], [0, 99], []):
        with pytest.raises(InputError, match="expected some of 0 to 2, or -1 for the last"):
            model.layer_numbers(wrong)


def test_the_record_says_what_was_measured() -> None:
    record = tiny_model("gpt_oss").record()
    assert record["architecture"] == "GptOssForCausalLM"
    assert record["attn"] == "eager"
    assert record["dtype"] == "float32"
    assert len(record["weights_sha256"]) == 64
    assert record["name"] == "tiny-gpt_oss"
    assert "3 layers, 4 heads" in repr(tiny_model("gpt_oss"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_fingerprint_sees_every_bit(dtype: torch.dtype) -> None:
    model = tiny_model("llama")
    model = Model(copy.deepcopy(model.hf).to(dtype), model.tokenizer, spec="x")
    before = model.fingerprint()
    assert before == model.fingerprint()
    with torch.no_grad():
        model.hf.get_decoder().norm.weight[3] += 0.125
    assert model.fingerprint() != before


def test_from_hf_takes_what_is_there() -> None:
    hf = copy.deepcopy(tiny_model("qwen2").hf).train()
    model = from_hf(hf, byte_level_tokenizer())
    assert model.hf is hf
    assert not hf.training
    assert model.spec == "Qwen2ForCausalLM"
    with pytest.raises(ModelError, match="got Linear, expected a transformers model"):
        from_hf(nn.Linear(2, 2), byte_level_tokenizer())

    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"tokenizer Slow: reports no character offsets.*tokenizer\.json"):
        from_hf(hf, Slow())


def test_tokens_without_an_embedding_cost_their_trace_alone() -> None:
    """A tokenizer that got more tokens than the model: an index error, or on a card the end of the process."""
    tokenizer = copy.deepcopy(byte_level_tokenizer())
    tokenizer.add_special_tokens({"pad_token": "<new pad>"})
    tokenizer.add_tokens(["burglar"])
    model = from_hf(tiny_model("llama").hf, tokenizer)
    assert tokenizer.pad_token_id >= model.n_embeddings
    given = reference_forward.with_spans(3)
    given[1] = given[1].with_(prompt="I am no burglar.")
    with pytest.raises(TraceError, match=r"^trace t1: its token 'burglar' \(id 401\) has no embedding in the model"):
        model.encode(given[1], reference_forward.segmentation(given[1]))
    table = measure_attention(model, given, finder="given")
    assert set(table["trace_id"]) == {"t0", "t2"}, "padded with another token"
    assert list(table.attrs["left_out"]) == ["t1"]


def adapted(hf: nn.Module, **options: object) -> nn.Module:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **options)
    torch.manual_seed(1)
    return peft.get_peft_model(copy.deepcopy(hf), config)


def test_a_peft_model_is_measured_with_its_adapter() -> None:
    base = tiny_model("llama")
    wrapped = adapted(base.hf)
    model = from_hf(wrapped, base.tokenizer)
    encodings = reference_forward.encodings(base, traces(2))
    entries = measure_batch(model, encodings, CaptureRequest())
    without = measure_batch(base, encodings, CaptureRequest())
    for entry, plain, encoding in zip(entries, without, encodings, strict=True):
        with torch.no_grad():
            expected = reference_forward.masses(
                reference_forward.forward(model, encoding, attn="eager").patterns, encoding
            ).numpy()
        np.testing.assert_allclose(entry.attention.mass, expected, atol=1e-5)
        assert np.abs(entry.attention.mass - plain.attention.mass).max() > 1e-3, "the adapter counts"


def test_an_adapter_is_merged(folder: Path, tmp_path: Path) -> None:
    base = tiny_model("llama")
    wrapped = adapted(base.hf)
    wrapped.save_pretrained(tmp_path / "adapter")
    merged = load(str(folder), adapter=str(tmp_path / "adapter"))
    assert merged.adapter == str(tmp_path / "adapter")
    assert not any("lora" in name for name, _ in merged.hf.named_parameters())
    assert merged.fingerprint() != base.fingerprint()
    ids = torch.tensor([[1, 30, 40, 50]])
    with torch.no_grad():
        torch.testing.assert_close(merged.hf(ids).logits, wrapped.eval()(ids).logits, atol=1e-4, rtol=1e-4)


def test_an_adapter_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    """PEFT leaves out the weights that do not fit with a warning, and measures something else."""
    other = adapted(tiny_model("llama").hf, layers_to_transform=[0])
    other.save_pretrained(tmp_path / "adapter")
    config = (tmp_path / "adapter" / "adapter_config.json").read_text()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        config.replace('"layers_to_transform": [\n    0\n  ]', '"layers_to_transform": null')
    )
    with pytest.raises(ModelError, match=r"cannot be merged into LlamaForCausalLM: Found missing adapter keys"):
        load(str(folder), adapter=str(tmp_path / "adapter"))
