"""Plotly figures of the tables of a run. Each figure is one function: tidy table in, plotly Figure out.

Each says in words what it shows (``figure.layout.meta["caption"]``), with its n, and draws its controls beside the
measured numbers. Colours and words come from :mod:`safekey_interp.reporting.figures.figure_style`.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
