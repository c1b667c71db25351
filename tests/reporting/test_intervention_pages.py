"""The pages of interventions: one file that acts on nothing, with every number beside its control."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from html_pages import check_outline, figures_in, read
from synthetic_intervention_runs import HOSTILE, KIND_OF, N_DRAWS, write_intervention

from safekey_interp.errors import RunError
from safekey_interp.interventions.intervention_record import load_function
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.reporting import figures
from safekey_interp.reporting.findings.intervention_findings import find
from safekey_interp.reporting.report_file import write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=KIND_OF)
def named(request, tmp_path_factory) -> tuple[str, Path]:
    folder = write_intervention(tmp_path_factory.mktemp("run"), request.param, hostile=True)
    return request.param, write_report(folder)


def test_the_page_is_one_file_that_loads_nothing(named):
    text, outline = read(named[1])
    for tag, attributes in outline.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            assert attributes.get(name, "#")[:1] == "#" or attributes[name] == "data:,", (tag, attributes)
    assert len(re.findall(r"<script>(.*?)</script>", text, re.S)) == 2
    assert named[1].stat().st_size < 8_000_000


def test_texts_from_data_stay_texts_and_where_files_lay_is_not_said(named):
    text, outline = read(named[1])
    assert "<script>alert" not in text
    assert "<img" not in text
    assert not [a for _, a in outline.tags for name in a if name.startswith("on")]
    assert HOSTILE[:30] in "".join(outline.words)
    assert "of a user" not in text


def test_the_questions_come_in_their_order(named):
    _, outline = read(named[1])
    check_outline(outline)
    sections = [a["id"] for tag, a in outline.tags if tag == "section"]
    moved = ["moved"] * (named[0] != "trajectory")
    assert sections == ["summary", "changed", "did", *moved, "chance", "left-out", "reading", "provenance"]


def test_every_choice_is_drawn_and_says_its_n(named):
    name, page = named
    book = figures_in(page)
    assert book["variants"]
    panels = {
        "knockout": {"effect-spans", "effect-doses"},
        "knockout by layer": {"effect-layers"},
        "knockout by head": {"effect-heads"},
        "patch": {"effect-map", "effect-layers"},
        "direction": {"effect-layers"},
        "direction by scale": {"effect-layers", "effect-scales"},
        "suppress": {"effect-parts"},
        "lens": {"effect-layers"},
        "trajectory": {"scores"},
    }
    assert {panel for panel in book["variants"] if not panel.startswith("strip-")} == panels[name]
    text = page.read_text(encoding="utf-8")
    assert text.count("95 % intervals over groups") >= len(panels[name])
    captions = re.findall(r'id="[^"]*-caption"[^>]*>(.*?)</', text)
    assert len(captions) == len(book["variants"])
    assert all("n = " in caption for caption in captions)


def test_the_strip_opens_with_effects_beside_controls_and_ends_with_the_traces(named):
    name, page = named
    strip = [panel for panel in figures_in(page)["variants"] if panel.startswith("strip-")]
    if name == "trajectory":
        assert strip == ["strip-scores"]
    else:
        assert (strip[0], strip[-1]) == ("strip-effect", "strip-traces")
    assert len(strip) <= 4


def test_the_trace_that_moved_most_is_shown_with_its_effect_and_control(tmp_path):
    folder = write_intervention(tmp_path, "knockout")
    summary, effects = (pd.read_parquet(folder / f"{name}.parquet") for name in ("summary", "effects"))
    rows = summary[(summary["metric"] == "difference") & (summary["subset"] == "harmful") & (summary["dose"] == 1)]
    rows = rows[(rows["measure"] == "effect") & (rows["control_kind"] == "outside_spans")]
    span = rows.loc[rows["excess"].abs().idxmax(), "to_span"]
    here = effects[(effects["metric"] == "difference") & (effects["to_span"] == span) & (effects["dose"] == 1)]
    effect, control = (
        here[here["control"] == kind].groupby("trace_id")["effect"].mean() for kind in ("none", "outside_spans")
    )
    most = (effect - control).abs().idxmax()
    kept = {"trace_id": most, "prompt": f"{HOSTILE} prompt", "understanding": "It asks.", "key_sentence": "No."}
    (folder / "most_moved.json").write_text(json.dumps(kept))
    text, outline = read(write_report(folder))
    words = "".join(outline.words)
    assert f"{most} {here['label'][here['trace_id'] == most].iloc[0]}: {effect[most]:+.3f}" in words
    assert f"{control[most]:+.3f}" in words
    assert "It asks." in words
    assert "<script>alert" not in text
    (folder / "most_moved.json").write_text(json.dumps(kept | {"trace_id": "another"}))
    assert "It asks." not in "".join(read(write_report(folder))[1].words), "texts of another trace are not its own"


def test_the_table_of_chance_holds_the_numbers_of_the_summary(tmp_path):
    page = write_report(write_intervention(tmp_path, "knockout by layer"))
    words = "".join(read(page)[1].words).replace("\u00a0", " ")
    summary = pd.read_parquet(tmp_path / "summary.parquet")
    rows = summary[(summary["subset"] == "harmful") & (summary["metric"] == "difference")]
    rows = rows[rows["control_kind"] == "outside_spans"]
    assert len(rows) == 12
    for _, row in rows.iterrows():
        for name in ("", "control", "excess"):
            bounds = [row[f"{name}_{end}" if name else end] for end in ("low", "high")]
            assert f"{row[name or 'value']:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]" in words
    assert f"at least 0.2 with {N_DRAWS} of them" in words
    assert "corrected for all places" in words
    assert "p of 0.05 takes 19 draws" in words, "so few cannot make it small"


def test_many_places_are_the_largest_alone(tmp_path):
    page = write_report(write_intervention(tmp_path, "knockout by head", n_layers=8, n_heads=8))
    text, outline = read(page)
    assert "The 40 largest of 128" in "".join(outline.words)
    body = text[text.index('id="chance"') : text.index('id="left-out"')]
    # Beside random keys, beside other requests' spans, by dose; and a line of each span about the pool.
    assert body.count("<tr>") == 3 * 41 + 3


def test_what_a_folder_lacks_is_said(tmp_path):
    write_intervention(tmp_path, "lens")
    (tmp_path / "summary.parquet").unlink()
    (tmp_path / "findings.json").unlink()
    words = "".join(read(write_report(tmp_path))[1].words)
    assert "has no summary.parquet, so what the intervention did cannot be drawn" in words
    assert "has no findings.json" in words


@pytest.fixture
def summary(tmp_path):
    def of(name: str) -> pd.DataFrame:
        return pd.read_parquet(write_intervention(tmp_path / name, name) / "summary.parquet")

    return of


def test_lines_are_the_summarys_rows(summary):
    table = summary("knockout by layer")
    wanted = {"subset": "all", "metric": "safe", "to_span": "prompt"}
    spec = figures.effect_by_layer.spec(table, control="random keys", **wanted)
    rows = table.loc[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)].sort_values("layer")
    rows = rows[rows["control_kind"] == "outside_spans"]
    measured, control = (trace for trace in spec["data"] if "name" in trace)
    np.testing.assert_allclose(measured["y"], rows["value"], atol=1e-4)
    np.testing.assert_allclose(control["y"], rows["control"], atol=1e-4)
    np.testing.assert_allclose(measured["customdata"], rows[["low", "high"]], atol=1e-4)
    assert control["name"] == "random keys"
    assert control["line"]["dash"] != measured["line"]["dash"]
    assert "n = 24 traces in 12 groups, 4 draws of the control" in spec["layout"]["meta"]["caption"]
    assert figures.effect_by_layer(table, control="random keys", **wanted).layout.meta["caption"]
    with pytest.raises(RunError, match="no row with to_span 'answer'"):
        figures.effect_by_layer.spec(table, control="random keys", **wanted | {"to_span": "answer"})


def test_points_have_whiskers_to_their_bounds(summary):
    table = summary("suppress")
    places = [({"source_part": "understanding", "target_part": "rest"}, "U → <b>rest</b>"), ({"source_part": "x"}, "x")]
    spec = figures.effect_by_place.spec(table, places=places, control="random keys", subset="all")
    rows = table[(table["subset"] == "all") & (table["source_part"] == "understanding")]
    row = rows[rows["target_part"] == "rest"].iloc[0]
    [measured, control] = spec["data"]
    assert measured["y"] == [pytest.approx(row["value"], abs=1e-4)]
    assert measured["error_y"]["array"] == [pytest.approx(row["high"] - row["value"], abs=1e-4)]
    assert control["y"] == [pytest.approx(row["control"], abs=1e-4)]
    assert spec["layout"]["xaxis"]["ticktext"] == ["U → &lt;b&gt;rest&lt;/b&gt;"]
    assert measured["marker"]["symbol"] != control["marker"]["symbol"]
    joined = pd.concat([table.assign(model=name) for name in ("first", "second")])
    of_both = [({"model": name} | places[0][0], f"understanding, {name}") for name in ("first", "second")]
    spec = figures.effect_by_place.spec(joined, places=of_both, control="random keys", subset="all")
    [measured, _] = spec["data"]
    assert spec["layout"]["xaxis"]["ticktext"] == ["understanding,<br>first", "understanding,<br>second"]
    assert measured["y"] == [pytest.approx(row["value"], abs=1e-4)] * 2, "tables that were joined repeat their index"


def test_a_map_has_a_neutral_middle_at_0(summary):
    table = summary("knockout by head")
    heads = {head: f"head {head}" for head in range(4)}
    wanted = {"subset": "all", "metric": "difference", "to_span": "prompt"}
    spec = figures.effect_map.spec(table, rows_by="head", names=heads, control="random keys", **wanted)
    [trace] = spec["data"]
    assert trace["zmin"] == -trace["zmax"]
    assert (len(trace["y"]), len(trace["x"])) == (4, 6)
    rows = table.loc[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    cell = rows[(rows["layer"] == 2) & (rows["head"] == 1)].iloc[0]
    assert trace["z"][1][2] == pytest.approx(cell["value"], abs=1e-3)
    assert trace["customdata"][1][2][1] == pytest.approx(cell["control"], abs=1e-3)


@pytest.mark.parametrize(("cosine", "says"), [(0.3, "not close to"), (0.98, "The directions are close to")])
def test_the_page_of_a_direction_says_how_close_it_is_to_the_first_component(tmp_path, cosine, says):
    """And whether it is beyond its draws by its rank among them, since every trace meets the same ones."""
    folder = write_intervention(tmp_path, "direction")
    effects = pd.read_parquet(folder / "effects.parquet").assign(pc1_cosine=cosine)
    direction = find_intervention("direction")
    summary = load_function(direction.summarise)(effects)
    manifest = json.loads((folder / "run.json").read_text())
    found = find(direction, effects, summary, {}, manifest)["findings"]
    assert says in found[0]["text"]
    assert f"(|cosine| {cosine:.2f})" in found[0]["text"]
    chance = " ".join(one["text"] for one in found if one["question"] == "chance")
    p = summary.loc[(summary["metric"] == "difference") & (summary["subset"] == "harmful"), "p_value_over_all"].min()
    assert p == pytest.approx(1 / (1 + N_DRAWS))
    assert f"not told apart from the {N_DRAWS} draws (p = {p:.2g}" in chance, "four draws cannot say more"
    assert "p of 0.05 takes 19 draws" in chance


def test_scores_stand_beside_control_directions(summary):
    table = summary("trajectory")
    spec = figures.score_by_offset.spec(table, reader=1)
    named = {trace["name"]: trace for trace in spec["data"] if "name" in trace}
    assert set(named) == {"directions fitted to shuffled labels", "harmful", "benign"}
    rows = table[(table["reader"] == 1) & (table["label"] == "harmful")].sort_values("offset")
    np.testing.assert_allclose(named["harmful"]["y"], rows["score"], atol=1e-4)
    np.testing.assert_allclose(named["directions fitted to shuffled labels"]["customdata"][0], [-0.784, 0.784])
    with pytest.raises(RunError, match="no row with reader 7"):
        figures.score_by_offset.spec(table, reader=7)
