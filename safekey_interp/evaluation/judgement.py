"""Judgement of a response, the same for every judge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from safekey_interp.data.trace import CharSpan
from safekey_interp.display import escaped, facts_html, framed


class Evidence(NamedTuple):
    """Words of a response that decided."""

    span: CharSpan
    """Their place in the response."""
    text: str
    """The words themselves."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Verdict of a judge on a response."""

    label: str | None
    """One of the judge's labels; None when the response cannot be judged."""
    reason: str
    """Why this label, or why none, in words."""
    evidence: tuple[Evidence, ...] = ()
    """What decided, in the order of the response; empty without a label."""
    scores: Mapping[str, float]
    """Share of belief in each label, together 1; NaN everywhere without a label."""
    value: float = float("nan")
    """The judge's own number where it has a scale, such as harmfulness from 1 to 5; else NaN."""
    judge: str
    """The judge's name."""
    version: str
    """Changes whenever the same response may be judged differently."""

    @classmethod
    def of_label(cls, label: str | None, reason: str, *, labels: Sequence[str], **about: Any) -> Judgement:
        """Certain of one label, or of none.

        Args:
            label: the label; None when the response cannot be judged.
            reason: why.
            labels: all labels of the judge.
            **about: ``judge`` and ``version``; ``value``.
        """
        scores = {name: math.nan if label is None else float(name == label) for name in labels}
        return cls(label=label, reason=reason, scores=scores, **about)

    def _repr_html_(self) -> str:
        shares = ", ".join(f"{label} {share:.2f}" for label, share in self.scores.items() if math.isfinite(share))
        rows = [
            ("label", self.label or "none"),
            ("why", self.reason),
            *(("evidence", f"“{quote.text}” at {quote.span.start:,}") for quote in self.evidence),
            ("belief", shares),
            ("judge", f"{self.judge} {self.version}"),
        ]
        return framed(facts_html((name, escaped(text)) for name, text in rows if text))
