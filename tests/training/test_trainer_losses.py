"""Other trainers: their snapshots and both losses, with transformers' Trainer and TRL's, are those of ``ski.train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from organism_conversations import conversations
from transformers import Trainer, TrainingArguments

import safekey_interp as ski
from safekey_interp.training.examples import prepare_examples, traces_with_spans
from safekey_interp.training.schedule import Order, schedule_of
from safekey_interp.training.trainer_losses import collate_rows
from safekey_interp.training.training_run import watched

pytestmark = pytest.mark.slow

STEPS, ROWS = 20, 8
TRACES = conversations(220, seed=3)
WEIGHTS = {"plain": (0.0, 0.0), "both": (0.2, 0.2)}


def config_of(kind: str, out: Path) -> ski.TrainingConfig:
    head, query_mask = WEIGHTS[kind]
    return ski.TrainingConfig(
        out=str(out),
        head_weight=head,
        query_mask_weight=query_mask,
        auxiliary_epochs=None,
        held_out=0.2,
        max_steps=STEPS,
        batch_size=ROWS,
        micro_batch_size=ROWS,
        learning_rate=1e-5,
        head_learning_rate=1e-5,
        probe_every=STEPS,
        probe_traces=20,
    )


def trained_by(kind: str, trainer: str, folder: Path) -> tuple[dict[str, pd.DataFrame], ski.Model]:
    """Snapshots of another trainer on the same rows in the same order, and the model that it trained."""
    model, config = ski.load("organism:base"), config_of(kind, folder)
    source = traces_with_spans(TRACES, config)
    examples = prepare_examples(model, source, config)
    by_id = {row["trace_id"]: row for row in ski.training_rows(model, TRACES)}
    lengths = [len(example.encoding.input_ids) for example in examples.train]
    order = Order(lengths=lengths, batch_size=ROWS, micro_batch_size=ROWS, seed=config.seed)
    rows = [by_id[examples.train[row].trace_id] for step in range(STEPS) for row in order.rows(0, step)]
    assert len(rows) == STEPS * ROWS
    options: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": STEPS,
        "per_device_train_batch_size": ROWS,
        "train_sampling_strategy": "sequential",
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "warmup_steps": schedule_of(config, order.steps_per_epoch).warmup_steps,
        "lr_scheduler_type": config.schedule,
        "max_grad_norm": config.max_grad_norm,
        "adam_beta1": config.betas[0],
        "adam_beta2": config.betas[1],
        "seed": config.seed,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
    base, data, arguments = Trainer, rows, TrainingArguments
    if trainer == "trl":
        trl = pytest.importorskip("trl", reason="needs TRL")
        base, data, arguments = trl.SFTTrainer, pytest.importorskip("datasets").Dataset.from_list(rows), trl.SFTConfig
        options |= {"dataset_kwargs": {"skip_prepare_dataset": True}, "gradient_checkpointing": False}

    class WithLosses(ski.SafeKeyLosses, base):
        pass

    head, query_mask = WEIGHTS[kind]
    made = WithLosses(
        model=model.hf,
        args=arguments(**options),
        train_dataset=data,
        processing_class=model.tokenizer,
        head_weight=head,
        query_mask_weight=query_mask,
    )
    made.add_callback(
        ski.SnapshotCallback(
            model, watched(source, examples, config), folder / "snapshots", every=STEPS, seed=config.seed
        )
    )
    made.train()
    return ski.read_snapshots(folder / "snapshots"), model


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs of ``ski.train``, one for each kind."""
    made: dict[str, tuple[ski.Run, ski.Model]] = {}

    def run(kind: str) -> tuple[ski.Run, ski.Model]:
        if kind not in made:
            model = ski.load("organism:base")
            config = config_of(kind, tmp_path_factory.mktemp("train") / kind)
            made[kind] = ski.train(model, TRACES, config), model
        return made[kind]

    return run


