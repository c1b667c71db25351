"""The training script: same seed, same bits; a stage that is there and whole is not made again."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from safekey_interp import organism
from safekey_interp.organism.language import REFUSAL
from safekey_interp.organism.words import Pair
from safekey_interp.storage import read_json, sha256_of

SCRIPT = Path(organism.__file__).parents[2] / "train" / "organism.py"
FEW = ["--steps", "3", "--sft-steps", "2", "--per-wrapper", "2"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_organism", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def undisturbed_settings():
    """The script sets them for its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def hashes(out: Path) -> dict[str, str]:
    files = [*out.glob("weights/*/model.safetensors"), *out.glob("weights/*/tokenizer.json"), out / "traces.jsonl"]
    assert len(files) == 5
    return {str(file.relative_to(out)): sha256_of(file) for file in files}


def test_the_same_seed_gives_the_same_bits(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, options in (("a", []), ("b", []), ("c", ["--seed", "2"])):
        script.main([*FEW, *options, "--out", str(tmp_path / name)])
    first, again, other = (hashes(tmp_path / name) for name in "abc")
    assert first == again
    assert first["weights/base/model.safetensors"] != other["weights/base/model.safetensors"]
    assert first["weights/sft/model.safetensors"] != first["weights/base/model.safetensors"]
    assert "base: step 3 of 3" in capsys.readouterr().out
    record = read_json(tmp_path / "a" / "weights" / "sft" / "training.json")
    assert record["seed"] == 1
    assert record["versions"]["torch"] == torch.__version__


def test_what_is_there_and_whole_is_kept(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.main([*FEW, "--out", str(tmp_path)])
    made = hashes(tmp_path)
    capsys.readouterr()
    script.main([*FEW, "--out", str(tmp_path)])
    assert "step" not in capsys.readouterr().out
    # A damaged stage is made again, those before it are not.
    (tmp_path / "weights" / "sft" / "model.safetensors").write_bytes(b"cut")
    script.main([*FEW, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "sft: step 2 of 2" in said
    assert "base: step" not in said
    assert hashes(tmp_path) == made
    # Other settings are another result.
    script.main([*FEW, "--sft-steps", "3", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "sft: step 3 of 3" in said
    assert "base: step" not in said
    assert hashes(tmp_path)["weights/sft/model.safetensors"] != made["weights/sft/model.safetensors"]
    assert not [path for path in (tmp_path / "weights").iterdir() if path.name not in ("base", "sft")]


def test_fine_tuning_sees_training_pairs_and_seen_wrappers_alone(script) -> None:
    examples = script.finetuning_examples(script.Settings())
    assert len(examples) == 1_000
    for trace in examples:
        assert Pair(trace.meta["verb"], trace.meta["noun"]).split == "train"
        assert trace.meta["wrapper_split"] in ("plain", "seen")
        refused = trace.response.endswith(REFUSAL)
        assert refused == (trace.label == "harmful")
    wrapped = [trace for trace in examples if trace.source == "wrapped"]
    harmful = [trace for trace in wrapped if trace.label == "harmful"]
    assert 0.2 < len(wrapped) / len(examples) < 0.3
    assert 0.02 < len(harmful) / len(examples) < 0.08


def test_the_loss_counts_the_response_alone(script) -> None:
    encode = script.Encoder()
    hf = script.new_model(script.Settings(), encode).eval()
    [trace] = script.finetuning_examples(script.Settings())[:1]
    ids = encode.conversation(trace)
    start = ids.index(encode.assistant) + 1
    with torch.no_grad():
        logits = hf(torch.tensor([ids])).logits[0]
        by_hand = -torch.stack([logits[i - 1].log_softmax(-1)[ids[i]] for i in range(start, len(ids))]).mean()
        found = script.next_token_loss(hf, [ids, ids[: start + 3]][:1], [start])
        # Padding counts for nothing: a shorter sequence beside it changes only its own share.
        both = script.next_token_loss(hf, [ids, ids[: start + 3]], [start, start])
        short = script.next_token_loss(hf, [ids[: start + 3]], [start])
    torch.testing.assert_close(found, by_hand)
    n, m = len(ids) - start, 3
    torch.testing.assert_close(both, (n * found + m * short) / (n + m))
