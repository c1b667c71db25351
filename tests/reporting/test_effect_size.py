"""Verdicts on differences: too small to matter, open, above or below 0; and the sentences that state them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from safekey_interp.data.conditions import FEW
from safekey_interp.interventions.effects import summarise_effects
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.reporting.findings.beside_draws import draws_needed
from safekey_interp.reporting.findings.effect_size import AUROC_GAIN, NATS, SHARE, SMALLEST, size_in_words, verdict_of
from safekey_interp.reporting.findings.finding import Estimate
from safekey_interp.reporting.findings.intervention_findings import find

S = SMALLEST[NATS]


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        (Estimate(0.02, 0.01, 0.03), "too small"),
        (Estimate(-0.02, -0.05, 0.01), "too small"),
        (Estimate(0.05, -0.3, 0.4), "open"),
        (Estimate(0.08, 0.01, 0.15), "open"),
        (Estimate(0.4, 0.05, 0.75), "above"),
        (Estimate(-0.4, -0.75, -0.05), "below"),
        (Estimate(0.4, np.nan, np.nan), "too few"),
    ],
)
def test_a_difference_has_one_verdict_and_its_words_state_the_smallest_effect(number: Estimate, verdict: str) -> None:
    assert verdict_of(number, S) == verdict
    words = size_in_words(number, NATS)
    assert words.startswith("too small to matter") == (verdict == "too small")
    assert ("open" in words) == (verdict == "open")
    assert ("0.1 nats per token" in words) == (verdict in ("too small", "open"))
    mirrored = {"above": "below", "below": "above"}.get(verdict, verdict)
    assert verdict_of(Estimate(-number.value, -number.high, -number.low), S) == mirrored


def test_a_wider_interval_never_says_more() -> None:
    for value in np.linspace(-1, 1, 41):
        verdicts = [verdict_of(Estimate(value, value - half, value + half), S) for half in np.linspace(0.001, 2, 80)]
        assert verdicts == sorted(verdicts, key=lambda verdict: verdict == "open"), "once open, open for good"
        assert len(set(verdicts)) <= 2


def test_without_a_smallest_effect_the_interval_alone_decides() -> None:
    tiny = Estimate(0.001, 0.0005, 0.0015)
    assert verdict_of(tiny, None) == "above"
    assert size_in_words(tiny, "score") == "above 0"
    assert size_in_words(Estimate(0.0, -1.0, 1.0), "score") == "not told apart from 0"


def test_shares_are_told_in_points() -> None:
    assert "±5 points" in size_in_words(Estimate(0.01, -0.02, 0.03), SHARE)
    assert SMALLEST[SHARE] == SMALLEST[AUROC_GAIN] == 0.05


def lens_run(gap: float, noise: float, n: int = 40) -> dict[str, Any]:
    """Findings of a logit lens whose own key sentences are likelier by ``gap``, with noise between prompts."""
    rng, record = np.random.default_rng(round(1000 * gap)), find_intervention("lens")
    kind = next(iter(record.controls))
    rows = [
        {"trace_id": f"t{i}", "group": f"g{i}", "label": "harmful", "layer": 3, "metric": record.metrics[0]}
        | {"control": control, "draw": draw, "value": -1.0 + (gap + noise * rng.normal()) * (control == "none")}
        for i in range(n)
        for control, draw in (("none", -1), (kind, 0))
    ]
    table = pd.DataFrame(rows)
    summary = summarise_effects(table, ["layer", "metric"], value="value")
    manifest = {"settings": {"finder": "rules", "layers": [3], "n_others": 1}, "model": {"n_layers": 4}}
    return find(record, table, summary, {}, manifest)


@pytest.mark.parametrize(
    ("gap", "noise", "verdict"), [(0.02, 0.05, "too small"), (0.2, 2.0, "open"), (1.0, 0.3, "above")]
)
def test_planted_contrasts_are_called_what_they_are(gap: float, noise: float, verdict: str) -> None:
    found = lens_run(gap, noise)
    [chance] = [finding for finding in found["findings"] if finding["question"] == "chance"]
    assert chance["verdict"] == verdict
    said = {line["label"]: line["text"] for line in found["summary"]}
    assert list(said) == ["Read", "Effect", "Control", "Verdict"]
    assert {"too small": "too small to matter", "open": "open", "above": "above 0"}[verdict] in said["Verdict"]
    assert "n = 40" in said["Effect"]
    for part in (said["Effect"], said["Verdict"]):
        assert part in found["headline"], "no headline without its control and its size"
    assert said["Control"].rstrip(".") in found["headline"]


def test_few_prompts_give_no_verdict() -> None:
    said = {line["label"]: line["text"] for line in lens_run(1.0, 0.3, n=FEW - 1)["summary"]}
    assert "says nothing about others" in said["Verdict"]


def test_draws_that_cannot_make_p_small_are_named_with_how_many_can() -> None:
    assert "takes 19 draws" in draws_needed(18, "random_keys")
    assert "requests" not in draws_needed(18, "random_keys")
    assert "requests" in draws_needed(18, "shuffled_labels")
    assert draws_needed(19, "random_keys") == ""
