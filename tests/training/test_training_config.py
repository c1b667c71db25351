"""Laws of the settings of a training run: typed, checked at once, and written back as they were read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from safekey_interp.errors import InputError
from safekey_interp.training.config import TrainingConfig, read_config


def test_a_file_then_pairs_that_win(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 1e-4\ntraces: [a.jsonl, b.jsonl]\nauxiliary_epochs: null\nseed: 3\n")
    config = read_config(recipe, ["seed=5", "betas=[0.9, 0.98]", "compile=true", "traces=c.jsonl"])
    assert config.learning_rate == 1e-4
    assert config.traces == ("c.jsonl",)
    assert config.auxiliary_epochs is None
    assert (config.seed, config.betas, config.compile) == (5, (0.9, 0.98), True)


def test_what_is_written_back_reads_the_same() -> None:
    config = read_config(None, ["traces=[a, b]", "lora_rank=4", "delimiters=[<a>, </a>]"])
    assert TrainingConfig(**yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_the_defaults_are_the_papers() -> None:
    config = TrainingConfig()
    assert (config.head_weight, config.query_mask_weight, config.theta) == (0.2, 0.2, 0.5)
    assert (config.learning_rate, config.betas, config.weight_decay, config.warmup) == (1e-5, (0.9, 0.95), 1e-4, 0.05)
    assert (config.epochs, config.auxiliary_epochs, config.batch_size, config.max_length) == (5, 2, 128, 8192)
    assert (config.schedule, config.seed) == ("cosine", 2002)


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("learningrate=1", "learning_rate"),
        ("seed=x", "expected a whole number"),
        ("seed=true", "expected a whole number"),
        ("held_out=2", "from 0 to 0.9"),
        ("compile=1", "expected true or false"),
        ("query_mask=long", "expected one of short, packed, masked"),
        ("betas=[1]", "a list of 2 numbers"),
        ("traces=[1]", "a list of texts"),
        ("theta=.nan", "finite"),
        ("theta=2", "from 0 to 1"),
        ("epochs=.inf", "finite"),
        ("learning_rate=.nan", "finite"),
        ("betas=[2, 3]", "from 0 to below 1"),
        ("weight_decay=-1", "at least 0"),
        ("max_grad_norm=-1", "at least 0"),
        ("out=2024-13-01", "not YAML"),
        ("lora_targets=[1]", "a text or a list of texts"),
        ("epochs=0", "greater than 0"),
        ("max_steps=1.5", "expected a whole number of at least 1"),
        ("learning_rate=fast", "expected a number"),
        ("micro_batch_size=3", "multiple"),
        ("seed", "key=value"),
        ("seed=[1", "not YAML"),
    ],
)
def test_bad_settings_get_one_line(pair: str, says: str) -> None:
    with pytest.raises(InputError, match=says.replace("[", r"\[")) as caught:
        read_config(None, [pair])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"\xff", "not UTF-8"), (b"[1]", "by name"), (b"a: [", "not YAML")]
)
def test_bad_recipes_get_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    if content is not None:
        recipe.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_config(recipe)


def test_every_setting_can_be_set() -> None:
    for one in fields(TrainingConfig):
        value = getattr(TrainingConfig(), one.name)
        assert getattr(TrainingConfig(**{one.name: value}), one.name) == value


@pytest.mark.parametrize("name", [one.name for one in fields(TrainingConfig) if isinstance(one.default, bool)])
def test_every_switch_can_be_turned_off_and_on(name: str) -> None:
    """In the reference ``--flag False`` turned a flag on: any text is true."""
    assert getattr(read_config(None, [f"{name}=false"]), name) is False
    assert getattr(read_config(None, [f"{name}=true"]), name) is True
    with pytest.raises(InputError, match="expected true or false"):
        read_config(None, [f"{name}='False'"])


def test_brackets_without_end_are_one_line() -> None:
    with pytest.raises(InputError, match="not YAML"):
        read_config(None, ["traces=" + "[" * 5_000])


def test_adapters_go_where_they_are_told() -> None:
    assert read_config(None, ["lora_targets=[q_proj, v_proj]"]).lora_targets == ("q_proj", "v_proj")
    assert read_config(None, ["lora_targets=.*(q_proj|v_proj)"]).lora_targets == ".*(q_proj|v_proj)"
