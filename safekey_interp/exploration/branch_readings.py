"""Readings of a branch at one token: attention, logit lens, what heads write, and a branch's difference from another.

Each is read from one forward pass of exactly the tokens that the branch read and wrote, under its edits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safekey_interp.exploration.branch_record import Branch, BranchDifference

if TYPE_CHECKING:
    import pandas as pd


class BranchReadings:
    """What can be read of a session's branches."""

    def attention(self, branch: Branch | str, position: int) -> pd.DataFrame:
        """Attention of one token to each span, in all layers and heads, under the branch's edits.

        Args:
            branch: the branch, or its id.
            position: of a token that was read or written.

        Returns:
            One row per layer, head and span: layer, head, to_span, mass, mass_rest, uniform_mass, lift, random_mass,
            matched_mass, matched_mass_other, entropy, n_k, as :func:`~safekey_interp.measure_attention` has them for
            the query ``token(position)``.

        Raises:
            InputError: no such branch or token.
            ModelError: the model's attention cannot be read.
        """
        raise NotImplementedError

    def token_attention(
        self, branch: Branch | str, position: int, *, layer: int | None = None, head: int | None = None
    ) -> pd.DataFrame:
        """Attention of one token to every token before it and itself.

        Args:
            branch: the branch, or its id.
            position: of a token that was read or written.
            layer: one layer, negative counted from the last; the mean over all when None.
            head: one head; the mean over all when None.

        Returns:
            One row per token: position, token, weight, in [0, 1].

        Raises:
            InputError: no such branch, token, layer or head.
            ModelError: the model's attention cannot be read.
        """
        raise NotImplementedError

    def lens(self, branch: Branch | str, position: int, *, top: int = 5) -> pd.DataFrame:
        """Logit lens: what each layer says the next token is.

        Returns:
            One row per layer and rank: layer, rank (0 for the likeliest), token, token_id, logprob (nats), and
            written_logprob, that of the token that stands there; NaN behind the last token.

        Raises:
            InputError: no such branch or token.
            ModelError: the model's states cannot be read as logits.
        """
        raise NotImplementedError

    def writes(self, branch: Branch | str, position: int) -> pd.DataFrame:
        """What each head writes towards compliance or refusal at one token: direct logit attribution.

        Returns:
            One row per layer and head: layer, head, effect (logits towards tokens that a compliant key sentence begins
            with minus those of a safe one), control_mean and control_sd (of random differences of tokens).

        Raises:
            InputError: no such branch or token.
            ModelError: the model's heads cannot be read.
        """
        raise NotImplementedError

    def difference(self, branch: Branch | str, other: Branch | str | None = None) -> BranchDifference:
        """A branch compared with another, its parent when None.

        Raises:
            InputError: no such branch, a root without another, or models with other vocabularies.
        """
        raise NotImplementedError
