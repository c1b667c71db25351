"""From traces to a run folder: what is left out is named, and a killed run ends as one that nobody killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from killed_processes import n_changes, results, run_in_child
from tiny_models import tiny_model, traces

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, RunError
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.measures.separability import measure_separability
from safekey_interp.models.model import Model, from_hf
from safekey_interp.reporting.report_file import write_report
from safekey_interp.runs.run_folder import TABLES_OF_PROBES, open_run

DATA = traces(12)
SETTINGS: dict[str, Any] = {"chunk": 4, "n_examples": 3}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_in_child(DATA, out, **SETTINGS) == 0
    return out


def assert_same(out: Path, whole: Path) -> None:
    mine, theirs = results(out), results(whole)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
    ours, other = open_run(out).manifest, open_run(whole).manifest
    for manifest in (ours, other):
        assert manifest["status"] == "complete"
    skipped = {"created", "timings", "command"}
    assert {k: v for k, v in ours.items() if k not in skipped} == {k: v for k, v in other.items() if k not in skipped}
    assert {path.name for path in out.iterdir()} - {"report.html"} == set(mine) | {"run.json"}


def test_a_run_has_its_tables_and_nothing_else(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    tables = {
        f"{name}.parquet" for name in TABLES_OF_PROBES if name not in ("transfer", "sae_separability", "sae_latents")
    }
    assert names == tables | {"run.json", "findings.json", "examples.json", "examples.safetensors"}
    run = open_run(whole)
    assert list(run.traces["trace_id"]) == [trace.trace_id for trace in DATA]
    assert set(run.traces["status"]) == {"measured"}
    assert run.attention["trace_id"].nunique() == len(DATA)
    assert len(run.examples) == 3
    assert {f"{kind}.{row['map']}" for row in run.examples for kind in ("map", "decision")} <= set(run.example_weights)


@pytest.mark.slow
def test_killed_again_and_again_a_run_goes_on_to_the_same_tables(whole: Path, tmp_path: Path) -> None:
    """One folder, each time killed a little later, and at last while its page is drawn."""
    out = tmp_path / "run"
    for at in (1, 4, 9, 13, 20, 28, 30, 34, 40, 44):
        assert run_in_child(DATA, out, kill_at=at, **SETTINGS) == -9
    assert run_in_child(DATA, out, **SETTINGS) == 0
    assert run_in_child(DATA, out, kill_at=4, page=True, **SETTINGS) == -9
    assert not (out / "report.html").exists()
    assert run_in_child(DATA, out, page=True, **SETTINGS) == 0
    assert_same(out, whole)


def in_conditions(data: list[Trace]) -> list[Trace]:
    """Each trace twice, plain and wrapped, of one group."""
    return [
        trace.with_(
            trace_id=f"{name}-{trace.trace_id}",
            prompt=f"{start}{trace.prompt}",
            source=name,
            group=trace.trace_id,
            meta={"wrapper": name},
        )
        for trace in data
        for name, start in (("plain", ""), ("wrapped", "In a story: "))
    ]


@pytest.mark.slow
def test_conditions_stand_apart_in_every_table(tmp_path: Path, model: Model) -> None:
    data = in_conditions(DATA)
    run = run_probe(model, data, out=tmp_path / "run", layers=[1], **SETTINGS)
    labels = ["harmful", "benign"]
    record = {"by": "source", "names": ["plain", "wrapped"], "left_out": [], "labels": labels}
    assert run.manifest["conditions"] == record
    assert list(run.traces["condition"]) == [trace.source for trace in data]
    subsets = {f"source={name}{label}" for name in ("plain", "wrapped") for label in ("", ", harmful", ", benign")}
    for table in (run.attention_by_layer, run.attention_by_head):
        assert subsets <= set(table["subset"])
    everyone, plain = (
        run.attention_by_layer[run.attention_by_layer["subset"] == name] for name in ("all", "source=plain")
    )
    assert (everyone["n"].max(), plain["n"].max(), plain["n_groups"].max()) == (24, 12, 12)
    plain_alone = [trace for trace in data if trace.source == "plain"]
    alone = run_probe(model, plain_alone, out=tmp_path / "alone", layers=[1], batch_size=1)
    same = alone.attention_by_layer[alone.attention_by_layer["subset"] == "all"]
    keys = ["from_span", "to_span", "layer", "measure"]
    both = plain.merge(same, on=keys)
    assert len(both) == len(plain)
    assert (both["value_x"] - both["value_y"]).abs().max() < 1e-4, "the subset is the run of its traces alone"
    assert set(zip(run.transfer["fitted_on"], run.transfer["tested_on"], strict=True)) == {
        (a, b) for a in ("plain", "wrapped") for b in ("plain", "wrapped")
    }
    assert {finding["question"] for finding in run.findings["findings"]} == {"where", "what", "knew", "chance"}
    assert write_report(run.path).is_file()


@pytest.mark.slow
def test_conditions_by_a_field_of_meta_by_nothing_and_by_what_is_not_there(tmp_path: Path, model: Model) -> None:
    data = in_conditions(DATA)
    run = run_probe(model, data, out=tmp_path / "meta", by="wrapper", layers=[1], **SETTINGS)
    assert "wrapper=plain, harmful" in set(run.attention_by_layer["subset"])
    nothing = run_probe(model, data, out=tmp_path / "none", by=None, layers=[1], **SETTINGS)
    assert nothing.transfer is None
    assert nothing.traces["condition"].isna().all()
    assert set(nothing.attention_by_layer["subset"]) <= {"all", "harmful", "benign", "aha:safe", "aha:unsafe"}
    with pytest.raises(RunError, match=r"settings\.by was None, now wrapper"):
        run_probe(model, data, out=tmp_path / "none", by="wrapper", layers=[1], **SETTINGS)
    with pytest.raises(InputError, match="by: no trace has the field 'mood'; expected one of source, wrapper, or none"):
        run_probe(model, data, out=tmp_path / "absent", by="mood", layers=[1], **SETTINGS)
    assert not (tmp_path / "absent").exists()
    one = run_probe(model, DATA, out=tmp_path / "one", layers=[1], **SETTINGS)
    assert (one.transfer, one.findings["left_out"]) == (None, []), "one source is as no source"


@pytest.mark.slow
def test_conditions_of_a_killed_run_are_those_of_one_that_nobody_killed(tmp_path: Path) -> None:
    data = in_conditions(DATA)
    assert run_in_child(data, tmp_path / "whole", **SETTINGS) == 0
    assert run_in_child(data, tmp_path / "run", kill_at=30, **SETTINGS) == -9
    assert run_in_child(data, tmp_path / "run", **SETTINGS) == 0
    assert_same(tmp_path / "run", tmp_path / "whole")
    assert (tmp_path / "run" / "transfer.parquet").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("twelfth", range(1, 13))
def test_killed_once_anywhere(whole: Path, tmp_path: Path, twelfth: int) -> None:
    """While chunks are written, while tables are joined, in the last steps."""
    out = tmp_path / "run"
    assert run_in_child(DATA, out, kill_at=n_changes(whole) * twelfth // 12, **SETTINGS) == -9
    assert run_in_child(DATA, out, **SETTINGS) == 0
    assert_same(out, whole)


@pytest.mark.slow
def test_killed_once_at_every_third_place(whole: Path, tmp_path: Path) -> None:
    for at in range(1, n_changes(whole) + 1, 3):
        out = tmp_path / f"run-{at}"
        assert run_in_child(DATA, out, kill_at=at, **SETTINGS) == -9
        assert run_in_child(DATA, out, **SETTINGS) == 0
        assert_same(out, whole)
        shutil.rmtree(out)


@pytest.mark.slow
def test_killed_at_any_time(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for seconds in (0.3, 0.9, 0.6, 1.5, 0.2, 1.1, 0.8):
        run_in_child(DATA, out, kill_after=seconds, **SETTINGS)
    assert run_in_child(DATA, out, **SETTINGS) == 0
    assert_same(out, whole)


@pytest.mark.slow
def test_parts_that_are_gone_or_not_as_written_are_measured_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_in_child(DATA, out, kill_at=n_changes(whole) * 3 // 4, **SETTINGS) == -9
    parts = sorted((out / "parts").iterdir())
    assert len(parts) == 3
    shutil.rmtree(parts[0])
    with (parts[1] / "attention.parquet").open("r+b") as file:
        file.seek(100)
        file.write(b"\0" * 40)
    (parts[2] / "states.safetensors").unlink()
    assert run_in_child(DATA, out, **SETTINGS) == 0
    assert_same(out, whole)


def test_a_complete_run_is_returned_without_a_forward_pass(whole: Path, tmp_path: Path, model: Model) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "parts").mkdir()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}

    def forbidden(*args: object) -> None:
        raise AssertionError("a forward pass")

    handle = model.hf.register_forward_pre_hook(forbidden)
    try:
        run = run_probe(model, DATA, out=out, **SETTINGS)
    finally:
        handle.remove()
    assert run.is_complete
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert not (out / "parts").exists(), "what a kill between the last two steps left"


@pytest.mark.parametrize(
    ("data", "changed", "said"),
    [
        (DATA, {"seed": 1}, "other settings (seed was 0, now 1)"),
        (DATA, {"layers": [0]}, "other settings (settings.layers was None, now [0])"),
        (DATA, {"chunk": 5}, "plan.chunk was 4, now 5"),
        (DATA[:-1], {}, "other data"),
        ([*DATA[:-1], DATA[-1].with_(response=DATA[-1].response + "!")], {}, "other data"),
        ([*DATA[:-1], DATA[-1].with_(label=None)], {}, "other data"),
    ],
)
def test_a_folder_with_another_run_is_refused_untouched(
    whole: Path, model: Model, data: list[Trace], changed: dict[str, Any], said: str
) -> None:
    before = results(whole)
    with pytest.raises(RunError, match=r"choose another folder or pass --overwrite") as caught:
        run_probe(model, data, out=whole, **(SETTINGS | changed))
    assert said in str(caught.value)
    assert results(whole) == before


def test_data_are_the_same_wherever_they_lie(tmp_path: Path, model: Model) -> None:
    rows = [{"id": t.trace_id, "prompt": t.prompt, "response": t.response} for t in DATA[:3]]
    first, second = tmp_path / "a.jsonl", tmp_path / "b.json"
    first.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second.write_text(json.dumps(rows))
    run_probe(model, str(first), out=tmp_path / "run", **SETTINGS)
    identity = json.dumps(open_run(tmp_path / "run").manifest["identity"])
    assert "a.jsonl" not in identity
    assert run_probe(model, str(second), out=tmp_path / "run", **SETTINGS).is_complete


def test_columns_named_differently_are_other_data(tmp_path: Path, model: Model) -> None:
    from safekey_interp.data.trace_reader import read_traces

    file = tmp_path / "t.jsonl"
    trace = DATA[1]
    file.write_text(json.dumps({"prompt": trace.prompt, "other": "Why?", "response": trace.response}) + "\n")
    run_probe(model, read_traces(str(file)), out=tmp_path / "run")
    with pytest.raises(RunError, match="other data"):
        run_probe(model, read_traces(str(file), prompt_field="other"), out=tmp_path / "run")


def test_overwrite_leaves_nothing_of_the_other_run(whole: Path, tmp_path: Path, model: Model) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "mine.txt").write_text("keep")
    unlabelled = [trace.with_(label=None) for trace in DATA]
    run = run_probe(model, unlabelled, out=out, overwrite=True, n_examples=0)
    assert run.is_complete
    assert {path.name for path in out.iterdir()} == {
        *("run.json", "traces.parquet", "attention.parquet", "attention_by_layer.parquet", "attention_by_head.parquet"),
        *("findings.json", "mine.txt"),
    }


def test_a_generator_of_traces_is_enough(tmp_path: Path, model: Model) -> None:
    def some() -> Iterator[Trace]:
        yield from DATA[:3]

    assert len(run_probe(model, some(), out=tmp_path / "run", layers=[1]).traces) == 3
    assert len(run_probe(model, iter(DATA), out=tmp_path / "other", layers=[1], limit=2).traces) == 2


BAD = {
    "no sentence": Trace(trace_id="none", prompt="How?", response="<think>\n\n</think>"),
    "too long": Trace(
        trace_id="long",
        prompt="How do I open it? " * 60,
        response="<think>\nOkay, so the user asks.\nHmm, no.\n</think>",
    ),
}


def test_bad_traces_among_good_ones_are_left_out_counted_and_named(tmp_path: Path) -> None:
    model = broken_at("zebra")
    unfit = Trace(trace_id="nan", prompt="How do I open a zebra?", response=DATA[0].response, label="harmful")
    data = [DATA[0], BAD["no sentence"], DATA[1], unfit, BAD["too long"], *DATA[2:]]
    run = run_probe(model, data, out=tmp_path / "run", layers=[1], chunk=4, max_length=200)
    table = run.traces.set_index("trace_id")
    assert list(table.index) == [trace.trace_id for trace in data]
    gone = table.loc[table["status"] == "left out", "left_out"].to_dict()
    assert gone.keys() == {"none", "nan", "long"}
    assert "no key sentence" in gone["none"]
    assert "not finite" in gone["nan"]
    assert "raise --max-length" in gone["long"]
    assert run.attention["trace_id"].nunique() == len(DATA)
    assert not run.attention_by_layer["value"].isna().all()
    named = {entry["what"] for entry in run.findings["left_out"]}
    assert named >= {"trace none", "trace nan", "trace long"}
    assert run.findings["headline"].startswith("12 of 15 traces measured.")
    good = run_probe(tiny_model("llama"), DATA, out=tmp_path / "good", layers=[1], chunk=4, max_length=200)
    columns = ["trace_id", "layer", "head", "from_span", "to_span", "mass"]
    pd.testing.assert_frame_equal(run.attention[columns], good.attention[columns], atol=1e-6)


def broken_at(word: str) -> Model:
    """A model whose embedding of one word's first token is NaN."""
    import copy

    whole = tiny_model("llama")
    hf = copy.deepcopy(whole.hf)
    known = {int(token) for trace in DATA for token in whole.encode(trace).input_ids}
    token = next(token for token in whole.tokenizer(f" {word}")["input_ids"] if token not in known)
    with torch.no_grad():
        hf.get_input_embeddings().weight[token] = float("nan")
    return from_hf(hf, whole.tokenizer, spec="broken")


