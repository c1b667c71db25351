"""What are spans, positions, methods and layers called in a figure, and a number with its interval in a table?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safekey_interp.figures.drawing import Table

SPANS: dict[str, str] = {
    "prompt": "X, the prompt",
    "template": "the template",
    "first_token": "the first token",
    "understanding": "U, the understanding",
    "key_sentence": "K, the key sentence",
    "decision": "the decision row",
}
POSITIONS: dict[str, str] = {
    "prompt": "mean over X",
    "prompt_end": "end of X",
    "understanding": "mean over U",
    "prompt+understanding": "mean over X and U",
    "context": "start to U’s end",
    "decision": "decision",
    "key_sentence": "mean over K *",
}
METHODS: dict[str, str] = {
    "logistic": "logistic probe",
    "diff_of_means": "difference of means",
    "text_tfidf": "words alone",
}
VALUE = ("value", "low", "high")
"""A number of a summary and its interval."""


def position_name(name: str) -> str:
    """A position in a sentence, without the mark of those after the fact."""
    return POSITIONS.get(name, name).removesuffix(" *")


def layer_name(row: Table) -> str:
    """The layer of a row with ``layer`` and ``site``: ``5``, or ``5 after the final norm``."""
    return f"{int(row['layer'])} after the final norm" if row["site"] == "ln_final" else str(int(row["layer"]))
