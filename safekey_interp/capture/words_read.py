"""Words that a model has read at a position: what the text baseline of a probe there is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safekey_interp.data.span_expressions import parse_span
from safekey_interp.models.encoding import Encoding


def read_words(encoding: Encoding, position: str) -> str | None:
    """What a model has read at a position, in words; None where the trace lacks it.

    Of a single token (``first``, ``last``, ``before``, ``after``, ``token(n)``), everything up to it; of other
    expressions their own words.
    """
    where = encoding.positions(position)
    if not len(where):
        return None
    if parse_span(position).is_one_token:
        where = range(where[-1] + 1)
    runs = np.split(np.asarray(where), np.flatnonzero(np.diff(where) > 1) + 1)
    return "\n".join(_characters(encoding, run.tolist()) for run in runs)


def _characters(encoding: Encoding, run: Sequence[int]) -> str:
    """Text of neighbouring tokens; those that the tokenizer added have none."""
    ends = [encoding.offsets[at] for at in run if encoding.offsets[at][1] > encoding.offsets[at][0]]
    return encoding.text[ends[0][0] : ends[-1][1]] if ends else ""
