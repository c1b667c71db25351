"""The checks of `python -m analysis.cost`: right as the package is, and each wrong where an error is planted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from analysis.cost import loss_checks
from analysis.cost.bench import Bench, Setup
from analysis.cost.checks import CHECKS, check_attention
from safekey_interp.capture import attention_hook, recording
from safekey_interp.capture.attention_mask import Knockout
from safekey_interp.capture.position_means import PositionMeans
from safekey_interp.training import batch_loss

Patch = pytest.MonkeyPatch
IN_PROCESS = [name for name in CHECKS if name != "sharding"]


def bench(dtype: str = "float32") -> Bench:
    return Bench(Setup(model="tiny", device="cpu", dtype=dtype, length=128, minutes=2))


def wrong(name: str, at: Bench) -> list[str]:
    checks = check_attention(at, (512,)) if name == "attention" else CHECKS[name](at)
    found = list(checks)
    assert any(not check.note for check in found), "something was compared"
    return [check.name for check in found if not check.is_right]


@pytest.mark.parametrize("name", IN_PROCESS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_package_is_right(name: str, dtype: str) -> None:
    assert wrong(name, bench(dtype)) == []


def sees_the_next(patch: Patch) -> None:
    real = recording.row_mask

    def later(mask: Any, rows: Any, n_queries: int, *a: Any, **k: Any) -> Any:
        return real(mask, (rows + 1).clamp(max=n_queries - 1), n_queries, *a, **k)

    patch.setattr(recording, "row_mask", later)


def not_itself(patch: Patch) -> None:
    real = recording.row_mask
    patch.setattr(recording, "row_mask", lambda mask, rows, *a, **k: real(mask, rows - 1, *a)._replace(seen_by_all=0))


def rows_swapped(patch: Patch) -> None:
    real = recording.query_rows

    def swapped(*args: Any) -> Any:
        rows = real(*args)
        return dataclasses.replace(rows, weights=rows.weights[:, ::-1].copy())

    patch.setattr(recording, "query_rows", swapped)


def too_sharp(patch: Patch) -> None:
    real = recording.mean_rows
    patch.setattr(recording, "mean_rows", lambda *a, scaling, **k: real(*a, scaling=1.5 * scaling, **k))


def one_token_on(patch: Patch) -> None:
    real = PositionMeans.weights_on
    patch.setattr(PositionMeans, "weights_on", lambda self, device: real(self, device).roll(1, -1))


def louder(patch: Patch) -> None:
    real = attention_hook._own_function

    def function(cls: type, name: str) -> Callable[..., Any]:
        def attention(*args: Any, **kwargs: Any) -> Any:
            out, *rest = real(cls, name)(*args, **kwargs)
            return (1.5 * out, *rest)

        return attention

    patch.setattr(attention_hook, "_own_function", function)


def other_keys(patch: Patch) -> None:
    real = Knockout.hidden
    patch.setattr(Knockout, "hidden", lambda self, layer, mask: real(self, layer, mask).roll(1, -1))


def no_keys(patch: Patch) -> None:
    real = Knockout.hidden
    patch.setattr(Knockout, "hidden", lambda self, layer, mask: real(self, layer, mask) & False)


def head_sign(patch: Patch) -> None:
    real = batch_loss.head_loss
    patch.setattr(batch_loss, "head_loss", lambda *a, **k: -real(*a, **k))


def labels_swapped(patch: Patch) -> None:
    real = batch_loss.head_loss
    patch.setattr(batch_loss, "head_loss", lambda logits, harmful, *a, **k: real(logits, 1 - harmful, *a, **k))


def targets_late(patch: Patch) -> None:
    real = batch_loss.summed_cross_entropy
    patch.setattr(batch_loss, "summed_cross_entropy", lambda s, targets, u: real(s, targets.roll(1), u))


def weight_sign(patch: Patch) -> None:
    real = loss_checks.combine
    patch.setattr(loss_checks, "combine", lambda *a: real(*a, query_mask_weight=-0.2))


def prompt_in_sight(patch: Patch) -> None:
    """K's second pass is a copy of the first."""
    real = batch_loss.BatchLoss.forward

    def forward(self: Any, batch: Any) -> Any:
        self.weighs_key = True
        sums = real(self, batch)
        return sums._replace(query_mask=sums.key)

    patch.setattr(batch_loss.BatchLoss, "forward", forward)


PLANTED = {
    "attention": (sees_the_next, not_itself, rows_swapped, too_sharp),
    "states": (one_token_on,),
    "logits": (louder,),
    "knockout": (other_keys, no_keys),
    "losses": (head_sign, labels_swapped, targets_late, weight_sign, prompt_in_sight),
}


def test_each_check_has_an_error_planted() -> None:
    assert list(PLANTED) == IN_PROCESS


@pytest.mark.parametrize(
    ("name", "plant"),
    [(name, plant) for name, plants in PLANTED.items() for plant in plants],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_planted_error_is_found(name: str, plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert wrong(name, bench())


@pytest.mark.parametrize("plant", PLANTED["attention"], ids=lambda plant: plant.__name__)
def test_a_planted_error_of_attention_is_found_in_bfloat16_too(
    plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    assert wrong("attention", bench("bfloat16"))


@pytest.mark.slow
def test_sharded_losses_are_those_of_one_process_and_an_error_in_one_of_both_is_found(monkeypatch: Patch) -> None:
    assert wrong("sharding", bench()) == []
    targets_late(monkeypatch)  # here, and not in the processes that are started
    assert wrong("sharding", bench()) != []


def test_a_number_that_is_not_one_is_wrong(monkeypatch: Patch) -> None:
    real = recording.mean_rows

    def broken(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        return found._replace(weights=found.weights * torch.nan)

    monkeypatch.setattr(recording, "mean_rows", broken)
    assert wrong("attention", bench())
