"""How are activations and attention read or changed during a forward pass?

The only package that attaches anything to a model: hooks on layers and in the attention function, and the bridge's
hooks. :func:`capture` turns a batch and a request into reduced tensors inside the forward pass; everything is gone
afterwards.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
