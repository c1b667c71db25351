"""Random conversations of the toy language, from all of its requests and wrappers."""

from __future__ import annotations

import random

from safekey_interp.data.trace import Trace
from safekey_interp.models.organism.language import dialogue
from safekey_interp.models.organism.vocabulary import KINDS, pairs
from safekey_interp.models.organism.wrappers import WRAPPERS

EVERY_PAIR = [pair for kind in KINDS for pair in pairs(kind)]
FORMS = [None, *WRAPPERS.values()]


def conversations(n: int, seed: int = 0) -> list[Trace]:
    """Some of every kind and form, four in ten refused."""
    rng = random.Random(seed)
    return [dialogue(rng, rng.choice(EVERY_PAIR), rng.choice(FORMS), safe=rng.random() < 0.4) for _ in range(n)]