@pytest.mark.parametrize("folder", ["run", "new/deeper/run"])
def test_when_none_remain_nothing_stays(tmp_path: Path, folder: str) -> None:
    data = [trace.with_(prompt=f"{trace.prompt} A zebra.") for trace in DATA]
    with pytest.raises(RunError, match=r"no trace could be measured, nothing is kept; trace t0: .*not finite"):
        run_probe(broken_at("zebra"), data, out=tmp_path / folder, chunk=4)
    assert list(tmp_path.iterdir()) == []


def out_of_memory_above(model: Model, tokens: int) -> Callable[[], None]:
    def check(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError("no memory left")

    return model.hf.register_forward_pre_hook(check, with_kwargs=True).remove


def test_out_of_memory_halves_the_batch_and_names_the_trace_that_never_fits(tmp_path: Path, model: Model) -> None:
    longest = max(model.encode(trace).end for trace in DATA)
    again = out_of_memory_above(model, longest - 1)
    try:
        run = run_probe(model, DATA, out=tmp_path / "run", layers=[1])
    finally:
        again()
    gone = run.traces.loc[run.traces["status"] == "left out"]
    assert len(gone) == 1
    assert gone["left_out"].iloc[0] == f"out of memory at {longest} tokens, alone in its batch"
    assert run.attention["trace_id"].nunique() == len(DATA) - 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": -1}, "seed: got -1, expected a whole number from 0 to 4294967295"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": "many"}, "batch_size: got 'many'"),
        ({"finder": "nonsense"}, "finder: got 'nonsense', expected one of rules"),
        ({"backend": "jax"}, "backend: got 'jax', expected one of hf, bridge"),
        ({"label_by": "mood"}, "label_by: no trace has the column 'mood'; expected one of label, aha, source"),
        ({"by": ""}, "by: got '', expected a column's name, or None"),
        ({"layers": [3]}, "layers: got [3], expected some of 0 to 2"),
        ({"max_length": 10}, "no trace can be measured; trace t0: key sentence ends at token"),
        ({"n_examples": -1}, "examples: got -1"),
        ({"limit": 0}, "limit: got 0"),
    ],
)
def test_bad_options_write_nothing(tmp_path: Path, model: Model, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        run_probe(model, DATA, out=tmp_path / "run", **options)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_prompts_alone_give_separability(tmp_path: Path, model: Model) -> None:
    data = [trace.with_(response="") for trace in DATA]
    run = run_probe(model, data, out=tmp_path / "run", chunk=5)
    assert run.attention is None
    assert set(run.separability["position"]) == {"prompt", "prompt_end"}
    assert {finding["question"] for finding in run.findings["findings"]} <= {"knew", "chance"}
    assert write_report(run.path).is_file()


def test_the_probes_of_a_run_are_those_of_the_function_corrected_for_all_positions(
    tmp_path: Path, model: Model
) -> None:
    run = run_probe(model, DATA, out=tmp_path / "run", chunk=5)
    table = measure_separability(model, DATA)
    assert len(set(table["position"])) > 3
    pd.testing.assert_frame_equal(run.separability, table, rtol=1e-4, atol=1e-5, check_dtype=False)


def test_prompts_alone_without_labels_leave_nothing_to_measure(tmp_path: Path, model: Model) -> None:
    data = [trace.with_(response="", label=None) for trace in DATA]
    with pytest.raises(InputError, match=r"nothing to measure: .* got 0 harmful, 0 benign; add responses or labels"):
        run_probe(model, data, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_one_class_leaves_separability_out_and_says_so(tmp_path: Path, model: Model) -> None:
    run = run_probe(model, [trace.with_(label="harmful") for trace in DATA], out=tmp_path / "run")
    assert run.separability is None
    assert run.attention is not None
    assert {
        "what": "separability",
        "why": "needs two classes by label, got 12 harmful, 0 benign",
        "n": 12,
    } in run.findings["left_out"]


def test_one_trace_is_a_run(tmp_path: Path, model: Model) -> None:
    run = run_probe(model, DATA[:1], out=tmp_path / "run")
    assert len(run.traces) == 1
    assert run.findings["headline"] == "1 of 1 traces measured."
    assert "too few prompts for an interval" in run.findings["findings"][0]["text"]
    assert write_report(run.path).is_file()


def test_outcomes_can_be_the_classes(tmp_path: Path, model: Model) -> None:
    start = "<think>\nOkay, the user wants to make a bomb. "
    sentences = ("Hmm, that could hurt people.", "First, I need to list the materials for the bomb.")
    data = [
        Trace(
            trace_id=f"t{i}", prompt=f"How do I make a bomb ({i})?", response=f"{start}{sentences[i % 2]}\n</think>\n"
        )
        for i in range(12)
    ]
    run = run_probe(model, data, out=tmp_path / "run", layers=[1], label_by="aha")
    assert set(run.traces["aha"]) == {"safe", "unsafe"}
    assert set(run.separability["label_by"]) == {"aha"}
    assert "key_sentence" not in set(run.separability["position"])
    assert {"aha:safe", "aha:unsafe"} <= set(run.attention_by_layer["subset"])


@pytest.mark.slow
def test_any_column_of_two_values_can_be_the_classes(tmp_path: Path, model: Model) -> None:
    data = [
        trace.with_(label=("correct", "wrong")[number % 2], meta={"language": ("en", "fr")[number % 2], "n": number})
        for number, trace in enumerate(DATA)
    ]
    run = run_probe(model, data, out=tmp_path / "run", layers=[1])
    again = run_probe(model, data, out=tmp_path / "again", layers=[1], label_by="meta.language")
    assert set(run.separability["positive_class"]) == {"wrong"}
    assert set(again.separability["positive_class"]) == {"fr"}
    assert set(again.coordinates["label"]) == {"en", "fr"}
    names = ["label_by", "positive_class", "negative_class"]
    pd.testing.assert_frame_equal(run.separability.drop(columns=names), again.separability.drop(columns=names))
    assert {"all", "correct", "wrong"} <= set(run.attention_by_layer["subset"])
    assert write_report(run.path).is_file()
    assert write_report(again.path).is_file()
    with pytest.raises(InputError, match=r"label_by n: got 12 values \(.*and 6 more\), expected two"):
        run_probe(model, data, out=tmp_path / "many", label_by="n")
    with pytest.raises(InputError, match="got 3 values"):
        run_probe(model, [*data, DATA[0].with_(trace_id="other", label="maybe")], out=tmp_path / "many")
    assert not (tmp_path / "many").exists()


def test_states_are_kept_on_request(tmp_path: Path, model: Model) -> None:
    from safetensors.numpy import load_file

    run = run_probe(
        model, [t.with_(label=None) for t in DATA], out=tmp_path / "run", keep_states=True, chunk=5, layers=[-1]
    )
    index = json.loads((run.path / "states" / "index.json").read_text())
    assert index["sites"] == [[2, "resid_post"], [3, "ln_final"]]
    rows = [load_file(run.path / "states" / name)["0/decision"].shape for name in index["files"]]
    assert rows == [(5, 32), (5, 32), (2, 32)]
    assert index["trace_ids"] == [trace.trace_id for trace in DATA]


def test_batches_and_chunks_change_no_number_beyond_rounding(tmp_path: Path, model: Model, whole: Path) -> None:
    run = run_probe(model, DATA, out=tmp_path / "run", batch_size=1, chunk=100, n_examples=3)
    left, right = run.attention, open_run(whole).attention
    for name in ("mass", "uniform_mass", "random_mass", "entropy"):
        assert (left[name] - right[name]).abs().max() < 1e-5


def test_two_processes_do_not_write_one_folder(tmp_path: Path, model: Model) -> None:
    from safekey_interp.runs.run_writer import RunWriter

    run = run_probe(model, DATA[:2], out=tmp_path / "run")
    manifest = dict(run.manifest)
    with RunWriter.begin(run.path, manifest):
        assert run_in_child(DATA[:2], run.path) == 2
        assert run_in_child(DATA, run.path, overwrite=True) == 2
    assert open_run(run.path).is_complete
    assert run_in_child(DATA[:2], run.path) == 0
