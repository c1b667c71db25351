"""A run trains what its settings say: the same steps however they are cut, and every term as itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from killed_training import fresh_model, rows, settings, trained, weights
from safetensors.torch import load_file
from slow_turns import mostly_slow
from tiny_models import ARCHITECTURES, BASE, byte_level_tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError, SafekeyError, install_hint
from safekey_interp.models.model import Model, from_hf, load
from safekey_interp.models.safety_head import SafetyHead, load_safety_head
from safekey_interp.runs.run_folder import Run
from safekey_interp.training import train
from safekey_interp.training.batch import collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.examples import prepare_examples
from safekey_interp.training.losses import Counts, combine
from safekey_interp.training.schedule import Order


def assert_alike(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    """To a share of each weight's size."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor - other[name]).norm() <= tolerance * tensor.norm() + 1e-7, name


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with nothing changed."""
    return trained(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that draws no random numbers: two micro batches of two a step."""
    return trained(tmp_path_factory.mktemp("without dropout") / "run", fresh_model(dropout=0.0))


def by_hand(out: Path, data: Sequence[Trace], *, n_steps: int, **changes: Any) -> dict[str, Tensor]:
    """The same run as one would write it: one batch a step, AdamW, cosine, gradients scaled down to norm 1."""
    config = settings(out, **changes)
    model = fresh_model(dropout=0.0)
    examples = prepare_examples(model, data, config).train
    torch.manual_seed(config.seed)
    head = SafetyHead(model.d_model)
    loss = BatchLoss(model.hf.train(), head)
    groups = [
        {"params": [p for p in loss.parameters() if (p.ndim >= 2) == decays], "weight_decay": decays * 1e-4}
        for decays in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))
    scheduler = get_cosine_schedule_with_warmup(optimizer, 1, n_steps)
    order = Order(
        lengths=[len(e.encoding.input_ids) for e in examples],
        batch_size=4,
        micro_batch_size=4,
        seed=config.seed,
    )
    for step in range(n_steps):
        epoch, within = divmod(step, order.steps_per_epoch)
        chosen = [examples[row] for row in order.rows(epoch, within)]
        batch = collate([e.encoding for e in chosen], [e.label for e in chosen])
        terms = combine(loss(batch), batch.counts)
        (terms.total if epoch == 1 else terms.lm + 0.0 * terms.total).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    found = {f"model.{name}": p.detach() for name, p in model.hf.named_parameters()}
    return found | {f"safety_head.{name}": p.detach() for name, p in head.named_parameters()}


