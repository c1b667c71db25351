"""Is it causal?

Attention knockout, activation patching, steering, the logit lens, direct logit attribution and sentence suppression.
"""
