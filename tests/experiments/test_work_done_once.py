"""A run reads its source once, and segments, encodes and passes each trace through the model once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from counted_work import counted
from tiny_models import shipped, tiny_model, traces

from safekey_interp.capture.batches import plan_batches
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.streaming import forward_cost, token_budget
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.generation.key_sentence_bank import bank_for
from safekey_interp.models.model import Model, load
from safekey_interp.training.probe_snapshots import Snapshots

pytestmark = pytest.mark.slow


def file_of(path: Path, data: list[Trace]) -> Path:
    rows = [{"id": t.trace_id, "prompt": t.prompt, "response": t.response, "label": t.label} for t in data]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def n_batches(model: Model, data: list[Trace]) -> int:
    lengths = [model.encode(trace).end for trace in data]
    return len(plan_batches(lengths, max_tokens=token_budget(model), cost=forward_cost(model)))


@pytest.mark.parametrize("first", [None, 9])
@pytest.mark.parametrize("is_checked", [False, True])
def test_a_probe_does_everything_once(tmp_path: Path, *, is_checked: bool, first: int | None) -> None:
    model = tiny_model("llama")
    check_attention(model)
    # Neither fits: of the first, that is found out before anything is measured.
    long = [trace.with_(trace_id=f"long {i}", prompt="How? " * 300) for i, trace in enumerate(traces(2))]
    data = [long[0], *traces(12), long[1], Trace(trace_id="none", prompt="How?", response="<think>\n\n</think>")]
    file = file_of(tmp_path / "traces.jsonl", data)
    with counted(model) as work:
        source = read_traces(file, first=first)
        run = run_probe(model, source.check() if is_checked else source, out=tmp_path / "run", chunk=4, max_length=200)
    read = data[:first]
    assert list(run.traces["trace_id"]) == [trace.trace_id for trace in read]
    assert work.readings == {str(file): 1}
    assert work.segmentations == {trace.trace_id: 1 for trace in read}
    assert work.encodings == {(t.trace_id, t.response): 1 for t in read if t.trace_id != "none"}
    fit = set(run.traces.loc[run.traces["status"] == "measured", "trace_id"])
    chunks = [[t for t in read[at : at + 4] if t.trace_id in fit] for at in range(0, len(read), 4)]
    assert len(work.passes) == sum(n_batches(model, chunk) for chunk in chunks)
    assert sum(n_rows for n_rows, _ in work.passes) == len(fit)


def test_what_a_file_cannot_keep_as_json_is_read_again_and_is_the_same(tmp_path: Path) -> None:
    from datetime import date

    import pandas as pd

    file = tmp_path / "traces.parquet"
    rows = [{"id": t.trace_id, "prompt": t.prompt, "response": t.response, "day": date(2026, 1, 1)} for t in traces(3)]
    pd.DataFrame(rows).to_parquet(file)
    source = read_traces(file)
    before = list(source)
    assert list(source.check()) == before
    assert before[0].meta["day"] == date(2026, 1, 1)


def test_snapshots_prepare_their_traces_once_and_read_attention_and_states_in_one_pass(tmp_path: Path) -> None:
    model, data = load("organism:base"), shipped(24)
    bank = bank_for(model.tokenizer)
    with counted(model) as preparation:
        snapshots = Snapshots(model, data)
    own = {(trace.trace_id, trace.response) for trace in data}
    assert preparation.segmentations == {trace.trace_id: 1 for trace in data}
    assert {key for key in preparation.encodings if key in own} == own
    # Each sentence in place of a trace's own is a sequence of its own; where it is the trace's own, it is that one.
    assert preparation.encodings.total() <= len(data) * (1 + len(bank.sentences))
    assert preparation.passes == []
    snapshots.take(tmp_path, 0)
    with counted(model) as work:
        snapshots.take(tmp_path, 1)
    assert (work.segmentations, work.encodings) == ({}, {})
    n = n_batches(model, data)
    assert sum(n_rows for n_rows, _ in work.passes[:n]) == len(data), "one pass a batch for attention and states"
    of_bank = work.passes[n:]
    prefixes, continuations = of_bank[::2], of_bank[1::2]
    assert sum(n_rows for n_rows, _ in prefixes) == len(data)
    assert sum(n_rows for n_rows, _ in continuations) == len(data), "a trace's sentences share a sequence"
