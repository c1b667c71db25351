"""A run's page and figures in a notebook are those of its folder."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from synthetic_intervention_runs import write_intervention
from synthetic_probe_runs import write_run

import safekey_interp as ski

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ski.Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return ski.open_run(write_run(folder, n_traces=24, n_layers=2, n_heads=2, n_examples=1))


def test_the_report_is_the_page_and_shows_it(run: ski.Run) -> None:
    page = run.report()
    assert Path(page) == run.path / "report.html"
    text = Path(page).read_text(encoding="utf-8")
    shown = re.search(r'srcdoc="([^"]*)"', page._repr_html_())
    assert shown is not None
    assert html.unescape(shown[1]) == text
    assert "allow-same-origin" not in page._repr_html_()
    Path(page).write_text("old", encoding="utf-8")
    run.report()
    assert Path(page).read_text(encoding="utf-8") == "old"
    run.report(redraw=True)
    assert Path(page).read_text(encoding="utf-8") == text


def test_figures_are_those_of_the_page(run: ski.Run) -> None:
    figures = run.figures
    assert set(figures) >= {"mass-prompt", "lift-understanding", "separability-curve"}
    for name, figure in figures.items():
        assert figure.layout.meta["caption"]
        assert figure.layout.title.text
        assert figures.choices(name)
        assert all(choice == name or choice.startswith(f"{name}|") for choice in figures.choices(name))
    captions = {figures[choice].layout.meta["caption"] for choice in figures.choices("mass-prompt")}
    assert len(captions) > 1
    for wrong in ("mass", "mass-prompt|nothing"):
        with pytest.raises(KeyError):
            figures[wrong]


def test_other_runs_have_figures_too(tmp_path: Path) -> None:
    run = ski.open_run(write_intervention(tmp_path / "run", "knockout by layer"))
    assert len(run.figures) > 0
