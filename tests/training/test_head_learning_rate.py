"""The safety head's own learning rate: by a rule under which it learns at any width and scale of the states."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from killed_training import fresh_model, rows, settings, trained
from torch import Tensor

from safekey_interp.models.safety_head import SafetyHead, mean_over
from safekey_interp.training.examples import prepare_examples
from safekey_interp.training.head_learning_rate import LOGIT_STEP, N_TRACES, head_rate, rate_for

N_STEPS = 35
"""Steps with both losses in the SmolLM2 runs, where the head had learned nothing at the model's rate."""
WIDTHS = (64, 576, 2048)


def frozen_states(width: int, scale: float, *, separation: float = 0.25, n: int = 160) -> tuple[Tensor, Tensor]:
    """States as they lie after a final norm: a large mean that all share, a spread of half its size, classes apart by
    a share of |x|₁ (SmolLM2 on its training traces .28, on XSTest .13, the organism .17)."""
    draw = torch.Generator().manual_seed(width)
    y = torch.arange(n).remainder(2).float()
    mean, apart = torch.randn(2, width, generator=draw)
    noise = torch.randn(n, width, generator=draw)
    states = mean + 0.5 * noise + (y[:, None] - 0.5) * separation * apart
    return scale * states, y


def rule(states: Tensor) -> float:
    """The rate for these states."""
    return rate_for(float(states.abs().sum(1).mean()))


def learn(states: Tensor, y: Tensor, rate: float, *, n_steps: int = N_STEPS, batch: int = 16) -> list[float]:
    """The head alone, as the trainer steps it: loss over all states before and after each step."""
    torch.manual_seed(2002)
    head = SafetyHead(states.shape[1])
    span = torch.ones(len(y), 1, dtype=torch.bool)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=1e-4)
    warm = math.ceil(0.05 * n_steps)
    falls = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: s / warm if s < warm else 0.5 + 0.5 * math.cos(math.pi * (s - warm) / max(1, n_steps - warm)),
    )
    draw = torch.Generator().manual_seed(0)

    def loss(which: Tensor) -> Tensor:
        logits = head(states[which, None], span[which], span[which])
        return sum(F.binary_cross_entropy_with_logits(path, y[which]) for path in logits) / 2  # type: ignore[return-value]

    every = torch.arange(len(y))
    found = [float(loss(every).detach())]
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss(torch.randint(len(y), (batch,), generator=draw)).backward()
        optimizer.step()
        falls.step()
        found.append(float(loss(every).detach()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_head_learns_by_the_rule_at_any_width_and_scale(width: int, scale: float) -> None:
    states, y = frozen_states(width, scale)
    losses = learn(states, y, rule(states))
    assert losses[-1] < 0.5, "it learns within the steps of a short run"
    assert max(losses) < max(1.0, 1.2 * losses[0]), "and no step throws it far"
    assert max(learn(states, y, rule(states), n_steps=400)[200:]) < 0.1, "nor do many"


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_states_so_large_that_the_first_weights_say_much_are_learned_too(width: int) -> None:
    states, y = frozen_states(width, 30.0)
    losses = learn(states, y, rule(states), n_steps=400)
    assert max(losses) == losses[0] > 3.0
    assert max(losses[200:]) < 0.5


@pytest.mark.parametrize("width", WIDTHS)
def test_the_models_rate_teaches_no_head_and_a_much_larger_one_throws_it(width: int) -> None:
    """The test above can fail: neither the model's rate nor thirty times the rule's passes it."""
    states, y = frozen_states(width, 1.0)
    assert learn(states, y, 5e-5)[-1] > 0.5
    assert max(learn(states, y, 30 * rule(states))) > 2.0


def test_one_step_moves_the_logit_by_what_the_rule_says() -> None:
    x = torch.randn(300)
    w = torch.zeros(300, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=rate_for(float(x.abs().sum())), weight_decay=0.0)
    F.binary_cross_entropy_with_logits(w @ x, torch.tensor(1.0)).backward()
    optimizer.step()
    assert float(w.detach() @ x) == pytest.approx(LOGIT_STEP, rel=0.05)


@pytest.mark.parametrize("changes", [{}, {"theta": 1.0}, {"head_layer": 1}], ids=str)
def test_the_norm_is_that_of_what_the_head_reads(tmp_path: Path, changes: dict[str, Any]) -> None:
    model, config = fresh_model(), settings(tmp_path, head_learning_rate=None, **changes)
    examples = prepare_examples(model, rows(), config).train
    found = head_rate(model, examples, config)
    norms = []
    for one in examples:
        if one.label is None:
            continue
        with torch.no_grad():
            out = model.hf.eval()(one.encoding.input_ids[None], output_hidden_states=True, use_cache=False)
        states = out.hidden_states[-1 if config.head_layer is None else config.head_layer + 1]
        for share, name in ((config.theta, "understanding"), (1 - config.theta, "context")):
            span = torch.zeros(states.shape[:2], dtype=torch.bool)
            span[0, list(one.encoding.positions(name))] = True
            norms.append(share * float(mean_over(states, span).abs().sum()))
    assert found is not None
    assert found.states_l1 is not None
    assert found.n == len(norms) // 2 <= N_TRACES
    assert found.states_l1 == pytest.approx(sum(norms) / found.n, rel=1e-4)
    assert found.learning_rate == pytest.approx(LOGIT_STEP / found.states_l1, rel=0.05)
    with torch.no_grad():
        model.hf.model.norm.weight.mul_(10)
    larger = head_rate(model, examples, config)
    assert larger is not None
    times = 1 if config.head_layer is not None else 10
    assert larger.learning_rate == pytest.approx(found.learning_rate / times, rel=0.06)


def test_a_rate_that_is_set_wins_and_without_a_head_there_is_none(tmp_path: Path) -> None:
    model, config = fresh_model(), settings(tmp_path, head_learning_rate=0.01)
    examples = prepare_examples(model, rows(), config).train
    given = head_rate(model, examples, config)
    assert given is not None
    assert tuple(given) == (0.01, None, 0)
    assert head_rate(model, examples, replace(config, head_weight=0.0)) is None
    unlabelled = [replace(one, label=None) for one in examples]
    without = head_rate(model, unlabelled, replace(config, head_learning_rate=None))
    assert without is not None
    assert without.learning_rate == config.learning_rate


def test_a_run_takes_the_rule_and_records_it(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", head_learning_rate=None, log_every=1)
    record: Any = run.manifest["head_rate"]
    steps: Any = run.steps
    assert record["states_l1"] > 0
    assert run.manifest["settings"]["head_learning_rate"] == record["learning_rate"]
    assert yaml.safe_load((run.path / "config.yaml").read_text())["head_learning_rate"] == record["learning_rate"]
    assert f"head_learning_rate | {record['learning_rate']}" in (run.path / "model" / "README.md").read_text()
    assert steps is not None
    warm, *others = steps["learning_rate"]
    assert warm == 0
    assert len(set(others)) == len(others), "warm-up and decay"
    expected = steps["learning_rate"] * record["learning_rate"] / 1e-3
    pd.testing.assert_series_equal(steps["head_learning_rate"], expected, check_names=False)
    again = trained(tmp_path / "run", head_learning_rate=record["learning_rate"], log_every=1)
    assert again.manifest["created"] == run.manifest["created"], "the run's own config.yaml asks for the same run"
    none = trained(tmp_path / "none", head_weight=0)
    assert none.manifest["head_rate"] is None
    assert none.steps is not None
    assert "head_learning_rate" not in none.steps
