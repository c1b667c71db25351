"""Streaming of a session: what it writes is what is generated, and what it reads is what is measured."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from tiny_models import shipped, tiny_model
from written_branches import tokens_of, written

import safekey_interp as ski
from safekey_interp.exploration.session_events import BranchFailed, SpansFound
from safekey_interp.generation.sampling import Sampling
from safekey_interp.interventions.metric_trajectory import measure_trajectory
from safekey_interp.measures.probes import Probe
from safekey_interp.models import organism
from safekey_interp.models.model import Model

LLAMA, *OTHERS = ("llama", "gemma2", "gpt_oss", "mistral", "qwen3")


@lru_cache
def loaded() -> Model:
    return ski.load("organism")


@lru_cache
def probe() -> Probe:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, loaded().d_model))
    labels = ["harmful", "benign"] * 20
    groups = [str(number) for number in range(40)]
    return Probe.fit(rows, labels, groups, layer=2, site="resid_post", position="understanding")


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"temperature": 1.5, "top_p": 0.9, "seed": 7}]
)
def test_what_is_written_is_what_is_generated(sampling: dict[str, Any]) -> None:
    session = ski.Session(loaded())
    prompt, prefill = organism.example().prompt, "<think>\nOkay, the user"
    for begun in ("", prefill):
        root = session.start(prompt, prefill=begun, max_new_tokens=60, **sampling)
        events = written(session, root)
        expected = ski.generate(
            loaded(), [prompt], prefill=begun or None, sampling=Sampling(max_new_tokens=60, **sampling)
        )[0]
        assert session.transcript(root).response == expected
        assert "".join(token.text for token in tokens_of(events)) == expected
        given = "".join(token.text for token in tokens_of(events) if token.is_given)
        assert given == begun


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [LLAMA, *OTHERS])
def test_other_families_write_what_is_generated(architecture: str) -> None:
    model = tiny_model(architecture)
    session = ski.Session(model)
    root = session.start("How do I open a door?", max_new_tokens=24)
    written(session, root)
    assert session.transcript(root).response == ski.generate(model, ["How do I open a door?"], max_new_tokens=24)[0]


def test_scores_are_those_of_the_monitor_and_of_the_finished_text() -> None:
    session = ski.Session(loaded(), readers={"harm": probe()})
    trace = shipped(3)[0]
    root = session.start(trace, max_new_tokens=40)
    tokens = tokens_of(written(session, root))
    watched = list(ski.watch(loaded(), trace, probe(), sampling=Sampling(max_new_tokens=40)))
    assert [token.text for token in tokens] == [one.text for one in watched]
    scores = [token.scores["harm"] for token in tokens]
    for name, column in {"value": "score", "control_mean": "control_mean", "control_sd": "control_sd"}.items():
        streamed = [getattr(score, name) for score in scores]
        np.testing.assert_allclose(streamed, [getattr(one, column) for one in watched], atol=1e-4)
    done = trace.with_(response=session.transcript(root).response, given={}, spans={})
    table: Any = measure_trajectory(loaded(), [done], probe())
    of_response = table.loc[table["position"].isin([token.position for token in tokens]), "score"]
    np.testing.assert_allclose([score.value for score in scores], of_response, atol=1e-4)


def test_log_probabilities_are_those_of_the_whole_text() -> None:
    session = ski.Session(loaded())
    root = session.start(organism.example(), prefill="<think>\nOkay, the user", max_new_tokens=40)
    tokens = tokens_of(written(session, root))
    difference = session.difference(root, root)
    np.testing.assert_allclose([token.logprob for token in tokens], difference.tokens["logprob"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["organism", LLAMA, *OTHERS])
def test_attention_read_while_writing_is_that_of_the_finished_text(architecture: str) -> None:
    model = loaded() if architecture == "organism" else tiny_model(architecture)
    session = ski.Session(model)
    prefill = "<think>\nOkay, the user is asking how to open a door. Hmm, that could be used to break into a home."
    prompt, given = (
        (organism.example().prompt, "") if architecture == "organism" else ("How do I open a door?", prefill)
    )
    root = session.start(prompt, prefill=given, max_new_tokens=40)
    events = written(session, root)
    spans = session.transcript(root).spans
    ends = spans.understanding, spans.key_sentence
    found = next(
        number
        for number, event in enumerate(events)
        if isinstance(event, SpansFound) and (event.understanding, event.key_sentence) == ends
    )
    later = [event for event in tokens_of(events[found:]) if event.masses]
    assert later
    for token in (later[0], later[-1]):
        table = session.attention(root, token.position)
        assert set(token.masses) == set(table["to_span"])
        for name, masses in token.masses.items():
            whole = table.loc[table["to_span"] == name, "mass"].to_numpy().reshape(masses.shape)
            np.testing.assert_allclose(masses, whole, atol=1e-5)
    assert spans.understanding is not None


def test_attention_at_a_token_is_what_the_measures_give() -> None:
    session = ski.Session(loaded())
    root = session.start(organism.example(), max_new_tokens=60)
    written(session, root)
    transcript = session.transcript(root)
    assert transcript.spans.key_sentence is not None
    position = transcript.spans.key_sentence.start
    done = root.trace.with_(response=transcript.response)
    measured = ski.measure_attention(loaded(), [done], queries=[f"token({position})"])
    table = session.attention(root, position)
    for column in ("mass", "mass_rest", "lift", "matched_mass", "random_mass", "entropy"):
        np.testing.assert_allclose(table[column], measured[column], atol=1e-5)
    by_token = ski.token_attention(loaded(), done, queries=[f"token({position})"])
    for layer, head in ((2, 1), (-1, 0)):
        one = session.token_attention(root, position, layer=layer, head=head)
        same = by_token[(by_token["layer"] == layer % loaded().n_layers) & (by_token["head"] == head)]
        np.testing.assert_allclose(one["weight"], same["weight"], atol=1e-6)
        assert one["token"].tolist() == same["token"].tolist()
    mean = session.token_attention(root, position)["weight"].to_numpy().sum()
    assert mean == pytest.approx(1, abs=1e-4)


def test_the_last_layer_of_the_lens_is_the_model_and_heads_are_those_of_attribution() -> None:
    session = ski.Session(loaded())
    root = session.start(organism.example(), max_new_tokens=60)
    tokens = tokens_of(written(session, root))
    token = tokens[12]
    lens: Any = session.lens(root, token.position - 1)
    last = lens[lens["layer"] == loaded().n_layers - 1]
    assert last["written_logprob"].iloc[0] == pytest.approx(token.logprob, abs=1e-4)
    assert last["token_id"].iloc[0] == token.token_id  # greedy
    key_sentence = session.transcript(root).spans.key_sentence
    assert key_sentence is not None
    done = root.trace.with_(response=session.transcript(root).response)
    ranked: Any = ski.rank_heads(loaded(), [done])
    tested = ranked[ranked["control"] == "none"].sort_values(["layer", "head"])
    writes = session.writes(root, key_sentence.start - 1).sort_values(["layer", "head"])
    np.testing.assert_allclose(writes["effect"], -tested["effect"].to_numpy(), atol=1e-4)


def test_spans_are_provisional_until_text_stands_behind_them() -> None:
    session = ski.Session(loaded())
    root = session.start(organism.example(), max_new_tokens=60)
    events = written(session, root)
    found = [event for event in events if isinstance(event, SpansFound)]
    assert [event.is_provisional for event in found] == sorted((event.is_provisional for event in found), reverse=True)
    done = root.trace.with_(response=session.transcript(root).response)
    encoding = loaded().encode(done)
    assert found[-1].understanding == encoding.spans["understanding"]
    assert found[-1].key_sentence == encoding.spans["key_sentence"]


@pytest.mark.slow
def test_a_reader_that_is_fitted_on_the_spot_keeps_its_rate_and_tells_the_classes_apart() -> None:
    session = ski.Session(
        loaded(), traces=[trace for trace in organism.read_shipped() if trace.source == "plain"][:240]
    )
    reader = session.fit_reader(layer=2, position="understanding")
    assert reader.threshold is not None
    assert reader.threshold.false_positive_rate == 0.05
    scores = {}
    for label in ("harmful", "benign"):
        trace = next(trace for trace in session.traces if trace.label == label)
        tokens = tokens_of(written(session, session.start(trace, max_new_tokens=40)))
        scores[label] = max(token.scores[reader.name].value for token in tokens)
    assert scores["harmful"] > scores["benign"]


def test_steps_write_a_token_each_and_add_up_to_the_whole() -> None:
    session = ski.Session(loaded())
    root = session.start(organism.example(), max_new_tokens=12)
    texts = []
    while session.transcript(root).status != "ended":
        events = session.step(root)
        assert not isinstance(events[-1], BranchFailed)
        assert len(tokens_of(list(events))) <= 1
        texts += [token.text for token in tokens_of(list(events))]
    assert "".join(texts) == ski.generate(loaded(), [organism.example()], max_new_tokens=12)[0]
