"""What was left out of the numbers, and why; like reasons count together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.findings.wording import Table


def left_out(traces: Table, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of ``what``, ``why`` and ``n``."""
    gone = traces.loc[traces["status"] == "left out"]
    rows = by_reason(dict(zip(gone["trace_id"].astype(str), gone["left_out"], strict=True)))
    rows += list((manifest.get("conditions") or {}).get("left_out") or [])
    rows += list(manifest.get("separability_left_out") or [])
    without = manifest.get("layers_without_pattern") or []
    if without:
        layers = ", ".join(map(str, without))
        rows.append(
            {"what": f"attention of layers {layers}", "why": "n/a: they have no attention pattern", "n": len(without)}
        )
    straddling = int((traces["n_straddling"].fillna(0) > 0).sum())
    if straddling:
        why = "each token over two spans counts for that of its first character that is not white space"
        rows.append({"what": "nothing, in traces whose tokens straddle spans", "why": why, "n": straddling})
    return rows


def by_reason(reasons: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of ``what``, ``why`` and ``n`` from the reason of each trace."""
    names: dict[str, list[str]] = {}
    for trace_id, reason in reasons.items():
        names.setdefault(_kind(reason), []).append(trace_id)
    return [{"what": _few(mine), "why": why, "n": len(mine)} for why, mine in names.items()]


def _kind(reason: Any) -> str:
    """The reason without its numbers, so that like reasons count together."""
    text = str(reason)
    if ", past " in text:
        return f"{text.split(', past ', maxsplit=1)[0].rsplit(' ends at token ', 1)[0]} ends past the longest length"
    return text


def _few(names: list[str], shown: int = 3) -> str:
    listed = ", ".join(names[:shown])
    noun = "trace" if len(names) == 1 else "traces"
    return f"{noun} {listed}{' …' if len(names) > shown else ''}"
