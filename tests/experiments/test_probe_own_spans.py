"""A probe of a user's own spans: what is named is measured, and no more; without names it is the built-in question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_models import tiny_model, traces

from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS, STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.measured_spans import BUILT_IN, measured_spans, spans_in
from safekey_interp.capture.streaming import StreamSettings, prepare
from safekey_interp.capture.words_read import read_words
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, RunError
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.separability import measure_separability
from safekey_interp.models.model import Model
from safekey_interp.runs.run_folder import open_run

OPTIONS: dict[str, Any] = {"chunk": 8, "n_examples": 2}
ASKED: dict[str, Any] = {"queries": ["warning", "last(opening)"], "keys": ["prompt", "opening"]}


def own_traces(n: int = 24) -> list[Trace]:
    """Half of them without a key sentence, every fifth without a warning."""
    made = []
    for number, whole in enumerate(traces(n)):
        trace = whole.with_(response="<think>\nOkay, the user is asking how to open a door.") if number % 2 else whole
        end = len(trace.response)
        start = trace.response.rindex(" ") + 1
        own = {"opening": [(trace.response.index(" ") + 1, trace.response.index(" ") + 4)]}
        made.append(trace.with_(spans=own | ({"warning": [(start, end)]} if number % 5 else {})))
    return made


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    out = tmp_path_factory.mktemp("own") / "run"
    run_probe(model, own_traces(), out=out, positions=["last(warning)", "opening", "prompt"], **ASKED, **OPTIONS)
    return out


def test_the_token_before_k_has_both_references_however_it_is_measured(tmp_path: Path, model: Model) -> None:
    some = own_traces(6)
    asked: dict[str, Any] = {"queries": ["decision", "before(key_sentence)"], "keys": ["prompt", "understanding"]}
    run = run_probe(model, some, out=tmp_path / "run", n_examples=0, **asked)
    alone = measure_attention(model, some, **asked)
    by = ["trace_id", "layer", "head", "from_span", "to_span"]
    assert alone["matched_mass_other"].notna().any()
    for column in ("mass", "matched_mass", "matched_mass_other"):
        one, other = (
            table.astype({name: str for name in by}).set_index(by)[column] for table in (run.attention, alone)
        )
        np.testing.assert_allclose(one.sort_index(), other.sort_index(), atol=2e-6, equal_nan=True)


def test_tables_have_the_spans_as_they_were_named(own: Path) -> None:
    run = open_run(own)
    for table in (run.attention, run.attention_by_layer, run.attention_by_head):
        assert set(table["from_span"]) == set(ASKED["queries"])
        assert set(table["to_span"]) == set(ASKED["keys"])
    for table in (run.separability, run.coordinates):
        assert set(table["position"]) == {"last(warning)", "opening", "prompt"}
    assert not [name for name in run.attention_by_layer["subset"].unique() if "aha" in name]
    assert spans_in(run.manifest) == measured_spans(*ASKED.values(), ["last(warning)", "opening", "prompt"])


def test_traces_without_a_key_sentence_are_measured_as_alone(own: Path, model: Model) -> None:
    run, data = open_run(own), own_traces()
    assert set(run.traces["status"]) == {"measured"}
    assert run.traces["key_sentence"].isna().any()
    alone = measure_attention(model, data, **ASKED, batch_size=1)
    order = ["trace_id", "layer", "head", "from_span", "to_span"]
    mine, theirs = (table.astype({name: str for name in order}).sort_values(order) for table in (run.attention, alone))
    pd.testing.assert_frame_equal(
        mine.reset_index(drop=True), theirs.reset_index(drop=True), check_exact=False, atol=1e-5, check_dtype=False
    )


def test_summaries_are_means_of_the_table(own: Path) -> None:
    run = open_run(own)
    every = run.attention.groupby(["from_span", "to_span", "layer", "head"], observed=True)["mass"].mean()
    by_head = run.attention_by_head.loc[run.attention_by_head["subset"] == "all"]
    summed = by_head.set_index(["from_span", "to_span", "layer", "head"])["mass"]
    np.testing.assert_allclose(summed[every.index], every, atol=1e-5)
    by_layer = run.attention_by_layer
    n = by_layer.loc[by_layer["subset"] == "all"].groupby("from_span")["n"].max()
    assert n["warning"] == sum("warning" in trace.spans for trace in own_traces())
    assert n["last(opening)"] == len(own_traces())


def test_examples_follow_the_queries(own: Path) -> None:
    run = open_run(own)
    by_id = {trace.trace_id: trace for trace in own_traces()}
    assert len(run.examples) == 2
    for row in run.examples:
        [[start, end]] = row["pieces"]["opening"]
        words = "".join(row["tokens"][start:end]).strip()
        trace = by_id[row["trace_id"]]
        assert words.startswith(trace.spans["opening"][0].text(trace.response)[0])
        for query in ASKED["queries"]:
            weights = run.example_weights[f"{query}.{row['map']}"]
            assert weights.shape[-1] == len(row["tokens"])
        total = np.nansum(np.asarray(run.example_weights[f"last(opening).{row['map']}"], np.float32), axis=-1)
        np.testing.assert_allclose(total, 1, atol=5e-3)


def test_words_alone_are_those_of_the_span(model: Model) -> None:
    trace = own_traces(2)[1]
    reads = ("warning", "last(warning)", "opening + warning", "sentence(90)", "token(-1)")
    [entry] = prepare(model, [trace], StreamSettings(), CaptureRequest(attention=False, positions=reads))
    assert entry.encoding is not None
    said = {name: read_words(entry.encoding, name) for name in reads}
    assert str(said["warning"]).strip() == "door."
    assert str(said["last(warning)"]).endswith(trace.response)
    assert trace.prompt in str(said["last(warning)"])
    assert len(str(said["opening + warning"]).splitlines()) == 2
    assert said["sentence(90)"] is None
    assert said["token(-1)"] == said["last(warning)"]


def test_separability_of_a_run_is_that_of_its_function(own: Path, model: Model) -> None:
    table, alone = open_run(own).separability, measure_separability(model, own_traces(), positions=["last(warning)"])
    words = [
        rows.loc[(rows["method"] == "text_tfidf") & (rows["position"] == "last(warning)")] for rows in (table, alone)
    ]
    assert [len(rows) for rows in words] == [1, 1]
    assert words[0]["auroc"].iloc[0] == words[1]["auroc"].iloc[0]
    assert set(alone["position"]) == {"last(warning)"}


def test_names_of_the_built_in_question_are_the_built_in_question(tmp_path: Path, model: Model) -> None:
    data = traces(12)
    plain = run_probe(model, data, out=tmp_path / "plain", **OPTIONS)
    named = {"queries": QUERY_SPANS, "keys": KEY_SPANS, "positions": STATE_POSITIONS}
    again = run_probe(model, data, out=tmp_path / "plain", **named, **OPTIONS)
    assert again.manifest["created"] == plain.manifest["created"]
    assert not {"queries", "keys", "positions"} & set(plain.manifest["settings"])


def test_other_spans_are_another_run(own: Path, model: Model) -> None:
    with pytest.raises(RunError, match="keys was"):
        run_probe(
            model, own_traces(), out=own, queries=ASKED["queries"], keys=["prompt"], positions=["prompt"], **OPTIONS
        )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"queries": ["warnign"]}, "span 'warnign': no trace has one; did you mean 'warning'?"),
        ({"queries": ["warning"], "keys": ["promt"]}, "did you mean 'prompt'?"),
        ({"queries": ["last("]}, "queries: span expression 'last(': got the end at character 5"),
        ({"keys": ["prompt"]}, "keys: got prompt without queries"),
        ({"queries": "warning"}, "queries: got 'warning', expected a list of texts"),
        ({"queries": []}, "queries: got none"),
        ({"positions": []}, "positions: got none"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_leaves_nothing(
    tmp_path: Path, model: Model, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        run_probe(model, own_traces(6), out=tmp_path / "run", **asked, **OPTIONS)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_positions_alone_read_no_attention_and_queries_alone_are_probed(tmp_path: Path, model: Model) -> None:
    states = run_probe(model, own_traces(), out=tmp_path / "states", positions=["last(prompt)"], **OPTIONS)
    assert states.attention is None
    assert set(states.separability["position"]) == {"last(prompt)"}
    both = run_probe(model, own_traces(), out=tmp_path / "both", queries=["opening"], **OPTIONS)
    assert set(both.attention["to_span"]) == {"prompt", "template", "first_token"}
    assert set(both.separability["position"]) == {"opening"}


def test_a_trace_without_any_of_the_spans_is_left_out_in_their_names(tmp_path: Path, model: Model) -> None:
    run = run_probe(model, own_traces(), out=tmp_path / "run", queries=["warning"], **OPTIONS)
    gone = run.traces.loc[run.traces["status"] == "left out", "left_out"]
    assert len(gone) == sum("warning" not in trace.spans for trace in own_traces())
    assert set(gone) == {"no token in warning"}


def test_nothing_named_is_the_built_in_question() -> None:
    assert measured_spans(None, None, None) == BUILT_IN
    assert BUILT_IN.record() == {}
    assert spans_in({}) == BUILT_IN
