"""Adapters of SmolLM2 that make it a small reasoning model: fine-tuned plainly, and with the two losses of SafeKey.

Two LoRA runs of one study (``analysis/real_model/REAL_STUDY.md``), of the same traces in the same order:
``smollm2:sft`` and ``smollm2:safekey``. An adapter lies in the repository, where the package is that of a checkout,
else in the cache folder (``$SAFEKEY_CACHE``, else the user's), where the study's command puts what it makes. Merging
needs peft (``[train]``).
"""

from __future__ import annotations

from pathlib import Path

from safekey_interp.errors import ModelError
from safekey_interp.runs.storage import cache_folder

MODELS = {
    "smollm2:sft": "SmolLM2 fine-tuned on STAR-1's reasoning, without auxiliary losses",
    "smollm2:safekey": "fine-tuned on the same traces with the two losses of SafeKey",
}
"""The adapted models and a line about each."""
SHIPPED = Path(__file__).parents[2] / "analysis" / "real_model" / "adapters"
"""Of a checkout; the wheel has none."""


def is_adapted(spec: str) -> bool:
    """Whether a model's name asks for an adapted SmolLM2, known or not."""
    return spec.startswith("smollm2:")


def adapter_folder(spec: str) -> Path:
    """The folder of an adapter.

    Raises:
        ModelError: there is none of that name, or it is neither in the checkout nor in the cache.
    """
    if spec not in MODELS:
        raise ModelError(f"model {spec}: no such SmolLM2, expected one of smollm2, {', '.join(MODELS)}")
    for folder in (SHIPPED / _name(spec), cached_adapter(spec)):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise ModelError(
        f"model {spec}: its adapter is neither in a checkout nor in {cached_adapter(spec)}; {remedy(spec)}"
    )


def cached_adapter(spec: str) -> Path:
    """Where an adapter belongs that is made on this machine."""
    return cache_folder() / "adapters" / f"smollm2-{_name(spec)}"


def is_there(spec: str) -> bool:
    """Whether the adapter of a known name is there."""
    try:
        adapter_folder(spec)
    except ModelError:
        return False
    return True


def remedy(spec: str) -> str:
    """The command that makes an adapter, in a checkout of the repository."""
    return f"`python -m analysis.real_model --make {_name(spec)} --data DIR --out DIR` in the repository makes it"


def _name(spec: str) -> str:
    return spec.partition(":")[2]
