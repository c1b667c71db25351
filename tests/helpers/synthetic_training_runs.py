"""Synthetic run folders of training in the format of real ones, with hostile names."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic_probe_runs import HOSTILE

from safekey_interp.runs.storage import write_json
from safekey_interp.training.config import TrainingConfig

SUBSETS = {"all": 60, "harmful": 30, "benign": 30}
SPANS = ("prompt", "understanding", "template", "first_token", "key_sentence")
TERMS = ("total", "lm", "head", "query_mask", "key")
ORDINARY = "WJ-SafeKey recipes.jsonl"


def write_training_run(
    folder: Path,
    *,
    n_steps: int = 400,
    log_every: int = 2,
    evaluate_every: int = 40,
    probe_every: int | None = 40,
    auxiliary_from: int | None = 240,
    n_layers: int = 30,
    name: str = "SmolLM2-135M-Instruct",
    source: str = ORDINARY,
    why: str = "no sentence after the understanding",
    held_out: bool = True,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """A complete run folder; ``probe_every=None`` takes no looks, ``held_out=False`` holds no prompts out."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    begins = n_steps if auxiliary_from is None else auxiliary_from
    steps = _steps(n_steps, log_every, begins, rng)
    measured = _held_out(n_steps, evaluate_every, begins, rng)
    if settings.get("key_weight"):
        for table in (steps, measured):
            table[["key", "visible_key_tokens"]] = pd.DataFrame({"key": 0.8 * table["lm"], "n": 540}).to_numpy()
    steps.to_parquet(folder / "steps.parquet")
    if held_out:
        measured.to_parquet(folder / "held_out.parquet")
    if probe_every:
        looks = list(dict.fromkeys([*range(0, n_steps + 1, probe_every), n_steps]))
        _aha(looks, n_steps, begins, rng).to_parquet(folder / "aha.parquet")
        _attention(looks, n_steps, n_layers, begins, rng).to_parquet(folder / "attention_by_layer.parquet")
        _separability(looks, n_steps, n_layers, rng).to_parquet(folder / "separability.parquet")
    config = TrainingConfig(
        model="smollm2",
        traces=(f"/data/of a user/{source}",),
        out="/data/of a user/runs/safekey",
        held_out=0.1 if held_out else 0.0,
        probe_every=probe_every,
        log_every=log_every,
        evaluate_every=evaluate_every,
        **{"batch_size": 32, "learning_rate": 5e-5, "lora_rank": 16} | settings,
    )
    ends: dict[str, Any] = {"train": _terms(steps.iloc[-1])}
    if held_out:
        ends["held_out"] = {"before": _terms(measured.iloc[0]), "after": _terms(measured.iloc[-1])}
    manifest = _manifest(name, source, n_layers) | {
        "settings": config.to_dict(),
        "seed": config.seed,
        "data_report": _data_report(why, held_out),
        "schedule": {
            "steps": n_steps,
            "steps_per_epoch": n_steps // 5,
            "warmup_steps": n_steps // 20,
            "auxiliary_from": begins,
            "epochs": 5.0,
        },
        "result": ends | {"seconds": 5123.4},
    }
    write_json(folder / "run.json", manifest)
    return folder


def hostile_run(folder: Path, **settings: Any) -> Path:
    """Every name that comes from data tries to act."""
    run = write_training_run(
        folder, name=f"{HOSTILE} model", source=f"{HOSTILE} traces", why=f"{HOSTILE} why", **settings
    )
    for table, column in (("aha", "subset"), ("attention_by_layer", "subset"), ("separability", "position")):
        frame = pd.read_parquet(run / f"{table}.parquet")
        last = frame[frame[column] == frame[column].iloc[-1]].assign(**{column: f"{HOSTILE} {column}"})
        pd.concat([frame, last], ignore_index=True).to_parquet(run / f"{table}.parquet")
    return run


def _terms(row: Any) -> dict[str, float]:
    return {name: float(row[name]) for name in (*TERMS, "step", "tokens", "rows", "key_tokens")}


