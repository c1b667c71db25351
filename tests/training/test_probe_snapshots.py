"""A snapshot has the numbers of the package's own measures, and training proceeds as without it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference_forward
import torch
from tiny_models import shipped, tiny_model

from safekey_interp.capture.capture_request import SpanPairs
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.errors import InputError
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.generation.aha_score import measure_aha, summarise_aha
from safekey_interp.generation.key_sentence_bank import GENERAL, KeySentences
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.separability import measure_separability
from safekey_interp.models.model import Model, load
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.segmentation.span_search import find_spans
from safekey_interp.training import loss_terms
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.examples import traces_with_spans
from safekey_interp.training.probe_snapshots import TABLES, Snapshots, forget_after, read_snapshots

pytestmark = pytest.mark.slow

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[:2])


def random_numbers() -> list[Any]:
    return [random.random(), np.random.random(), torch.rand(3).tolist()]


def in_training() -> Model:
    """The organism with dropout, gradient checkpointing, one layer frozen and that layer's modules evaluating."""
    model = load("organism:base")
    for module in model.hf.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.2
    model.hf.gradient_checkpointing_enable({"use_reentrant": False})
    model.hf.train()
    frozen = model.hf.get_decoder().layers[0]
    frozen.requires_grad_(False)
    frozen.eval()
    return model


