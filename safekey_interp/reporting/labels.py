"""Labels of spans, positions, methods, layers and measures in figures, tables and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.measured_spans import spans_in
from safekey_interp.data.conditions import PROMPTS_OF, Conditions

if TYPE_CHECKING:
    from safekey_interp.reporting.figures.figure_style import Table

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
PLACES = {
    "prompt": "over the prompt",
    "prompt_end": "at the prompt's last token",
    "understanding": "over U",
    "context": "over everything up to the end of U",
    "prompt+understanding": "over X and U",
    "decision": "at the token before K",
}
"""Positions in a sentence that says where a probe reads."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """What spans and positions are called: words of the built-in question, or expressions as they were typed."""

    spans: Mapping[str, str] = field(default_factory=dict)
    """Words for spans that attend or are attended to."""
    positions: Mapping[str, str] = field(default_factory=dict)
    """Words for positions of states."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The same inside a sentence."""
    main: str = ""
    """The position that was chosen beforehand: it comes first."""
    before: str = ""
    """What all positions lie before, in a sentence: `` before K``."""
    is_built_in: bool = False
    """Whether they are those of the built-in question."""

    def span(self, name: object) -> str:
        """A span."""
        return self.spans.get(str(name), str(name))

    def position(self, name: object) -> str:
        """A position in a sentence, without the mark of those after the fact."""
        return self.positions.get(str(name), str(name)).removesuffix(" *")

    def place(self, row: Any) -> str:
        """Where a row of a table of probes reads."""
        return self.places.get(row["position"], f"at {row['position']}")


BUILT_IN_NAMES = Names(
    spans=SPANS, positions=POSITIONS, places=PLACES, main="decision", before=" before K", is_built_in=True
)
"""Words of the built-in question."""


def names_of(from_span: str, to_span: str) -> Names:
    """Words for a pair of spans: those of the built-in question, if both are of it."""
    return BUILT_IN_NAMES if {from_span, to_span} <= set(SPANS) else Names()


def names_of_positions(positions: Iterable[object]) -> Names:
    """Words for the positions of a table: those of the built-in question, if all are of it."""
    return BUILT_IN_NAMES if set(map(str, positions)) <= set(POSITIONS) else Names()


def known_first(there: Iterable[object], names: Mapping[str, str]) -> dict[str, str]:
    """What is there with its words: what has words first, in their order, then the rest in its own."""
    values = list(dict.fromkeys(map(str, there)))
    return {name: text for name, text in names.items() if name in values} | {
        name: name for name in values if name not in names
    }


def names_in(manifest: Mapping[str, Any]) -> Names:
    """What the spans of a run are called, from its ``run.json``."""
    spans = spans_in(manifest)
    return BUILT_IN_NAMES if spans.is_recipe else Names(main=next(iter(spans.positions), ""))


METHODS: dict[str, str] = {
    "logistic": "logistic probe",
    "mass_mean": "mass-mean probe",
    "lda": "LDA probe",
    "diff_of_means": "difference of means",
    "text_tfidf": "words alone",
}
_CHANCE = "Which of these would also be true by chance?"
QUESTIONS: dict[str, dict[str, str]] = {
    "probe": {
        "where": "Where does the model decide?",
        "what": "What does it look at there?",
        "knew": "What did it already know?",
        "chance": _CHANCE,
    },
    "spans": {
        "what": "What do the tokens look at?",
        "knew": "What do the states tell apart?",
        "chance": _CHANCE,
    },
    "training": {
        "trained": "What was trained, on what?",
        "fell": "Did the losses fall?",
        "moved": "How did the mechanism move?",
        "chance": "Which of the changes would also be true by chance?",
    },
    "intervention": {
        "changed": "What was changed?",
        "did": "What did it do?",
        "chance": "More than chance?",
    },
    "comparison": {
        "did": "What did they do?",
        "what": "Where do they decide, and what do they look at?",
        "knew": "What did they know?",
    },
    "series": {
        "did": "What do the checkpoints do?",
        "what": "What do they look at where they decide?",
        "knew": "What do their states know?",
    },
    "benchmarks": {"benchmarks": "What do benchmarks say?"},
}
"""Questions that a page and a summary in the terminal answer, by the kind of page; ``spans`` is that of a probe of a
user's own spans, ``series`` that of a comparison of checkpoints."""
VALUE = ("value", "low", "high")
"""A number of a summary and its interval."""


def position_name(name: str) -> str:
    """A position of the built-in question in a sentence."""
    return BUILT_IN_NAMES.position(name)


def layer_name(row: Table) -> str:
    """The layer of a row with ``layer`` and ``site``: ``5``, or ``5 after the final norm``."""
    return f"{int(row['layer'])} after the final norm" if row["site"] == "ln_final" else str(int(row["layer"]))


MEASURES = {
    "attack_success": "Harmful prompts answered in full",
    "partial_refusal": "Harmful prompts refused in part",
    "over_refusal": "Benign prompts refused",
    "refusal": "Prompts refused",
    "aha": "K turns safe",
    "dormant_signal": "U names the harm, where a harmful prompt is answered in full",
    "names_harm": "U names harm",
    "unjudged": "Responses without a verdict",
    "cut": "Responses cut by the largest number of tokens",
    "suite_attack_success": "Attacks that succeed by the suite's own judge",
    "suite_unjudged": "Responses without a verdict of the suite's own judge",
    "strongreject_score": "StrongREJECT's mean score, 0 to 100 %",
}
"""Shares of ``comparison``."""
AUROCS = {
    "auroc": "median over layers",
    "auroc_best": "the logistic probe at its best layer",
    "auroc_words": "the words alone",
}
"""AUROCs of ``comparison``."""
LOOKS = {
    "lift_over_matched": "× distance-matched baseline",
    "log_lift_change": "log change of the lift (mass minus baseline)",
    "log_mass_change": "log change of the mass",
    "log_matched_change": "log change of the distance-matched baseline",
}
"""Measures of attention of ``comparison``; changes are natural logs of the ratio of two models' numbers."""
SUBSETS = {
    **PROMPTS_OF,
    "unlabelled": "prompts without a label",
    "all": "all prompts",
}
"""Subsets that are no conditions."""
SPAN_LETTERS = {"understanding": "U", "prompt": "X"}
"""Spans that are looked at."""
POSITIONS_COMPARED = {"understanding": "over U", "decision": "at the token before K"}
"""Where states are probed."""
VERDICTS = {
    "full_compliance": "answers in full",
    "full_refusal": "refuses",
    "partial_refusal": "refuses in part",
}
"""The judge's labels."""
_SAY_THEIR_LABEL = (
    "attack_success",
    "partial_refusal",
    "over_refusal",
    "dormant_signal",
    "suite_attack_success",
    "strongreject_score",
)


def title_of(measure: str, subset: str, conditions: Conditions) -> str:
    """A measure with whose it is: ``K turns safe (wrapped, harmful prompts)``."""
    words = SUBSETS.get(subset) or conditions.words().get(subset, subset)
    if measure in _SAY_THEIR_LABEL:
        words = words.rpartition(", ")[0]
    elif subset == "all":
        words = ""
    return MEASURES[measure] + (f" ({words})" if words else "")
