"""Two processes train as one does: DDP and FSDP2, whichever rows each of them reads, and when one has none."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from training_processes import EVERY, N_PASSES, N_RANKS, Case, Run, deal, fresh, run_team, train

from safekey_interp.errors import RunError
from safekey_interp.training.distributed import blocks, shard

pytestmark = pytest.mark.slow

# With tied embeddings and without, every layout, both ways.
CASES = [
    Case(architecture="llama", way="ddp", layout="short"),
    Case(architecture="llama", way="fsdp2", layout="packed"),
    Case(architecture="llama", way="fsdp2-apart", layout="short"),
    Case(architecture="llama", way="fsdp2", layout="masked", tied=True, more=True),
    Case(architecture="qwen2", way="ddp", layout="packed", tied=True),
    Case(architecture="qwen2", way="fsdp2", layout="short", tied=True, checkpointing=True),
]
MORE = [
    Case(architecture="llama", way="ddp", layout="packed", tied=True, more=True, checkpointing=True),
    Case(architecture="llama", way="fsdp2", layout="short", tied=True),
    Case(architecture="qwen2", way="ddp", layout="short"),
    Case(architecture="qwen2", way="fsdp2-apart", layout="packed", checkpointing=True),
    *(
        Case(architecture=architecture, way=way, layout=layout, kinds=(kind,))
        for architecture, way, layout in (
            *(("llama", "ddp", "packed"), ("llama", "fsdp2", "short")),
            *(("qwen2", "ddp", "short"), ("qwen2", "fsdp2", "packed")),
        )
        for kind in EVERY
    ),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return run_team(CASES, tmp_path_factory.mktemp("team"))


@pytest.fixture(scope="module")
def more_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return run_team(MORE, tmp_path_factory.mktemp("more"))


def alone(case: Case) -> Run:
    """The same steps in one process, one batch each; how rows are wrapped or laid out is no matter of it."""
    return _alone(Case(architecture=case.architecture, way="ddp", tied=case.tied, kinds=case.kinds, more=case.more))


@lru_cache
def _alone(case: Case) -> Run:
    weights, logged, own = train(case, None)
    return Run(weights, logged, [own])


def assert_as_one(case: Case, run: Run) -> None:
    """To 1e-4 of the weights, and to 1e-3 of what ten steps changed: AdamW divides by the size of a gradient, so that
    where there is next to none it steps by the last digits of a sum, which depend on the order."""
    one = alone(case)
    before = dict(fresh(case).named_parameters())
    assert run.weights.keys() == one.weights.keys() == before.keys()
    for name, weight in one.weights.items():
        change = (weight - before[name]).norm()
        assert change > 0, name
        difference = (run.weights[name] - weight).norm()
        assert difference <= 1e-4 * weight.norm(), name
        assert difference <= 1e-3 * change, name
    for term, expected in one.logged.items():
        assert run.logged[term] == pytest.approx(expected, rel=1e-4, abs=1e-12), term
    n_forwards = case.n_steps * N_PASSES * (1 if case.layout == "packed" else 2)
    assert [of_rank["n_forwards"] for of_rank in run.of_rank] == [n_forwards] * N_RANKS
    kind = "Parameter" if case.way == "ddp" else "DTensor"
    assert all(of_rank["parameters"] == [kind] for of_rank in run.of_rank)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_train_as_one(runs: dict[str, Run], case: Case) -> None:
    assert_as_one(case, runs[str(case)])


@pytest.mark.parametrize("case", MORE, ids=str)
def test_two_processes_train_as_one_in_every_way(more_runs: dict[str, Run], case: Case) -> None:
    assert_as_one(case, more_runs[str(case)])


def test_the_safety_loss_is_over_all_rows_and_no_mean_of_means(runs: dict[str, Run]) -> None:
    """The reference took each rank's own mean, and logged the first's."""
    run, expected = runs[str(CASES[0])], alone(CASES[0]).logged["head"]
    n_uneven = 0
    for step in range(CASES[0].n_steps):
        sums, rows = zip(
            *(
                torch.tensor([(total, n) for at, total, n in of_rank["head"] if at == step]).sum(0)
                for of_rank in run.of_rank
            ),
            strict=True,
        )
        assert run.logged["head"][step] == pytest.approx(float(sum(sums) / sum(rows)), rel=1e-4)
        assert run.logged["head"][step] == pytest.approx(expected[step], rel=1e-4)
        if rows[0] != rows[1]:
            n_uneven += 1
            means = [float(total / max(1, n)) for total, n in zip(sums, rows, strict=True)]
            assert sum(means) / N_RANKS != pytest.approx(expected[step], rel=1e-3), "a mean of means is something else"
            assert not rows[1] or means[0] != pytest.approx(expected[step], rel=1e-3), "and so is a rank's own mean"
    assert n_uneven >= 4


def test_rows_are_dealt_once() -> None:
    for kind in EVERY:
        rows = [row for passes in deal(kind, 3) for one in passes for row in one]
        assert len(rows) == len(set(rows))
        assert all(len(passes) == N_PASSES for passes in deal(kind, 3))


def test_sharding_needs_a_process_group() -> None:
    loss = fresh(CASES[0])
    with pytest.raises(RunError, match="no process group"):
        shard(loss)
    assert blocks(loss.hf) == list(loss.hf.model.layers)
