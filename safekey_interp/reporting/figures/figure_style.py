"""Style of all figures: the palette for light and dark pages, the layout, and the escape of texts.

Tones keep apart under normal, protan, deutan and tritan vision (simulated as in Machado et al. 2009), on a light and on
a dark page, and identity never rests on colour alone: dashes, symbols and letters say the same. Texts from data are
escaped, because plotly reads hover texts as HTML.
"""

from __future__ import annotations

import functools
import html
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, ParamSpec

from safekey_interp.display import printable

if TYPE_CHECKING:
    import plotly.graph_objects as go

Theme = Literal["light", "dark"]
Spec = dict[str, Any]
# A pandas DataFrame (or a selection of one): pandas' own annotations call every selection a Series or an array as well.
Table = Any
P = ParamSpec("P")
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"


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
        return figure_of(self.spec(*args, **kwargs))


def figure_of(spec: Spec) -> go.Figure:
    """The figure that plain dicts say, in the light look."""
    import plotly.graph_objects as go

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
        "title": {"standoff": 8, "font": {"size": 13}},
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
        "dragmode": "zoom",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": tone["muted"], "activecolor": tone["ink"]},
    }


def dark_tones() -> dict[str, str]:
    """Every colour that a figure may hold on a light page, with the one that replaces it on a dark page."""
    pairs = [*PALETTE.values(), *(tone for _, tone in (*LIFT_SCALE, *AUROC_SCALE))]
    return {pair.light: pair.dark for pair in pairs} | {veil(pair.light): veil(pair.dark) for pair in PALETTE.values()}


def veil(color: str) -> str:
    """``color`` (#rrggbb) as a band behind lines."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def escape(text: object) -> str:
    """``text`` that plotly, which reads HTML, shows as it is."""
    return html.escape(printable(str(text)), quote=False)


def in_lines(text: str, width: int) -> str:
    """``text``, escaped, in lines of at most ``width`` characters."""
    return "<br>".join(map(escape, textwrap.wrap(text, width) or [""]))