def test_a_run_is_what_one_would_write_by_hand(without_dropout: Run, tmp_path: Path) -> None:
    found = weights(without_dropout.path)
    expected = by_hand(tmp_path, rows(), n_steps=8)
    assert_alike({name: tensor for name, tensor in found.items() if name in expected}, expected)
    start = {f"model.{name}": p for name, p in fresh_model().hf.named_parameters()}
    assert all((expected[name] - tensor).norm() > 1e-3 * tensor.norm() for name, tensor in start.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch_size": 1},
        {"query_mask": "masked", "micro_batch_size": 1},
        {"packing": True, "query_mask": "packed", "micro_batch_size": 4},
        {"gradient_checkpointing": True},
        *mostly_slow(
            [
                {"micro_batch_size": 4},
                {"query_mask": "packed"},
                {"packing": True},
                {"log_every": 1, "save_every": 3, "evaluate_every": 1, "probe_every": 2, "probe_traces": 3},
            ],
            quick=(),
        ),
    ],
    ids=str,
)
def test_how_a_step_is_cut_changes_nothing(without_dropout: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    other = trained(tmp_path / "other", fresh_model(dropout=0.0), **changes)
    assert_alike(weights(without_dropout.path), weights(other.path))
    assert without_dropout.held_out is not None
    assert other.held_out is not None
    at_end = [
        table.iloc[-1][["total", "lm", "head", "query_mask"]].astype(float)
        for table in (without_dropout.held_out, other.held_out)
    ]
    pd.testing.assert_series_equal(*at_end, rtol=1e-4, check_names=False)


def test_every_term_is_logged_as_itself(tmp_path: Path) -> None:
    """The reference logged the total as the language modelling loss: it had added in place."""
    run = trained(
        tmp_path / "run",
        fresh_model(dropout=0.0),
        log_every=1,
        auxiliary_epochs=None,
        learning_rate=1e-12,
        head_learning_rate=1e-12,
    )
    steps = run.steps
    assert steps is not None
    weighed = steps["lm"] + 0.2 * steps["head"] + 0.2 * steps["query_mask"]
    pd.testing.assert_series_equal(steps["total"], weighed, check_names=False, rtol=1e-5)
    # Nothing moves at this rate, so an epoch's sums are those of its rows, and held-out rows were never among them.
    model, config = fresh_model(dropout=0.0), settings(tmp_path)
    examples = prepare_examples(model, rows(), config)
    assert not {e.group for e in examples.train} & {e.group for e in examples.held_out}
    torch.manual_seed(config.seed)
    loss = BatchLoss(model.hf.eval(), SafetyHead(model.d_model))
    for part, table in ((examples.train, steps.iloc[:4]), (examples.held_out, run.held_out)):
        assert table is not None
        batch = collate([e.encoding for e in part], [e.label for e in part])
        with torch.no_grad():
            terms = combine(loss(batch), Counts(*batch.counts))
        counts = {"lm": "tokens", "head": "rows", "query_mask": "key_tokens"}
        for name, n in counts.items():
            mean = (table[name] * table[n]).sum() / table[n].sum()
            assert mean == pytest.approx(float(getattr(terms, name)), rel=1e-5), name


def test_auxiliary_losses_wait_for_their_epochs(tmp_path: Path) -> None:
    torch.manual_seed(2002)
    start = SafetyHead(32)
    run = trained(tmp_path / "run", log_every=1)
    assert run.steps is not None
    assert run.steps["query_mask"].isna().tolist() == [True] * 4 + [False] * 4
    assert run.manifest["schedule"]["auxiliary_from"] == 4
    plain = trained(tmp_path / "plain", auxiliary_epochs=0)
    never = trained(tmp_path / "sft", head_weight=0, query_mask_weight=0)
    one, other = weights(plain.path), weights(never.path)
    assert torch.equal(one["safety_head.understanding.bias"], start.understanding.bias)
    assert_alike(other, {name: one[name] for name in other}, 1e-6)
    assert not any(name.startswith("safety_head") for name in other)
    assert any(not torch.equal(weights(run.path)[name], tensor) for name, tensor in other.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"query_mask_weight": 0},
        {"head_weight": 0},
        {"theta": 1.0},
        {"theta": 0.0},
        {"shuffled_labels": True},
        {"head_layer": 0},
        {"query_mask_weight": 0, "key_weight": 0.2},
        {"auxiliary_epochs": None},
        {"head_learning_rate": 1e-2},
        {"weight_decay": 0.1},
    ],
    ids=str,
)
def test_each_ablation_is_another_run(plain: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    both = weights(plain.path)
    run = trained(tmp_path / "other", **changes)
    other = weights(run.path)
    differ = [name for name, tensor in other.items() if not torch.equal(tensor, both[name])]
    assert any(name.startswith("model.") for name in differ)
    has_head = any(name.startswith("safety_head") for name in other)
    assert has_head == bool(changes.get("head_weight", True))
    if "theta" in changes:
        idle = "context" if changes["theta"] else "understanding"
        torch.manual_seed(2002)
        first = getattr(SafetyHead(32), idle)
        assert torch.equal(other[f"safety_head.{idle}.bias"], first.bias)
    if changes.get("shuffled_labels"):
        assert run.manifest["data_report"]["n_labels_shuffled"] > 0
        counts, before = (r.manifest["data_report"]["train"] for r in (run, plain))
        assert (counts["harmful"], counts["benign"]) == (before["harmful"], before["benign"])


def test_biases_of_the_head_are_trained_and_norms_do_not_decay(tmp_path: Path) -> None:
    """In the reference the head's biases were in no group, and its names of norms fitted no Llama's or Qwen's."""
    torch.manual_seed(2002)
    start = SafetyHead(32)
    run = trained(tmp_path / "run", auxiliary_epochs=None)
    found = weights(run.path)
    for path in ("understanding", "context"):
        assert not torch.equal(found[f"safety_head.{path}.bias"], getattr(start, path).bias)
    from safekey_interp.training.schedule import schedule_of
    from safekey_interp.training.trainer import SafeKeyTrainer
    from safekey_interp.training.trainer_arguments import arguments_of

    model, config = fresh_model("qwen2"), settings(tmp_path / "groups")
    loss, schedule = BatchLoss(model.hf, SafetyHead(32)), schedule_of(config, 4)
    trainer = SafeKeyTrainer(
        loss,
        config=config,
        arguments=arguments_of(config, schedule, tmp_path / "checkpoints", model, has_held_out=False),
        schedule=schedule,
        layout="short",
        train=[],
        tokenizer=model.tokenizer,
    )
    groups = trainer.create_optimizer().param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in groups) == len(list(loss.parameters()))
    for name, parameter in loss.named_parameters():
        assert decay[id(parameter)] == (1e-4 if parameter.ndim >= 2 else 0.0), name
        if "norm" in name or name.endswith("bias"):
            assert decay[id(parameter)] == 0.0, name


