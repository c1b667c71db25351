"""Synthetic run folders of interventions, of any size, with hostile texts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from safekey_interp.interventions.intervention_record import load_function
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.interventions.steering import COMPONENTS
from safekey_interp.reporting.findings.intervention_findings import find

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e"
METRICS = ("difference", "safe", "go_ahead", "key_sentence")
N_DRAWS = 4
KIND_OF = {
    "knockout": "knockout",
    "knockout by layer": "knockout",
    "knockout by head": "knockout",
    "patch": "patch",
    "direction": "direction",
    "direction by scale": "direction",
    "suppress": "suppress",
    "lens": "lens",
    "trajectory": "trajectory",
}
"""What a folder is called here, and its intervention."""
KIND_OF_CONTROL = {
    "knockout": "outside_spans",
    "patch": "other_request",
    "direction": "shuffled_labels",
    "suppress": "random_keys",
    "lens": "other_requests",
}
"""What the control of each is called."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "knockout": {"from_span": "key_sentence", "to_span": ["prompt", "understanding"], "by": "together"}
    | {"controls": None, "n_random": 4, "n_dose": 2, "n_donors": 2},
    "patch": {"source": "refused", "positions": ["prompt_end", "decision"], "method": "both", "n_random": 1},
    "direction": {"mode": "ablate", "directions": None, "fit_position": "decision", "label_by": "label", "n_random": 4},
    "suppress": {"most": 12, "n_random": 4},
    "lens": {"n_others": 4},
    "trajectory": {"align": "key_sentence", "readers": None, "n_random": 4},
}
_OF_OWN_SPANS: dict[str, dict[str, Any]] = {
    "suppress": {"hidden": ["understanding", "key_sentence"], "targets": ["key_sentence", "rest"]},
    "lens": {"metric": ["key_sentence", "difference"]},
}
"""Options that are there only where spans or metrics were asked for."""
_NAMED = ("from_span", "to_span", "position", "source_part", "target_part", "metric")
"""Columns that hold what a user names."""


