"""What do all figures share? One palette, and the parts that figures are made of.

Tones keep apart under normal, protan, deutan and tritan vision (simulated as in Machado et al. 2009), on a light and on
a dark page, and identity never rests on colour alone: dashes, symbols and letters say the same. Texts from data are
escaped, because plotly reads hover texts as HTML.
"""

from __future__ import annotations

import functools
import html
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, ParamSpec

import numpy as np

from safekey_interp.errors import RunError

if TYPE_CHECKING:
    import plotly.graph_objects as go

Theme = Literal["light", "dark"]
Spec = dict[str, Any]
# A pandas DataFrame (or a selection of one): pandas' own annotations call every selection a Series or an array as well.
Table = Any
P = ParamSpec("P")
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
_CONTROLS = dict.fromkeys(
    [
        *range(9),
        *range(11, 32),
        *range(127, 160),
        0x61C,
        0x200E,
        0x200F,
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    ],
    "\ufffd",
)


class Tone(NamedTuple):
    """One colour, for either page."""

    light: str
    """On a light page, #rrggbb."""
    dark: str
    """On a dark page, #rrggbb."""


PALETTE: dict[str, Tone] = {
    "surface": Tone("#ffffff", "#16191d"),
    "ink": Tone("#1b1f24", "#eceef0"),
    "muted": Tone("#565d66", "#a9b1bb"),
    "grid": Tone("#e3e5e8", "#2c3137"),
    "prompt": Tone("#1147a6", "#6c92ff"),
    "understanding": Tone("#a36010", "#f4cf6a"),
    "key_sentence": Tone("#850f30", "#e8604f"),
    "template": Tone("#666d76", "#a3abb5"),
    "harmful": Tone("#b3261e", "#ff8a75"),
    "benign": Tone("#1450b4", "#7aa2ff"),
    "control": Tone("#5f6670", "#9aa2ac"),
    "highlight": Tone("#6fd3ae", "#0c6a51"),
}
LIFT_SCALE = (
    (0.0, Tone("#7a3e05", "#ffb469")),
    (0.25, Tone("#dda05f", "#a0651f")),
    (0.5, Tone("#f4f4f2", "#23272c")),
    (0.75, Tone("#7ea6dc", "#2a62a6")),
    (1.0, Tone("#123f85", "#8fc4ff")),
)
AUROC_SCALE = (
    (0.0, Tone("#f1f4f3", "#22282b")),
    (0.5, Tone("#74b9a2", "#23705b")),
    (1.0, Tone("#06493a", "#9cebcf")),
)


class Drawing(Generic[P]):
    """A figure function: called, it gives a plotly Figure; ``spec`` gives the same as plain dicts, far faster."""

    def __init__(self, spec: Callable[P, Spec]) -> None:
        functools.update_wrapper(self, spec)
        self.spec = spec

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> go.Figure:
        """The figure in the light look; its caption is ``figure.layout.meta["caption"]``."""
        import plotly.graph_objects as go

        spec = self.spec(*args, **kwargs)
        looks = look("light")
        if "title" in spec["layout"]:  # above the legend, where there is one; on the page a heading says it
            has_legend = sum("name" in trace for trace in spec["data"]) > 1
            looks["margin"] = looks["margin"] | {"t": 76 if has_legend else 44}
            looks["title"] = {"x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 10}}
        return go.Figure({"data": spec["data"], "layout": spec["layout"] | {"template": {"layout": looks}}})


def look(theme: Theme) -> Spec:
    """The layout that all figures inherit: quiet axes, no background, the fonts of the page."""
    tone = {name: getattr(pair, theme) for name, pair in PALETTE.items()}
    axis = {
        "gridcolor": tone["grid"],
        "linecolor": tone["muted"],
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": tone["grid"],
        "automargin": True,
        "title": {"standoff": 8},
        "fixedrange": True,
    }
    return {
        "font": {"family": _FONT, "size": 13, "color": tone["ink"]},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": axis,
        "yaxis": axis,
        "hoverlabel": {
            "bgcolor": tone["surface"],
            "bordercolor": tone["muted"],
            "font": {"color": tone["ink"], "family": _FONT},
            "align": "left",
            "namelength": -1,
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "hovermode": "closest",
        "dragmode": False,
    }


def dark_tones() -> dict[str, str]:
    """Every colour that a figure may hold on a light page, with the one that replaces it on a dark page."""
    pairs = [*PALETTE.values(), *(tone for _, tone in (*LIFT_SCALE, *AUROC_SCALE))]
    return {pair.light: pair.dark for pair in pairs} | {veil(pair.light): veil(pair.dark) for pair in PALETTE.values()}


def veil(color: str) -> str:
    """``color`` (#rrggbb) as a band behind lines."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def finish(
    data: list[Spec],
    caption: str,
    *,
    table: Literal["lines", "grid", "points"],
    title: str,
    x: str,
    y: str | None,
    height: int = 340,
    unit: str = "",
) -> Spec:
    """A figure's spec; ``meta`` holds the caption in words, and how its numbers make a table, in which unit."""
    layout: Spec = {
        "title": {"text": title},
        "height": height,
        "meta": {"caption": caption, "table": table, "unit": unit},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}} if y else {},
    }
    if table == "lines":
        layout["hovermode"] = "x unified"
    return {"data": data, "layout": layout}


