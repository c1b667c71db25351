"""Prompts for language models where the user names none: those of ``examples/traces.jsonl``, plain and in wrappers.

Harmful and benign requests in pairs, in English, and each in two of the wrappers that the study of a trained SmolLM2
keeps for its tests (:mod:`analysis.real_model.real_study_wrappers`).
"""

from __future__ import annotations

from pathlib import Path

from analysis.real_model.real_study_wrappers import wrappers_of
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces

EXAMPLES = Path(__file__).parents[2] / "examples" / "traces.jsonl"
WRAPPERS = 2
"""Of each request."""


def default_prompts() -> list[Trace]:
    """The prompts; ``source`` is ``plain`` or ``wrapped``, and forms of one request share their group."""
    forms, asked = wrappers_of("test"), []
    for number, trace in enumerate(read_traces(EXAMPLES)):
        plain = trace.with_(response="", source="plain", given={}, spans={}, meta={"wrapper": "plain"})
        asked.append(plain)
        for turn in range(WRAPPERS):
            form = forms[(number * WRAPPERS + turn) % len(forms)]
            about = {"source": "wrapped", "meta": {"wrapper": form.name}}
            asked.append(
                plain.with_(trace_id=f"{trace.trace_id} {form.name}", prompt=form.around(trace.prompt), **about)
            )
    return asked
