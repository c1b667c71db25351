"""Marks of reasoning: how each family of models delimits its reasoning in what it writes.

A new family needs a line in :data:`FAMILIES` and nothing else: columns of files are told by the marks
(:func:`is_marked`), and responses are segmented by them (:mod:`safekey_interp.segmentation.reasoning_span`).
"""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """How one family of models marks its reasoning."""

    name: str
    """Goes to the tables."""
    opening: str
    """Opening mark, verbatim."""
    closing: str
    """Closing mark, verbatim."""
    answer: str = ""
    """Mark that opens the answer after the reasoning; empty when the answer follows at once."""
    closes_alone: bool = True
    """Whether the closing mark without the opening one ends reasoning: not where it ends any message, or is prose."""


FAMILIES = (
    Family("think", "<think>", "</think>"),  # DeepSeek-R1 and its distilled models, Qwen3, QwQ, Phi-4-reasoning
    Family("magistral", "[THINK]", "[/THINK]"),
    Family("harmony", "<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>", False),  # GPT-OSS
    Family("thought", "<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>"),  # Sky-T1, OpenThinker
    Family("kimi", "◁think▷", "◁/think▷"),
    Family("seed", "<seed:think>", "</seed:think>"),
    Family("marco", "<Thought>", "</Thought>"),
    Family("thought tag", "<thought>", "</thought>"),
    Family("huatuo", "## Thinking", "## Final Response", closes_alone=False),
    Family("granite", "Here is my thought process:", "Here is my response:", closes_alone=False),
    Family("gemma", "<|channel>thought", "<channel|>"),
    Family("medgemma", "<unused94>thought", "<unused95>"),
    # What prompts ask for.
    *(Family(tag, f"<{tag}>", f"</{tag}>") for tag in ("thinking", "reasoning", "scratchpad")),
)

_PROSE = tuple(family for family in FAMILIES if " " in family.opening)
_TAGS = tuple(family for family in FAMILIES if family not in _PROSE)
_OPENINGS = tuple(family.opening for family in _TAGS)
_ANYWHERE = (*_OPENINGS, *(family.closing for family in _TAGS if family.closes_alone))
_BOTH = *((family.opening, family.closing) for family in _PROSE), ("analysis", "assistantfinal")
"""Opening and closing marks that are prose: of families, and of harmony where its special tokens were stripped."""


def is_marked(text: str) -> bool:
    """Whether a text has marks of reasoning; marks that are prose count where it begins with one and has the other.

    Where the reasoning lies is found when the text is segmented.
    """
    return any(mark in text for mark in _ANYWHERE) or _is_marked_in_prose(text)


def starts_marked(text: str) -> bool:
    """Whether a text begins with a mark that opens reasoning."""
    return text.lstrip().startswith(_OPENINGS) or _is_marked_in_prose(text)


def _is_marked_in_prose(text: str) -> bool:
    text = text.lstrip()
    return any(text.startswith(opening) and closing in text for opening, closing in _BOTH)
