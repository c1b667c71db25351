"""How do models differ on the same prompts? What they answer, where they decide, what they look at, what they know.

Each model answers (:mod:`~safekey_interp.generation`), is judged (:mod:`~safekey_interp.judge`) and probed
(:mod:`safekey_interp.probing`) in a folder of its own, ``models/NAME``, which is a run of ``probe``; the comparison
reads these folders and computes nothing of a model itself.
"""

from safekey_interp.comparing.running import run_comparison

__all__ = ["run_comparison"]
