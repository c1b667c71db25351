"""How is a model fine-tuned, and what moves inside meanwhile?

Fine-tuning with the safety head and query-mask modelling, through the spans that the probes use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
