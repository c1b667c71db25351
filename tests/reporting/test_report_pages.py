from __future__ import annotations

import base64
import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from html_pages import check_outline, read
from jinja2 import UndefinedError
from safetensors import safe_open
from synthetic_probe_runs import CONDITIONS, HOSTILE, write_run

from safekey_interp.errors import RunError
from safekey_interp.reporting.pages.attention_packing import MEAN, pack, unpack
from safekey_interp.reporting.pages.controls_table import Estimate, verdict
from safekey_interp.reporting.pages.figure_embedding import embed
from safekey_interp.reporting.pages.probe_page_figures import scatter_group, that_fit
from safekey_interp.reporting.pages.rendering import Html, data, island, part, render
from safekey_interp.reporting.report_file import write_report
from safekey_interp.runs.run_folder import Run, open_run

SMALL = {"n_traces": 24, "n_layers": 6, "n_heads": 4, "n_examples": 5, "long_prompt": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), **SMALL)


@pytest.fixture(scope="module")
def page(run):
    return write_report(run)


def test_the_page_is_one_file_under_eight_megabytes_and_no_draft_stays(run, page):
    assert page == run / "report.html"
    assert page.stat().st_size < 8_000_000
    assert not [file.name for file in run.iterdir() if file.name.startswith(".")]


def test_the_page_loads_nothing(page):
    _, outline = read(page)
    for tag, attributes in outline.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            assert attributes.get(name, "#")[:1] == "#" or attributes[name] == "data:,", (tag, attributes)


def test_the_policy_names_exactly_the_scripts_that_run(page):
    _, outline = read(page)
    policy = next(a["content"] for tag, a in outline.tags if a.get("http-equiv") == "Content-Security-Policy")
    text = page.read_text(encoding="utf-8")
    bodies = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(bodies) == 2
    for body in bodies:
        assert base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


def test_texts_from_data_stay_texts(page):
    text, outline = read(page)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "\u2028" not in text
    assert not [a for _, a in outline.tags for name in a if name.startswith("on")]
    assert "<b>0.70</b>" in "".join(outline.words)
    records = json.loads(re.search(r'id="examples-data">(.*?)</script>', text, re.S)[1])["records"]
    assert records[1]["id"] == "<b>xstest-001</b>"
    assert "".join(records[1]["tokens"]).count(HOSTILE.split(" ")[1]) == 2


def test_headings_run_in_order_and_every_control_has_a_name(page):
    _, outline = read(page)
    check_outline(outline)
    ids = {a["id"] for _, a in outline.tags if "id" in a}
    named = {
        ref
        for _, a in outline.tags
        for key in ("aria-labelledby", "aria-describedby")
        for ref in a.get(key, "").split()
    }
    assert named <= ids


def test_the_embedded_maps_are_the_attention_within_half_a_step(run, page):
    text = page.read_text(encoding="utf-8")
    book = json.loads(re.search(r'id="examples-data">(.*?)</script>', text, re.S)[1])
    assert book["steps"] == 255
    with safe_open(str(run / "examples.safetensors"), framework="numpy") as handle:
        for record in book["records"]:
            found = unpack(book["maps"][record["map"]], len(book["planes"]), book["steps"])
            for row, (kind, layer, head) in zip(found, book["planes"], strict=True):
                weights = handle.get_tensor(f"{kind}.{record['map']}").astype(np.float32)[layer]
                wanted = weights.mean(0) if head == MEAN else weights[head]
                assert np.abs(np.sqrt(row) - np.sqrt(wanted)).max() <= 0.5 / 255 + 1e-6


