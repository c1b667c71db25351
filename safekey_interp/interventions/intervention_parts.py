"""Options, controls and words that several interventions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.interventions.intervention_record import Control, Option

LAYERS = Option(name="layers", reads="layers", help="Layers, such as 0-5,12,-1. Default: all.")
KEY_SENTENCES = Option(
    name="bank",
    flag="--key-sentences",
    reads="key_sentences",
    help="YAML or JSON with the lists safe and go_ahead. Default: the built-in sentences.",
)
FITTING = (
    Option(
        name="fit_layers",
        flag="--layers",
        reads="layers",
        help="Layers whose states directions are fitted on. Default: all; of a trajectory one, two thirds up.",
    ),
    Option(
        name="fit_position",
        flag="--position",
        default="decision",
        help="Position whose states directions are fitted on.",
    ),
    Option(
        name="label_by",
        default="label",
        choices=("label", "aha"),
        help="Fit directions by the file's label, or by each trace's aha.",
    ),
    Option(
        name="n_folds",
        type=int,
        default=5,
        least=2,
        help="Folds of requests; directions fitted on the others are used on each.",
    ),
    Option(
        name="keep_directions",
        flag="--save",
        type=bool,
        default=False,
        help="Keep the fitted directions in the folder's directions/.",
    ),
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
        name="controls",
        default=("shuffled_labels", "covariance"),
        choices=tuple(DIRECTION_CONTROLS),
        several=True,
        help="Control directions.",
    ),
    Option(name="n_random", type=int, default=20, least=1, help="Draws of each kind of control."),
)
METRICS = {
    "difference": "safe minus compliant key sentences",
    "safe": "safe key sentences",
    "go_ahead": "compliant key sentences",
    "key_sentence": "the trace’s own K",
    "first_difference": "first tokens of safe minus those of compliant key sentences",
    "first_safe": "first tokens of safe key sentences",
    "first_go_ahead": "first tokens of compliant key sentences",
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


def listed(values: Any, words: Mapping[str, str]) -> str:
    """One or several values of a setting, in words."""
    values = values if isinstance(values, list | tuple) else [values]
    return ", ".join(words.get(value, str(value)) for value in values)