def steps(model: Model, folder: Path | None, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights after two steps, with a snapshot between two backward passes of the second."""
    for start in (random.seed, np.random.seed, torch.manual_seed):
        start(seed)
    head = SafetyHead(model.d_model)
    trained = [p for p in [*model.hf.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    traces = shipped(12)
    for number in range(2):
        loss_terms(model, head, traces[:4]).total.backward()
        if folder is not None and number:
            Snapshots(model, shipped(20), seed=3).take(folder, number)
        loss_terms(model, head, traces[4 + 4 * number :][:4]).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.clone() for name, value in model.hf.state_dict().items()}


def test_training_proceeds_as_without_snapshots(tmp_path: Path) -> None:
    alone = steps(in_training(), None)
    numbers = random_numbers()
    measured = steps(in_training(), tmp_path)
    assert random_numbers() == numbers
    assert read_snapshots(tmp_path)
    assert measured.keys() == alone.keys()
    assert all(torch.equal(measured[name], alone[name]) for name in alone)
    other = steps(in_training(), None, seed=1)
    assert any(not torch.equal(other[name], alone[name]) for name in alone), "dropout draws nothing"


def test_a_model_in_training_is_left_as_it_was(tmp_path: Path) -> None:
    model = in_training()
    loss_terms(model, SafetyHead(model.d_model), shipped(4)).total.backward()

    def state() -> dict[str, Any]:
        hf = model.hf
        return {
            "training": [module.training for module in hf.modules()],
            "checkpointing": [getattr(module, "gradient_checkpointing", None) for module in hf.modules()],
            "requires_grad": [p.requires_grad for p in hf.parameters()],
            "gradients": [None if p.grad is None else p.grad.double().sum().item() for p in hf.parameters()],
            "weights": model.fingerprint(),
            "hooks": reference_forward.hook_counts(hf),
            "attention": hf.config._attn_implementation,
            "threads": torch.get_num_threads(),
            "grad mode": torch.is_grad_enabled(),
        }

    before = state()
    assert True in before["training"]
    assert False in before["training"]
    snapshots = Snapshots(model, shipped(20))
    snapshots.take(tmp_path, 1)
    assert state() == before
    snapshots.take(tmp_path, 2)
    first, second = (table.drop(columns="step") for _, table in read_snapshots(tmp_path)["aha"].groupby("step"))
    pd.testing.assert_frame_equal(first.reset_index(drop=True), second.reset_index(drop=True))
    with pytest.raises(InputError, match="no trace has an understanding"):
        Snapshots(model, [shipped(1)[0].with_(response="Well", given={})]).take(tmp_path, 3)
    assert state() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]


def test_a_snapshot_has_the_numbers_of_a_probe(tmp_path: Path) -> None:
    model, traces = load("organism"), shipped(48)
    Snapshots(model, traces, seed=5).take(tmp_path / "looks", 7)
    found = read_snapshots(tmp_path / "looks")
    assert list(found) == list(TABLES)
    for table in found.values():
        assert table.columns[0] == "step"
        assert set(table.pop("step")) == {7}
    run = run_probe(model, traces, out=tmp_path / "run", by=None, seed=5)
    for name in ("attention_by_layer", "separability"):
        expected = pd.read_parquet(run.path / f"{name}.parquet")
        pd.testing.assert_frame_equal(found[name], expected, rtol=1e-4, atol=1e-5, check_dtype=False)
    pd.testing.assert_frame_equal(found["separability"], measure_separability(model, traces, seed=5))
    pd.testing.assert_frame_equal(found["aha"], summarise_aha(measure_aha(model, traces)))


def test_snapshots_are_in_the_order_of_steps_and_one_taken_again_replaces_the_earlier(tmp_path: Path) -> None:
    model = load("organism:base")
    snapshots = Snapshots(model, shipped(8))
    assert read_snapshots(tmp_path / "none") == {}
    for step in (1_000_000, 20, 3):
        snapshots.take(tmp_path, step)
    before = read_snapshots(tmp_path)["aha"]
    assert list(dict.fromkeys(before["step"])) == [3, 20, 1_000_000]
    with torch.no_grad():
        model.hf.get_output_embeddings().weight.mul_(0.5)
    snapshots.take(tmp_path, 20)
    after = read_snapshots(tmp_path)["aha"]
    changed = (after["value"] != before["value"]).groupby(after["step"]).all()
    assert changed.to_dict() == {3: False, 20: True, 1_000_000: False}
    (tmp_path / ".step-000021.0123abcd.aside").mkdir()
    (tmp_path / "notes").mkdir()
    forget_after(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step-000003", "step-000020"]
    forget_after(tmp_path / "none", 0)


def test_what_the_traces_do_not_allow_is_absent(tmp_path: Path) -> None:
    harmful = [trace for trace in shipped(24) if trace.label == "harmful"]
    Snapshots(load("organism:base"), harmful).take(tmp_path, 0)
    assert set(read_snapshots(tmp_path)) == {"attention_by_layer", "aha"}
    assert set(read_snapshots(tmp_path)["aha"]["subset"]) == {"all", "harmful"}


def test_another_bank_and_finder_are_used(tmp_path: Path) -> None:
    model, traces = tiny_model("qwen3"), reference_forward.with_spans(6)
    Snapshots(model, traces, StreamSettings(finder="given"), bank=SMALL).take(tmp_path, 0)
    expected = summarise_aha(measure_aha(model, traces, bank=SMALL, finder="given"))
    pd.testing.assert_frame_equal(read_snapshots(tmp_path)["aha"].drop(columns="step"), expected)


def test_a_compiled_model_can_be_measured_and_trained_on(tmp_path: Path) -> None:
    model, traces = load("organism:base"), shipped(8)
    snapshots = Snapshots(model, traces)
    snapshots.take(tmp_path, 0)
    model.hf.get_decoder().compile(backend="eager")
    model.hf.train()
    head = SafetyHead(model.d_model)
    loss_terms(model, head, traces[:4]).total.backward()
    snapshots.take(tmp_path, 1)
    loss_terms(model, head, traces[:4]).total.backward()
    for table in read_snapshots(tmp_path).values():
        plain, compiled = (part.drop(columns="step").reset_index(drop=True) for _, part in table.groupby("step"))
        pd.testing.assert_frame_equal(plain, compiled)


def test_a_snapshot_reads_any_spans(tmp_path: Path) -> None:
    model = load("organism:base")
    traces = find_spans(shipped(24), {"z": r"\. ([A-Z][^.]*\.)"})
    spans, positions = SpanPairs(("last(z)",), ("z", "prompt")), ("last(z)",)
    Snapshots(model, traces, spans=spans, positions=positions).take(tmp_path, 1)
    tables = read_snapshots(tmp_path)
    by_layer = tables["attention_by_layer"]
    assert set(zip(by_layer["from_span"], by_layer["to_span"], strict=True)) == {
        ("last(z)", "z"),
        ("last(z)", "prompt"),
    }
    direct = measure_attention(model, traces, queries=["last(z)"], keys=["z"]).groupby("layer")["mass"].mean()
    kept = by_layer.query("subset == 'all' and to_span == 'z' and measure == 'mass'").set_index("layer")["value"]
    np.testing.assert_allclose(kept, direct, rtol=1e-5)
    assert set(tables["separability"]["position"]) == {"last(z)"}
    with pytest.raises(InputError, match="span 'y': no trace has one"):
        Snapshots(model, traces, positions=("y",))


def test_a_recipe_names_spans_that_are_there() -> None:
    traces, config = shipped(3), TrainingConfig(spans={"z": "a"}, probe_queries=("last(z)",))
    assert traces_with_spans(traces, config).content.span_names == ("z",)
    with pytest.raises(InputError, match="span 'y': no trace has one"):
        traces_with_spans(traces, TrainingConfig(spans={"z": "a"}, probe_keys=("y",)))
    for wrong in ({"probe_positions": ["last("]}, {"spans": {"prompt": "a"}}, {"spans": {"z": 3}}):
        with pytest.raises(InputError, match=rf"^{next(iter(wrong))}: "):
            TrainingConfig(**wrong)
