"""A new intervention is one file: the documentation adds one, and everything else is made from its record."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Type
from html_pages import check_outline, figures_in, read

import safekey_interp as ski
from safekey_interp.errors import InputError
from safekey_interp.interventions import intervention_registry as registry
from safekey_interp.interventions.intervention_options import complete_options
from safekey_interp.interventions.intervention_record import Intervention, load_function
from safekey_interp.interventions.knockout_plan import CONTROLS
from safekey_interp.models import organism
from safekey_interp.reporting.findings.intervention_terms import main_subset
from safekey_interp.reporting.report_file import write_report

ROOT = Path(__file__).parents[2]
NAME = "mean_ablation"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Intervention]:
    """The page's intervention in a package of its own, registered for one test."""
    page = (ROOT / "docs" / "howto" / "intervention.md").read_text(encoding="utf-8")
    folder = tmp_path / "plugin_of_a_user"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / f"{NAME}.py").write_text(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    record = importlib.import_module(f"{folder.name}.{NAME}").INTERVENTION
    ski.register_intervention(record)
    yield record
    for module in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[module]


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """Six harmful requests and six benign ones."""
    by_request = {trace.group: trace for trace in organism.read_shipped()}.values()
    chosen = [trace for label in ("harmful", "benign") for trace in [t for t in by_request if t.label == label][:6]]
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps(organism.to_row(trace)) + "\n" for trace in chosen))
    return file


def test_a_registered_intervention_has_a_run_findings_and_a_page(
    added: Intervention, traces: Path, tmp_path: Path
) -> None:
    run = ski.run_intervention(NAME, ski.load("organism"), traces, out=tmp_path / "run", layers=[1, 2], chunk=5)
    effects, summary = run.effects, run.summary
    assert set(effects["control"]) == {"none", "random_positions"}
    pd.testing.assert_frame_equal(load_function(added.summarise)(effects), summary)
    changed, *others = run.findings["findings"]
    assert "the understanding (U)" in changed["text"]
    assert changed["control"] == "as many random positions (2 draws)"
    assert {finding["question"] for finding in others} == {"did", "chance"}
    main = summary[(summary["metric"] == "difference") & (summary["subset"] == main_subset(summary))]
    row = main.loc[main["value"].abs().idxmax()]
    assert others[0]["value"] == pytest.approx(row["value"])
    assert others[0]["n"] == row["n"]
    page = write_report(run.path)
    _, outline = read(page)
    check_outline(outline)
    words = "".join(outline.words)
    assert "When a span of organism is averaged" in words
    assert "Replace the hidden states" not in words
    assert "Draws of random positions." in words
    figures = set(figures_in(page)["variants"])
    assert {name for name in figures if not name.startswith("strip-")} == {"effect-layers"}
    with pytest.raises(InputError, match="span: got 'answer', expected one of prompt, understanding"):
        ski.run_intervention(NAME, ski.load("organism"), traces, out=tmp_path / "no", span="answer")


@pytest.mark.usefixtures("added")
def test_a_registered_intervention_has_a_command(here: Path, traces: Path, command: Type) -> None:
    listed, asked = command("intervene", "--help"), command("intervene", NAME, "--help")
    assert (listed.status, asked.status) == (0, 0)
    assert NAME in listed.out
    assert "The span: prompt, understanding." in " ".join(asked.out.replace("│", "").split())
    shared = ("--traces", traces, "--no-report")
    ended = command("intervene", NAME, "--averaged", "prompt", "--layers", "-1", "--n-random", "1", *shared)
    assert ended.status == 0
    assert re.fullmatch(r"about [\d,]+ pass(es)?, .+ of memory\n", ended.err)
    assert "Averaging the prompt (X) moves safe minus compliant key" in " ".join(ended.out.split())
    [effects] = here.rglob("effects.parquet")
    assert set(pd.read_parquet(effects)["span"]) == {"prompt"}
    wrong = command("intervene", NAME, "--averaged", "answer", *shared)
    assert (wrong.status, wrong.err) == (
        2,
        "safekey-interp: --averaged: got 'answer', expected one of prompt, understanding\n",
    )


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(InputError, match="expected an Intervention with a name"):
        ski.register_intervention("knockout")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kind: got 'nonsense', expected one of knockout, patch"):
        registry.find_intervention("nonsense")


@pytest.mark.parametrize("name", [*registry.intervention_names(), *registry._VARIANTS])
def test_a_records_options_are_its_functions(name: str) -> None:
    record = registry.find_intervention(name)
    assert record.name == name
    measure = inspect.signature(load_function(record.measure)).parameters
    defaults = complete_options(record, ski.load("organism"), {}) | {"keep_directions": False}
    defaults |= dict.fromkeys(record.variants, False)
    for option in record.options:
        if option.name in measure and measure[option.name].default is not inspect.Parameter.empty:
            assert option.default == measure[option.name].default, option.name
        elif option.name != "fit_layers":
            assert option.default == defaults.get(option.name), option.name
        if option.choices and option.default is not None:
            values = option.default if option.several else [option.default]
            assert set(values) <= set(option.choices), option.name
    if record.form == "effects":
        assert all("{" not in text.format(line="", place="", metric="") for text in (record.effect,))
        assert np.all([figure.name.startswith("effect-") for figure in record.figures])


def test_a_knockouts_controls_are_those_of_its_plan() -> None:
    assert tuple(registry.find_intervention("knockout").controls) == CONTROLS


def test_a_flag_chooses_a_variant_which_is_no_command_of_its_own() -> None:
    direction = registry.find_intervention("direction")
    chosen, options = registry.choose_variant(direction, {"generate": True, "n_random": 3})
    assert (chosen.name, options) == ("direction_responses", {"n_random": 3})
    assert registry.choose_variant(direction, {"generate": False}) == (direction, {})
    assert not set(registry._VARIANTS) & set(registry.intervention_names())