def _steps(n_steps: int, log_every: int, begins: int, rng: np.random.Generator) -> pd.DataFrame:
    step = np.arange(log_every, n_steps + 1, log_every)
    done = step / n_steps
    warm, peak = n_steps / 20, 5e-5
    rate = np.where(step < warm, step / warm, 0.5 * (1 + np.cos(np.pi * (step - warm) / (n_steps - warm)))) * peak
    lm = 0.95 + 0.9 * np.exp(-4 * done) + rng.normal(0, 0.05, len(step))
    since = np.maximum(0, step - begins) / max(1, n_steps - begins)
    counts = step > begins
    head = 0.12 + 0.57 * np.exp(-6 * since) + rng.normal(0, 0.03, len(step))
    masked = np.where(counts, 1.5 + 1.1 * np.exp(-4 * since) + rng.normal(0, 0.07, len(step)), np.nan)
    frame = pd.DataFrame({"step": step, "epoch": done * 5})
    frame["total"] = lm + np.where(counts, 0.2 * head + 0.2 * masked, 0)
    frame = frame.assign(lm=lm, head=head, query_mask=masked, key=np.nan, learning_rate=rate)
    frame["grad_norm"] = 0.6 + 1.4 * np.exp(-5 * done) + counts * 0.4 + rng.exponential(0.1, len(step))
    sizes = {"tokens": 18_000, "rows": 31, "key_tokens": np.where(counts, 540, 0), "visible_key_tokens": 0}
    return frame.assign(**sizes, seconds=12.6 * log_every)


def _held_out(n_steps: int, every: int, begins: int, rng: np.random.Generator) -> pd.DataFrame:
    step = np.array(list(dict.fromkeys([*range(0, n_steps + 1, every), n_steps])))
    done = step / n_steps
    since = np.maximum(0, step - begins) / max(1, n_steps - begins)
    noise = rng.normal(0, 0.006, len(step))
    lm = 1.02 + 0.85 * np.exp(-4 * done) + noise
    head = 0.24 + 0.46 * np.exp(-5 * since) + noise
    masked = 1.72 + 0.95 * np.exp(-3 * since) - 0.2 * done + noise
    frame = pd.DataFrame({"step": step, "epoch": done * 5, "total": lm + 0.2 * head + 0.2 * masked})
    sizes = {"tokens": 41_212, "rows": 111, "key_tokens": 1_044, "visible_key_tokens": 0}
    return frame.assign(lm=lm, head=head, query_mask=masked, key=np.nan, **sizes)


