"""The only package that attaches anything to a model: hooks on layers, a tap in its attention, the bridge's hooks.

:func:`capture` turns a batch and a request into reduced tensors inside the forward pass; everything is gone afterwards.
"""

from safekey_interp.capture.batches import Batch, plan_batches
from safekey_interp.capture.context import Captured, capture
from safekey_interp.capture.request import KEY_SPANS, QUERY_SPANS, STATE_POSITIONS, CaptureRequest, Site
from safekey_interp.capture.runner import AttentionArrays, Backend, LeftOut, Measured, measure_batch

__all__ = [
    "KEY_SPANS",
    "QUERY_SPANS",
    "STATE_POSITIONS",
    "AttentionArrays",
    "Backend",
    "Batch",
    "CaptureRequest",
    "Captured",
    "LeftOut",
    "Measured",
    "Site",
    "capture",
    "measure_batch",
    "plan_batches",
]
