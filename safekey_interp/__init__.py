"""Mechanistic interpretability of safety in reasoning models.

Public names load on first use, so that importing the package costs neither torch nor transformer_lens.
"""

from __future__ import annotations

import lazy_loader

from safekey_interp.version import __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
