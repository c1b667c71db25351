"""Options, controls and words that several interventions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.capture.capture_request import STATE_POSITIONS
from safekey_interp.interventions.intervention_record import Control
from safekey_interp.interventions.option_record import Option

LAYERS = Option("layers", "Layers, such as 0-5,12,-1. Default: all.", reads="layers")
KEY_SENTENCES = Option(
    "bank",
    "YAML or JSON with lists safe and go_ahead. Default: built in.",
    flag="--key-sentences",
    reads="key_sentences",
)


def metric_option(default: str) -> Option:
    """The option of what is read out, with what that is unless it is asked for."""
    return Option(
        "metric",
        'What is read out: aha, key_sentence, logprob("text"), logprob(SPAN), logit_difference("a", "b"), or '
        'probe(FILE), each at the token before K unless AT follows: logprob("text") at last(prompt). '
        f"Default: {default}.",
        several=True,
        reads="metric",
        is_optional=True,
    )


METRIC = metric_option("aha and key_sentence")
PAIRED_BY = Option(
    "label_by",
    "Column with two values by which traces are paired; the source is one of these. Default: the outcome.",
    is_optional=True,
)
N_DONORS = Option("n_random", "Other requests' traces as controls of each pair.", int, 1, least=0)
STATES_AT = (*STATE_POSITIONS, "understanding_end")
"""Positions of the built-in question at which a state is read or changed."""
FITTING = (
    Option(
        "fit_layers", "Layers to fit directions on. Default: all; of a trajectory one.", flag="--layers", reads="layers"
    ),
    Option(
        "fit_position",
        "Position whose states directions are fitted on.",
        default="decision",
        flag="--position",
        choices=STATES_AT,
        is_span=True,
    ),
    Option("label_by", "Column of the two classes: label, aha, source, or a name found in meta.", default="label"),
    Option("n_folds", "Folds of requests; directions fitted on the others are used on each.", int, 5, least=2),
    Option("keep_directions", "Keep the fitted directions in the folder's directions/.", bool, False, flag="--save"),
)
"""Options of cross-fitting, of every intervention that fits directions."""
DIRECTION_CONTROLS = {
    "shuffled_labels": Control("directions fitted to shuffled labels", "{n_random} draws"),
    "covariance": Control("directions drawn from the states’ covariance", "{n_random} draws"),
    "isotropic": Control("isotropic random directions", "{n_random} draws"),
}
"""Kinds of control of a direction."""
DIRECTION_OPTIONS = (
    Option(
        "controls",
        "Control directions.",
        default=("shuffled_labels", "covariance"),
        choices=DIRECTION_CONTROLS,
        several=True,
    ),
    Option("n_random", "Draws of each kind of control.", int, 20, least=1),
)
STAGED = (
    Option(
        "confirm",
        "Places that are measured exactly, with all controls; the others are estimated to the first order. Default: "
        "all where that is affordable, else as many as are, at most 5.",
        int,
        least=1,
        is_optional=True,
    ),
    Option("exact", "Measure every place exactly, whatever it costs.", bool, False, is_optional=True),
)
"""Options of two stages (:mod:`~safekey_interp.interventions.two_stages`)."""
STAGES = {"exact": "exact", "estimate": "estimates, first order"}
"""How a place was measured, in words."""
METRICS = {
    "difference": "safe minus compliant key sentences",
    "safe": "safe key sentences",
    "go_ahead": "compliant key sentences",
    "key_sentence": "the trace’s own K",
    "first_difference": "first tokens of safe minus those of compliant key sentences",
    "first_safe": "first tokens of safe key sentences",
    "first_go_ahead": "first tokens of compliant key sentences",
    "refused": "answers that refuse",
    "complied": "answers that comply",
    "malformed": "malformed answers",
}
"""Metrics in words."""
SENTENCE_METRICS = ("difference", "key_sentence", "safe", "go_ahead")
"""Metrics of an intervention that scores sentences in K's place, the one that is reported first."""
POSITIONS = {
    "prompt": "X",
    "prompt_end": "the end of X",
    "template": "the template behind X",
    "understanding": "U",
    "understanding_end": "the end of U",
    "decision": "the token before K",
}
"""Positions before K in words, in the order of a trace."""
PARTS = {"understanding": "U", "key_sentence": "K", "rest": "the rest"}
"""Parts of the reasoning in words."""
PLAIN_PARTS = {"understanding": "the opening", "key_sentence": "the sentence behind the opening", "rest": "the rest"}
"""The same without a word of the built-in question."""


def listed(values: Any, words: Mapping[str, str]) -> str:
    """One or several values of a setting, in words."""
    values = values if isinstance(values, list | tuple) else [values]
    return ", ".join(words.get(value, str(value)) for value in values)
