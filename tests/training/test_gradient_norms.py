"""Norms of each term's gradient, and the weight at which two terms send the same dose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import reference_forward
import torch
from killed_training import fresh_model, rows, settings, trained, weights

from safekey_interp.errors import InputError, RunError
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.training.batch import collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.examples import prepare_examples
from safekey_interp.training.gradient_norms import dose, match_weight, term_gradient_norms
from safekey_interp.training.losses import Counts, combine

TERMS = ("lm", "head", "query_mask", "key")


@pytest.mark.parametrize("size", [1, 3, 12])
def test_norms_are_those_of_the_gradients_however_the_step_is_cut(tmp_path: Path, size: int) -> None:
    model = fresh_model(dropout=0.0)
    examples = prepare_examples(model, rows(), settings(tmp_path)).train[:12]
    loss = BatchLoss(model.hf, SafetyHead(model.d_model), weighs_key=True)

    def batch(part):
        return collate([e.encoding for e in part], [e.label for e in part])

    whole = batch(examples)
    counts = whole.counts
    parts = [batch(examples[i : i + size]) for i in range(0, len(examples), size)]
    found = term_gradient_norms(loss, parts, counts, TERMS)
    assert all(p.grad is None for p in loss.parameters())
    for name in TERMS:
        loss.zero_grad()
        getattr(combine(loss(whole), Counts(*counts)), name).backward()
        grads = [p.grad.norm() for p in model.hf.parameters() if p.grad is not None]
        assert found[name] == pytest.approx(float(torch.stack(grads).norm()), rel=1e-4), name
    summed = term_gradient_norms(loss, parts, counts, ("lm",), summed=lambda tensor: 2 * tensor)
    assert summed["lm"] == pytest.approx(2 * found["lm"], rel=1e-4)


@pytest.mark.slow
def test_training_does_not_notice_and_the_table_says_when(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", key_weight=0.1)
    noted = trained(tmp_path / "noted", key_weight=0.1, log_gradient_norms_every=3)
    one, other = weights(plain.path), weights(noted.path)
    assert all(torch.equal(one[name], other[name]) for name in one), "not even dropout's draws"
    table: Any = noted.table("gradient_norms")
    assert table is not None
    assert table["step"].tolist() == [0, 3, 6]
    assert (table["gradient_norm_lm"] > 0).all()
    for term in ("head", "query_mask", "key"):
        assert (table[f"gradient_norm_{term}"] > 0).tolist() == [False, False, True], "nothing before it counts"
    assert not (plain.path / "gradient_norms.parquet").exists()
    assert plain.steps is not None
    assert noted.steps is not None
    pd.testing.assert_frame_equal(plain.steps.drop(columns="seconds"), noted.steps.drop(columns="seconds"))


def test_a_dose_is_weight_times_the_sum_over_steps() -> None:
    table = pd.DataFrame({"step": [0, 4, 8], "gradient_norm_key": [float("nan"), 2.0, 1.0]})
    by_hand = [2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 1.0]
    assert dose(table, "key", weight=0.5, steps=10, first=3) == pytest.approx(0.5 * sum(by_hand))
    assert dose(table.iloc[::-1], "key", weight=1.0, steps=10, first=3) == pytest.approx(sum(by_hand))
    every = pd.DataFrame({"step": range(50), "gradient_norm_key": [100 / (1 + step) for step in range(50)]})
    assert dose(every, "key", weight=1.0, steps=50) == pytest.approx(every["gradient_norm_key"].sum())
    with pytest.raises(InputError, match="no norm of query_mask; train with log_gradient_norms_every"):
        dose(table, "query_mask", weight=1.0, steps=10)
    with pytest.raises(InputError, match="no norm of key"):
        dose(table.iloc[:1], "key", weight=1.0, steps=10)


@pytest.mark.parametrize("power", [0.4, 1.0, 1.5])
@pytest.mark.parametrize("factor", [0.1, 30.0])
def test_a_weight_is_found_where_the_dose_grows_with_it(power: float, factor: float) -> None:
    pilots = match_weight(lambda w: factor * w**power, 2.0, start=0.2, tolerance=0.05)
    assert abs(pilots[-1].dose / 2.0 - 1) <= 0.05
    assert len(pilots) <= 4
    assert pilots[0].weight == 0.2


def test_a_dose_that_is_out_of_reach_is_said() -> None:
    with pytest.raises(RunError, match=r"no weight of 5 comes within 10% of the dose 2 \(.*learns K sends less"):
        match_weight(lambda w: w / (1 + w), 2.0, start=0.2, most=5)
    with pytest.raises(RunError, match="no weight of 1 "):
        match_weight(lambda _: 0.0, 5.0, start=0.2)
    with pytest.raises(InputError, match="expected both above 0"):
        match_weight(lambda w: w, 0.0, start=0.2)


def test_traces_with_and_without_the_prompt_send_different_doses() -> None:
    """A model that reads K off the prompt has nothing to learn with it in sight, and much without."""
    model = fresh_model(dropout=0.0)
    batch = collate([model.encode(trace) for trace in reference_forward.with_spans(3)], [None] * 3)
    loss = BatchLoss(model.hf, None, weighs_key=True)
    optimizer = torch.optim.Adam(model.hf.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss(batch).key.backward()
        optimizer.step()
    norms = term_gradient_norms(loss, [batch], batch.counts, ("query_mask", "key"))
    assert norms["query_mask"] > 10 * norms["key"]
