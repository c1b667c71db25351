"""Rendering of HTML pages with Jinja2: autoescape, and one rule for text from data.

A template is a page's words; a section is one of its blocks. Every value passes
:func:`safekey_interp.display.printable` and is escaped, unless it is :class:`markupsafe.Markup` already.
"""

from __future__ import annotations

import functools
import json
import math
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from safekey_interp.display import printable
from safekey_interp.reporting.figures.figure_style import LIFT_SCALE, PALETTE

Html = Markup
"""Text that is HTML already."""


class Cell(NamedTuple):
    """A cell of a table that is more than a text."""

    text: str
    """What it says."""
    note: str = ""
    """Behind it, muted."""
    is_strong: bool = False
    """Whether it is set in bold."""
    is_code: bool = False
    """Whether it is set in a fixed width."""


def render(template: str, block: str, **context: Any) -> Html:
    """A block of ``templates/TEMPLATE.html.jinja``.

    Args:
        template: its name.
        block: the block's name.
        **context: what its expressions name; a name that is absent is an error.
    """
    environment = _environment()
    found = environment.get_template(f"{template}.html.jinja")
    return Html("".join(found.blocks[block](found.new_context(context))).strip())


def part(name: str, *args: Any) -> Html:
    """A macro of ``templates/parts.html.jinja``, such as ``absent`` or ``table``."""
    return Html(getattr(_environment().globals["parts"], name)(*args).strip())


def data(text: object) -> Html:
    """Text from data, isolated so that its direction does not spill into the sentence around it."""
    return Html("<bdi>{}</bdi>").format(printable(str(text)))


def island(name: str, value: Any) -> Html:
    """``value`` as a JSON element named ``name`` that no parser can leave early; NaN and infinity become null."""
    text = json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html('<script type="application/json" id="{}">{}</script>').format(printable(name), Html(text))


def static(name: str) -> str:
    """A style sheet or a script that comes with the package."""
    return files("safekey_interp.reporting.pages").joinpath("static", name).read_text(encoding="utf-8")


def style_sheet() -> str:
    """The style sheet of every page, after the palette of figures as custom properties, for light and dark."""
    tones = PALETTE | {f"lift-{step}": tone for step, (_, tone) in enumerate(LIFT_SCALE)}

    def rules(theme: str) -> str:
        return "".join(f"--{name.replace('_', '-')}:{getattr(tone, theme)};" for name, tone in tones.items())

    palette = f":root{{{rules('light')}}}@media screen and (prefers-color-scheme: dark){{:root{{{rules('dark')}}}}}\n"
    return palette + static("page.css")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("safekey_interp.reporting.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bdi"] = data
    environment.globals["parts"] = environment.get_template("parts.html.jinja").module
    return environment


def _finalized(value: object) -> object:
    return "" if value is None else value if isinstance(value, Markup) else printable(str(value))


def _plain(value: Any) -> Any:
    """Strings, numbers, lists and dicts alone; every string printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {printable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(value.item()) if hasattr(value, "item") else value