def test_maps_shrink_to_their_budget_and_keep_means_and_the_strongest_heads(run):
    opened = open_run(run)
    keys = [record["map"] for record in opened.examples]
    whole = pack(run / "examples.safetensors", keys, opened.attention_by_head, 10**9)
    assert whole.dropped == 0
    assert len(whole.planes) == 2 * 6 * 5
    size = sum(map(len, whole.maps.values()))
    cut = pack(run / "examples.safetensors", keys, opened.attention_by_head, size // 4)
    assert sum(map(len, cut.maps.values())) <= size // 4
    assert cut.dropped == len(whole.planes) - len(cut.planes) > 0
    kept = {plane for plane in cut.planes if plane[2] == MEAN}
    assert ("map", 5, MEAN) in kept
    heads = [plane for plane in cut.planes if plane[2] != MEAN]
    assert not heads or len(kept) == 12
    assert pack(run / "examples.safetensors", keys, None, 1).planes == []


@pytest.mark.parametrize(
    "missing",
    [
        "traces.parquet",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *("attention_by_head.parquet", "attention_by_layer.parquet", "separability.parquet"),
                *("coordinates.parquet", "examples.json", "findings.json"),
            )
        ),
    ],
)
def test_what_the_folder_lacks_is_said_in_a_line(tmp_path, run, missing):
    for file in run.iterdir():
        if file.name not in (missing, "report.html"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    _, outline = read(write_report(tmp_path))
    words = "".join(outline.words)
    assert f"Not shown: this run folder has no {missing}" in words


def test_a_folder_with_nothing_but_its_manifest_still_makes_a_page(tmp_path):
    (tmp_path / "run.json").write_text('{"safekey_interp": "0", "status": "running"}', encoding="utf-8")
    _, outline = read(write_report(tmp_path))
    assert "This run is not complete" in "".join(outline.words)


def test_tables_without_rows_are_said_too(tmp_path, run):
    for file in run.iterdir():
        if file.suffix == ".parquet":
            pd.read_parquet(file).head(0).to_parquet(tmp_path / file.name)
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    _, outline = read(write_report(tmp_path))
    assert "Not shown" in "".join(outline.words)


def test_coordinates_are_sampled_while_they_are_read(tmp_path):
    n = 5000
    frame = pd.DataFrame({"trace_id": [f"t{i}" for i in range(n)], "label": ["harmful", *["benign"] * 4] * (n // 5)})
    frame = frame.assign(position="decision", site="resid_post", lda=0.5, pc1=1.0, pc2=0.0)
    pd.concat([frame.assign(layer=layer) for layer in range(3)]).to_parquet(tmp_path / "coordinates.parquet")
    table = Run(tmp_path, {}).table("coordinates", columns=["trace_id", "label", "layer", "lda"], max_traces=1000)
    assert table is not None
    assert list(table.columns) == ["trace_id", "label", "layer", "lda"]
    assert table.attrs["n_traces"] == n
    assert len(table) == 3000
    assert (table["label"] == "harmful").mean() == pytest.approx(0.2, abs=0.01)


def test_traces_without_labels_leave_separability_out(tmp_path):
    _, outline = read(write_report(write_run(tmp_path, **SMALL, labels=False)))
    assert "no separability.parquet" in "".join(outline.words)


def test_conditions_are_offered_wherever_traces_are_chosen(page):
    text, outline = read(page)
    inside = [a["value"] for tag, a in outline.tags if tag == "option" and a.get("value", "").startswith("source=")]
    wanted = [f"source={name}{label}" for name in CONDITIONS for label in ("", ", harmful", ", benign")]
    assert inside == wanted * 2, "in the plots by head and by layer"
    assert "From one condition to another" in "".join(outline.words)
    assert "wrapped <b>, harmful prompts" in "".join(outline.words), "in the paper's measure, too"
    assert "<b>, harmful" not in text


def test_a_run_that_tells_nothing_apart_says_nothing_of_conditions(tmp_path):
    _, outline = read(write_report(write_run(tmp_path, **SMALL, conditions=())))
    assert not [a for tag, a in outline.tags if tag == "option" and a.get("value", "").startswith("source=")]
    assert "From one condition to another" not in "".join(outline.words)
    assert "transfer.parquet" not in "".join(outline.words)


def test_the_first_example_shown_has_a_dormant_signal(page):
    text = page.read_text(encoding="utf-8")
    book = json.loads(re.search(r'id="examples-data">(.*?)</script>', text, re.S)[1])
    facts = [record["facts"] for record in book["records"]]
    dormant = [
        i for i, fact in enumerate(facts) if (fact["label"], fact["aha"], fact["hint"]) == ("harmful", "unsafe", True)
    ]
    assert book["first"] == (dormant[0] if dormant else 0)


def test_choices_that_do_not_fit_are_named():
    names = {"all": "all traces", "a": "one", "b": "two"}
    assert that_fit(names, 10, 30, "x.parquet") == (names, "")
    kept, note = that_fit(names, 10, 15, "x.parquet")
    assert kept == {"all": "all traces"}
    assert note == "To keep the page small, some choices of traces are in x.parquet alone: one; two."
    assert that_fit(names, 100, 15, "x.parquet")[0] == {"all": "all traces"}


@pytest.mark.slow
def test_many_large_heads_still_fit(tmp_path):
    folder = write_run(tmp_path, n_traces=40, n_layers=32, n_heads=32, n_examples=12, long_prompt=120)
    page = write_report(folder)
    assert page.stat().st_size < 8_000_000
    assert "attention maps an example" in page.read_text(encoding="utf-8")


def test_the_scatter_thins_itself_and_says_so(tmp_path):
    n, sites = 3000, 40
    ids = [f"t{i}" for i in range(n)]
    frame = pd.DataFrame({"trace_id": ids, "label": ["harmful", "benign"] * (n // 2), "lda": 0.5, "pc1": 1.0})
    table = pd.concat([frame.assign(position="decision", layer=layer, site="resid_post") for layer in range(sites)])
    group = scatter_group(table, dict.fromkeys(ids, "text"), None)
    assert f"of {n} traces" in group.note
    assert len(json.dumps(embed([group]))) < 1_200_000


def test_no_run_and_a_broken_table_are_one_line(tmp_path):
    with pytest.raises(RunError, match=r"holds no run\.json"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text('{"safekey_interp": "0"}', encoding="utf-8")
    (tmp_path / "traces.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(RunError, match=r"traces\.parquet: cannot be read"):
        write_report(tmp_path)
    (tmp_path / "traces.parquet").unlink()
    (tmp_path / "findings.json").write_text("{half", encoding="utf-8")
    with pytest.raises(RunError, match=r"findings\.json: cannot be read"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("{half", encoding="utf-8")
    with pytest.raises(RunError, match=r"holds no run\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["separability", "transfer"])
def test_a_table_of_an_earlier_version_is_one_line(tmp_path, run, name):
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    table = pd.read_parquet(run / f"{name}.parquet")
    table.drop(columns=["auroc_high_over_layers"]).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(RunError, match=rf"{name}\.parquet is of an earlier version, expected columns auroc_high_over"):
        write_report(tmp_path)
    assert len(open_run(tmp_path).table(name)) == len(table)


def test_templates_escape_unless_it_is_html_and_islands_cannot_be_left():
    shown = part("table", ["<h>", 0], [["<b>&\x00\ud800", Html("<i>x</i>")]], '"<')
    assert "&lt;b&gt;&amp;\ufffd\ufffd" in shown
    assert "<i>x</i>" in shown
    assert "<caption>&#34;&lt;</caption>" in shown
    assert '<th scope="col">0</th>' in shown
    assert data("</bdi>") == "<bdi>&lt;/bdi&gt;</bdi>"
    inside = island("x", {"a": ["</script><!--<script>", "\u2028&", float("nan"), np.float32(2), "\ud800"]})
    body = inside.split(">", 1)[1].rsplit("</script>", 1)[0]
    assert not set("<>&\u2028") & set(body)
    assert json.loads(body)["a"] == ["</script><!--<script>", "\ufffd&", None, 2.0, "\ufffd"]


def test_a_name_that_a_template_lacks_is_an_error_and_no_empty_place():
    with pytest.raises(UndefinedError, match="counts"):
        render("probe_page", "where")


def test_verdicts_follow_the_intervals():
    measured = Estimate(0.5, 0.4, 0.6)
    controls = {
        "low": Estimate(0.2, 0.1, 0.3),
        "near": Estimate(0.35, 0.3, 0.45),
        "high": Estimate(0.9, 0.8, 1.0),
        "none": Estimate(np.nan, np.nan, np.nan),
    }
    assert verdict(measured, controls) == "Above low; not told apart from near; below high"
    assert verdict(measured, {"bare": Estimate(0.39, np.nan, np.nan)}) == "Above bare"
    assert verdict(measured, {}) == "No control"
