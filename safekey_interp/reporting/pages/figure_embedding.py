"""Figures of a page as JSON; parts that repeat between them are embedded once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from safekey_interp.reporting.figures.figure_style import dark_tones, look
from safekey_interp.reporting.pages.probe_page_figures import Group


def embed(groups: list[Group]) -> dict[str, Any]:
    """What the page's script needs: groups with their variants, parts that repeat replaced by ``{"$": index}``."""
    variants = {panel.name: panel.variants for group in groups for panel in group.panels}
    counts: Counter[str] = Counter()
    _count(variants, counts)
    pool: dict[str, int] = {}
    shared: list[Any] = []
    slim = _slim(variants, counts, pool, shared)
    return {
        "groups": {
            group.name: {
                "choices": group.defaults,
                "panels": {panel.name: list(panel.uses) for panel in group.panels},
            }
            for group in groups
        },
        "variants": slim,
        "shared": shared,
        "templates": {"light": look("light"), "dark": look("dark")},
        "dark": dark_tones(),
    }


def _key(value: Any) -> str | None:
    if not isinstance(value, dict | list) or not value:
        return None
    text = json.dumps(value, sort_keys=True)
    return text if len(text) > 48 else None


def _count(value: Any, counts: Counter[str]) -> None:
    key = _key(value)
    if key is not None:
        counts[key] += 1
        if counts[key] > 1:
            return
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, dict | list):
            _count(item, counts)


def _slim(value: Any, counts: Counter[str], pool: dict[str, int], shared: list[Any]) -> Any:
    key = _key(value)
    if key is not None and counts[key] > 1:
        if key not in pool:
            pool[key] = len(shared)
            shared.append(value)
        return {"$": pool[key]}
    if isinstance(value, dict):
        return {name: _slim(item, counts, pool, shared) for name, item in value.items()}
    if isinstance(value, list):
        return [_slim(item, counts, pool, shared) if isinstance(item, dict | list) else item for item in value]
    return value