@pytest.mark.slow
@pytest.mark.parametrize("on", [False, True])
def test_the_flag_of_checkpointing_does_something(tmp_path: Path, on: bool) -> None:
    """In the reference it did nothing. Here every layer runs a second time in the backward pass, or it does not."""
    model = fresh_model()
    calls = []
    model.hf.model.layers[1].mlp.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    run = trained(tmp_path / "run", model, gradient_checkpointing=on, held_out=0.0, query_mask_weight=0, head_weight=0)
    n_passes = run.manifest["schedule"]["steps"] * 2
    with_gradients = sum(calls)
    assert with_gradients == n_passes * (2 if on else 1)
    assert not model.hf.is_gradient_checkpointing, "the model is given back as it was"


def test_the_head_takes_nothing_from_language_modelling(tmp_path: Path) -> None:
    """The reference's way to train the head alone dropped the loss of language modelling."""
    runs = {
        weight: trained(tmp_path / str(weight), fresh_model(dropout=0.0), head_weight=weight, auxiliary_epochs=None)
        for weight in (0.0, 0.2)
    }
    for weight, run in runs.items():
        assert run.held_out is not None
        assert run.held_out["lm"].iloc[-1] < run.held_out["lm"].iloc[0] - 0.05, weight
    start = {f"model.{name}": p for name, p in fresh_model().hf.named_parameters()}
    unembedding = "model.lm_head.weight"  # language modelling alone moves it
    moved = [(weights(run.path)[unembedding] - start[unembedding].detach()).norm() for run in runs.values()]
    assert moved[1].item() == pytest.approx(moved[0].item(), rel=0.1)


def test_the_trained_model_is_read_as_a_plain_one(tmp_path: Path) -> None:
    model = fresh_model()
    run = trained(tmp_path / "run", model, save_dtype="bfloat16")
    folder = run.path / "model"
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = load(str(folder))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        logits = [hf(ids).logits for hf in (plain, ours.hf, model.hf.eval())]
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(logits[0], logits[2], rtol=0.05, atol=0.05)
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert not list(folder.glob("*.bin"))
    trained_head = load_safety_head(folder)
    assert (trained_head.head.theta, trained_head.layer) == (0.5, None)
    card = (folder / "README.md").read_text()
    assert "15 traces of 15 groups" in card
    assert "head_weight | 0.2" in card
    assert ours.tokenizer.chat_template == model.tokenizer.chat_template
    assert TrainingConfig(**yaml.safe_load((run.path / "config.yaml").read_text())) == settings(
        run.path, save_dtype="bfloat16"
    )


def test_adapters_are_trained_with_the_head_and_merged(tmp_path: Path) -> None:
    model = fresh_model(dropout=0.0)
    run = trained(tmp_path / "run", model, lora_rank=4, learning_rate=1e-2)
    checkpoint = run.path / "checkpoints" / "checkpoint-8"
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert not (checkpoint / "model.safetensors").exists()
    found = weights(run.path)
    start = {f"model.{name}": p for name, p in fresh_model().hf.state_dict().items()}
    assert {name for name in found if name.startswith("model.")} <= start.keys()
    moved = {name for name, tensor in found.items() if name in start and not torch.equal(tensor, start[name])}
    assert moved
    assert all(name.endswith("_proj.weight") for name in moved)
    torch.manual_seed(2002)
    assert not torch.equal(found["safety_head.context.weight"], SafetyHead(32).context.weight)
    merged = load(str(run.path / "model"))
    for name, tensor in model.hf.state_dict().items():
        assert torch.equal(tensor, merged.hf.state_dict()[name]), name


