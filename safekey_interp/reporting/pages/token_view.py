"""Examples of the token view: texts and spans, and as much of their attention as fits."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from safekey_interp.display import spelled_out
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages.attention_packing import Packed, pack

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run

# Characters of JSON that tokens may take, and tokens shown after the key sentence.
_TEXT_BUDGET, _TAIL = 700_000, 80
_FACTS = ("label", "aha", "hint", "confidence", "reason", "region", "family", "condition")


@dataclass(frozen=True, kw_only=True)
class View:
    """What the token view embeds."""

    records: list[dict[str, Any]] = field(default_factory=list)
    """One dict an example: id, facts, tokens, spans, key of its map."""
    packed: Packed = field(default_factory=Packed)
    """Their attention."""
    layer: int | None = None
    """The layer shown first."""
    first: int = 0
    """The example shown first: one with a dormant signal, if there is one."""
    notes: list[str] = field(default_factory=list)
    """What did not fit, in words."""

    def embedded(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "records": self.records,
            "planes": [list(plane) for plane in self.packed.planes],
            "steps": self.packed.steps,
            "maps": self.packed.maps,
            "layer": self.layer,
            "first": self.first,
        }


def collect(run: Run, traces: Table | None) -> View:
    """Texts, spans and facts of the examples, without attention."""
    records, notes, room = [], [], _TEXT_BUDGET
    facts = {} if traces is None else traces.drop_duplicates("trace_id").set_index("trace_id")
    for record in run.examples:
        end = record["spans"].get("key_sentence", [0, len(record["tokens"])])[1]
        kept = {
            "id": record["trace_id"],
            "facts": _facts(facts, record["trace_id"]),
            "tokens": [visible(token) for token in record["tokens"][: end + _TAIL]],
            "spans": record["spans"],
            "response": record.get("response_start"),
            "map": str(record["map"]),
        }
        room -= len(json.dumps(kept))
        if room < 0 and records:
            break
        records.append(kept)
    missing = len(run.examples) - len(records)
    if missing:
        notes.append(
            f"The token view shows {len(records)} of {missing + len(records)} examples: the texts of the others did "
            "not fit this page."
        )
    dormant = [number for number, record in enumerate(records) if _is_dormant(record["facts"])]
    first = dormant[0] if dormant else 0
    return View(records=records, layer=_first_layer(run.attention_by_layer), first=first, notes=notes)


def with_maps(view: View, run: Run, budget: int) -> View:
    """``view`` with the attention of its examples packed into ``budget`` bytes."""
    file = run.path / "examples.safetensors"
    if not view.records:
        return view
    if not file.is_file():
        return replace(
            view, notes=[*view.notes, "The token view has no attention: this run folder has no examples.safetensors."]
        )
    packed = pack(file, [record["map"] for record in view.records], run.attention_by_head, budget)
    notes = list(view.notes)
    if packed.maps:
        notes.append(
            f"Attention in the token view is rounded on a square-root scale of {packed.steps} steps (at 1 % to about "
            f"±{100 * (2 * 0.1 * 0.5 / packed.steps):.2f} points); the tables are exact."
        )
    if packed.dropped:
        total = packed.dropped + len(packed.planes)
        notes.append(
            f"The token view holds {len(packed.planes):,} of {total:,} attention maps an example: means over "
            "heads first, then the heads with the largest lift on X or U. The others did not fit this page; "
            "examples.safetensors has them all."
        )
    return replace(view, packed=packed, notes=notes)


def visible(token: str) -> str:
    """A token's text: what is not seen by its code points, joiners and variation selectors alone among it."""
    is_seen = not token or token.strip("\u200c\u200d\u202f\ufe00\ufe01\ufe02\ufe0e\ufe0f")
    return spelled_out(token) if is_seen else "".join(f"‹U+{ord(character):04X}›" for character in token)


def _facts(facts: Any, trace_id: str) -> dict[str, Any]:
    if isinstance(facts, dict) or trace_id not in facts.index:
        return {}
    row = facts.loc[trace_id]
    values = {name: row[name] for name in _FACTS if name in facts.columns}
    return {
        name: None if pd.isna(value) else getattr(value, "item", lambda value=value: value)()
        for name, value in values.items()
    }


def _is_dormant(facts: dict[str, Any]) -> bool:
    """Whether the understanding of a harmful prompt names the harm, and the key sentence does not turn safe."""
    return facts.get("label") == "harmful" and facts.get("aha") == "unsafe" and facts.get("hint") is True


def _first_layer(by_layer: Table | None) -> int | None:
    """The layer where K attends most to X: the first thing worth looking at."""
    if by_layer is None or by_layer.empty:
        return None
    wanted = {"subset": "all", "from_span": "key_sentence", "to_span": "prompt", "measure": "mass"}
    rows = by_layer[(by_layer[list(wanted)] == pd.Series(wanted)).all(axis=1)].dropna(subset=["value"])
    return int(rows.loc[rows["value"].idxmax(), "layer"]) if len(rows) else None
