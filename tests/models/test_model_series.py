"""Which checkpoints a series names, in which order, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safekey_interp.errors import InputError, ModelError
from safekey_interp.models.model_series import series_models


def checkpoint(folder: Path, *, step: int | None = None, adapter_of: str | None = None) -> Path:
    """A folder that passes for a saved model, or for an adapter."""
    folder.mkdir(parents=True)
    if adapter_of is None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text("")
    else:
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": adapter_of}))
    if step is not None:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def named(series: str, *base: str) -> list[tuple[int | None, str]]:
    return [(side.step, side.name) for side in series_models(series, base)]


def test_steps_run_by_number_and_the_base_is_step_0(tmp_path: Path) -> None:
    for name in ("checkpoint-1000", "checkpoint-50", "checkpoint-9"):
        checkpoint(tmp_path / name)
    (tmp_path / "checkpoint-list.txt").write_text("no folder")
    series = str(tmp_path / "checkpoint-*")
    in_order = [(9, "checkpoint-9"), (50, "checkpoint-50"), (1000, "checkpoint-1000")]
    assert named(series) == in_order
    assert named(series, "organism:base") == [(0, "organism:base"), *in_order]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500),
        ("step1000-tokens4B", 1000),
        ("stage1-step2000-tokens9B", 2000),
        ("epoch_3", 3),
        ("llama-7b_iter-40", 40),
        ("global_step77", 77),
    ],
)
def test_a_step_is_read_from_a_name(tmp_path: Path, name: str, step: int) -> None:
    checkpoint(tmp_path / name)
    checkpoint(tmp_path / "checkpoint-999999")
    assert named(str(tmp_path / "*"))[0] == (step, name)


def test_the_trainers_own_step_goes_before_the_name(tmp_path: Path) -> None:
    checkpoint(tmp_path / "epoch-1", step=400)
    checkpoint(tmp_path / "best", step=200)
    assert named(str(tmp_path / "*")) == [(200, "best"), (400, "epoch-1")]


def test_names_that_are_alike_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    one, two = checkpoint(tmp_path / "a" / "model", step=3), checkpoint(tmp_path / "b" / "model", step=5)
    assert named(str(tmp_path / "*" / "model")) == [(3, str(one)), (5, str(two))]
    assert len({side.folder for side in series_models(str(tmp_path / "*" / "model"))}) == 2


def test_an_adapter_is_its_base_with_it_merged(tmp_path: Path) -> None:
    for step in (2, 4):
        checkpoint(tmp_path / f"checkpoint-{step}", adapter_of="organism:base")
    sides = series_models(str(tmp_path / "checkpoint-*"))
    assert [side.given for side in sides] == ["organism:base"] * 2
    assert [side.options["adapter"] for side in sides] == [str(tmp_path / f"checkpoint-{step}") for step in (2, 4)]


def test_revisions_of_a_hub_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sides = series_models("owner/pythia@step1000,step8,main2")
    assert [(side.step, side.name) for side in sides] == [
        (2, "pythia@main2"),
        (8, "pythia@step8"),
        (1000, "pythia@step1000"),
    ]
    assert {side.given for side in sides} == {"owner/pythia"}
    assert [side.options for side in sides] == [{"revision": one} for one in ("main2", "step8", "step1000")]
    # A folder of that name is a folder.
    checkpoint(tmp_path / "owner" / "pythia@step8")
    with pytest.raises(InputError, match="one checkpoint"):
        series_models("owner/pythia@step8")


def test_what_is_no_series_is_refused_in_one_line(tmp_path: Path) -> None:
    refused = {
        str(tmp_path / "gone-*"): "no such folder, expected a pattern",
        "": "no such folder, expected a pattern",
        str(tmp_path / "named" / "*"): "no step in the name 'final'",
        str(tmp_path / "two" / "*"): "no step in the name '7b-v2'",
        str(tmp_path / "twice" / "*"): "are both of step 5",
        str(tmp_path / "alone" / "*"): "one checkpoint",
        "owner/name@main,step2": "no step in the name 'main'",
    }
    for folder in ("named/final", "two/7b-v2", "twice/checkpoint-5", "twice/step5", "alone/checkpoint-5"):
        checkpoint(tmp_path / folder)
    for series, said in refused.items():
        with pytest.raises(InputError, match=said) as caught:
            series_models(series)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="got 2 models beside it"):
        series_models(str(tmp_path / "twice" / "*"), ["organism", "organism:base"])
    checkpoint(tmp_path / "zero" / "step0")
    with pytest.raises(InputError, match="both of step 0"):
        series_models(str(tmp_path / "zero" / "*"), ["organism:base"])
    (tmp_path / "alone" / "logs-7").mkdir()
    with pytest.raises(ModelError, match="the folder holds no config"):
        series_models(str(tmp_path / "alone" / "*"))
    checkpoint(tmp_path / "adapters" / "checkpoint-1", adapter_of="")
    with pytest.raises(ModelError, match="names no base model"):
        series_models(str(tmp_path / "adapters" / "*"))
