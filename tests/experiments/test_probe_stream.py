"""A stream in constant memory: the sums of a run that holds everything; a killed one goes on behind its last chunk."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from killed_processes import results, run_in_child
from tiny_models import tiny_model, traces

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, RunError
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.models.model import Model
from safekey_interp.reporting.report_file import write_report
from safekey_interp.runs.run_folder import open_run

pytestmark = pytest.mark.slow

DATA = traces(12)
SETTINGS: dict[str, Any] = {"chunk": 4, "n_examples": 2}
STREAM: dict[str, Any] = {**SETTINGS, "stream": True, "stream_sample": 8}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stream's run that nobody killed."""
    out = tmp_path_factory.mktemp("stream") / "run"
    assert run_in_child(DATA, out, **STREAM) == 0
    return out


def by_subset(table: Any) -> pd.DataFrame:
    keys = ["subset", "from_span", "to_span", "layer", "head"]
    return table.sort_values(keys, ignore_index=True)


def shards(out: Path) -> dict[str, bytes]:
    return {name: text for name, text in results(out).items() if "/" in name}


def test_a_stream_has_the_sums_of_a_run_that_holds_everything(model: Model, tmp_path: Path) -> None:
    held: Any = run_probe(model, DATA, out=tmp_path / "held", **SETTINGS)
    streamed: Any = run_probe(model, iter(DATA), out=tmp_path / "streamed", **STREAM)
    pd.testing.assert_frame_equal(by_subset(streamed.attention_by_head), by_subset(held.attention_by_head))
    for name in ("traces", "attention"):
        files = sorted((streamed.path / name).glob("*.parquet"))
        assert [file.name for file in files] == ["000000.parquet", "000001.parquet", "000002.parquet"]
        joined = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
        theirs = held.table(name)
        assert list(joined["trace_id"]) == list(theirs["trace_id"])
        numbers = theirs.select_dtypes("number").columns
        np.testing.assert_allclose(
            joined[numbers].to_numpy(np.float64, na_value=np.nan), theirs[numbers].to_numpy(np.float64, na_value=np.nan)
        )
    assert len(streamed.traces) == 8
    assert write_report(streamed.path).is_file()
    moments: Any = pd.read_parquet(streamed.path / "stream" / "moments_by_layer.parquet")
    single = held.attention.groupby(["from_span", "to_span", "layer", "trace_id"], observed=True)["mass"].mean()
    told = moments.query("subset == 'all' and measure == 'mass'").set_index(["from_span", "to_span", "layer"])
    groups = single.dropna().groupby(level=[0, 1, 2], observed=True)
    for place, row in told.iterrows():
        assert row["n"] == groups.count()[place]
        assert row["mean"] == pytest.approx(groups.mean()[place], rel=1e-5)
        assert row["sd"] == pytest.approx(groups.std()[place], rel=1e-3, abs=1e-7)


def test_page_and_summary_say_what_is_of_all_and_what_of_the_sample(whole: Path) -> None:
    run = open_run(whole)
    line = next(line["text"] for line in run.findings["summary"] if line["label"] == "Stream")
    assert "12 traces" in line
    assert "sample of 8" in line
    assert line in run.findings["notes"]
    assert run.manifest["stream"]["n_read"] == 12
    assert line in write_report(whole).read_text(encoding="utf-8")
    (whole / "report.html").unlink()


def test_killed_anywhere_a_stream_goes_on_to_the_same_shards(whole: Path, tmp_path: Path) -> None:
    """One folder, each time killed a little later."""
    out = tmp_path / "run"
    for at in (4, 11, 17, 24, 31, 40):
        assert run_in_child(DATA, out, kill_at=at, **STREAM) == -9
    assert run_in_child(DATA, out, **STREAM) == 0
    mine, theirs = results(out), results(whole)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []


def test_chunks_that_are_there_need_no_forward_pass(whole: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("a forward pass")

    monkeypatch.setattr("safekey_interp.experiments.probe_stream.measure_chunk", never)
    before = shards(whole)
    assert run_probe(model, iter(DATA), out=whole, **STREAM).is_complete
    assert shards(whole) == before


@pytest.mark.parametrize("status", ["complete", "running"])
def test_a_shard_that_was_cut_short_is_measured_anew(whole: Path, model: Model, tmp_path: Path, status: str) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    manifest = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(manifest | {"status": status}))
    for name in ("traces/000000", "attention/000001"):
        os.truncate(out / f"{name}.parquet", 99)
    (out / "attention" / "000002.parquet").unlink()  # to save room
    assert run_probe(model, iter(DATA), out=out, **STREAM).is_complete
    mine, theirs = results(out), results(whole)
    assert theirs.keys() - mine.keys() == {"attention/000002.parquet"}
    assert [name for name in mine if mine[name] != theirs[name]] == []


