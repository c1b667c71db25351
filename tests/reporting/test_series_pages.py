"""The page of checkpoints: lines over steps beside their controls, changes from the first, few sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from html_pages import check_outline, read
from synthetic_comparison_runs import NAMES, write_series
from synthetic_probe_runs import HOSTILE

from safekey_interp.errors import RunError
from safekey_interp.reporting import figures
from safekey_interp.reporting.report_file import write_report
from safekey_interp.runs.run_folder import Run, open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(write_series(tmp_path_factory.mktemp("series") / "run"))


def lines_of(spec: Any) -> dict[str, Any]:
    return {trace["name"]: trace for trace in spec["data"] if "name" in trace}


def test_the_page_opens_with_lines_over_the_steps(run: Run) -> None:
    page, outline = read(write_report(run.path))
    check_outline(outline)
    assert HOSTILE not in page
    for panel in ("strip-aha", "step-aha-harmful", "step-looks-decision", "step-auroc-decision"):
        assert f'data-panel="{panel}"' in page
    assert 'data-panel="share-aha"' not in page
    shown = list(run.figures)
    assert shown[0] == "strip-aha"
    assert set(run.figures.choices("step-aha-harmful")) == {
        f"step-aha-harmful|{shows}|{scale}" for shows in ("estimate", "change") for scale in ("linear", "log")
    }
    # One sentence a measure, whatever the number of checkpoints.
    texts = [finding["text"] for finding in run.findings["findings"]]
    assert len(texts) == len({text.split(":")[0] for text in texts}) <= 12
    assert all("at step 0" in text and "at step 16; change +" in text for text in texts)
    assert not any(f"{NAMES[1]} " in text for text in texts)


def test_controls_stand_beside_what_they_are_of(run: Run) -> None:
    series = run.series
    assert series is not None
    aha = lines_of(figures.share_by_checkpoint.spec(series, measure="aha", subset="harmful"))
    assert list(aha) == ["harmful prompts"]  # there are no benign prompts in this run
    auroc = lines_of(figures.auroc_by_checkpoint.spec(series, position="decision"))
    assert {"median layer", "words alone", "shuffled labels"} <= set(auroc)
    rows = series[(series["measure"] == "auroc") & (series["position"] == "decision")]
    words = rows[rows["control"] == "words alone"].set_index("step")["estimate"]
    assert auroc["words alone"]["y"] == pytest.approx(words.tolist(), abs=1e-4)
    look = figures.attention_by_checkpoint.spec(series, position="decision")
    assert look["layout"]["shapes"][0]["y0"] == 1
    assert set(lines_of(look)) == {"U, the understanding", "X, the prompt"}
    changes = figures.auroc_by_checkpoint.spec(series, position="decision", shows="change")
    assert set(lines_of(changes)) == {"median layer"}, "a control has no change of its own"
    assert lines_of(changes)["median layer"]["x"] == [4, 16], "the first step is what the others are held against"
    with pytest.raises(RunError, match="no number"):
        figures.share_by_checkpoint.spec(series, measure="refusal", subset="unlabelled")


def test_step_0_stands_on_a_logarithmic_axis_and_says_that_it_is_the_start(run: Run) -> None:
    series = run.series
    assert series is not None
    about: Any = {"measure": "aha", "subset": "harmful"}
    linear, log = (figures.share_by_checkpoint.spec(series, **about, scale=scale) for scale in ("linear", "log"))
    assert lines_of(linear)["harmful prompts"]["x"] == [0, 4, 16]
    assert lines_of(log)["harmful prompts"]["x"] == [2, 4, 16]
    axis = log["layout"]["xaxis"]
    assert (axis["type"], axis["tickvals"], axis["ticktext"]) == ("log", [2, 4, 16], ["start", "4", "16"])


def test_many_steps_keep_their_first_and_last_tick(run: Run) -> None:
    import pandas as pd

    series = run.series
    assert series is not None
    last = series[series["step"] == 16]
    many = pd.concat([last.assign(step=step) for step in range(7, 700, 31)])
    ticks = figures.share_by_checkpoint.spec(many, measure="aha", subset="harmful")["layout"]["xaxis"]["tickvals"]
    steps = sorted(set(many["step"]))
    assert (ticks[0], ticks[-1]) == (steps[0], steps[-1])
    assert set(ticks) <= set(steps)
    assert len(ticks) <= 10


def test_the_table_has_a_column_a_step_and_the_last_change(run: Run) -> None:
    page = Path(write_report(run.path)).read_text()
    assert all(f">Step {step}</th>" in page for step in (0, 4, 16))
    assert ">Step 16 minus step 0</th>" in page
    assert "words alone" in page
