"""Branches of a session: what each was asked, what it has written, and how two of them differ.

Tokens are named by their position in the sequence, prompt counted, as everywhere in this package: ``token(n)`` of a
span expression, ``position`` of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from safekey_interp.data.trace import Trace
from safekey_interp.exploration.session_events import BranchEnded, BranchFailed, SpansFound, TokenWritten
from safekey_interp.generation.generation_edits import GenerationEdit
from safekey_interp.generation.sampling import Sampling

if TYPE_CHECKING:
    import pandas as pd

SwapKind = Literal["safe", "go_ahead", "neutral"]
"""Kind of key sentence that is put in the place of K; ``go_ahead`` is a compliant one."""
Status = Literal["ready", "running", "paused", "ended", "failed"]
"""``paused`` is a branch that was begun and can go on."""


@dataclass(frozen=True)
class StatePatch:
    """States of another branch, put in the place of a branch's own before its first new token."""

    source: str | Trace
    """Id of the branch that they come from; or a trace, which the branch's model reads as it is."""
    _: KW_ONLY
    positions: str = "understanding"
    """Span expression of the tokens; those of both are matched from the last one on, as many as the shorter has."""
    layers: Sequence[int] | None = None
    """After which layers; all when None."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One continuation: what is asked of which model, and how it came from its parent."""

    branch_id: str
    """Unique in the session, and never given again: ``0``, ``1`` …"""
    name: str
    """What the user calls it; any text."""
    change: str
    """What tells it from its parent, in a few words; empty for a root."""
    model: int
    """Number of the session's model that writes it."""
    trace: Trace
    """Prompt, earlier turns and system text; no response."""
    prefill: str
    """What its response begins with: the parent's text before :attr:`at`, and the edited text."""
    prefill_ids: tuple[int, ...] | None = None
    """Its tokens where they are not those of the text: the parent's as they were written; None where they are."""
    edits: tuple[GenerationEdit, ...]
    """What is changed in the model while it reads and writes, its parent's edits first."""
    patch: StatePatch | None = None
    """States of another branch that replace its own; None for none."""
    sampling: Sampling
    """Temperature, seed and largest number of new tokens."""
    first_draw: int = 0
    """Number in the seed's stream of the draw for its first new token: with temperature, a branch draws at each token
    what its parent drew there."""
    parent: str | None = None
    """Id of the branch that it left; None for a root."""
    at: int | None = None
    """Position of the parent's token at which it left; None for a root."""
    control: str | None = None
    """Id of its random control; None without one."""
    control_of: str | None = None
    """Id of the branch that it is the random control of; None for all others."""
    no_control: str = ""
    """Why it has no control, in one line; empty where it has one, is one, or was given none."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What a branch has read and written so far."""

    branch: Branch
    """The branch."""
    status: Status
    """Whether it can go on."""
    prompt_tokens: tuple[str, ...]
    """Text of each token before the response; the first has position 0."""
    tokens: tuple[TokenWritten, ...]
    """The response's tokens, those of the prefill first."""
    response: str
    """The response, prefill and marks of the reasoning included."""
    spans: SpansFound
    """Understanding and key sentence in it."""
    ended: BranchEnded | None = None
    """How it ended; None while it can go on."""
    failed: BranchFailed | None = None
    """Why it stopped last; None where nothing went wrong since."""

    @property
    def response_start(self) -> int:
        """Position of the response's first token."""
        return len(self.prompt_tokens)


@dataclass(frozen=True, kw_only=True)
class BranchDifference:
    """A branch compared with another one."""

    branch: str
    """Id of the branch."""
    other: str
    """Id of the one that it is compared with."""
    first_difference: int | None
    """Position in the response, from 0, of the first token that differs; None where one begins as the other."""
    logprob_difference: float
    """Mean log-probability of the branch's tokens from there on (of all of its response where none differs): under its
    own model and edits minus under the other's, nats per token; NaN without a token."""
    labels: tuple[str | None, str | None]
    """The refusal judge's label of each; None where it cannot judge, or the branch has not ended."""
    tokens: pd.DataFrame = field(repr=False, compare=False)
    """One row per token of the branch's response: position, token, logprob, logprob_other (nats, of that token after
    the same text), kl (of the branch's next-token distribution from the other's, nats)."""


class BranchCode(NamedTuple):
    """What repeats a branch outside of its session."""

    python: str
    """Lines of Python."""
    command: str
    """A command for a shell."""
