"""From traces to the run folder of an intervention: the function's numbers, whatever the pieces and the kills."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
from killed_processes import n_changes, results, run_in_child
from probe_processes import run_in_team
from slow_turns import mostly_slow

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, NothingMeasured, RunError
from safekey_interp.experiments.intervene_run import run_intervention
from safekey_interp.generation.key_sentence_bank import GENERAL, KeySentences
from safekey_interp.interventions.activation_patching import patch
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.cross_fitting import fit_folds, steer_held_out
from safekey_interp.interventions.edge_knockout import cut_edges
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.interventions.logit_lens_scores import logit_lens
from safekey_interp.interventions.metric_trajectory import measure_trajectory
from safekey_interp.interventions.path_patching import patch_paths
from safekey_interp.interventions.sentence_suppression import suppress
from safekey_interp.interventions.steering import steer
from safekey_interp.measures.direction_record import Direction
from safekey_interp.models.model import Model
from safekey_interp.progress import Progress
from safekey_interp.reporting.report_file import write_report
from safekey_interp.reporting.trace_effects import trace_effects
from safekey_interp.runs.run_folder import Run, open_run

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[1:3])
QUICK: dict[str, dict[str, Any]] = {
    "knockout": {"bank": SMALL, "n_random": 2, "n_dose": 1, "n_donors": 1, "by": "layer"},
    "edges": {"bank": SMALL, "top": (1, 2), "n_random": 2},
    "patch": {"bank": SMALL, "positions": ("prompt_end", "decision"), "layers": [1, 2]},
    "paths": {"bank": SMALL, "senders": ("0.mlp", "1.head.0"), "receivers": ("logits", "2.head.1.v")},
    "direction": {"bank": SMALL, "n_random": 2, "fit_layers": [1], "n_folds": 2},
    "suppress": {"n_random": 2, "most": 3},
    "lens": {"bank": SMALL, "n_others": 2},
    "trajectory": {"n_random": 3, "n_folds": 2},
}
KNOCKOUT: dict[str, Any] = {"kind": "knockout", "finder": "given", "chunk": 2, "aha": False, "n_random": 2, "n_dose": 1}


@lru_cache
def data(n: int = 10) -> list[Trace]:
    """Two traces a request, one refused and one complied with; requests are harmful and benign by turns."""
    traces = []
    for number, trace in enumerate(map(reference_forward.with_given, tiny_models.traces(n))):
        request = number // 2
        k = trace.response.replace("Hmm, that could", "Hmm, this could" if request % 2 else "Hmm, that could")
        about = {"label": "harmful" if request % 2 else "benign", "group": f"request {request}"}
        traces.append(trace.with_(response=k, meta={"outcome": ("refused", "complied")[number % 2]}, **about))
    return traces


@lru_cache
def model() -> Model:
    return tiny_models.tiny_model("llama")


def run_of(kind: Any, out: Path, traces: list[Trace] | None = None, **changes: Any) -> Run:
    options: dict[str, Any] = {"finder": "given", "chunk": 3} | QUICK[kind] | changes
    few = 10 if kind in ("knockout", "edges", "patch", "paths", "suppress", "lens") else 24
    return run_intervention(kind, model(), traces or data(few), out=out, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """One run of each kind, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")
    return lru_cache(lambda kind: run_of(kind, folder / kind))


DIRECTLY: dict[str, Callable[..., pd.DataFrame]] = {
    "knockout": knockout,
    "edges": cut_edges,
    "patch": patch,
    "paths": patch_paths,
    "suppress": suppress,
    "lens": logit_lens,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIRECTLY)
def test_the_numbers_are_the_functions_own_whatever_the_pieces(runs: Any, kind: str) -> None:
    effects = runs(kind).effects
    expected = DIRECTLY[kind](model(), data(10), finder="given", **QUICK[kind])
    texts = dict.fromkeys(expected.select_dtypes(exclude=["number", "bool"]).columns, object)
    pd.testing.assert_frame_equal(effects.astype(texts), expected.astype(texts), rtol=1e-4, atol=1e-5)