@pytest.mark.slow
def test_adapters_with_checkpointing_and_accumulation_are_the_same(tmp_path: Path) -> None:
    options = {"lora_rank": 4, "learning_rate": 1e-2}
    one = trained(tmp_path / "one", fresh_model(dropout=0.0), **options)
    changes = {"gradient_checkpointing": True, "micro_batch_size": 1, "query_mask": "packed"}
    other = trained(tmp_path / "other", fresh_model(dropout=0.0), **options | changes)
    assert_alike(weights(one.path), weights(other.path))


def test_an_adapter_on_the_unembedding_learns(tmp_path: Path) -> None:
    model = fresh_model(dropout=0.0)
    before = model.hf.lm_head.weight.detach().clone()
    trained(tmp_path / "run", model, lora_rank=4, learning_rate=1e-2, lora_targets=("q_proj", "lm_head"))
    assert not torch.equal(model.hf.lm_head.weight, before)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen3_moe", "gemma3_text"])
def test_models_that_are_written_under_other_names_are_read_back(tmp_path: Path, architecture: str) -> None:
    run = trained(tmp_path / "run", tiny(architecture), patience=3, evaluate_every=2)
    again = tiny(architecture)
    assert train(again, rows(), settings(run.path, patience=3, evaluate_every=2)).is_complete
    plain = load(str(run.path / "model"))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        logits = [hf.eval()(ids).logits for hf in (again.hf, plain.hf, tiny(architecture).hf)]
    torch.testing.assert_close(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def tiny(architecture: str) -> Model:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[architecture](**BASE | ARCHITECTURES[architecture])
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return from_hf(hf, byte_level_tokenizer(), spec=architecture)


@pytest.mark.slow
def test_all_weights_are_not_trained_in_half_precision(tmp_path: Path) -> None:
    model = fresh_model()
    model.hf.to(torch.bfloat16)
    with pytest.raises(InputError, match=r"got bfloat16 weights, .*; expected float32 \(load it with dtype='float32'"):
        trained(tmp_path / "run", model)
    assert not (tmp_path / "run").exists()
    run = trained(tmp_path / "adapters", model, lora_rank=2, learning_rate=1e-2)
    assert run.steps is not None
    assert run.steps["lm"].iloc[-1] < run.steps["lm"].iloc[0]


def test_generation_settings_that_could_not_be_written_are_mended(tmp_path: Path) -> None:
    model = fresh_model()
    model.hf.generation_config.temperature = 0.6
    run = trained(tmp_path / "run", model)
    assert load(str(run.path / "model")).hf.generation_config.temperature == 0.6


@pytest.mark.parametrize("changes", [{"patience": 1}, {"lora_rank": 2}, {"probe_every": 2}])
def test_what_needs_whole_weights_is_refused_where_they_are_sharded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int]
) -> None:
    for name, value in {"ACCELERATE_USE_FSDP": "true", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{next(iter(changes))}: needs whole weights, which FSDP and DeepSpeed shard"):
        trained(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_half_precision_is_of_the_arithmetic_alone(without_dropout: Run, tmp_path: Path) -> None:
    model = fresh_model(dropout=0.0)
    half = trained(tmp_path / "half", model, precision="bf16")
    assert {p.dtype for p in model.hf.parameters()} == {torch.float32}
    assert without_dropout.steps is not None
    assert half.steps is not None
    for name in ("lm", "head", "query_mask"):
        one, other = without_dropout.steps[name].dropna(), half.steps[name].dropna()
        assert other.to_numpy() == pytest.approx(one.to_numpy(), rel=0.02), name
        assert not other.equals(one), "nothing was computed in half precision"


@pytest.mark.slow
def test_a_compiled_model_trains_as_it_was_written(
    without_dropout: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled by the simplest backend: what compilers make of it is theirs."""
    compile_as_given = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_as_given(self, backend="eager"))
    model = fresh_model(dropout=0.0)
    other = trained(tmp_path / "other", model, compile=True, probe_every=4, probe_traces=3)
    assert_alike(weights(without_dropout.path), weights(other.path))
    assert load(str(other.path / "model")).n_layers == 3
    assert model.hf.get_decoder()._compiled_call_impl is None


@pytest.mark.slow
def test_steps_in_place_of_epochs(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", max_steps=5, epochs=5, auxiliary_epochs=2, log_every=1)
    assert run.steps is not None
    assert run.steps["step"].tolist() == [1, 2, 3, 4, 5]
    assert run.steps["query_mask"].notna().tolist() == [False, False, False, True, True]
    nothing = trained(tmp_path / "all", held_out=0.0, max_steps=1)
    assert nothing.held_out is None
    assert nothing.manifest["data_report"]["train"]["traces"] == 20
    assert "Nothing was held out" in (nothing.path / "model" / "README.md").read_text()


def test_without_a_gain_it_stops_and_keeps_the_best(tmp_path: Path) -> None:
    run = trained(
        tmp_path / "run", patience=2, evaluate_every=1, learning_rate=0.3, epochs=10, save_total_limit=1, warmup=0
    )
    held_out = run.held_out
    assert held_out is not None
    losses = held_out.set_index("step")["total"]
    best = int(losses[losses.index > 0].idxmin())
    assert best == losses.index[-1] - 2, "it stopped two measurements after the best"
    result = run.manifest["result"]
    assert (result["kept_step"], result["held_out"]["after"]["step"]) == (best, best)
    assert result["held_out"]["after"]["total"] == pytest.approx(losses[best])
    assert losses.index[-1] < 40
    kept = load_file(run.path / "checkpoints" / f"checkpoint-{best}" / "model.safetensors")
    final = load_file(run.path / "model" / "model.safetensors")
    assert all(torch.equal(kept[name], final[name]) for name in kept)


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(tmp_path: Path) -> None:
    model = fresh_model()
    with torch.no_grad():
        model.hf.model.embed_tokens.weight[5:] = float("nan")
    with pytest.raises(SafekeyError, match="the loss is not a number; lower learning_rate"):
        trained(tmp_path / "run", model, log_every=1)


def test_five_lines_train_in_a_notebook(tmp_path: Path) -> None:
    import safekey_interp as ski

    model = ski.load("organism:base")
    traces = list(ski.read_traces([trace for trace, _ in zip(iter_shipped(), range(40), strict=False)]))
    config = ski.TrainingConfig(out=str(tmp_path / "run"), epochs=1, batch_size=8, micro_batch_size=8)
    run = ski.train(model, traces, config)
    assert ski.open_run(run.path).steps["total"].notna().all()


def iter_shipped() -> Any:
    from safekey_interp.models import organism

    return organism.read_shipped()


BAD: list[tuple[dict[str, Any], list[Trace] | None, str]] = [
    ({}, [], "traces: got an empty list"),
    ({"max_length": 12}, None, "none of 20 left to train on (20 longer than 12 tokens)"),
    ({}, [row.with_(response="", given={}) for row in rows()], "none of 20 left to train on (20 no response)"),
    ({}, [row.with_(label="harmful") for row in rows()], "needs traces of both labels with an understanding, got 16 "),
    (
        {},
        [*rows(), rows()[0].with_(trace_id="x", given={"key_sentence": CharSpan(5, 10_000)})],
        "trace x: given key_sentence [5, 10000) lies outside the response",
    ),
    ({"head_weight": 0}, [row.with_(given={}) for row in rows()], "query_mask_weight: no trace has a key sentence"),
    ({"lora_targets": "nothing_like_it", "lora_rank": 2}, None, "lora_targets 'nothing_like_it'"),
    ({"probe_every": 2, "held_out": 0.0}, None, "probe_every: the probes read held-out traces"),
    ({"head_layer": 7}, None, "layer"),
    ({"head_layer": 2}, None, "head_layer: got 2, expected from 0 to 1, or null for the last layer's states"),
    ({"head_layer": -1}, None, "head_layer: got -1"),
    ({"report_to": ("nonsense",)}, None, "report_to ['nonsense']"),
    ({"report_to": ("dvclive",)}, None, "report_to ['dvclive']"),
    ({"precision": "fp16"}, None, "precision: fp16 would be computed as fp32 on cpu"),
    ({"key_sentences": "no/such.yaml", "probe_every": 1}, None, "key sentences no/such.yaml"),
]


@pytest.mark.parametrize(("changes", "data", "says"), BAD, ids=[says[:30] for *_, says in BAD])
def test_bad_input_gets_one_line_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], data: list[Trace] | None, says: str
) -> None:
    out = tmp_path / "deep" / "run"
    with pytest.raises(InputError) as caught:
        train(fresh_model(), rows() if data is None else data, settings(out, **changes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.mark.slow
def test_without_the_extra_it_says_which(tmp_path: Path) -> None:
    """In a process that finds no peft."""
    code = (
        "import sys; from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = classmethod(lambda cls, name, *a: None if name == 'peft' else find(name, *a))\n"
        "from safekey_interp.training import train\n"
        "train(None, [])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"training needs peft: {install_hint('train')}" in done.stderr
