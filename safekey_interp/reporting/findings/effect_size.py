"""Smallest effects of interest, and the verdict on a difference: above or below 0, too small to matter, or open.

Of a difference with its 95 % interval, and the smallest effect of interest s of its unit (:data:`SMALLEST`):

    too small to matter   the whole interval lies between −s and s, whether or not it holds 0
    above 0, below 0      the interval leaves 0 out, and the number is at least s
    open                  everything else: the interval is too wide for either

The first is an equivalence test at 2.5 % a side (Schuirmann 1987; Lakens 2017, Soc. Psychol. Personal. Sci. 8:355).
A user may give others, by kind (:data:`KINDS`); sentences and tables are then told within :func:`smallest_effects`.
Claims of ``analysis/paper`` go by the same rule, with a smallest effect of each claim's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Literal, get_args

from safekey_interp.data.conditions import FEW
from safekey_interp.errors import InputError
from safekey_interp.reporting.findings.finding import Estimate

Verdict = Literal["above", "below", "too small", "open", "too few"]
"""On a difference; ``too few`` prompts for an interval."""
VERDICTS = get_args(Verdict)
SHARE, AUROC_GAIN, TIMES, NATS = "of prompts", "AUROC", "× distance-matched baseline", "nats per token"
"""Units of which a smallest effect of interest is known, as :data:`SMALLEST` names them."""
SMALLEST: dict[str, float] = {SHARE: 0.05, AUROC_GAIN: 0.05, TIMES: 0.1, NATS: 0.1, "nats": 0.1, "logits": 0.1}
"""The smallest effect of interest, by unit. Scores of a probe or a function have no scale of their own, and none."""
LEAST_MASS = 0.05
"""Attention on a span, mean over traces, from which on a head is named as the largest: a ratio of less says little."""
KINDS = {"share": (SHARE,), "auroc": (AUROC_GAIN,), "lift": (TIMES,), "nats": (NATS, "nats"), "logits": ("logits",)}
"""What a user names, with the units that it is the smallest effect of."""
_BELOW_ONE = ("share", "auroc")
_given: ContextVar[Mapping[str, float]] = ContextVar("smallest effects by unit", default=MappingProxyType({}))


def checked_smallest(given: Mapping[str, float], name: str = "smallest_effects") -> dict[str, float]:
    """Smallest effects of interest by kind, as ``run.json`` has them.

    Args:
        given: by kind; shares and AUROC below 1, in units of the measure.
        name: what the user calls them.

    Raises:
        InputError: another kind, or no number above 0.
    """
    for kind, value in given.items():
        if kind not in KINDS:
            raise InputError(f"{name}: got {kind!r}, expected one of {', '.join(KINDS)}")
        most = 1 if kind in _BELOW_ONE else math.inf
        if not 0 < value < most:
            between = "between 0 and 1" if kind in _BELOW_ONE else "above 0"
            raise InputError(f"{name}: got {kind}={value:g}, expected a number {between}")
    return dict(given)


@contextmanager
def smallest_effects(given: Mapping[str, float] | None) -> Iterator[None]:
    """Tell with other smallest effects of interest, by kind; :data:`SMALLEST` holds for the others."""
    token = _given.set({unit: value for kind, value in (given or {}).items() for unit in KINDS[kind]})
    try:
        yield
    finally:
        _given.reset(token)


def smallest_of(unit: str) -> float | None:
    """The smallest effect of interest of a unit; None where none is known."""
    return _given.get().get(unit, SMALLEST.get(unit))


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
    smallest = smallest_of(unit)
    verdict = verdict_of(number, smallest)
    if verdict == "too few":
        return f"on fewer than {FEW} prompts, which says nothing about others"
    if verdict in ("above", "below"):
        return f"{verdict} 0"
    if smallest is None:
        return "not told apart from 0"
    in_words = {SHARE: f"{100 * smallest:g} points", AUROC_GAIN: f"{smallest:g} in AUROC"}
    least = in_words.get(unit, f"{smallest:g} {unit}")
    if verdict == "too small":
        return f"too small to matter (the interval lies within ±{least})"
    if number.low <= 0 <= number.high:
        return f"open (0 and effects of {least} are both possible)"
    return f"{'above' if number.value > 0 else 'below'} 0, and open whether by {least}"