def test_directions_are_those_of_held_out_requests(runs: Any) -> None:
    effects = runs("direction").effects
    expected = steer_held_out(model(), data(24), finder="given", **QUICK["direction"])
    keys = ["trace_id", "control", "draw", "metric"]
    mine, theirs = (table.set_index(keys).sort_index() for table in (effects, expected))
    pd.testing.assert_series_equal(mine["effect"], theirs["effect"], rtol=1e-4, atol=1e-5, check_index=False)
    folds = effects.groupby("group", observed=True)["fold"].nunique()
    assert (folds == 1).all(), "all forms of a request are in one fold"
    scores = runs("trajectory").effects
    found = fit_folds(model(), data(24), StreamSettings(finder="given"), fit_layers=[1], n_folds=2)
    for number, fold in enumerate(found.folds):
        table = measure_trajectory(model(), fold.traces, fold.directions, n_random=3, finder="given")
        part = scores[scores["fold"] == number]
        assert list(part["token"]) == list(table["token"])
        np.testing.assert_allclose(part["score"], table["score"], rtol=1e-4, atol=1e-5)
    assert set(scores["layer"]) == {1}, "one layer, two thirds up"


STAGED: dict[str, dict[str, Any]] = {
    "direction": {"fit_layers": None, "confirm": 1},
    "patch": {"positions": ("prompt_end", "understanding", "decision"), "layers": None, "confirm": 1},
}
"""Options with which a run has two stages."""


@pytest.mark.parametrize("kind", mostly_slow(STAGED, quick=("patch",)))
def test_a_run_of_two_stages_has_the_exact_numbers_of_one(tmp_path: Path, kind: str) -> None:
    two = run_of(kind, tmp_path / "two", **STAGED[kind])
    one = run_of(kind, tmp_path / "one", **(STAGED[kind] | {"confirm": None}), exact=True)
    assert "stage" not in one.effects.columns, "what is exact everywhere has one stage"
    assert two.manifest["settings"]["confirm"] == 1
    places = [name for name in ("direction", "layer", "position") if name in one.effects.columns]
    keys = [*dict.fromkeys(["trace_id", *places, "control", "draw", "metric"])]
    exact = two.effects.loc[two.effects["stage"] == "exact"].set_index(keys)
    expected = one.effects.set_index(keys).loc[exact.index]
    np.testing.assert_allclose(exact["effect"], expected["effect"], rtol=1e-4, atol=1e-5)
    controlled = two.effects.loc[(two.effects["stage"] == "exact") & (two.effects["control"] != "none")]
    assert len(controlled.drop_duplicates(places)) == 1
    if kind == "patch":
        np.testing.assert_allclose(exact["attribution"], expected["attribution"], rtol=1e-4, atol=1e-5)
        assert len(two.effects) <= len(one.effects), "a place has one row, estimated or both"
    texts = [finding["text"] for finding in two.findings["findings"]]
    assert sum("First-order estimates" in text for text in texts) == 1
    assert write_report(two.path).is_file()


