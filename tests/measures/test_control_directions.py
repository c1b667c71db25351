"""Control directions hold: labels that mean nothing are found in one run of twenty, a planted effect in nearly all."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.errors import InputError
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for
from safekey_interp.interventions.directions import direction_components, read_classes
from safekey_interp.interventions.effects import default_rows
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.interventions.steering import steer, summarise_steering
from safekey_interp.measures.control_directions import (
    Controls,
    least_groups,
    orthogonal_contrasts,
    shuffled_columns,
    units,
    within_classes,
)
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.measures.token_scorer import TokenScorer
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load
from safekey_interp.reporting.findings.intervention_findings import find_excess

LAYER = 2
SCALE = 0.2
"""Of a step: small enough for its effect to be linear."""
N_DRAWS = 19
"""So that p ≤ .05 means beyond all of them."""


@lru_cache
def toy() -> Model:
    return load("organism")


@lru_cache
def held() -> tuple[np.ndarray, list[str], list]:
    """States of benign requests, among which no label means anything; their groups; and others to steer."""
    plain = [t for t in organism.read_shipped() if t.source == "plain" and t.label == "benign"]
    found = read_classes(
        toy(), plain[:120], StreamSettings(finder="given"), position="decision", label_by="label", layers=[LAYER]
    )
    known = {trace.group for trace in found.traces}
    return (
        found.states.matrix(0, "decision"),
        [trace.group for trace in found.traces],
        [t for t in plain if t.group not in known][:4],
    )


def small_bank() -> KeySentences:
    bank = bank_for(toy().tokenizer)
    return KeySentences(safe=bank.safe[:1], go_ahead=bank.go_ahead[:1])


def random_labels(groups: list[str], seed: int) -> list[str]:
    """Whole groups of either class, half of them each."""
    names = sorted(set(groups))
    harmful = set(np.random.default_rng([seed, 9]).permutation(names)[: len(names) // 2])
    return ["harmful" if group in harmful else "benign" for group in groups]


def anisotropic(n: int = 80, d: int = 30, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.geomspace(30, 0.1, d) + rng.normal(size=d) * 20


def p_of(direction: Direction, kind: str, moves: Any) -> float:
    """Its rank among its draws, as a summary of effects has it."""
    assert direction.controls is not None
    every = np.array([moves(one) for one in (direction.vector, *getattr(direction.controls, kind))])
    away = np.abs(every - every.mean())
    return (1 + int((away[1:] >= away[0]).sum())) / len(every)


def test_shuffled_labels_are_found_as_often_as_the_level_says() -> None:
    """Whatever the model makes of a direction: ablation, even in the vector; or a step along it, odd."""
    matrix, groups = anisotropic(), [str(number // 2) for number in range(80)]
    reads = np.random.default_rng(5).normal(size=30)
    for moves in (lambda v: float((v @ reads) ** 2), lambda v: float(np.tanh(v @ reads))):
        fits = [
            Direction.fit(matrix, random_labels(groups, seed), groups, n_controls=N_DRAWS, seed=seed)
            for seed in range(400)
        ]
        p = np.array([p_of(fit, "shuffled_labels", moves) for fit in fits])
        assert 0.025 <= (p <= 0.05).mean() <= 0.08
        assert 0.42 <= (p <= 0.5).mean() <= 0.58


@pytest.mark.slow
def test_of_few_requests_the_tested_direction_is_one_more_draw() -> None:
    """Of 12, beyond all of 10 draws in one run of 11; if draws were not orthogonal to each other, in .126."""
    rng = np.random.default_rng(5)
    groups = [str(number) for number in range(12)]
    first = 0
    for seed in range(3000):
        rows, positive = rng.normal(size=(12, 30)), rng.permutation(np.arange(12) < 6)
        weights = orthogonal_contrasts(positive, shuffled_columns(positive, groups, N_DRAWS, seed))
        assert weights.shape == (12, 10)
        tested = rows[positive].mean(0) - rows[~positive].mean(0)
        moved = units(np.vstack([tested, weights.T @ within_classes(rows, positive)]))[:, 0]
        away = np.abs(moved - moved.mean())
        first += away[0] > away[1:].max()
    assert abs(first / 3000 - 1 / 11) <= 0.015


def test_of_few_requests_no_more_is_drawn_than_is_orthogonal() -> None:
    """So that p is at least 1 / (n − 1) of n requests, however many draws were asked for."""
    for n in (6, 9, 12, 21):
        matrix, groups = anisotropic(n=2 * n), [str(number // 2) for number in range(2 * n)]
        for seed in range(10):
            fit = Direction.fit(matrix, random_labels(groups, seed), groups, n_controls=40, seed=seed)
            assert fit.controls is not None
            assert (len(fit.controls.shuffled_labels), len(fit.controls.covariance)) == (n - 2, 40)
            probe = Probe.fit(matrix, random_labels(groups, seed), groups, n_controls=40, seed=seed)
            assert len(probe.direction().controls.shuffled_labels) == n - 2  # type: ignore[union-attr]
        few = Direction.fit(matrix, random_labels(groups, 0), groups, n_controls=3)
        assert len(few.controls.shuffled_labels) == 3  # type: ignore[union-attr]


def test_every_fold_has_as_many_orthogonal_directions_as_draws() -> None:
    """From the number of requests on that is said to be enough."""
    for n_folds, n_draws in ((1, 19), (2, 5), (3, 19), (5, 5), (5, 19)):
        enough = least_groups(n_draws, n_folds)
        for n in (enough, enough + 3, enough - n_folds - 2):
            positive = np.arange(n) % 2 == 0
            groups = [str(number) for number in range(n)]
            fold = None if n_folds == 1 else np.arange(n) // 2 % n_folds
            drawn = shuffled_columns(positive, groups, n_draws, 0, fold)
            assert (drawn.shape[1] == n_draws) == (n >= enough)
            for fit in [np.ones(n, bool)] if fold is None else [fold != one for one in range(n_folds)]:
                assert drawn.shape[1] <= fit.sum() - 2
            assert np.linalg.matrix_rank(within_classes(drawn.astype(float), positive)) == drawn.shape[1]


def test_a_page_says_how_many_requests_a_small_p_takes() -> None:
    matrix, groups, traces = held()
    kept = [groups.index(group) for group in sorted(set(groups))[:12]]
    matrix, groups = matrix[kept], [groups[row] for row in kept]
    about: dict[str, Any] = {"layer": LAYER, "site": "resid_post"}
    for n_controls, drawn in ((N_DRAWS, 10), (4, 4)):
        fit = Direction.fit(matrix, random_labels(groups, 1), groups, n_controls=n_controls, **about)
        table = steer(toy(), traces, fit, n_random=n_controls, bank=small_bank(), finder="given")
        summary = summarise_steering(table)
        rows = summary.set_index("control_kind")
        assert set(rows.loc["shuffled_labels", "n_controls"]) == {drawn}
        assert set(rows.loc["covariance", "n_controls"]) == {n_controls}
        assert rows.loc["shuffled_labels", "p_value_over_all"].min() >= 1 / (1 + drawn)
    shown = summary.assign(n_groups=30, n_controls=10)
    [finding] = find_excess(find_intervention("direction"), shown, {"n_layers": 4})
    assert "p of 0.05 takes 19 draws" in finding.text
    assert "at least 21 requests, or 30 in 5 folds" in finding.text
    assert not finding.is_shown
    [finding] = find_excess(find_intervention("direction"), shown.assign(n_controls=19), {"n_layers": 4})
    assert "requests" not in finding.text


def test_draws_are_orthogonal_to_the_labels_and_to_each_other() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(25) < 11
    shuffled = np.stack([rng.permutation(positive) for _ in range(20)], axis=1)
    few = orthogonal_contrasts(positive, shuffled)
    np.testing.assert_allclose(few.T @ few, np.eye(20), atol=1e-12)
    assert (np.diag(few.T @ shuffled) > 0).all(), "each is of its own shuffle"
    np.testing.assert_allclose([few[positive].sum(0), few[~positive].sum(0)], 0, atol=1e-12)
    assert orthogonal_contrasts(positive, shuffled[:, :0]).shape == (25, 0)


def test_a_planted_direction_is_beyond_every_draw() -> None:
    matrix, groups = anisotropic(), [str(number // 2) for number in range(80)]
    reads = np.zeros(30)
    reads[20] = 1.0
    for seed in range(20):
        labels = random_labels(groups, seed)
        planted = matrix + 60 * np.outer([label == "harmful" for label in labels], reads)
        fit = Direction.fit(planted, labels, groups, n_controls=N_DRAWS, seed=seed)
        for kind in ("shuffled_labels", "covariance"):
            assert p_of(fit, kind, lambda v: float((v @ reads) ** 2)) == pytest.approx(1 / (1 + N_DRAWS))


def test_draws_have_the_covariance_of_the_states() -> None:
    matrix = anisotropic(n=400, d=6)
    rows = np.zeros((0, 6))
    drawn = Controls.of(matrix, (rows, np.zeros(0)), n_draws=20_000, seed=0)
    assert np.allclose(np.linalg.norm(drawn.covariance, axis=1), 1, atol=1e-5)
    whitened = drawn.covariance @ np.linalg.inv(np.linalg.cholesky(np.cov(matrix.T))).T
    spread = np.cov(units(whitened).T) * 6
    np.testing.assert_allclose(spread, np.eye(6), atol=0.05)


def test_a_shuffle_keeps_groups_together_and_folds_apart() -> None:
    positive = np.arange(40) % 4 < 2
    groups = [str(number // 2) for number in range(40)]
    fold = np.arange(40) // 20
    drawn = shuffled_columns(positive, groups, 50, 0, fold)
    assert drawn.shape == (40, 8), "of 10 groups of a fit"
    assert (drawn[::2] == drawn[1::2]).all(), "both rows of a group have one label"
    assert (drawn[fold == 0].sum(0) == 10).all()
    assert (drawn != positive[:, None]).any(1).all()
    assert shuffled_columns(positive, ["one"] * 20 + ["two"] * 20, 30, 0).shape[1] == 30
    assert shuffled_columns(positive[:4], ["a", "a", "b", "b"], 50, 0).shape[1] == 0, "too few ways to shuffle"
    sizes = [*(str(number // 2) for number in range(20)), *(str(number) for number in range(20, 40))]
    apart = np.arange(40) < 20
    traded = shuffled_columns(apart, sizes, 20, 0)
    assert traded.shape[1] == 20, "groups of two against groups of one"
    assert (traded[:20:2] == traded[1:20:2]).all()
    assert (traded[apart].any(0) & ~traded[apart].all(0)).all()


def test_components_are_those_of_the_states() -> None:
    matrix, groups = anisotropic(), [str(number) for number in range(80)]
    fit = Direction.fit(matrix, random_labels(groups, 0), groups, layer=1, site="resid_post", position="decision")
    values, vectors = np.linalg.eigh(np.cov(matrix.T))
    table = direction_components([fit, Direction(vector=fit.vector, norm=1.0)])
    assert list(table["component"]) == [1, 2, 3], "a direction that was set by hand has none"
    np.testing.assert_allclose(table["cosine"], np.abs(vectors.T[::-1][:3] @ fit.vector), atol=1e-4)
    np.testing.assert_allclose(table["share"], (values / values.sum())[::-1][:3], atol=1e-6)


def test_a_probes_control_is_a_probe_fitted_to_shuffled_labels() -> None:
    matrix, groups = anisotropic(n=60, d=100), [str(number) for number in range(60)]
    labels = random_labels(groups, 1)
    probe = Probe.fit(matrix, labels, groups, layer=0, site="resid_post", n_controls=3, seed=4)
    positive = np.array([label == "harmful" for label in labels])
    drawn = shuffled_columns(positive, groups, 3, 4)
    reader = TokenScorer.of(probe, n_random=3)
    scores = matrix @ reader.controls["shuffled_labels"].T + reader.control_biases["shuffled_labels"]
    for number, labelling in enumerate(drawn.T):
        again = Probe.fit(matrix, ["harmful" if yes else "benign" for yes in labelling], groups, n_controls=0)
        np.testing.assert_allclose(scores[:, number], again.score(matrix), rtol=1e-3, atol=1e-3)
    lengths = np.linalg.norm(reader.controls["covariance"], axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(reader.vector), rtol=1e-5)


def test_a_direction_without_controls_says_what_is_missing() -> None:
    matrix, groups, traces = held()
    options: dict[str, Any] = {"bank": small_bank(), "finder": "given", "n_random": 2}
    bare = Direction(vector=units(matrix[:1].astype(float))[0], norm=1.0, layer=LAYER, site="resid_post")
    for name, says in (("shuffled_labels", r"direction 0: holds no shuffled_labels draws.*with_controls"),):
        with pytest.raises(InputError, match=says):
            steer(toy(), traces, bare, controls=name, **options)
    with pytest.raises(InputError, match="controls: got 'random', expected some of shuffled_labels"):
        steer(toy(), traces, bare, controls=("random",), **options)  # type: ignore[arg-type]
    fit = bare.with_controls(matrix, random_labels(groups, 0), groups, n_controls=2)
    assert np.array_equal(fit.vector, bare.vector)
    with pytest.raises(InputError, match=r"holds 2 shuffled_labels draws, got n_random=3; fit it with n_controls=3"):
        steer(toy(), traces, fit, **options | {"n_random": 3})
    few = bare.with_controls(matrix[:4], ["harmful", "harmful", "benign", "benign"], ["a", "a", "b", "b"])
    with pytest.raises(InputError, match=r"too few ways to shuffle labels"):
        steer(toy(), traces, few, **options)
    every = ("shuffled_labels", "covariance", "isotropic")
    table = steer(toy(), traces, fit, controls=every, **options)
    assert list(dict.fromkeys(table["control"])) == ["none", *every]
    assert (table[table["control"] != "none"].groupby(["trace_id", "control", "metric"])["draw"].nunique() == 2).all()
    summary = summarise_steering(table)
    assert set(default_rows(summary)["control_kind"]) == {"shuffled_labels"}
    assert summary["pc1_cosine"].between(0, 1).all()


def found_by(directions: list[Direction], traces: list) -> np.ndarray:
    """p of each direction beside those that were fitted to shuffled labels."""
    options: dict[str, Any] = {
        "mode": "add",
        "scales": SCALE,
        "controls": "shuffled_labels",
        "n_random": N_DRAWS,
        "finder": "given",
    }
    summary = summarise_steering(steer(toy(), traces, directions, bank=small_bank(), **options))
    rows = summary[(summary["metric"] == "difference") & (summary["subset"] == "all")]
    return rows.sort_values("direction")["p_value"].to_numpy()


@pytest.mark.slow
def test_labels_that_mean_nothing_are_found_in_one_run_of_twenty_on_the_organism() -> None:
    matrix, groups, traces = held()
    fits = [
        Direction.fit(
            matrix,
            random_labels(groups, seed),
            groups,
            layer=LAYER,
            site="resid_post",
            n_controls=N_DRAWS,
            seed=seed,
        )
        for seed in range(200)
    ]
    assert (found_by(fits, traces[:2]) <= 0.05).mean() <= 0.07


def test_a_direction_that_was_added_by_hand_is_found_on_the_organism() -> None:
    """Along what the decision reads, as steps along the axes tell: .4 of the states' spread, for half the requests."""
    matrix, groups, traces = held()
    axes = [Direction(vector=one, norm=1.0, layer=LAYER, site="resid_post") for one in np.eye(toy().d_model)]
    alone: dict[str, Any] = {"mode": "add", "n_random": 0, "finder": "given", "bank": small_bank()}
    moved = steer(toy(), traces[:1], axes, **alone).query("metric == 'difference'").sort_values("direction")
    reads = units(moved["effect"].to_numpy(float)[None])[0]
    fits = []
    for seed in range(10):
        labels = random_labels(groups, seed)
        size = 0.4 * np.linalg.norm(matrix.std(0))
        planted = matrix + size * np.outer([label == "harmful" for label in labels], reads)
        fits.append(Direction.fit(planted, labels, groups, layer=LAYER, site="resid_post", n_controls=N_DRAWS))
    assert (found_by(fits, traces[:2]) <= 0.05).mean() >= 0.9