def curve(
    x: Iterable[Any],
    y: Iterable[Any],
    low: Iterable[Any],
    high: Iterable[Any],
    *,
    name: str,
    color: str,
    dash: str,
    markers: bool = True,
) -> list[Spec]:
    """A line with its band; nothing when no value is finite."""
    points = list(zip(x, y, low, high, strict=True))
    if not any(np.isfinite(value) for _, value, _, _ in points):
        return []
    band = [(at, lo, hi) for at, _, lo, hi in points if np.isfinite(lo) and np.isfinite(hi)]
    traces: list[Spec] = []
    if band:
        there, back = band, band[::-1]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "fill": "toself",
                "fillcolor": veil(color),
                "line": {"width": 0, "color": color},
                "hoverinfo": "skip",
                "showlegend": False,
                "x": [number(at) for at, _, _ in there + back],
                "y": [number(lo) for _, lo, _ in there] + [number(hi) for _, _, hi in back],
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers" if markers else "lines",
            "name": escape(name),
            "line": {"color": color, "dash": dash, "width": 2},
            "marker": {"size": 5, "color": color},
            "x": [number(at) for at, *_ in points],
            "y": [number(value) for _, value, _, _ in points],
            "customdata": [[number(lo), number(hi)] for *_, lo, hi in points],
            "hovertemplate": "%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        }
    )
    return traces


class LayerAxis:
    """Layers as numbers, with the final norm one place after the last."""

    def __init__(self, rows: Table, *, sparse: bool = False) -> None:
        inner = sorted({int(layer) for layer in rows.loc[rows["site"] != "ln_final", "layer"]})
        final = bool((rows["site"] == "ln_final").any())
        self._norm = (inner[-1] if inner else 0) + 1
        self.values = inner + [self._norm] * final
        step = (1 if len(inner) <= 12 else 5 if len(inner) <= 40 else 10) * (2 if sparse else 1)
        self.ticks = [
            layer
            for layer in inner
            if layer % step == 0 and layer >= step * sparse and (not final or self._norm - layer >= step * 0.6)
        ]
        self.texts = [str(layer) for layer in self.ticks] + ["norm"] * final
        self.ticks += [self._norm] * final

    def of(self, rows: Table) -> list[int]:
        """The place of each row."""
        return [
            self._norm if site == "ln_final" else int(layer)
            for layer, site in zip(rows["layer"], rows["site"], strict=True)
        ]

    def beside_words(self, gap: int) -> list[int]:
        """Places of a map's columns: the words, an empty one that keeps them apart, the layers."""
        return [self.values[0] - gap, self.values[0] - 1, *self.values]

    def row_beside_words(self, rows: Table, measure: str, alone: Any) -> list[float | int | None]:
        """One row of such a map: the words' number, nothing, and each layer's."""
        found = dict(zip(self.of(rows), rows[measure], strict=True))
        return [number(alone), None, *(number(found.get(place, np.nan)) for place in self.values)]

    def name_beside_words(self, spec: Spec, places: list[int]) -> None:
        """Write the columns' names on a map; its rows run from the top."""
        spec["layout"]["xaxis"] |= {
            "tickvals": [places[0], *self.ticks],
            "ticktext": ["words", *self.texts],
            "tickangle": 0,
            "showgrid": False,
        }
        spec["layout"]["yaxis"] |= {"autorange": "reversed", "showgrid": False}


def select(table: Table, name: str, **wanted: Any) -> Table:
    """The rows whose columns hold the wanted values.

    Raises:
        RunError: none do; the message says which values are there.
    """
    rows = table
    for column, value in wanted.items():
        kept = rows[rows[column] == value]
        if kept.empty:
            there = ", ".join(sorted({str(v) for v in rows[column].unique()})[:12]) or "nothing"
            raise RunError(f"{name}: no row with {column} {value!r}; there are: {there}")
        rows = kept
    return rows


def number(value: Any, digits: int = 4) -> float | int | None:
    """``value`` short enough to embed; None where it is no finite number."""
    value = float(value)
    if not np.isfinite(value):
        return None
    short = round(value, digits) if abs(value) < 100 else float(f"{value:.4g}")
    return int(short) if short == int(short) else short


def with_interval(value: float, low: float, high: float) -> str:
    """``0.412 [0.380, 0.447]``; the value alone where it has no interval."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(low) and np.isfinite(high) else f"{value:.3f}"


def counts(values: Table) -> str:
    """``60``, or ``54 to 60`` where rows differ."""
    found = sorted({int(value) for value in values.dropna()})
    return "unknown" if not found else f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"


def named(names: Mapping[str, str], key: object) -> str:
    """The word for a value of a table, escaped."""
    return escape(names.get(str(key), str(key)))


@functools.lru_cache(maxsize=4096)
def hover_text(trace_id: str, label: str, text: str) -> str:
    """A trace on hover: id, class, and its text in at most four short lines, escaped."""
    lines = textwrap.wrap(textwrap.shorten(text, 240, placeholder=" …"), 60)
    return "<br>".join([f"<b>{escape(trace_id)}</b> · {escape(label)}", *(escape(line) for line in lines)])


def escape(text: object) -> str:
    """``text`` that plotly shows as it is; controls that turn or hide their neighbours become U+FFFD."""
    return html.escape(str(text).translate(_CONTROLS), quote=False)