def test_a_stream_whose_settings_were_cut_short_is_refused(whole: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    os.truncate(out / "stream" / "settings.json", 9)
    before = results(out)
    with pytest.raises(RunError, match=r"stream/settings\.json: cannot be read, .* --overwrite"):
        run_probe(model, iter(DATA), out=out, **STREAM)
    assert results(out) == before


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (DATA[:8], "data"),
        ([DATA[0].with_(prompt="Another?"), *DATA[1:]], "data"),
    ],
)
def test_another_stream_is_refused(whole: Path, model: Model, other: list[Trace], what: str) -> None:
    before = results(whole)
    with pytest.raises(RunError, match=f"other {what}"):
        run_probe(model, iter(other), out=whole, **STREAM)
    assert results(whole) == before


def test_a_stream_that_differs_behind_the_first_traces_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safekey_interp.experiments.probe_stream.FIRST", 4)
    out = tmp_path / "run"
    run_probe(model, iter(DATA), out=out, **STREAM)
    before = results(out)
    with pytest.raises(RunError, match="chunk 2 of the stream"):
        run_probe(model, iter([*DATA[:9], DATA[9].with_(prompt="Another?"), *DATA[10:]]), out=out, **STREAM)
    with pytest.raises(RunError, match="ended after 2 chunks, and 3"):
        run_probe(model, iter(DATA[:8]), out=out, **STREAM)
    assert results(out) == before


def test_classes_of_later_traces_count_in_all_alone(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safekey_interp.experiments.probe_stream.FIRST", 4)
    data = [*DATA[:8], *(trace.with_(label="odd") for trace in DATA[8:])]
    run: Any = run_probe(model, iter(data), out=tmp_path / "run", **STREAM)
    assert run.manifest["stream"]["n_other_label"] == 4
    assert "odd" not in set(run.attention_by_head["subset"])
    n = run.attention_by_head.groupby("subset")["n"].max()
    assert (n["all"], n["harmful"] + n["benign"]) == (12, 8)


def test_what_cannot_be_streamed_is_refused_and_leaves_nothing(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError, match="limit, stream"):
        run_probe(model, iter(DATA), out=out, limit=3, **STREAM)
    with pytest.raises(InputError, match="stands a second time"):
        run_probe(model, iter([DATA[0], *DATA[:3]]), out=out, **STREAM)
    with pytest.raises(InputError, match="leave out --stream"):
        run_probe(model, iter([trace.with_(response="") for trace in DATA]), out=out, **STREAM)
    assert not out.exists()
    run_probe(model, DATA, out=out, **SETTINGS)
    with pytest.raises(RunError, match="no stream's"):
        run_probe(model, iter(DATA), out=out, **STREAM)
    run_probe(model, iter(DATA), out=out, overwrite=True, **STREAM)
    run_probe(model, DATA, out=out, overwrite=True, **SETTINGS)
    assert not any((out / name).exists() for name in ("stream", "traces", "attention"))


@pytest.mark.parametrize("name", ["traces", "attention", "stream"])
def test_folders_of_the_user_are_never_taken_for_a_streams(model: Model, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "run" / name / "000000.parquet"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for settings in (STREAM, SETTINGS, {**STREAM, "overwrite": True}, {**SETTINGS, "overwrite": True}):
        with pytest.raises(RunError, match="not empty and no run"):
            run_probe(model, DATA, out=tmp_path / "run", **settings)
    run_probe(model, DATA, out=tmp_path / "other", **SETTINGS)
    mine = mine.rename(tmp_path / "kept")
    (tmp_path / "other" / name).mkdir()
    mine = mine.rename(tmp_path / "other" / name / "000000.parquet")
    with pytest.raises(RunError, match="which is no stream's"):
        run_probe(model, DATA, out=tmp_path / "other", overwrite=True, **STREAM)
    run_probe(model, DATA, out=tmp_path / "other", overwrite=True, **SETTINGS)
    assert mine.read_text() == "mine"


def test_standard_input_is_read_as_it_arrives(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        {"trace_id": t.trace_id, "prompt": t.prompt, "response": t.response, "label": t.label, "group": t.group}
        for t in DATA
    )

    class Lines(io.RawIOBase):
        """Lines that are made when they are asked for."""

        def __iter__(self) -> Iterator[bytes]:  # type: ignore[override]
            return (json.dumps(row).encode() + b"\n" for row in rows)

    monkeypatch.setattr("sys.stdin", type("Input", (), {"buffer": Lines()}))
    run = run_probe(model, "-", out=tmp_path / "run", **STREAM)
    assert run.manifest["stream"]["n_read"] == len(DATA)
    assert run.manifest["data"]["sources"] == ["standard input"]
