"""Does a notebook listen, and what is it shown?

A kernel of Jupyter runs what JupyterLab, VS Code and Colab call a notebook. Everything else, IPython in a terminal
included, is a terminal to us. IPython is asked only where something else has imported it: nothing here needs it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from safekey_interp.marks import escaped, framed

_PATIENCE = 0.5
"""Seconds before a bar appears, so that short work leaves nothing on the page."""
_PAUSE = 0.2
"""Seconds between two pictures of a bar: the work goes on, the page is not flooded."""


def is_listening() -> bool:
    """Whether this code runs in a kernel of Jupyter."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def send(page: str, text: str, *, replacing: Any = None, replaceable: bool = False) -> Any:
    """Show something below the cell that runs; only where :func:`is_listening`.

    Args:
        page: HTML.
        text: the same for a front end that shows none.
        replacing: what an earlier call returned: it is shown in that one's place.
        replaceable: whether a later call may take its place.

    Returns:
        What a later call may replace, or None.
    """
    from IPython.display import display

    shown = {"text/html": page, "text/plain": text}
    if replacing is not None:
        replacing.update(shown, raw=True)
        return replacing
    return display(shown, raw=True, display_id=True) if replaceable else display(shown, raw=True)


class Bar:
    """A progress bar below the cell that runs: stage, count and seconds."""

    def __init__(self) -> None:
        self._began = self._drawn = time.monotonic()
        self._drawn += _PATIENCE - _PAUSE
        self._name, self._done, self._shown = "", 0, None
        self._total: int | None = None

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins; ``total`` steps, None when unknown."""
        self._name, self._total, self._done = name, total, 0
        self._draw()

    def advance(self, n: int) -> None:
        """Steps done in the stage."""
        self._done += n
        self._draw()

    def close(self, error: BaseException | None = None) -> None:
        """The work is over; a bar that has appeared says so."""
        if self._shown is not None:
            words = "done" if error is None else f"stopped while {self._name} ({self._count()})"
            self._send(f"{words}, {self._seconds()}", bar="")

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._drawn >= _PAUSE:
            self._drawn = now
            share = f' value="{self._done}" max="{self._total}"' if self._total else ""
            text = f"{self._name} {self._count()}, {self._seconds()}"
            self._send(text, bar=f'<progress{share} style="width:16em;vertical-align:middle"></progress> ')

    def _send(self, text: str, *, bar: str) -> None:
        self._shown = send(framed(bar, escaped(text)), text, replacing=self._shown, replaceable=True)

    def _count(self) -> str:
        return f"{self._done:,}" if self._total is None else f"{self._done:,} of {self._total:,}"

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began:.0f} s"
