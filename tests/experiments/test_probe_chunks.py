"""Chunks and what becomes of them: joined, they say what one chunk of everything would have said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_models import tiny_model, traces

from safekey_interp.capture.capture_request import STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.hidden_states import States
from safekey_interp.capture.streaming import Entry, StreamSettings, measure_chunk, prepare
from safekey_interp.data.conditions import Conditions, subsets_of
from safekey_interp.data.trace import Trace
from safekey_interp.experiments.probe_chunks import (
    head_sums,
    join_tables,
    quantity_reader,
    state_files,
    store_states,
    trace_row,
    write_chunk,
)
from safekey_interp.experiments.probe_examples import join_examples
from safekey_interp.measures.attention_summary import QUANTITIES
from safekey_interp.models.model import Model

LAYERS = [0, 1, 2]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def entries(model: Model) -> list[Entry]:
    data = [*traces(3), Trace(trace_id="none", prompt="How?", response="<think>", meta={"n": 1}), *traces(6)[3:]]
    settings = StreamSettings(batch_size=2)
    prepared = list(prepare(model, data, settings))
    return measure_chunk(model, prepared, CaptureRequest(), settings, token_weights_of={"t1", "t4"})


def chunks(folder: Path, entries: list[Entry], size: int) -> list[Path]:
    parts = []
    for start in range(0, len(entries), size):
        parts.append(folder / f"{size}-{start}")
        parts[-1].mkdir()
        write_chunk(parts[-1], entries[start : start + size], LAYERS, STATE_POSITIONS, states=True)
    return parts


def test_tables_do_not_depend_on_the_chunks(tmp_path: Path, entries: list[Entry]) -> None:
    one, many = chunks(tmp_path, entries, 100), chunks(tmp_path, entries, 2)
    for name in ("traces.parquet", "attention.parquet"):
        tables = []
        for i, parts in enumerate((one, many)):
            assert join_tables(parts, name, tmp_path / f"{i}-{name}")
            tables.append(pd.read_parquet(tmp_path / f"{i}-{name}"))
        pd.testing.assert_frame_equal(*tables)
    for name in QUANTITIES:
        np.testing.assert_array_equal(quantity_reader(one)(name), quantity_reader(many)(name))
    left, right = head_sums(one), head_sums(many)
    assert left.sums.keys() == right.sums.keys() == {"all", "harmful", "benign", "aha:safe"}
    for name, sums in left.sums.items():
        np.testing.assert_allclose(sums, right.sums[name], rtol=1e-12)
        np.testing.assert_array_equal(left.counts[name], right.counts[name])
    assert not join_tables(one, "nothing.parquet", tmp_path / "nothing.parquet")
    assert not (tmp_path / "nothing.parquet").exists()


def test_a_chunk_of_traces_that_are_all_left_out(tmp_path: Path, entries: list[Entry]) -> None:
    gone = [entry for entry in entries if entry.measured is None]
    parts = [*chunks(tmp_path, gone, 50), *chunks(tmp_path, entries, 100)]
    assert {path.name for path in parts[0].iterdir()} == {"traces.parquet"}
    assert join_tables(parts, "traces.parquet", tmp_path / "traces.parquet")
    assert list(pd.read_parquet(tmp_path / "traces.parquet")["status"].value_counts().sort_index()) == [2, 6]
    assert len(state_files(parts)) == 1


def test_examples_are_tokens_with_their_spans(tmp_path: Path, entries: list[Entry]) -> None:
    from safetensors.numpy import load_file

    join_examples(chunks(tmp_path, entries, 2), tmp_path)
    rows = json.loads((tmp_path / "examples.json").read_text())
    maps = load_file(tmp_path / "examples.safetensors")
    assert [row["trace_id"] for row in rows] == ["t1", "t4"]
    for row in rows:
        start, end = row["spans"]["key_sentence"]
        assert "".join(row["tokens"][start:end]).strip() == "Hmm, that could be used to break into a home."
        assert len(row["tokens"]) == len(row["starts"]) == end
        for kind in ("map", "decision"):
            weights = maps[f"{kind}.{row['map']}"]
            assert weights.shape == (3, 4, end)
            np.testing.assert_allclose(weights.astype(np.float32).sum(-1), 1.0, atol=5e-3)


def test_a_row_of_traces_says_what_was_found(entries: list[Entry]) -> None:
    entry = entries[1]
    row = trace_row(entry)
    start, end = row["key_sentence_start"], row["key_sentence_end"]
    assert row["response"][start:end] == row["key_sentence"] == "Hmm, that could be used to break into a home."
    assert (row["status"], row["left_out"], row["n_tokens"]) == ("measured", None, entry.encoding.end)  # type: ignore[union-attr]
    gone = trace_row(entries[3])
    assert (gone["status"], gone["key_sentence"], gone["meta"]) == ("left out", None, '{"n": 1}')
    assert gone["left_out"].startswith("no key sentence: ")


def test_long_responses_are_kept_only_as_far_as_they_are_read(model: Model) -> None:
    trace = traces(1)[0]
    long = trace.with_(response=trace.response + "x" * 10_000)
    row = trace_row(next(prepare(model, [long], StreamSettings())))
    assert len(row["response"]) == row["key_sentence_end"] + 2_000


def test_states_are_stored_with_their_index(tmp_path: Path, entries: list[Entry]) -> None:
    from safetensors.numpy import load_file

    ids = [entry.trace.trace_id for entry in entries if entry.measured]
    sites = CaptureRequest().sites(3)
    states = States(state_files(chunks(tmp_path, entries, 3)), ids, sites, STATE_POSITIONS)
    store_states(states, tmp_path / "states")
    index = json.loads((tmp_path / "states" / "index.json").read_text())
    assert index["trace_ids"] == ids
    rows = [load_file(tmp_path / "states" / name)["1/decision"] for name in index["files"]]
    np.testing.assert_array_equal(np.concatenate(rows), states.matrix(1, "decision"))


def test_conditions_are_kept_in_traces_and_sums(tmp_path: Path, entries: list[Entry]) -> None:
    named = [
        replace(entry, trace=entry.trace.with_(source="odd" if i % 2 else "even")) for i, entry in enumerate(entries)
    ]
    both = Conditions(by="source", names=("even", "odd"))
    tmp_path.joinpath("part").mkdir()
    write_chunk(tmp_path / "part", named, LAYERS, STATE_POSITIONS, states=False, conditions=both)
    table = pd.read_parquet(tmp_path / "part" / "traces.parquet")
    assert list(table["condition"]) == [entry.trace.source for entry in named]
    sums = head_sums([tmp_path / "part"])
    assert set(both.words()) <= sums.sums.keys()
    np.testing.assert_allclose(sums.sums["source=even"] + sums.sums["source=odd"], sums.sums["all"], rtol=1e-12)
    assert (sums.counts["source=even"] + sums.counts["source=odd"] == sums.counts["all"]).all()
    assert trace_row(entries[0])["condition"] is None


def test_subsets() -> None:
    assert subsets_of("harmful", "safe") == ["all", "harmful", "aha:safe"]
    both = Conditions(by="source", names=("plain", "wrapped"))
    assert subsets_of("harmful", "neutral", "plain", both) == [
        *("all", "harmful", "source=plain", "source=plain, harmful"),
    ]
    assert subsets_of(None, "neutral") == subsets_of(None, None) == ["all"]
