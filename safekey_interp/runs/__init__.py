"""Run folders: manifest, tables, atomic writing, locks, and several processes that share one folder."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
