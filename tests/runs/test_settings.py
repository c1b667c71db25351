"""Laws of settings models: one check and one description for Python, the command line and the documentation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from command_line import Type

from safekey_interp.cli.app import COMMANDS, command_named
from safekey_interp.errors import InputError
from safekey_interp.evaluation.benchmarks.commands import BenchmarkSettings
from safekey_interp.experiments.experiment_settings import ComparisonSettings, ProbeSettings
from safekey_interp.generation.sampling_settings import Sampling
from safekey_interp.runs.settings import fields_of, in_words, option_name
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.training.config import TrainingConfig

MODELS = {
    "probe": ProbeSettings,
    "compare": ComparisonSettings,
    "eval": BenchmarkSettings,
    "generate": Sampling,
    "segment": SegmentationSettings,
}


@pytest.mark.parametrize("model", [*MODELS.values(), TrainingConfig])
def test_each_field_is_described_and_its_default_is_valid(model: Any) -> None:
    for name, field in fields_of(model).items():
        assert field.description, name
        assert in_words(field), name
    defaults = {name: field.default for name, field in fields_of(model).items()}
    assert model(**defaults) == model()


@pytest.mark.parametrize("command", MODELS)
def test_a_command_has_the_options_of_its_settings(command: str) -> None:
    options = {option.opts[0]: option for option in command_named(command).params}
    for name, field in fields_of(MODELS[command]).items():
        flag = option_name(MODELS[command], name)
        if flag:
            assert options[flag].help == field.description
            assert options[flag].default == field.default


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seed": -1}, "seed: got -1, expected a whole number from 0 to 4294967295"),
        ({"seed": True}, "seed: got True, expected a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed: got 4294967296, expected a whole number from 0 to 4294967295"),
        ({"batch_size": 0}, "batch_size: got 0, expected a whole number of at least 1 or auto"),
        ({"label_by": 3}, "label_by: got 3, expected a text"),
        ({"finder": "x"}, "finder: got 'x', expected one of rules, given, llm"),
        ({"delimiters": ["<a>"]}, r"delimiters: got \['<a>'\], expected a list of 2 texts"),
        ({"layer": [1]}, r"layer: no such setting; did you mean layers\?"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=f"^{says}") as caught:
        ProbeSettings(**values)
    assert "\n" not in str(caught.value)
    if set(values) <= set(fields_of(ProbeSettings)):
        with pytest.raises(InputError):
            replace(ProbeSettings(), **values)


@pytest.mark.parametrize("model", [ProbeSettings, ComparisonSettings])
def test_the_word_none_stands_for_no_column_of_conditions(model: Any) -> None:
    assert (model(by="none").by, model(by=None).by, model(by="mood").by) == (None, None, "mood")
    with pytest.raises(InputError, match="by: got '', expected a column's name, or None"):
        model(by="")


def test_the_command_line_names_the_option(here: Any, command: Type) -> None:
    (here / "t.jsonl").write_text('{"prompt": "How?"}\n')
    ended = command("generate", "--prompts", "t.jsonl", "--out", "r.jsonl", "--top-p", "0")
    assert ended.err == "safekey-interp: --top-p: got 0.0, expected a number greater than 0 and at most 1\n"
    assert ended.status == 2


def test_the_list_of_commands_is_that_of_their_modules() -> None:
    assert all(command_named(name).help == help_text for name, (_, help_text) in COMMANDS.items())