@pytest.mark.parametrize("trainer", ["transformers", "trl"])
@pytest.mark.parametrize("kind", list(WEIGHTS))
def test_another_trainer_ends_with_the_snapshots_and_weights_of_train(
    kind: str, trainer: str, reference: Any, tmp_path: Path
) -> None:
    tables, model = trained_by(kind, trainer, tmp_path)
    run, own = reference(kind)
    for name in ("attention_by_layer", "separability", "aha"):
        theirs, ours = tables[name], run.table(name)
        assert sorted(set(theirs["step"])) == [0, STEPS]
        for column in theirs.select_dtypes("number"):
            pair = theirs[column].to_numpy(float), ours[column].to_numpy(float)
            # Quotients of small differences amplify what float32 rounds in the weights a few times.
            near = 1e-5 if column in ("low", "high", "fisher_ratio") else 1e-6
            np.testing.assert_allclose(*pair, atol=near, rtol=near, err_msg=f"{name}.{column}")
    by_step = tables["aha"].groupby("step")["value"].first()
    assert abs(by_step[STEPS] - by_step[0]) > 1e-3
    moved = dict(own.hf.named_parameters())
    for name, weight in model.hf.named_parameters():
        if not name.startswith("safety_head"):
            torch.testing.assert_close(weight, moved[name], atol=1e-6, rtol=0, msg=name)


def test_rows_are_plain_and_say_what_the_losses_read() -> None:
    model = ski.load("organism:base")
    rows = ski.training_rows(model, TRACES[:12])
    for row, trace in zip(rows, TRACES, strict=False):
        encoding = model.encode(trace)
        assert {type(value) for value in row.values()} <= {str, int, list, type(None)}
        for name in ("understanding", "key_sentence"):
            assert list(range(*row[name])) == list(encoding.positions(name))
        start = row["response_start"]
        assert row["labels"] == [-100] * start + row["input_ids"][start:]
    batch = collate_rows(rows)
    assert (batch["labels"] >= 0).sum() == sum(len(row["input_ids"]) - row["response_start"] for row in rows)
    assert batch["attention_mask"].sum() == sum(len(row["input_ids"]) for row in rows)


def test_terms_that_are_added_are_those_of_loss_terms_over_the_whole_step(tmp_path: Path) -> None:
    """Two passes of a step, with other numbers of rows and key tokens, against one batch of all rows."""
    model = ski.load("organism:base")
    losses = {}
    for n_passes in (1, 2):
        arguments = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=8 // n_passes,
            gradient_accumulation_steps=n_passes,
            use_cpu=True,
            remove_unused_columns=False,
            report_to="none",
            max_steps=1,
            seed=3,
        )

        class WithLosses(ski.SafeKeyLosses, Trainer):
            pass

        trainer = WithLosses(model=model.hf, args=arguments, train_dataset=ski.training_rows(model, TRACES[:8]))
        model.hf.train()
        passes, n_items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), n_passes, "cpu")
        losses[n_passes] = sum(
            trainer.compute_loss(model.hf, dict(batch), num_items_in_batch=n_items).item() for batch in passes
        )
        head = model.hf.safety_head
    terms = ski.loss_terms(model, head, TRACES[:8])
    # loss_terms reads the response as it is, without the mark that ends the turn.
    auxiliary = 0.2 * terms.head + 0.2 * terms.query_mask
    trainer = Trainer(model=model.hf, args=arguments, data_collator=collate_rows)
    plain = {
        name: value for name, value in collate_rows(ski.training_rows(model, TRACES[:8])).items() if name != "safekey"
    }
    own = Trainer.compute_loss(trainer, model.hf, plain, num_items_in_batch=n_items)
    assert losses[1] == pytest.approx(losses[2], abs=1e-5)
    assert losses[1] == pytest.approx(float((own + auxiliary).detach()), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"model": "organism:base"}, "expected the model itself"), ({"query_mask": "packed"}, "expected short or masked")],
)
def test_what_cannot_be_added_is_refused(options: dict[str, Any], said: str) -> None:
    class WithLosses(ski.SafeKeyLosses, Trainer):
        pass

    with pytest.raises(ski.InputError, match=said):
        WithLosses(**({"model": ski.load("organism:base").hf} | options))
    with pytest.raises(ski.InputError, match="every: got 0"):
        ski.SnapshotCallback(ski.load("organism:base"), TRACES, "snapshots", every=0)
