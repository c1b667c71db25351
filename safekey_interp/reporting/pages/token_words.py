"""Words of the token view: which span each token of an example belongs to, and what spans, rows and facts are called.

The page's script names none of them: it takes them from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safekey_interp.capture.measured_spans import MeasuredSpans

Interval = Sequence[int]
_FIRST, _INPUT, _RESPONSE = 0, 1, 5
_TONES = (2, 3, 4)
"""Tones of named spans, as the page's script numbers them."""


@dataclass(frozen=True, kw_only=True)
class TokenWords:
    """What the token view calls what it shows."""

    owners: list[dict[str, Any]]
    """What a token may belong to, in the order of the shares: ``letter`` (may be empty), ``text``, ``tone`` (its number
    in the page's script) and, of the input, ``first``: the owner that the sequence's first token counts for."""
    spans: dict[str, int]
    """The owner of each span's tokens by name; of several, see ``is_narrowest``."""
    input: int
    """The owner of other tokens before the response."""
    rest: int
    """The owner of the others."""
    kinds: dict[str, dict[str, str]]
    """By map, the row it belongs to: ``row`` as tables have it, ``text`` in a sentence, ``option`` in the box, and who
    cannot see a token."""
    facts: list[dict[str, Any]]
    """Facts of an example in order: ``name``, ``label``, ``values`` (words of them; others are not shown) and
    ``option`` (what stands before them in the box of examples; without it they do not stand there)."""
    is_narrowest: bool = True
    """Whether of several spans a token belongs to the shortest (of equal ones the first), else to the last of them."""

    def embedded(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {"owners": self.owners, "kinds": self.kinds, "facts": self.facts}

    def runs(self, n: int, pieces: Mapping[str, Sequence[Interval]], response: int | None) -> list[list[int]]:
        """First token and owner of each run of neighbouring tokens with one owner, of ``n`` tokens.

        Args:
            n: tokens.
            pieces: half-open intervals of tokens of each span.
            response: the first token of the response; None where that is not known.
        """
        owner = [self.input if response is None or at < response else self.rest for at in range(n)]
        there = [name for name in self.spans if pieces.get(name)]
        if self.is_narrowest:
            there = sorted(there[::-1], key=lambda name: -sum(end - start for start, end in pieces[name]))
        for name in there:
            for start, end in pieces[name]:
                owner[start:end] = [self.spans[name]] * (min(end, n) - start)
        return [[at, mine] for at, mine in enumerate(owner) if at == 0 or mine != owner[at - 1]]


def _owner(text: str, tone: int, letter: str = "", **more: Any) -> dict[str, Any]:
    return {"letter": letter, "text": text, "tone": tone} | more


def _fact(name: str, label: str, option: str | None = None, values: dict[str, str] | None = None) -> dict[str, Any]:
    return {"name": name, "label": label, "option": option, "values": values}


_LABEL = [_fact("label", "Label", ""), _fact("condition", "Condition", "")]
BUILT_IN_WORDS = TokenWords(
    owners=[
        _owner("first token", _FIRST),
        _owner("template", _INPUT, first=0),
        _owner("prompt", _TONES[0], "X"),
        _owner("understanding", _TONES[1], "U"),
        _owner("key sentence", _TONES[2], "K"),
        _owner("other response", _RESPONSE),
    ],
    spans={"prompt": 2, "understanding": 3, "key_sentence": 4},
    input=1,
    rest=5,
    kinds={
        "map": {
            "row": "key_sentence",
            "text": "K",
            "option": "K, mean over its tokens",
            "unseen": "comes after K, which cannot see it",
        },
        "decision": {
            "row": "decision",
            "text": "the decision row",
            "option": "the decision row",
            "unseen": "comes after K, which cannot see it",
        },
    },
    facts=[
        *_LABEL,
        _fact("aha", "K decides", "K "),
        _fact("hint", "U names the harm", values={"true": "yes", "false": "no"}),
        _fact("confidence", "Confidence", "confidence "),
        _fact("reason", "Why this K"),
        _fact("region", "Text from", values={"answer": "the answer (no reasoning)"}),
    ],
    is_narrowest=False,
)
"""Of the built-in question."""


def token_words(spans: MeasuredSpans) -> TokenWords:
    """What the token view calls the spans of a run: those of the built-in question, or expressions as typed."""
    if spans.is_recipe:
        return BUILT_IN_WORDS
    pairs = spans.pairs
    asked = () if pairs is None else tuple(dict.fromkeys((*pairs.queries, *pairs.keys)))
    named = [_owner(name, _TONES[at % len(_TONES)], str(at + 1)) for at, name in enumerate(asked)]
    others = [_owner("first token", _FIRST), _owner("other input", _INPUT, first=0)]
    return TokenWords(
        owners=[*others, *named, _owner("other response", _RESPONSE)],
        spans={name: at + 2 for at, name in enumerate(asked)},
        input=1,
        rest=len(named) + 2,
        kinds={
            name: {"row": query, "text": query, "option": query, "unseen": f"comes after {query}, which cannot see it"}
            for name, query in spans.maps.items()
        },
        facts=_LABEL,
    )