def write_intervention(
    folder: Path,
    name: str,
    *,
    n_layers: int = 6,
    n_heads: int = 4,
    hostile: bool = False,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A complete run of an intervention, without its page; spans, metrics and labels are ``renamed``."""
    kind: Any = KIND_OF[name]
    rng = np.random.default_rng(0)
    effects = _scores(rng) if kind == "trajectory" else _effects(name, n_layers, n_heads, rng)
    named = effects.columns.intersection([*_NAMED, "label"])
    effects[named] = effects[named].replace(dict(renamed))
    options = _OPTIONS[kind] | (_OF_OWN_SPANS.get(kind, {}) if renamed else {})
    options = {option: _renamed(value, renamed) for option, value in options.items()}
    intervention = find_intervention(kind)
    summary = load_function(intervention.summarise)(effects)
    text = HOSTILE if hostile else "a model"
    manifest = {
        "safekey_interp": "0.3.0",
        "kind": "intervention",
        "intervention": kind,
        "status": "complete",
        "created": "2026-05-04T10:11:12+00:00",
        "command": ["safekey-interp", "intervene", kind, "--traces", f"{text}.jsonl"],
        "model": {"spec": text, "name": text, "n_layers": n_layers, "n_heads": n_heads, "weights_sha256": "ab" * 32},
        "data": {"sources": [f"/data/of a user/{text.replace('/', '')}.jsonl"], "n_read": 26, "n_surrogates": 0},
        "settings": {"finder": "rules", "max_length": None} | options,
        "versions": {"python": "3.12.3", "torch": "2.13.0"},
        "plan": {"chunk": 16},
        "seed": 0,
        "timings": {"measuring": 12.5},
    }
    reason = f"no token in {', '.join(renamed.values())}: {text}" if renamed else f"no key sentence: {text}"
    left_out = {f"{text} 1": reason, f"{text} 2": reason}
    folder.mkdir(parents=True, exist_ok=True)
    effects.to_parquet(folder / "effects.parquet")
    summary.to_parquet(folder / "summary.parquet")
    (folder / "run.json").write_text(json.dumps(manifest))
    (folder / "findings.json").write_text(json.dumps(find(intervention, effects, summary, left_out, manifest)))
    return folder


def _renamed(value: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(each, renamed) for each in value]
    return renamed.get(value, value) if isinstance(value, str) else value


def _traces() -> pd.DataFrame:
    names = [f"t{number}" for number in range(24)]
    labels = ["harmful" if number % 2 else "benign" for number in range(24)]
    return pd.DataFrame({"trace_id": names, "group": [f"g{n // 2}" for n in range(24)], "label": labels})


def _places(name: str, n_layers: int, n_heads: int) -> pd.DataFrame:
    spans, layers = ("prompt", "understanding"), range(n_layers)
    if name.startswith("knockout"):
        heads = range(n_heads) if name.endswith("head") else [-1]
        chosen, together = (layers, 1) if name != "knockout" else ([0], n_layers)
        rows = itertools.product(["key_sentence"], spans, chosen, [together], heads, METRICS)
        return pd.DataFrame(rows, columns=["from_span", "to_span", "layer", "n_layers", "head", "metric"])
    if name == "patch":
        rows = itertools.product(layers, ("prompt_end", "decision"), METRICS)
        return pd.DataFrame(rows, columns=["layer", "position", "metric"])
    if name.startswith("direction"):
        scales = [-1.0, 1.0, 2.0] if name.endswith("scale") else [np.nan]
        rows = [
            (number, layer, "resid_post", "decision", "ablate", scale, metric)
            for (number, layer), scale, metric in itertools.product(enumerate(layers), scales, METRICS)
        ]
        columns = ["direction", "layer", "site", "position", "mode", "scale", "metric"]
        return pd.DataFrame(rows, columns=columns)
    if name == "suppress":
        pairs = [("understanding", "key_sentence"), ("understanding", "rest"), ("key_sentence", "rest")]
        return pd.DataFrame(pairs, columns=["source_part", "target_part"])
    rows = itertools.product(layers, ("key_sentence", "difference"))
    return pd.DataFrame(rows, columns=["layer", "metric"])


def _effects(name: str, n_layers: int, n_heads: int, rng: np.random.Generator) -> pd.DataFrame:
    places = _places(name, n_layers, n_heads)
    places["height"] = -np.linspace(0.1, 2, len(places))
    draws = pd.DataFrame({"draw": range(-1, N_DRAWS)})
    table: Any = _traces().merge(places, how="cross").merge(draws, how="cross")
    is_control = table["draw"] >= 0
    table["control"] = np.where(is_control, KIND_OF_CONTROL[KIND_OF[name]], "none")
    noise = rng.normal(0, 0.1, len(table))
    table["effect"] = np.where(is_control, noise, table["height"] + noise)
    if name.startswith("knockout"):
        table = table.assign(dose=1.0, n_k=8, n_pool=9, donor_group="")
        table = pd.concat([table, *_more_of_knockout(table)], ignore_index=True)
    if name.startswith("direction"):
        table = table.assign(**dict.fromkeys(COMPONENTS, 0.3))
    if name == "suppress":
        table["effect"] = table["effect"].abs()
    if name == "lens":
        table = table.rename(columns={"effect": "value"})
        return table[~is_control | (table["metric"] == "key_sentence")].drop(columns="height")
    if name == "patch":
        table = table.assign(gap=2.0, share=table["effect"] / 2, attribution=table["effect"] * 0.9 + noise)
    return table.drop(columns="height")


def _more_of_knockout(table: Any) -> list[pd.DataFrame]:
    """Doses, and other requests' spans in place."""
    tested = table[table["control"] == "none"]
    parts = [
        tested.assign(control="dose", dose=dose, draw=draw, effect=tested["effect"] * dose)
        for dose in (0.25, 0.5, 0.75)
        for draw in range(2)
    ]
    for kind, share in (("resample_same_label", 0.0), ("resample_other_label", 0.4)):
        for draw in range(2):
            donor = kind + tested["trace_id"].str[-1] + str(draw)
            parts.append(tested.assign(control=kind, draw=draw, donor_group=donor, effect=tested["effect"] * share))
    return parts


def _scores(rng: np.random.Generator) -> pd.DataFrame:
    offsets = pd.DataFrame({"offset": range(-12, 13)})
    table = _traces().merge(pd.DataFrame({"reader": [0, 1]}), how="cross").merge(offsets, how="cross")
    rise = np.where(table["label"] == "harmful", 3.0, 0.5) / (1 + np.exp(-table["offset"] / 3))
    table["score"] = rise + rng.normal(0, 0.3, len(table))
    return table.assign(
        shuffled_labels_mean=0.0,
        shuffled_labels_sd=0.4,
        covariance_mean=0.1,
        covariance_sd=0.5,
        layer=2,
        site="resid_post",
        aha="safe",
        token="x",
    )
