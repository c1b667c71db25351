"""Early detection: false alarms stay at their rate, planted knowledge is found at the prefix where it begins."""

from __future__ import annotations

import numpy as np
import pytest

from safekey_interp.errors import InputError
from safekey_interp.measures.early_detection import (
    AlarmRule,
    Scored,
    auroc_differences,
    calibrate_alarm,
    conformal_rank,
    detection_table,
)

PREFIXES = ("prompt", "U", "K", "reasoning")


def planted(n: int, seed: int, *, known_from: int | None, shift: float = 0.0) -> Scored:
    """A third benign; of the others half have the outcome, which scores show from a prefix on. Scales differ."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    scores = rng.normal(size=(n, 4))
    if known_from is not None:
        scores[kind == 1, known_from:] += 6
    scores[kind == 0] += shift
    scale, offset = np.array([1.0, 50.0, 0.1, 7.0]), np.array([0.0, 900.0, -3.0, 5.0])
    return Scored(scale * scores + offset, kind == 1, kind == 0, [f"g{i // 2}" for i in range(n)])


def rule_of(seed: int, rate: float = 0.05) -> AlarmRule:
    reference, further = (planted(1200, seed + k, known_from=None) for k in (0, 1))
    return calibrate_alarm(reference.scores[reference.quiet], further.scores[further.quiet], false_positive_rate=rate)


def test_noise_raises_the_alarm_at_its_rate_over_all_prefixes_together() -> None:
    shares = []
    for seed in range(20):
        table = detection_table(planted(900, 100 + seed, known_from=None), rule_of(3 * seed), PREFIXES)
        shares.append(table[["detected", "false_alarms"]].iloc[-1].to_numpy())
        assert table["false_alarms"].is_monotonic_increasing
    assert np.mean(shares, axis=0) == pytest.approx([0.05, 0.05], abs=0.012)


def test_what_is_known_from_a_prefix_on_is_detected_there() -> None:
    table = detection_table(planted(900, 5, known_from=2), rule_of(0), PREFIXES)
    assert (table["auroc"] > 0.99).tolist() == [False, False, True, True]
    assert (table["detected"].iloc[:2] < 0.1).all()
    assert (table["detected"].iloc[2:] > 0.95).all()
    assert table["detected_low"].iloc[2] > 0.9
    assert (table[["n_positive", "n_negative", "n_quiet"]].to_numpy() == 300).all()


def test_benign_requests_of_another_kind_raise_more_alarms_and_the_table_says_so() -> None:
    table = detection_table(planted(900, 5, known_from=2, shift=2.0), rule_of(0), PREFIXES)
    assert table["false_alarms_low"].iloc[-1] > 0.2


def test_each_prefix_has_its_own_scale() -> None:
    scored = planted(900, 5, known_from=1)
    reference, further = (planted(1200, k, known_from=None) for k in (0, 1))
    found = []
    for factor, offset in ((1.0, 0.0), (np.array([3.0, 0.01, 9.0, 1.0]), np.array([0.0, 5.0, -900.0, 1.0]))):
        a, b, c = (factor * one.scores + offset for one in (reference, further, scored))
        rule = calibrate_alarm(a[reference.quiet], b[further.quiet])
        found.append(detection_table(scored._replace(scores=c), rule, PREFIXES)["detected"].to_numpy())
    np.testing.assert_allclose(*found)


def test_a_prefix_that_a_trace_lacks_raises_nothing() -> None:
    scored = planted(900, 5, known_from=3)
    missing = scored.scores.copy()
    missing[:, 3] = np.nan
    table = detection_table(scored._replace(scores=missing), rule_of(0), PREFIXES)
    assert table["detected"].iloc[3] == table["detected"].iloc[2]
    assert np.isnan(table["auroc"].iloc[3])


def test_too_few_calibration_traces_are_refused() -> None:
    assert conformal_rank(99, 0.01) == 99
    assert conformal_rank(19, 0.05) == 19
    with pytest.raises(InputError, match="got 98 benign ones, expected at least 99"):
        conformal_rank(98, 0.01)
    with pytest.raises(InputError, match="false_positive_rate"):
        conformal_rank(98, 1.0)


def alike(seed: int, gain: float) -> tuple[Scored, Scored]:
    """Two detectors with the same knowledge and half of their noise in common; the first knows more from U on."""
    rng = np.random.default_rng(seed)
    scored = planted(450, seed, known_from=None)
    shared = rng.normal(size=scored.scores.shape) + scored.positive[:, None]
    first, second = (shared + rng.normal(size=shared.shape) for _ in range(2))
    first[:, 1:] += gain * scored.positive[:, None]
    return scored._replace(scores=first), scored._replace(scores=second)


def test_a_difference_of_two_detectors_is_found_where_it_is_planted_and_nowhere_else() -> None:
    excluded = []
    for seed in range(60):
        table = auroc_differences(*alike(seed, gain=1.0), PREFIXES)
        excluded.append((table["low"] > 0) | (table["high"] < 0))
        assert (table["low"] < table["value"]).to_numpy().all()
    no_gain, *gains = np.mean(excluded, axis=0)
    assert no_gain < 0.15
    assert min(gains) > 0.95


def test_detectors_of_other_traces_are_not_compared() -> None:
    one, other = alike(0, gain=1.0)
    with pytest.raises(InputError, match="the same traces"):
        auroc_differences(one, other._replace(positive=~other.positive), PREFIXES)
    missing = one.scores.copy()
    missing[:5, 0] = np.nan
    kept = np.arange(len(missing)) >= 5
    some = [Scored(each.scores[kept], each.positive[kept], each.quiet[kept], each.groups[5:]) for each in (one, other)]
    left_out = auroc_differences(one._replace(scores=missing), other, PREFIXES)
    assert left_out["value"].iloc[0] == auroc_differences(some[0], some[1], PREFIXES)["value"].iloc[0]
