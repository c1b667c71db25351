"""What did a model do with a request: answer, refuse, or a bit of both?

A judge is called with a prompt and a response and returns a :class:`~safekey_interp.judge.record.Judgement`; its record
is the same whichever judge it is, and tables of labels go to :mod:`safekey_interp.judge.metrics`. Here is ``refusal``
(:mod:`safekey_interp.judge.refusal`), which needs neither a network nor a language model.
"""

from __future__ import annotations

from safekey_interp.judge.record import Evidence as Evidence
from safekey_interp.judge.record import Judgement as Judgement
from safekey_interp.judge.refusal import judge_refusal as judge_refusal

__all__ = ["Evidence", "Judgement", "judge_refusal"]