@pytest.mark.parametrize(("wrong", "words"), [({"confirm": 0}, "at least 1"), ({"exact": True}, "beside exact")])
def test_what_cannot_be_confirmed_is_refused(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_of("patch", tmp_path / "run", **(STAGED["patch"] | wrong))
    assert not (tmp_path / "run").exists()


def test_places_that_no_estimate_ranks_cannot_be_confirmed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="patch with method exact does not rank places"):
        run_of("patch", tmp_path / "run", **(STAGED["patch"] | {"confirm": 2, "method": "exact"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", QUICK)
def test_a_run_folder_says_what_it_was_and_its_findings_are_its_summary(runs: Any, kind: str) -> None:
    run = open_run(runs(kind).path)
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        *("run.json", "effects.parquet", "summary.parquet", "findings.json", "left_out.json", "most_moved.json")
    }
    manifest = run.manifest
    assert (manifest["kind"], manifest["intervention"], manifest["status"]) == ("intervention", kind, "complete")
    assert manifest["seed"] == 0
    assert len(manifest["data"]["traces_sha256"]) == len(manifest["model"]["weights_sha256"]) == 64
    assert manifest["versions"]["torch"]
    for name, value in QUICK[kind].items():
        if name != "bank":
            assert manifest["settings"][name] == (list(value) if isinstance(value, tuple) else value)
    told = run.findings["findings"]
    assert told[0]["question"] == "changed"
    assert {finding["question"] for finding in told} >= {"changed", "did"}
    assert all(finding["n"] > 0 and finding["control"] and finding["text"].endswith(".") for finding in told)
    summary = run.summary
    for finding in told:
        if finding["value"] is None or "Attribution" in finding["text"]:
            continue
        columns = ("score", "low", "high") if kind == "trajectory" else ("value", "low", "high")
        measured = kind == "knockout" and "excess" not in finding["text"]
        if finding["question"] == "chance" and not measured:
            columns = ("excess", "excess_low", "excess_high")
        rows = summary[np.isclose(summary[columns[0]], finding["value"])]
        counted = "n_with_control" if kind == "knockout" and columns[0] == "excess" else "n"
        assert (rows[counted] == finding["n"]).any()
        if finding["low"] is not None:
            low, high = rows[columns[1]], rows[columns[2]]
            if "at once" in finding["text"]:
                assert ((finding["low"] < low) & (high < finding["high"])).any(), "picked as the largest"
            else:
                assert np.isclose(low, finding["low"]).any()
                assert np.isclose(high, finding["high"]).any()


def test_the_texts_of_the_trace_that_moved_most_are_kept(runs: Callable[[str], Run]) -> None:
    run = runs("knockout")
    moved = trace_effects(find_intervention("knockout"), run.effects, run.summary)
    assert moved is not None
    trace = next(trace for trace in data() if trace.trace_id == moved.most["trace_id"])
    assert run.most_moved["trace_id"] == trace.trace_id
    assert run.most_moved["prompt"] == trace.prompt
    assert run.most_moved["key_sentence"] in trace.response


def test_effects_of_a_run_can_be_summed_up_again(runs: Any) -> None:
    from safekey_interp import summarise_knockout

    run = runs("knockout")
    pd.testing.assert_frame_equal(summarise_knockout(run.effects), run.summary)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_in_child(data(), out, **KNOCKOUT) == 0
    return out


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_nobody_killed(whole: Path, tmp_path: Path) -> None:
    last = n_changes(whole)
    for kill_at in (2, last // 2, last):
        out = tmp_path / f"killed-{kill_at}"
        assert run_in_child(data(), out, kill_at=kill_at, **KNOCKOUT) == -9
        assert run_in_child(data(), out, **KNOCKOUT) == 0
        assert results(out) == results(whole)
        assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    class Stopping(Progress):
        """Stops in the third piece."""

        def __init__(self, after: int) -> None:
            super().__init__(is_hidden=True)
            self.after, self.told = after, 0

        def stage(self, name: str, total: int | None, passes: float | None = None) -> None:
            self.told = 0

        def advance(self, n: int) -> None:
            self.told += n
            if self.told > self.after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_of("suppress", tmp_path / "run", progress=Stopping(7))
    parts = tmp_path / "run" / "parts"
    done = {part.name: (part / "effects.parquet").stat().st_mtime_ns for part in parts.iterdir()}
    assert sorted(done) == ["chunk-000000", "chunk-000001"]
    seen: list[tuple[str, int]] = []

    class Telling(Progress):
        def __init__(self) -> None:
            super().__init__(is_hidden=True)

        def stage(self, name: str, total: int | None, passes: float | None = None) -> None:
            self.name = name

        def advance(self, n: int) -> None:
            seen.append((self.name, n))

    run_of("suppress", tmp_path / "run", progress=Telling())
    assert seen[0] == ("measuring", 6), "two pieces of three were there"
    assert sum(n for _, n in seen) == 10
    assert not parts.exists()


@pytest.mark.slow
def test_a_ranking_is_work_that_is_kept_and_shared(runs: Any, tmp_path: Path) -> None:
    class Stopping(Progress):
        """Stops in the last piece of the first round, whose steps it counts."""

        def __init__(self, after: int) -> None:
            super().__init__(is_hidden=True)
            self.after, self.told = after, 0
            self.stages: dict[str, int | None] = {}

        def stage(self, name: str, total: int | None, passes: float | None = None) -> None:
            self.stages[name], self.told = total, 0

        def advance(self, n: int) -> None:
            self.told += n
            if self.told > self.after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_of("edges", tmp_path / "run", progress=Stopping(7))
    parts = tmp_path / "run" / "parts"
    done = {part.name: part.stat().st_mtime_ns for part in parts.iterdir()}
    assert len(done) == 2
    progress = Stopping(10)
    run = run_of("edges", tmp_path / "run", progress=progress)
    assert [progress.stages[name] for name in ("first round", "measuring")] == [10, 10]
    pd.testing.assert_frame_equal(run.effects, runs("edges").effects, check_exact=True)


@pytest.mark.slow
def test_two_processes_make_the_same_run(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_in_team(2, data(), out, **KNOCKOUT) == [0, 0]
    assert results(out) == results(whole)


def test_another_run_is_refused_and_overwritten_when_asked(runs: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = run_of("suppress", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run_of("suppress", out).manifest == first.manifest
    for changes, says in (
        ({"n_random": 3}, "a run of other settings .settings.n_random was 2, now 3."),
        ({"seed": 1}, "a run of other settings .seed was 0, now 1."),
        ({"traces": data(8)}, "a run of other data"),
    ):
        with pytest.raises(RunError, match=says):
            run_of("suppress", out, **changes)
    with pytest.raises(RunError, match=r"intervention was suppress, now lens"):
        run_of("lens", out)
    with pytest.raises(InputError, match="most: got 1"):
        run_of("suppress", out, most=1, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run_of("lens", out, overwrite=True).manifest["intervention"] == "lens"


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("nonsense", {}, "kind: got 'nonsense', expected one of knockout, patch"),
        ("knockout", {"mode": "add"}, "mode: no option of knockout, expected some of aha, bank, by"),
        ("knockout", {"heads": [9]}, "heads: got 9"),
        ("knockout", {"layers": [7]}, r"layers: got \[7\]"),
        ("knockout", {"n_random": 0}, "n_random: got 0"),
        ("knockout", {"finder": "x"}, "finder: got 'x'"),
        ("knockout", {"chunk": 0}, "chunk: got 0"),
        ("knockout", {"keep_directions": True}, "keep_directions: knockout fits none"),
        ("patch", {"positions": ("answr",)}, "span 'answr': no trace has one; did you mean 'answer'"),
        ("direction", {"mode": "turn"}, "mode: got 'turn'"),
        ("direction", {"fit_position": "ende"}, "span .ende.: no trace has one"),
        ("trajectory", {"align": "answr"}, "span 'answr': no trace has one"),
    ],
)
def test_what_cannot_be_asked_for_leaves_nothing(tmp_path: Path, kind: Any, options: Any, says: str) -> None:
    given = {"finder": "given"} | options
    with pytest.raises(InputError, match=says):
        run_intervention(kind, model(), data(24), out=tmp_path / "a" / "run", **given)
    assert not list(tmp_path.iterdir())


def test_traces_that_cannot_be_measured_are_named_and_none_left_is_no_run(tmp_path: Path) -> None:
    bare = [trace.with_(trace_id=f"bare {trace.trace_id}", response="", given={}) for trace in data()[:4]]
    run = run_of("suppress", tmp_path / "run", [*bare, *data()[:4]])
    assert run.effects["trace_id"].nunique() == 4
    left_out = json.loads((run.path / "left_out.json").read_text())
    assert list(left_out) == [trace.trace_id for trace in bare]
    assert [entry["n"] for entry in run.findings["left_out"]] == [4]
    with pytest.raises(NothingMeasured, match="nothing is kept; trace bare t0"):
        run_of("suppress", tmp_path / "none", bare)
    with pytest.raises(NothingMeasured, match="no pair of traces"):
        run_of("patch", tmp_path / "none", data()[:1])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_directions_that_are_kept_steer_other_traces(tmp_path: Path) -> None:
    run = run_of("direction", tmp_path / "run", keep_directions=True)
    [file] = sorted((run.path / "directions").iterdir())
    assert file.name == "decision-layer-001.safetensors"
    kept = Direction.load(file)
    assert kept.data_sha256 == run.manifest["data"]["traces_sha256"]
    assert kept.n == 24
    others = [trace.with_(trace_id=f"other {trace.trace_id}") for trace in data(10)]
    used = {"directions": [kept], "bank": SMALL, "n_random": 2, "finder": "given"}
    again = run_intervention("direction", model(), others, out=tmp_path / "again", chunk=4, **used)
    expected = steer(model(), others, [kept], bank=SMALL, n_random=2, finder="given")
    assert set(again.effects["control"]) == {"none", "shuffled_labels", "covariance"}
    np.testing.assert_allclose(again.effects["effect"], expected["effect"], rtol=1e-4, atol=1e-5)
    [recorded] = again.manifest["settings"]["directions"]
    assert (recorded["layer"], recorded["position"], len(recorded["sha256"])) == (1, "decision", 64)
    with pytest.raises(InputError, match="fit_layers: got it beside directions"):
        run_intervention("direction", model(), others, out=tmp_path / "x", fit_layers=[1], **used)
    turned = Direction(vector=-kept.vector, norm=kept.norm, layer=1, site="resid_post", position="decision")
    with pytest.raises(RunError, match=r"other settings .settings.directions was"):
        run_intervention(
            "direction", model(), others, out=tmp_path / "again", chunk=4, **used | {"directions": [turned]}
        )


RESPONSES: dict[str, Any] = {"generate": True, "n_random": 1, "fit_layers": [1], "n_folds": 2, "max_new_tokens": 6}


def test_responses_do_not_depend_on_the_pieces_and_a_finished_run_is_returned(tmp_path: Path) -> None:
    options = RESPONSES | {"finder": "given", "scales": (0.0, 2.0)}
    first, second = (
        run_intervention("direction", model(), data(24), out=tmp_path / str(chunk), chunk=chunk, **options)
        for chunk in (3, 24)
    )
    keys = ["trace_id", "scale", "control", "draw", "metric"]
    one, other = (run.effects.sort_values(keys, ignore_index=True) for run in (first, second))
    pd.testing.assert_frame_equal(one, other)
    assert one.loc[one["scale"] == 2, "response"].nunique() > 1
    assert first.manifest["settings"]["judge"]["judge"] == "the judge refusal"
    summary = first.summary
    for finding in first.findings["findings"][1:]:
        column = "excess" if finding["question"] == "chance" else "value"
        assert np.isclose(summary[column], finding["value"]).any()
    again = run_intervention("direction", model(), data(24), out=tmp_path / "3", chunk=3, **options)
    assert again.manifest == first.manifest
    with pytest.raises(RunError, match=r"intervention was direction_responses, now direction"):
        run_of("direction", tmp_path / "3")


def test_a_run_takes_spans_of_ones_own_and_metrics_whatever_the_pieces(tmp_path: Path) -> None:
    of = [trace.with_(spans={"warning": [(9, 18)]} if number else {}) for number, trace in enumerate(data(4))]
    options: dict[str, Any] = {
        "from_span": "last(reasoning)",
        "to_span": ("warning",),
        "metric": ["logprob(last(reasoning))", 'logit_difference("a", "b") at last(reasoning)'],
        "controls": ("dose",),
        "n_dose": 1,
    }
    run = run_intervention("knockout", model(), of, out=tmp_path / "run", chunk=1, **options)
    assert run.manifest["settings"]["metric"] == options["metric"]
    assert run.manifest["settings"]["from_span"] == "last(reasoning)"
    assert set(run.summary["unit"]) == {"nats per token", "logits"}
    [left_out] = run.findings["left_out"]
    assert (left_out["why"], left_out["n"]) == ("it has none of the spans", 1)
    whole: Any = knockout(model(), of, **options)
    assert list(run.effects["effect"]) == pytest.approx(list(whole["effect"]), abs=1e-5, nan_ok=True)
    assert "logprob(last(reasoning)) by" in run.findings["headline"]
    assert write_report(run.path).is_file()
    with pytest.raises(InputError, match="span 'warnin': no trace has one; did you mean 'warning'"):
        run_intervention("knockout", model(), of, out=tmp_path / "no", to_span=("warnin",))
    assert not (tmp_path / "no").exists()
