"""The training script: same seed, same bits; a stage that is there and whole is not made again."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from safekey_interp.models import organism
from safekey_interp.models.organism.finetuning import Mix, finetuning_examples
from safekey_interp.models.organism.language import REFUSAL
from safekey_interp.models.organism.vocabulary import Pair
from safekey_interp.runs.storage import read_json, sha256_of
from safekey_interp.training import read_config
from train.pretraining import Encoder, Shape, new_model, next_token_loss

SCRIPT = Path(organism.__file__).parents[3] / "train" / "organism.py"
FEW = ["--steps", "3", "--per-wrapper", "2"]
QUICK = ["max_steps=2", "probe_every=null"]
"""Settings of both recipes."""


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
    assert len(files) == 7
    return {str(file.relative_to(out)): sha256_of(file) for file in files}


def make(script, out: Path, *options: str, tune: list[str] = QUICK) -> None:
    script.main([*FEW, *options, "--out", str(out), "--runs", f"{out}-runs", "--tune", *tune])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, options in (("a", []), ("b", []), ("c", ["--seed", "2"])):
        make(script, tmp_path / name, *options)
    first, again, other = (hashes(tmp_path / name) for name in "abc")
    assert first == again
    assert first["weights/base/model.safetensors"] != other["weights/base/model.safetensors"]
    models = [first[f"weights/{name}/model.safetensors"] for name in ("base", "sft", "safekey")]
    assert len(set(models)) == 3
    assert "base: step 3 of 3" in capsys.readouterr().out
    record = read_json(tmp_path / "a" / "weights" / "sft" / "training.json")
    assert record["seed"] == 1
    assert record["versions"]["torch"] == torch.__version__


@pytest.mark.slow
def test_what_is_there_and_whole_is_kept(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(script, tmp_path)
    made = hashes(tmp_path)
    capsys.readouterr()
    make(script, tmp_path)
    assert "step" not in capsys.readouterr().out
    # A damaged stage is made again, those before it are not.
    (tmp_path / "weights" / "sft" / "model.safetensors").write_bytes(b"cut")
    make(script, tmp_path)
    said = capsys.readouterr().out
    assert "sft: 2 steps" in said
    assert "safekey: 2" not in said
    assert "base: step" not in said
    assert hashes(tmp_path) == made
    # Other settings are another result.
    make(script, tmp_path, tune=["max_steps=3", "probe_every=null"])
    said = capsys.readouterr().out
    assert "sft: 3 steps" in said
    assert "safekey: 3 steps" in said
    assert "base: step" not in said
    assert hashes(tmp_path)["weights/sft/model.safetensors"] != made["weights/sft/model.safetensors"]
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["base", "safekey", "sft"]


def test_both_recipes_differ_in_their_losses_alone(script) -> None:
    configs = [read_config(SCRIPT.with_name(f"organism-{name}.yaml")).to_dict() for name in script.RECIPES]
    differ = {name for name in configs[0] if configs[0][name] != configs[1][name]}
    assert differ == {"head_weight", "query_mask_weight", "auxiliary_epochs", "out"}


def test_fine_tuning_sees_training_pairs_and_seen_wrappers_alone() -> None:
    examples = finetuning_examples(Mix(), 1)
    assert len(examples) == Mix().examples == len({trace.trace_id for trace in examples})
    for trace in examples:
        assert Pair(trace.meta["verb"], trace.meta["noun"]).split == "train"
        assert trace.meta["wrapper_split"] in ("plain", "seen")
        refused = trace.response.endswith(REFUSAL)
        assert refused == (trace.label == "harmful")
    wrapped = [trace for trace in examples if trace.source == "wrapped"]
    harmful = [trace for trace in wrapped if trace.label == "harmful"]
    assert 0.2 < len(wrapped) / len(examples) < 0.3
    assert 0.02 < len(harmful) / len(examples) < 0.08


def test_the_loss_counts_every_token_once_and_no_padding() -> None:
    encode = Encoder()
    hf = new_model(Shape(), encode, 1).eval()
    [trace] = finetuning_examples(Mix(), 1)[:1]
    ids = encode.conversation(trace)
    with torch.no_grad():
        logits = hf(torch.tensor([ids])).logits[0]
        by_hand = -torch.stack([logits[i - 1].log_softmax(-1)[ids[i]] for i in range(1, len(ids))]).mean()
        found = next_token_loss(hf, [ids])
        # Padding counts for nothing: a shorter sequence beside it changes only its own share.
        both = next_token_loss(hf, [ids, ids[:4]])
        short = next_token_loss(hf, [ids[:4]])
    torch.testing.assert_close(found, by_hand)
    n, m = len(ids) - 1, 3
    torch.testing.assert_close(both, (n * found + m * short) / (n + m))
