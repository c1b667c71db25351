"""``safekey-interp models``: what loads without a network."""

from __future__ import annotations


def models() -> None:
    """List the models that load offline."""
    from safekey_interp.checkpoints import offline_models
    from safekey_interp.cli.shared import say

    for model in offline_models():
        say(f"{model.spec}: {model.what}", hang="  ")
        say("installed" if model.available else f"not installed; {model.remedy}", indent="  ")
    say("Any hub id in the local cache, saved folder or .gguf file of a causal model loads, too.")
