"""Which model, and which tokens?

Checkpoints, chat templates, encodings, the safety head, and the bundled toy model
(:mod:`~safekey_interp.models.organism`).
"""
