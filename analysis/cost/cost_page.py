"""Page of the measurements: ratios with their intervals as a picture (SVG), then the tables behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log10
from pathlib import Path
from typing import Any

from safekey_interp.display import escaped

_WIDTH, _ROW, _LEFT, _RIGHT = 900, 26, 280, 130
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;"
    "background:#fff}table{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto}"
    "td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    ".n{text-align:right;font-variant-numeric:tabular-nums}.wrong{color:#b00020;font-weight:600}"
    "svg{width:100%;height:auto}"
)


def write_page(results: Mapping[str, Any], file: Path) -> None:
    """Write the page of one machine's ``cost.json``."""
    setup, machine = results["identity"]["setup"], results["machine"]
    entries = results["entries"]
    checks = [check for of in results["correctness"].values() for check in of]
    made = made_checks(results)
    wrong = sum(not check["is_right"] for check in made)
    title = f"Cost of safekey_interp on {machine['device']}"
    about = (
        f"{setup['model']}, {setup['dtype']}, {machine['threads']} threads, load {machine['load']} at the start, "
        f"torch {machine['torch']}, transformers {machine['transformers']}"
    )
    verdict = f"{len(made) - wrong} of {len(made)} checks of correctness are right"
    left_out = [(name, why) for what in ("left_out", "failed") for name, why in results[what].items()]
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escaped(title)}</title>",
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>",
        f"<h1>{escaped(title)}</h1><p>{escaped(about)}</p>",
        f"<p class='{'wrong' if wrong else ''}'>{escaped(verdict)}.</p>",
        "<h2>Ratios</h2><p>Time or memory of the package divided by that of its baseline, interleaved: median and 95 % "
        "interval. Left of the line, the package is faster or leaner.</p>",
        picture(entries),
        "<h2>What is compared</h2>",
        _table(
            ("entry", "the package", "baseline", "ratio", "processor time", "rounds", "share of the limit"),
            map(_row, entries),
        ),
        "<h2>Correctness</h2>",
        _table(("check", "largest error", "tolerated", ""), map(_check_row, checks)),
    ]
    if left_out:
        parts += ["<h2>Not measured</h2>", _table(("entry", "why"), left_out)]
    file.write_text("\n".join([*parts, "</body></html>"]), encoding="utf-8")


def picture(entries: Iterable[Mapping[str, Any]]) -> str:
    """Ratios on a logarithmic axis, one line an entry, as SVG."""
    entries = list(entries)
    if not entries:
        return ""
    least = min(0.5, *(entry["low"] for entry in entries))
    most = max(2.0, *(entry["high"] for entry in entries))
    height = _ROW * (len(entries) + 2)

    def x(value: float) -> float:
        share = (log10(max(value, 1e-9)) - log10(least)) / (log10(most) - log10(least))
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    lines = [f"<svg viewBox='0 0 {_WIDTH} {height}' role='img' aria-label='ratios of all entries'>"]
    for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10):
        if least <= tick <= most:
            colour = "#333" if tick == 1 else "#ddd"
            lines.append(f"<line x1='{x(tick):.1f}' x2='{x(tick):.1f}' y1='0' y2='{height - _ROW}' stroke='{colour}'/>")
            lines.append(
                f"<text x='{x(tick):.1f}' y='{height - 8}' font-size='13' text-anchor='middle'>{tick:g}</text>"
            )
    for number, entry in enumerate(entries):
        y = _ROW * (number + 0.7)
        label = f"{entry['ratio']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"
        lines += [
            f"<text x='{_LEFT - 12}' y='{y + 4:.1f}' font-size='13' text-anchor='end'>{escaped(entry['name'])}</text>",
            f"<line x1='{x(entry['low']):.1f}' x2='{x(entry['high']):.1f}' y1='{y}' y2='{y}' stroke='#1f6feb' "
            "stroke-width='3'/>",
            f"<circle cx='{x(entry['ratio']):.1f}' cy='{y}' r='4.5' fill='#1f6feb'/>",
            f"<text x='{_WIDTH - _RIGHT + 8}' y='{y + 4:.1f}' font-size='13'>{label}</text>",
        ]
    return "".join([*lines, "</svg>"])


def made_checks(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The checks that were made: all but those that were left out with a reason."""
    every = (check for of in results["correctness"].values() for check in of)
    return [check for check in every if not (check["is_right"] and check["note"])]


def ratio_in_words(entry: Mapping[str, Any]) -> str:
    """``1.05 [1.04, 1.07]``."""
    return f"{entry['ratio']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def value_in_words(entry: Mapping[str, Any], name: str = "value") -> str:
    """Seconds, or megabytes."""
    return f"{entry[name]:.3g} s" if entry["unit"] == "s" else f"{entry[name] / 1e6:,.0f} MB"


def share_in_words(entry: Mapping[str, Any]) -> str:
    """How much of which limit; empty where it is not known."""
    share = entry["share_of_limit"] if entry["unit"] == "s" else None
    return f"{share['share']:.0%} of {share['limit']} ({share['peak']})" if share else ""


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    processor = "" if entry["processor_ratio"] is None else f"{entry['processor_ratio']:.2f}"
    ours = f"{entry['what']}: {value_in_words(entry)}"
    baseline = f"{entry['baseline']}: {value_in_words(entry, 'baseline_value')}"
    return entry["name"], ours, baseline, ratio_in_words(entry), processor, str(entry["rounds"]), share_in_words(entry)


def _check_row(check: Mapping[str, Any]) -> tuple[str, ...]:
    error = "" if check["error"] is None or check["note"] else f"{check['error']:.1e}"
    tolerated = "" if check["note"] else f"{check['tolerated']:.0e}"
    return check["name"], error, tolerated, check["note"] if check["is_right"] else f"wrong {check['note']}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = "".join(f"<th>{escaped(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"
