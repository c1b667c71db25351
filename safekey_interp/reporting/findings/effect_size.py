"""Smallest effects of interest, and the verdict on a difference: above or below 0, too small to matter, or open.

Of a difference with its 95 % interval, and the smallest effect of interest s of its unit (:data:`SMALLEST`):

    too small to matter   the whole interval lies between −s and s, whether or not it holds 0
    above 0, below 0      the interval leaves 0 out, and the number is at least s
    open                  everything else: the interval is too wide for either

The first is an equivalence test at 2.5 % a side (Schuirmann 1987; Lakens 2017, Soc. Psychol. Personal. Sci. 8:355).
Claims of ``analysis/paper`` go by the same rule, with a smallest effect of each claim's own.
"""

from __future__ import annotations

from typing import Literal, get_args

from safekey_interp.data.conditions import FEW
from safekey_interp.reporting.findings.finding import Estimate

Verdict = Literal["above", "below", "too small", "open", "too few"]
"""On a difference; ``too few`` prompts for an interval."""
VERDICTS = get_args(Verdict)
SHARE, AUROC_GAIN, TIMES, NATS = "of prompts", "AUROC", "× distance-matched baseline", "nats a token"
"""Units of which a smallest effect of interest is known, as :data:`SMALLEST` names them."""
SMALLEST: dict[str, float] = {SHARE: 0.05, AUROC_GAIN: 0.05, TIMES: 0.1, NATS: 0.1, "nats": 0.1, "logits": 0.1}
"""The smallest effect of interest, by unit. Scores of a probe or a function have no scale of their own, and none."""
LEAST_MASS = 0.05
"""Attention on a span, mean over traces, from which on a head is named as the largest: a ratio of less says little."""
_IN_WORDS = {SHARE: "5 points", AUROC_GAIN: "0.05 in AUROC"}


def verdict_of(number: Estimate, smallest: float | None) -> Verdict:
    """The verdict on a difference.

    Args:
        number: the difference.
        smallest: smallest effect of interest, above 0, in the same unit; None where none is known, so that the
            interval alone decides.
    """
    if not number.is_sure:
        return "too few"
    least = smallest or 0.0
    if -least < number.low and number.high < least:
        return "too small"
    if number.low <= 0 <= number.high or abs(number.value) < least:
        return "open"
    return "above" if number.value > 0 else "below"


def size_in_words(number: Estimate, unit: str) -> str:
    """The verdict as the end of a sentence, with the smallest effect that it goes by.

    Args:
        number: the difference, in the unit as :data:`SMALLEST` has it (shares from −1 to 1).
        unit: its unit; another than those of :data:`SMALLEST` has no smallest effect.
    """
    smallest = SMALLEST.get(unit)
    verdict = verdict_of(number, smallest)
    if verdict == "too few":
        return f"on fewer than {FEW} prompts, which says nothing about others"
    if verdict in ("above", "below"):
        return f"{verdict} 0"
    if smallest is None:
        return "not told apart from 0"
    least = _IN_WORDS.get(unit, f"{smallest:g} {unit}")
    if verdict == "too small":
        return f"too small to matter (the interval lies within ±{least})"
    if number.low <= 0 <= number.high:
        return f"open (0 and effects of {least} are both possible)"
    return f"{'above' if number.value > 0 else 'below'} 0, and open whether by {least}"
