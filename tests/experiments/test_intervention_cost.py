"""Cost of an intervention whose trial takes too long: from a few of its layers, beside the trial of the whole."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import reference_forward
import tiny_models

from safekey_interp.capture.pass_cost import Cost, trial
from safekey_interp.experiments import intervention_cost as cost_module
from safekey_interp.experiments.experiment_settings import InterventionSettings
from safekey_interp.experiments.intervene_pieces import plan_work
from safekey_interp.experiments.intervention_cost import intervention_cost
from safekey_interp.generation.key_sentence_bank import GENERAL, KeySentences
from safekey_interp.interventions.intervention_options import complete_options
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.models.model import Model

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[1:3])
OPTIONS: dict[str, dict[str, Any]] = {
    "edges": {"bank": SMALL, "top": (1, 2), "n_random": 2},
    "knockout": {"bank": SMALL, "n_random": 2, "n_dose": 1, "n_donors": 1, "by": "layer"},
}


def cost_of(model: Model, kind: str, **changes: Any) -> Cost:
    intervention = find_intervention(kind)
    settings = InterventionSettings(finder="given")
    options = complete_options(intervention, model, OPTIONS[kind] | changes)
    traces = list(map(reference_forward.with_given, tiny_models.traces(6)))
    work = plan_work(intervention, model, traces, options, settings)
    return intervention_cost(intervention, model, work, settings, work.pieces)


@pytest.mark.parametrize("seconds", [0.0, cost_module.TOO_LONG])
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_trial_that_takes_too_long_is_made_of_a_few_layers(
    kind: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_models.tiny_model("llama", num_hidden_layers=5)
    assert model.n_layers > 2
    whole = cost_of(model, kind)
    monkeypatch.setattr(cost_module, "trial", partial(trial, at_most=0.0))
    monkeypatch.setattr(cost_module, "TOO_LONG", seconds)
    of_few = cost_of(model, kind)
    assert not whole.at_least
    assert not of_few.at_least
    assert of_few.passes == pytest.approx(whole.passes, rel=0.3)  # cuts share passes
    assert of_few.tokens == pytest.approx(whole.tokens, rel=0.1)


@pytest.mark.parametrize(("top", "is_known"), [(5, True), (20, False)])
def test_where_one_layer_has_too_few_heads_more_layers_are_tried(
    top: int, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five layers of four heads: two layers have five heads, and only all have twenty."""
    model = tiny_models.tiny_model("llama", num_hidden_layers=5)
    whole = cost_of(model, "edges", top=(top,))
    monkeypatch.setattr(cost_module, "trial", partial(trial, at_most=0.0))
    of_few = cost_of(model, "edges", top=(top,))
    assert of_few.at_least != is_known
    assert (of_few.tokens == pytest.approx(whole.tokens, rel=0.1)) == is_known
