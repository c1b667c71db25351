"""``TrainingArguments`` of transformers for the settings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from safekey_interp.errors import InputError
from safekey_interp.runs.processes import place
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.schedule import Order, Schedule

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


def arguments_of(
    config: TrainingConfig, schedule: Schedule, checkpoints: Path, model: Model, *, has_held_out: bool
) -> TrainingArguments:
    """transformers' arguments for these settings.

    Args:
        config: the settings.
        schedule: of the run.
        checkpoints: where checkpoints go.
        model: says which device.
        has_held_out: whether there is something to evaluate on.

    Raises:
        InputError: the device cannot do what is asked.
    """
    on_cpu = model.device.type == "cpu"
    if on_cpu and config.precision == "fp16":
        raise InputError("precision: fp16 would be computed as fp32 on cpu, in silence; expected bf16 or fp32 there")
    order = Order(
        lengths=[],
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        seed=config.seed,
        world_size=place().world_size,
    )
    options: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": order.passes_per_step,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "warmup_steps": schedule.warmup_steps,
        "lr_scheduler_type": config.schedule,
        "max_grad_norm": config.max_grad_norm,
        "seed": config.seed,
        "bf16": config.precision == "bf16",
        "fp16": config.precision == "fp16",
        "logging_nan_inf_filter": False,
        # The trainer's own callback says when.
        "logging_strategy": "no",
        "eval_strategy": "no",
        "save_strategy": "no",
        "eval_on_start": has_held_out,
        "report_to": list(config.report_to),
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
        "restore_callback_states_from_checkpoint": False,
    }
    if on_cpu and place().world_size > 1:
        options["ddp_backend"] = "gloo"
    try:
        arguments = TrainingArguments(**options)
    except (ValueError, ImportError) as error:
        raise InputError(f"precision {config.precision}, {model.device}: {str(error).splitlines()[0]}") from error
    # One process computes on one device: several are for a launcher (DDP), never for DataParallel.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments
