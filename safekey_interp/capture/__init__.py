"""Capture of attention and hidden states during a forward pass, and edits of both.

How are activations and attention read or changed during a forward pass? The only package that attaches hooks to a
model: on layers, in the attention function, and in TransformerBridge. :func:`capture` turns a batch and a request into
reduced tensors inside the forward pass, and removes its hooks afterwards.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
