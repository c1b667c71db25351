"""Events of a session: a token that was written, spans that were found, a branch that ended or failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from safekey_interp.data.trace import TokenSpan

if TYPE_CHECKING:
    import numpy as np

EndReason = Literal["end_of_turn", "limit", "context_full"]
"""The model ended its turn; the largest number of new tokens; the model reads no further."""


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """Score of one reader at one token."""

    value: float
    """The probe's or direction's score on the state at this token."""
    control_mean: float
    """Mean score of control directions on the same state; NaN without any."""
    control_sd: float
    """Their standard deviation; NaN without any."""
    alarm: bool
    """Whether this score is above the reader's threshold, which holds for the tokens that the reader reads alone
    (:attr:`SpansFound.read_at`)."""


@dataclass(frozen=True, kw_only=True)
class TokenWritten:
    """One token of a response, with what was read at it."""

    branch: str
    """Id of the branch."""
    position: int
    """Position in the sequence, prompt counted."""
    index: int
    """Position in the response, from 0, prefill counted."""
    text: str
    """What it adds to the response; empty within a character of several tokens."""
    token_id: int
    """Number in the model's vocabulary."""
    logprob: float
    """Log-probability that the model gave it, nats, before temperature and top-p; NaN for a prefill's first token
    where nothing is before it."""
    is_given: bool
    """Whether it is the prefill's, and not the model's."""
    scores: Mapping[str, TokenScore] = field(default_factory=dict)
    """By the name of each reader that fits the model."""
    masses: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    """By span (prompt, template, first_token, and understanding and key_sentence as far as they are found): attention
    from this token on it, (layer, head) float32 in [0, 1], read while it was written; NaN on layers without a pattern.
    Empty for tokens of a prefill."""


@dataclass(frozen=True, kw_only=True)
class SpansFound:
    """Where the finder sees understanding and key sentence in the response so far."""

    branch: str
    """Id of the branch."""
    understanding: TokenSpan | None
    """Positions of the understanding's tokens; None where there is none yet."""
    key_sentence: TokenSpan | None
    """Positions of the key sentence's tokens."""
    is_provisional: bool
    """Whether text that is still to come may move them."""
    reason: str = ""
    """Why there is no key sentence; empty where there is one."""
    read_at: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By reader, positions of the response at its own span expression, such as the token before the key sentence, as
    far as they are found: there it was fitted, and its threshold calibrated. All of the response for a reader that
    knows no position."""


@dataclass(frozen=True, kw_only=True)
class BranchEnded:
    """A branch's response came to its end."""

    branch: str
    """Id of the branch."""
    reason: EndReason
    """Why."""
    label: str | None
    """The refusal judge's label of the response: ``full_refusal``, ``partial_refusal``, ``full_compliance``; None where
    it cannot judge."""
    label_reason: str
    """Why, in the judge's words."""


@dataclass(frozen=True, kw_only=True)
class BranchFailed:
    """A branch stopped by an error; the session stays usable, and the branch can be run again."""

    branch: str
    """Id of the branch."""
    message: str
    """What went wrong, in one line."""


Event = TokenWritten | SpansFound | BranchEnded | BranchFailed
"""What :meth:`Session.run` yields."""
