"""What is in train/: each recipe asks one thing, launchers accept their files, and the README says what is there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from tiny_models import BASE
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from analysis.cost.training_memory import MODELS, table, without_weights
from analysis.tables import markdown
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.config import TrainingConfig, read_config
from safekey_interp.training.distributed import blocks
from safekey_interp.training.memory import shape_of

TRAIN = Path(__file__).parents[2] / "train"
README = (TRAIN / "README.md").read_text(encoding="utf-8")
LAUNCHERS = sorted((TRAIN / "accelerate").glob("*.yaml"))
# Recipes for the organism are another matter: they may differ from the paper's in anything.
RECIPES = [path for path in sorted(TRAIN.glob("*.yaml")) if not path.stem.startswith("organism")]
ABOUT: dict[str, dict[str, Any]] = {
    "safekey": {},
    "sft": {"head_weight": 0, "query_mask_weight": 0},
    "dpsh": {"query_mask_weight": 0},
    "qmm": {"head_weight": 0},
    "understanding_path": {"theta": 1},
    "context_path": {"theta": 0},
    "head_layer": {"head_layer": 14},
    "from_first_step": {"auxiliary_epochs": None},
    "shuffled_labels": {"shuffled_labels": True},
    "kw": {"query_mask_weight": 0, "key_weight": 0.2},
    "qmm_other_prompt": {"head_weight": 0, "query_prompt": "other"},
}
"""What each recipe changes in SafeKey's."""
NAMES = {one.name for one in fields(TrainingConfig)}


def differences(one: TrainingConfig, other: TrainingConfig) -> dict[str, Any]:
    before = other.to_dict()
    return {name: value for name, value in one.to_dict().items() if name != "out" and value != before[name]}


def rows_under(heading: str) -> list[list[str]]:
    """Cells of the tables between a heading and the next one; the heads of the tables are left out."""
    part = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    rules = [i for i, line in enumerate(lines) if set(line) <= set("|-")]
    heads = {i - 1 for i in rules}
    kept = [line for i, line in enumerate(lines) if i not in heads and i not in rules]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in kept]


def test_every_recipe_is_known() -> None:
    assert {path.stem for path in RECIPES} == set(ABOUT)


@pytest.mark.parametrize("path", sorted(TRAIN.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_read(path: Path) -> None:
    config = read_config(path)
    assert config.traces, "a recipe names its data"
    assert config.out != TrainingConfig().out, "two recipes never write to the same folder"


def test_no_two_recipes_write_to_the_same_folder() -> None:
    outs = [read_config(path).out for path in RECIPES]
    assert len(set(outs)) == len(outs)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_differs_from_safekeys_in_what_it_asks_alone(path: Path) -> None:
    safekey = read_config(TRAIN / "safekey.yaml")
    assert differences(read_config(path), safekey) == ABOUT[path.stem]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_states_what_differs_from_the_defaults_and_why(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    stated = yaml.safe_load(text)
    assert set(stated) == set(differences(read_config(path), TrainingConfig())) | {"out"}
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert 1 <= len(comments) <= 2
    assert text.startswith("#")


def test_safekeys_recipe_is_the_papers() -> None:
    changed = differences(read_config(TRAIN / "safekey.yaml"), TrainingConfig())
    assert set(changed) == {"model", "traces", "finder", "precision", "gradient_checkpointing"}
    assert changed["precision"] == "bf16"


def launched(path: Path, *flags: str) -> Any:
    """The words of a launch, merged with the file as ``accelerate launch`` does it."""
    words = ["--config_file", str(path), "--main_process_port", "0", *flags, "-m", "safekey_interp", "train"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    return args


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_accelerate_accepts_its_file(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    # It ignores what it does not know inside these two, and says nothing.
    known = {action.dest for action in launch_command_parser()._actions}
    assert set(config.fsdp_config or {}) | set(config.deepspeed_config or {}) <= known
    args = launched(path)
    assert args.mixed_precision == "no", "the recipe says the precision; transformers takes the launcher's otherwise"


def test_each_way_of_launching_has_a_file() -> None:
    kinds = {path.stem: str(load_config_from_file(str(path)).distributed_type.value) for path in LAUNCHERS}
    assert kinds == {"one_gpu": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED"}
    args = launched(TRAIN / "accelerate" / "zero3.yaml")
    assert (args.use_deepspeed, args.zero_stage, args.gradient_accumulation_steps) == (True, 3, "auto")


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_fsdp2_makes_a_unit_of_each_decoder_layer(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = prepare_multi_gpu_env(launched(TRAIN / "accelerate" / "fsdp2.yaml", "--num_processes", "2"))
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    for name, value in environment.items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type), "else a checkpoint holds no weights that load reads"
    shape: Any = BASE
    hf = AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](**shape))
    loss = BatchLoss(hf, None)
    plugin.set_auto_wrap_policy(loss)
    [wrapped] = plugin.auto_wrap_policy.keywords.values()  # type: ignore[union-attr]
    assert [module for module in loss.modules() if isinstance(module, tuple(wrapped))] == blocks(hf)


def test_the_readme_names_every_recipe_and_what_it_changes() -> None:
    listed = {}
    for line in README.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and (name := re.fullmatch(r"`(\w+)\.yaml`", cells[0])):
            listed[name[1]] = set(re.findall(r"`(\w+)`", cells[2]))
    assert listed == {name: set(changes) for name, changes in ABOUT.items()}
    for path in LAUNCHERS:
        assert f"`accelerate/{path.name}`" in README


def test_every_key_that_the_readme_maps_a_flag_to_is_a_setting() -> None:
    rows = rows_under("Flags of the reference")
    mapped = [row for row in rows if len(row) == 4]
    without = [row for row in rows if len(row) == 2]
    assert len(mapped) + len(without) == len(rows)
    flags = [re.fullmatch(r"`(--\w+)`", row[0]) for row in rows]
    assert all(flags)
    assert len({flag[1] for flag in flags if flag}) == len(rows), "no flag twice"
    for _, default, key, _ in mapped:
        name = key.strip("`")
        assert name in NAMES
        if re.fullmatch(r"[\d.e-]+", default) and name not in {"save_total_limit", "batch_size"}:
            assert getattr(TrainingConfig(), name) == float(default)
    assert all(row[1] for row in without), "a flag without a counterpart has a reason"


def test_the_readmes_commands_are_read() -> None:
    found = re.findall(r"safekey[-_]interp train (train/\S+\.yaml) (.*)", README)
    assert len(found) >= 4
    for recipe, words in found:
        pairs = [word for word in words.split() if "=" in word and "…" not in word]
        read_config(TRAIN.parent / recipe, pairs)


def test_the_readmes_memory_is_what_the_script_prints() -> None:
    printed = README.split("<!-- memory -->\n", 1)[1].split("\n<!-- end -->", 1)[0]
    assert printed == markdown(table())


def test_shapes_are_those_of_the_public_models() -> None:
    # The models' own counts of parameters.
    known = {"Qwen2.5-7B": 7_615_616_512, "Llama-3.1-8B": 8_030_261_248, "Qwen2.5-14B": 14_770_033_664}
    for name, config in MODELS.items():
        shape = shape_of(without_weights(name, config), TrainingConfig())
        assert (shape.n_parameters, shape.n_bytes) == (known[name], 4)
