"""The figures of the analysis: what is drawn is what the CSV says, the same twice, and a mistake is one line."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from synthetic_probe_runs import CONDITIONS, write_run

from analysis.__main__ import main
from analysis.paper import q3_attention, q4_representations
from safekey_interp.errors import RunError, install_hint
from safekey_interp.reporting.labels import METHODS
from safekey_interp.runs.run_folder import open_run

pytestmark = pytest.mark.slow

NAMES = {
    "measured, on X": "mass",
    "measured, on U": "mass",
    "distance-matched baseline": "matched_mass",
    "random key sets": "random_mass",
    "uniform baseline": "uniform_mass",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), n_traces=40, n_layers=4, n_heads=3, n_examples=1)


@pytest.fixture(scope="module")
def run(folder):
    return open_run(folder)


@pytest.fixture
def without_browser(monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")


def panels(spec) -> dict[str, dict]:
    """Series by the letter of their panel, which stand in the order of the axes."""
    letters = [match[1] for note in spec["layout"]["annotations"] if (match := re.match(r"<b>\((\w)\)", note["text"]))]
    axes = ["x", *(f"x{number}" for number in range(2, len(letters) + 1))]
    return {
        letter: [trace for trace in spec["data"] if trace["xaxis"] == axis]
        for letter, axis in zip(letters, axes, strict=True)
    }


def lines(traces) -> dict[str, dict]:
    return {trace["name"]: trace for trace in traces if "name" in trace}


def same(drawn, rows) -> None:
    """A line with its band says what the rows say, to the digits that are embedded."""
    np.testing.assert_allclose(drawn["y"], rows["value"], atol=6e-5)
    bounds = np.array(drawn["customdata"], dtype=float)
    np.testing.assert_allclose(bounds, rows[["low", "high"]], atol=6e-5)


def test_attention_draws_what_its_csv_says(run):
    sheet = q3_attention.draw(run)
    numbers = sheet.numbers["fig_attention"]
    drawn = panels(sheet.spec)
    assert len(drawn) in (12, 16), "four views in each row; ratios where the run has them"
    for letter, view in zip("abcd", q3_attention.VIEWS, strict=True):
        mine = numbers[numbers["panel"] == letter]
        assert set(zip(mine["from_span"], mine["to_span"], strict=True)) == {view}
        shown = lines(drawn[letter])
        assert {NAMES[name] for name in shown} == set(mine["measure"]) == set(q3_attention.MASSES)
        for name, line in shown.items():
            same(line, mine[mine["measure"] == NAMES[name]].sort_values("layer"))
    heads = [letter for letter, traces in drawn.items() if traces[0]["type"] == "heatmap"]
    for letter in heads:
        [heat] = drawn[letter]
        mine = numbers[numbers["panel"] == letter].set_index(["head", "layer"])["value"]
        of = np.log2 if (heat["zmin"] < 0) else np.asarray
        wanted = np.array([[of(mine[head, layer]) for layer in heat["x"]] for head in heat["y"]])
        wanted = wanted.clip(heat["zmin"], heat["zmax"])
        np.testing.assert_allclose(np.array(heat["z"], float), wanted, atol=6e-3)
    assert numbers[["value", "n", "seed"]].notna().all(axis=None)
    assert numbers.loc[numbers["head"].isna(), ["low", "high", "n_groups"]].notna().all(axis=None)


def test_attention_tells_labels_and_conditions_apart_where_the_run_does(folder, tmp_path):
    by_layer = pd.read_parquet(folder / "attention_by_layer.parquet")
    if not (by_layer["measure"] == "lift_over_matched").any():
        more = by_layer[by_layer["measure"] == "lift"].assign(measure="lift_over_matched")
        by_layer = pd.concat([by_layer, more], ignore_index=True)
    copy = shutil.copytree(folder, tmp_path / "run")
    by_layer.to_parquet(copy / "attention_by_layer.parquet")
    sheet = q3_attention.draw(open_run(copy))
    numbers = sheet.numbers["fig_attention"]
    drawn = lines(panels(sheet.spec)["e"])
    plain, wrapped = CONDITIONS
    assert list(drawn) == [f"{plain}, harmful", f"{wrapped}, harmful".replace("<b>", "&lt;b&gt;"),
                           f"{plain}, benign", f"{wrapped}, benign".replace("<b>", "&lt;b&gt;")]  # fmt: skip
    for name, line in drawn.items():
        subset = f"source={name.replace('&lt;', '<').replace('&gt;', '>')}"
        same(line, numbers[(numbers["panel"] == "e") & (numbers["subset"] == subset)].sort_values("layer"))


def test_the_papers_measure_is_the_last_layer_of_the_table(run):
    sheet = q3_attention.draw(run)
    by_layer = run.attention_by_layer
    row = by_layer[
        (by_layer["subset"] == "all") & (by_layer["from_span"] == "key_sentence") & (by_layer["to_span"] == "prompt")
        & (by_layer["measure"] == "mass") & (by_layer["layer"] == 3)
    ].iloc[0]  # fmt: skip
    assert sheet.table["K on X"].iloc[0] == f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    assert sheet.table["n"].iloc[0] == str(row["n"])


def test_representations_draw_what_their_csv_says(run):
    sheet = q4_representations.draw(run)
    numbers, points = sheet.numbers["fig_representations"], sheet.numbers["fig_representations_points"]
    drawn = panels(sheet.spec)
    methods = {text: name for name, text in METHODS.items()} | {"shuffled labels": "shuffled labels"}
    for letter in "abcdef":
        mine = numbers[numbers["panel"] == letter]
        for name, line in lines(drawn[letter]).items():
            rows = mine[mine["method"] == methods[name]].sort_values(["layer", "site"], ascending=[True, False])
            if name == "words alone":
                assert set(line["y"]) == {round(rows["value"].item(), 4)}
            else:
                same(line, rows)
    assert "key_sentence" not in set(numbers["position"]), "K's own words tell"
    fitted, tested = CONDITIONS
    for letter in "ghi":
        mine = numbers[numbers["panel"] == letter]
        assert set(mine["tested_on"]) == {tested}
        across = mine[(mine["fitted_on"] == fitted) & (mine["method"] == "logistic")]
        same(lines(drawn[letter])[f"fitted on {fitted}"], across)
    for letter, name in zip("jk", CONDITIONS, strict=True):
        mine = points[points["panel"] == letter]
        assert set(mine["condition"]) == {name}
        assert len(mine) == sum(len(trace["x"]) for trace in drawn[letter])
        assert sorted(x for trace in drawn[letter] for x in trace["x"]) == pytest.approx(sorted(mine["lda"]), abs=6e-3)


def test_the_site_of_the_scatter_is_the_rule_s_and_not_the_best(run):
    points = q4_representations.draw(run).numbers["fig_representations_points"]
    assert set(zip(points["position"], points["site"], strict=True)) == {("decision", "ln_final")}


def test_a_run_that_lacks_conditions_is_drawn_without_them(tmp_path):
    run = open_run(write_run(tmp_path, n_traces=20, n_layers=3, n_heads=2, n_examples=1, conditions=()))
    sheet = q4_representations.draw(run)
    assert "tested_on" not in sheet.numbers["fig_representations"].dropna(axis=1, how="all")
    assert "fitted on" not in sheet.caption
    assert "harmful" in set(q3_attention.draw(run).numbers["fig_attention"]["subset"])


def test_the_toy_is_called_one(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    manifest = json.loads((copy / "run.json").read_text())
    manifest["model"] |= {"spec": "organism:base", "name": "organism:base"}
    (copy / "run.json").write_text(json.dumps(manifest))
    for draw in (q3_attention.draw, q4_representations.draw):
        assert "(toy model)" in draw(open_run(copy)).caption
        assert "(toy model)" not in draw(open_run(folder)).caption


def test_the_command_writes_pages_numbers_and_an_index_the_same_twice(folder, tmp_path, capsys, without_browser):
    for name in ("one", "two"):
        main(["--run", str(folder), "--out", str(tmp_path / name)])
    made = {path.name for path in (tmp_path / "one").iterdir() if path.is_file()}
    assert made == {
        *("index.html", "fig_attention.html", "fig_attention.csv"),
        *("fig_representations.html", "fig_representations.csv", "fig_representations_points.csv"),
    }
    for name in made:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    index = (tmp_path / "one" / "index.html").read_text()
    assert "fig_attention.html" in index
    assert "n = 40 traces of 20 prompts" in index
    page = (tmp_path / "one" / "fig_attention.html").read_text()
    assert page.count("plotly.js v") >= 1
    assert "script-src 'sha256-" in page
    assert not re.search(r'(src|href)="(https?:)?//', re.sub("<script>.*?</script>", "", page, flags=re.DOTALL))
    said = capsys.readouterr().out
    assert said.count("no pictures: kaleido found no browser that works") == 2
    assert "K on X" in said


def test_texts_from_data_stay_texts(folder, tmp_path, without_browser):
    main(["--run", str(folder), "--out", str(tmp_path), "--only", "representations"])
    assert not (tmp_path / "fig_attention.html").exists()
    for name in ("fig_representations.html", "index.html"):
        page = (tmp_path / name).read_text()
        assert "<script>alert" not in page
        assert "wrapped <b>" not in page


def test_without_kaleido_one_line_says_so(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    main(["--run", str(folder), "--out", str(tmp_path), "--only", "attention"])
    said = [line for line in capsys.readouterr().out.splitlines() if "pictures" in line]
    assert said == [f"no pictures: kaleido is not installed ({install_hint('figures')})"]
    assert (tmp_path / "index.html").is_file()


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser")
def test_pictures_are_as_large_as_the_figure_and_stand_in_the_index(folder, tmp_path):
    main(["--run", str(folder), "--out", str(tmp_path), "--only", "attention"])
    png, svg = (tmp_path / "fig_attention.png").read_bytes(), (tmp_path / "fig_attention.svg").read_text()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "fig_attention.pdf").read_bytes()[:5] == b"%PDF-"
    width, height = (int.from_bytes(png[place : place + 4]) for place in (16, 20))
    assert width == 2000
    assert f'width="1000" height="{height // 2}"' in svg
    assert "fig_attention.svg" in (tmp_path / "index.html").read_text()


def test_pictures_of_an_earlier_run_do_not_stay(folder, tmp_path, without_browser):
    (tmp_path / "fig_attention.png").write_bytes(b"old")
    main(["--run", str(folder), "--out", str(tmp_path), "--only", "attention"])
    assert not (tmp_path / "fig_attention.png").exists()


def test_a_figure_that_the_run_cannot_give_is_named_and_the_others_are_drawn(tmp_path, capsys, without_browser):
    folder = write_run(tmp_path / "run", n_traces=20, n_layers=3, n_heads=2, n_examples=1, labels=False)
    main(["--run", str(folder), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "fig_attention.csv").is_file()
    assert "representations: not drawn" in " ".join(capsys.readouterr().out.split())
    assert "Not drawn" in (tmp_path / "out" / "index.html").read_text()
    with pytest.raises(RunError, match="no separability"):
        q4_representations.draw(open_run(folder))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "OUT", "--run", "nowhere"], "no such folder"),
        (["--out", "OUT", "--only", "everything"], "--only: got 'everything'"),
        (["--out", "OUT", "--write", "--models", "organism", "smollm2"], "--write: got organism, smollm2, expected"),
        (["--out", "OUT", "--write", "--models", "gpt2"], "expected models of one kind, organism or smollm2"),
        (["--out", "OUT", "--run", "RUN", "--models", "organism"], "expected either a run or what to ask"),
        (["--out", "FILE", "--run", "RUN"], "cannot be written"),
        (["--out", "OUT", "--traces", "no.jsonl"], "no.jsonl"),
        (["--out", "OUT", "--models", "no_such_model"], "no_such_model"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder, tmp_path, capsys, arguments, said):
    (tmp_path / "file").write_text("")
    places = {"OUT": tmp_path / "out", "RUN": folder, "FILE": tmp_path / "file" / "out"}
    with pytest.raises(SystemExit) as stopped:
        main([str(places.get(word, word)) for word in arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("analysis: ")
    assert said in error
    assert error.count("\n") == 1
