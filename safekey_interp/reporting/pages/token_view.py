"""Examples of the token view: texts and spans, and as much of their attention as fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from safekey_interp.capture.capture_request import RECIPE, SpanPairs
from safekey_interp.capture.measured_spans import spans_in
from safekey_interp.display import spelled_out
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages.attention_packing import Packed, pack
from safekey_interp.reporting.pages.token_words import BUILT_IN_WORDS, TokenWords, token_words

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run

# Characters of JSON that tokens may take, and tokens shown after the key sentence.
_TEXT_BUDGET, _TAIL = 700_000, 80


@dataclass(frozen=True, kw_only=True)
class View:
    """What the token view embeds."""

    records: list[dict[str, Any]] = field(default_factory=list)
    """One dict an example: id, facts, tokens, spans, key of its map."""
    packed: Packed = field(default_factory=Packed)
    """Their attention."""
    layer: int | None = None
    """The layer shown first."""
    words: TokenWords = BUILT_IN_WORDS
    """What spans, rows and facts are called."""
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
            "words": self.words.embedded(),
            "layer": self.layer,
            "first": self.first,
        }


def collect(run: Run, traces: Table | None) -> View:
    """Texts, spans and facts of the examples, without attention."""
    records, notes, room = [], [], _TEXT_BUDGET
    facts = {} if traces is None else traces.drop_duplicates("trace_id").set_index("trace_id")
    spans = spans_in(run.manifest)
    words = token_words(spans)
    for record in run.examples if words.kinds else ():
        pieces = record.get("pieces") or {name: [span] for name, span in record["spans"].items()}
        shown = len(record["tokens"])
        ends = [end for name in spans.maps.values() for _, end in pieces.get(name, ())]
        shown = min(max(ends) + _TAIL, shown) if ends else shown
        response = record.get("response_start")
        response = max(ends, default=None) if response is None else response
        kept = {
            "id": record["trace_id"],
            "facts": _facts(facts, record["trace_id"], [fact["name"] for fact in words.facts]),
            "tokens": [visible(token) for token in record["tokens"][:shown]],
            "runs": words.runs(shown, pieces, response),
            "map": str(record["map"]),
        }
        room -= len(json.dumps(kept))
        if room < 0 and records:
            break
        records.append(kept)
    missing = len(run.examples) - len(records)
    if missing and words.kinds:
        notes.append(
            f"The token view shows {len(records)} of {missing + len(records)} examples: the texts of the others did "
            "not fit this page."
        )
    dormant = [number for number, record in enumerate(records) if _is_dormant(record["facts"])]
    first = dormant[0] if dormant else 0
    layer = _first_layer(run.attention_by_layer, spans.pairs)
    return View(records=records, layer=layer, words=words, first=first, notes=notes)


def with_maps(view: View, run: Run, budget: int) -> View:
    """``view`` with the attention of its examples packed into ``budget`` bytes."""
    file = run.path / "examples.safetensors"
    if not view.records:
        return view
    if not file.is_file():
        return replace(
            view, notes=[*view.notes, "The token view has no attention: this run folder has no examples.safetensors."]
        )
    pairs = spans_in(run.manifest).pairs
    by_head = None if pairs is None else _between(run.attention_by_head, pairs)
    packed = pack(file, [record["map"] for record in view.records], by_head, budget, kinds=tuple(view.words.kinds))
    notes = list(view.notes)
    if packed.maps:
        notes.append(
            f"Attention in the token view is rounded on a square-root scale of {packed.steps} steps (at 1 % to about "
            f"±{100 * (2 * 0.1 * 0.5 / packed.steps):.2f} points); the tables are exact."
        )
    if packed.dropped:
        total = packed.dropped + len(packed.planes)
        on = " on X or U" if view.words is BUILT_IN_WORDS else ""
        notes.append(
            f"The token view holds {len(packed.planes):,} of {total:,} attention maps an example: means over "
            f"heads first, then the heads with the largest lift{on}. The others did not fit this page; "
            "examples.safetensors has them all."
        )
    return replace(view, packed=packed, notes=notes)


def visible(token: str) -> str:
    """A token's text: what is not seen by its code points, joiners and variation selectors alone among it."""
    is_seen = not token or token.strip("\u200c\u200d\u202f\ufe00\ufe01\ufe02\ufe0e\ufe0f")
    return spelled_out(token) if is_seen else "".join(f"‹U+{ord(character):04X}›" for character in token)


def _facts(facts: Any, trace_id: str, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(facts, dict) or trace_id not in facts.index:
        return {}
    row = facts.loc[trace_id]
    values = {name: row[name] for name in names if name in facts.columns}
    return {
        name: None if pd.isna(value) else getattr(value, "item", lambda value=value: value)()
        for name, value in values.items()
    }


def _is_dormant(facts: dict[str, Any]) -> bool:
    """Whether the understanding of a harmful prompt names the harm, and the key sentence does not turn safe."""
    return facts.get("label") == "harmful" and facts.get("aha") == "unsafe" and facts.get("hint") is True


def _between(by_head: Table | None, pairs: SpanPairs) -> Table | None:
    """The rows that rank the heads: of the recipe, those of K and the token before it on X or U."""
    if by_head is None:
        return None
    queries, keys = (("key_sentence", "decision"), ("prompt", "understanding")) if pairs == RECIPE else pairs
    return by_head[by_head["from_span"].isin(queries) & by_head["to_span"].isin(keys)]


def _first_layer(by_layer: Table | None, pairs: SpanPairs | None) -> int | None:
    """The layer where K attends most to X, or the first query to the first key: the first thing worth looking at."""
    if by_layer is None or by_layer.empty or pairs is None:
        return None
    query, key = ("key_sentence", "prompt") if pairs == RECIPE else (pairs.queries[0], pairs.keys[0])
    wanted = {"subset": "all", "from_span": query, "to_span": key, "measure": "mass"}
    rows = by_layer[(by_layer[list(wanted)] == pd.Series(wanted)).all(axis=1)].dropna(subset=["value"])
    return int(rows.loc[rows["value"].idxmax(), "layer"]) if len(rows) else None
