"""What should whoever finds the trained model know of it? A card in Markdown, from what the run recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = (
    *(
        "head_weight",
        "query_mask_weight",
        "query_prompt",
        "theta",
        "key_weight",
        "shuffled_labels",
        "auxiliary_epochs",
        "head_layer",
    ),
    *(
        "epochs",
        "max_steps",
        "batch_size",
        "learning_rate",
        "head_learning_rate",
        "weight_decay",
        "max_length",
        "seed",
        "precision",
    ),
    "lora_rank",
)
_TERMS = {
    "total": "total",
    "lm": "language modelling (nats a token)",
    "head": "safety head (nats a row)",
    "query_mask": "query-mask modelling (nats a token of K)",
    "key": "K with the prompt in sight (nats a token)",
}


def card(manifest: Mapping[str, Any]) -> str:
    """The model card of a finished training run.

    Args:
        manifest: ``run.json``'s content.
    """
    model, settings, data = manifest["model"], manifest["settings"], manifest["data_report"]
    trained = data["train"]
    lines = [
        "---",
        "library_name: transformers",
        "tags: [safety, reasoning, safekey]",
        "---",
        "",
        f"# {_plain(model['name'])}, fine-tuned",
        "",
        f"Fine-tuned with safekey_interp {manifest['safekey_interp']} from {_plain(model['name'])} "
        f"(revision {_plain(model['revision'] or 'none')}, weights sha256 {model['weights_sha256'][:12]}): language "
        "modelling and the auxiliary losses of SafeKey (Zhou et al. 2025, arXiv 2505.16186) with the weights below.",
        "",
        "## Data",
        "",
        f"{trained['traces']:,} traces of {trained['groups']:,} groups ({trained['harmful']:,} harmful, "
        f"{trained['benign']:,} benign, {trained['unlabelled']:,} without a label), sha256 "
        f"{manifest['data']['traces_sha256'][:12]}; {data['held_out']['traces']:,} traces of other groups held out.",
        "",
        "## Settings",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {_plain(str(settings[name]))} |" for name in _SHOWN),
        "",
        "## Measured",
        "",
        *_measured(manifest["result"]),
        "",
        "These are losses on traces like those of training. What the model does when asked, and what it refuses, was "
        "not measured here.",
        "",
    ]
    return "\n".join(lines)


def _measured(result: Mapping[str, Any]) -> list[str]:
    held_out = result.get("held_out")
    if not held_out:
        return ["Nothing was held out, so nothing was measured."]
    before, after = held_out["before"], held_out["after"]
    rows = [
        f"| {what} | {before[name]:.3f} | {after[name]:.3f} | {_count(after, name)} |"
        for name, what in _TERMS.items()
        if isinstance(before.get(name), float) and before[name] == before[name]
    ]
    return ["| held-out loss | before | after | n |", "|---|---|---|---|", *rows]


def _count(row: Mapping[str, Any], name: str) -> str:
    counts = {"lm": "tokens", "head": "rows", "query_mask": "key_tokens", "key": "visible_key_tokens"}
    return f"{row[counts[name]]:,} {counts[name].replace('_', ' ')}" if name in counts else ""


def _plain(text: str) -> str:
    """One line in which nothing is Markdown or HTML."""
    words = " ".join(text.split())
    return "".join(f"&#{ord(c)};" if c in "<>&|`*[]" else c for c in words)
