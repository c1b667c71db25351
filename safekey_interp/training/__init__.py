"""Fine-tuning with the safety head and query-mask modelling, through the spans that the probes use."""

from safekey_interp.training.terms import loss_terms

__all__ = ["loss_terms"]
