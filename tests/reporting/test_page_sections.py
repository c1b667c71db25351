"""A section of a page is one file: registered by import, or by an entry point of an installed package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from html_pages import check_outline, read
from synthetic_intervention_runs import write_intervention
from synthetic_probe_runs import write_run

from safekey_interp.reporting.pages import page_sections
from safekey_interp.reporting.report_file import write_report

SECTION = """
from safekey_interp.reporting.pages.page_sections import page_section


@page_section("probe", name="lengths", title="How long are the prompts?", order=35)
def _lengths(page):
    longest = page.run.traces["prompt"].str.len().max()
    return f"The longest has {longest} characters, <b>not</b> tokens\\u202e."
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package of one module, with its entry point; forgotten afterwards."""
    list(page_sections.sections_of("probe"))  # what is kept holds the package's own
    (tmp_path / "my_sections.py").write_text(SECTION, encoding="utf-8")
    about = tmp_path / "my_sections-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-sections\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[{page_sections.GROUP}]\nlengths = my_sections\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = {kind: dict(sections) for kind, sections in page_sections._SECTIONS.items()}
    yield "my_sections"
    sys.modules.pop("my_sections", None)
    page_sections._SECTIONS.clear()
    page_sections._SECTIONS.update(kept)


def sections_on(page: Path) -> list[str]:
    return [about["id"] for tag, about in read(page)[1].tags if tag == "section"]


@pytest.mark.slow
def test_a_package_adds_a_section_without_touching_another_module(tmp_path: Path, package: str) -> None:
    page = write_report(write_run(tmp_path / "run", n_traces=24, n_layers=2, n_heads=2, n_examples=1))
    assert sections_on(page)[3:6] == ["knew", "lengths", "chance"]
    assert sections_on(page)[-3:] == ["left-out", "reading", "provenance"]
    text, outline = read(page)
    check_outline(outline)
    assert "characters, &lt;b&gt;not&lt;/b&gt; tokens\ufffd." in text
    assert '<a href="#lengths">How long are the prompts?</a>' in text
    assert package in sys.modules


def test_sections_keep_their_order_and_the_later_of_one_name_wins(package: str) -> None:
    assert package not in sys.modules
    for title in ("First", "Second"):
        page_sections.page_section("probe", name="twice", title=title, order=15)(lambda page: None)
    listed = list(page_sections.sections_of("probe"))
    assert [section.order for section in listed] == sorted(section.order for section in listed)
    assert [section.title for section in listed if section.name == "twice"] == ["Second"]
    assert not [section for section in page_sections.sections_of("training") if section.name == "lengths"]


@pytest.mark.parametrize("kind", ["knockout", "trajectory"])
def test_an_intervention_draws_its_registered_sections(tmp_path: Path, package: str, kind: str) -> None:
    add = page_sections.page_section("intervention", name="record", title="Which intervention?", order=15)
    add(lambda page: f"It is <{page.intervention.name}>.")
    page = write_report(write_intervention(tmp_path / "run", kind))
    assert sections_on(page)[:4] == ["summary", "changed", "record", "did"]
    assert f"It is &lt;{kind}&gt;." in page.read_text(encoding="utf-8")