def _aha(looks: list[int], n_steps: int, begins: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for step, subset in itertools.product(looks, SUBSETS):
        done, since = step / n_steps, max(0, step - begins) / max(1, n_steps - begins)
        rise = {"harmful": 0.5 * done + 1.4 * since, "benign": 0.25 * done, "all": 0.35 * done + 0.7 * since}[subset]
        safe, go_ahead = -3.3 + rise * 0.8 + rng.normal(0, 0.04), -2.4 - rise * 0.5 + rng.normal(0, 0.04)
        for measure, value in {"safe": safe, "go_ahead": go_ahead, "difference": safe - go_ahead}.items():
            row = {"step": step, "subset": subset, "measure": measure, "value": value}
            row |= {"low": value - 0.22, "high": value + 0.2, "n": SUBSETS[subset], "n_groups": SUBSETS[subset] // 2}
            rows.append(row)
    return pd.DataFrame(rows)


def _attention(looks: list[int], n_steps: int, n_layers: int, begins: int, rng: np.random.Generator) -> pd.DataFrame:
    base = {"prompt": 0.14, "understanding": 0.1, "template": 0.12, "first_token": 0.4, "key_sentence": 0.2}
    even = {"prompt": 0.1, "understanding": 0.15, "template": 0.25, "first_token": 0.01, "key_sentence": 0.1}
    depth = np.linspace(0, 1, n_layers)
    rows = []
    for from_span in ("key_sentence", "decision", "understanding"):
        for to_span in ("prompt",) if from_span == "understanding" else SPANS:
            at_start = base[to_span] * (0.5 + 1.6 * np.exp(-(((depth - 0.6) / 0.15) ** 2))) * rng.lognormal(0, 0.15)
            wobble = rng.lognormal(0, 0.3, n_layers)
            for step, (subset, n) in itertools.product(looks, SUBSETS.items()):
                since = max(0, step - begins) / max(1, n_steps - begins)
                moved = {"understanding": 1 + 0.9 * since * depth, "prompt": 1 - 0.35 * since * depth}
                mass = np.clip(at_start * wobble * moved.get(to_span, 1.0) * rng.lognormal(0, 0.03, n_layers), 0, 0.98)
                by_distance = even[to_span] * (1.4 if to_span == "understanding" else 0.9) * (1.3 - 0.6 * depth)
                for layer, (value, matched) in enumerate(zip(mass, by_distance, strict=True)):
                    values = {
                        "mass": value,
                        "uniform_mass": even[to_span],
                        "matched_mass": matched,
                        "lift": value / even[to_span],
                        "lift_over_matched": value / matched,
                    }
                    common = {"step": step, "subset": subset, "from_span": from_span, "to_span": to_span}
                    common |= {"layer": layer, "n": n, "n_groups": n // 2}
                    rows += [
                        common | {"measure": measure, "value": v, "low": v * 0.9, "high": v * 1.12}
                        for measure, v in values.items()
                    ]
    return pd.DataFrame(rows)


def _separability(looks: list[int], n_steps: int, n_layers: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    reach = {"understanding": 0.36, "decision": 0.4, "key_sentence": 0.45}
    for step, (position, rise) in itertools.product(looks, reach.items()):
        sites = [(layer, "resid_post", "logistic") for layer in range(n_layers)]
        sites += [(n_layers - 1, "ln_final", "logistic"), (-1, "text", "text_tfidf")]
        for layer, site, method in sites:
            gain = rise * (0.55 if site == "text" else (1 - np.exp(-layer / 6)) * (0.7 + 0.35 * step / n_steps))
            auroc = float(np.clip(0.5 + gain + rng.normal(0, 0.006) * (site != "text"), 0, 1))
            row = {"step": step, "position": position, "after_the_fact": position == "key_sentence", "layer": layer}
            row |= {"site": site, "method": method, "auroc": auroc, "auroc_low": auroc - 0.07}
            row |= {"auroc_low_over_layers": auroc - 0.12, "auroc_high_over_layers": min(1.0, auroc + 0.08)}
            row |= {"auroc_high": min(1.0, auroc + 0.05), "tpr_at_1fpr": 0.3, "tpr_low": 0.2, "tpr_high": 0.4}
            row |= {"null_auroc_mean": 0.5, "null_auroc_low": 0.36, "null_auroc_high": 0.65, "p_value": 0.005}
            row |= {
                "p_value_over_layers": 0.005,
                "p_value_over_all": 0.005,
                "n": 60,
                "n_harmful": 30,
                "n_benign": 30,
                "n_groups": 30,
            }
            rows.append(row | {"n_folds": 5, "seed": 0, "label_by": "label", "note": "", "fisher_ratio": 1.2})
    return pd.DataFrame(rows)


def _data_report(why: str, held_out: bool) -> dict[str, Any]:
    train = {"traces": 1_021, "groups": 702, "harmful": 640, "benign": 362, "unlabelled": 19}
    train |= {"with_understanding": 1_004, "with_key_sentence": 988, "tokens": 611_480, "response_tokens": 540_102}
    kept = {"traces": 113, "groups": 78, "harmful": 70, "benign": 41, "unlabelled": 2, "with_understanding": 111}
    kept |= {"with_key_sentence": 109, "tokens": 67_003, "response_tokens": 41_212}
    return {
        "read": 1_150,
        "train": train | {"longest": 4_102},
        "held_out": kept | {"longest": 3_377} if held_out else dict.fromkeys([*kept, "longest"], 0),
        "left_out": [
            {"why": why, "n": 13, "first": "trace 17"},
            {"why": "longer than 8,192 tokens", "n": 3, "first": "trace 402"},
        ],
        "given": None,
        "n_labels_shuffled": 0,
    }


def _manifest(name: str, source: str, n_layers: int) -> dict[str, Any]:
    return {
        "safekey_interp": "0.2.0",
        "kind": "training",
        "status": "complete",
        "created": "2026-03-04T10:11:12+00:00",
        "command": ["safekey-interp", "train", "recipe.yaml", f"traces=[{source}]"],
        "model": {
            "spec": "smollm2",
            "name": name,
            "revision": "0123abc",
            "architecture": "LlamaForCausalLM",
            "n_layers": n_layers,
            "n_heads": 9,
            "d_model": 576,
            "dtype": "float32",
            "attn": "sdpa",
            "device": "cuda:0",
            "weights_sha256": "ab" * 32,
        },
        "data": {"sources": [f"/data/of a user/{source}"], "traces_sha256": "cd" * 32},
        "way": {"layout": "short", "why": ""},
        "versions": {"python": "3.12.3", "torch": "2.13.0", "transformers": "5.23.0", "plotly": "7.1.0"},
    }
