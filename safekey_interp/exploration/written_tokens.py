"""Tokens of a branch in arrays: 20 bytes a token beside its text, and 25 for each score; each is made an object when
it is looked at.

One thread appends, and others may look at the same time: what was appended in full is what they see.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

from safekey_interp.exploration.session_events import TokenScore, TokenWritten

_LEAST_REPEATED, _LONGEST_PERIOD = 24, 8
REPEATS = "the response repeats itself to its end"
"""Why there is no verdict."""
_NONE, _BELOW, _ALARM = range(3)
"""No score of this reader; one without an alarm, with one."""


def repeats_itself(ids: Sequence[int]) -> bool:
    """Whether the last 24 tokens are the same few, at most eight, over and over."""
    last = list(ids[-_LEAST_REPEATED:])
    return len(last) == _LEAST_REPEATED and any(
        last[period:] == last[:-period] for period in range(1, _LONGEST_PERIOD + 1)
    )


class WrittenTokens(Sequence[TokenWritten]):
    """The tokens of one response from its first on, without masses."""

    def __init__(self, branch: str, response_start: int) -> None:
        """Begin without a token.

        Args:
            branch: id of the branch.
            response_start: position of the first token.
        """
        self._branch, self._start = branch, response_start
        self._ids, self._logprobs = array("i"), array("d")
        self._text, self._ends = bytearray(), array("I")
        self._n_given = 0
        self._scores: dict[str, tuple[bytearray, array[float]]] = {}
        """Of each reader: whether a token has a score and alarm, and value, mean and sd of the controls."""

    def append(self, token: TokenWritten) -> None:
        """One more token; its index is the number of those before it."""
        n = len(self)
        for name in token.scores:
            if name not in self._scores:
                self._scores[name] = bytearray(n), array("d", bytes(24 * n))
        for name, (alarms, values) in self._scores.items():
            score = token.scores.get(name)
            alarms.append(_NONE if score is None else _ALARM if score.alarm else _BELOW)
            values.extend((0, 0, 0) if score is None else (score.value, score.control_mean, score.control_sd))
        self._n_given += token.is_given
        self._logprobs.append(token.logprob)
        self._text += token.text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._text))
        self._ids.append(token.token_id)  # the last: a token counts from here on

    @property
    def ids(self) -> list[int]:
        """Their numbers in the vocabulary."""
        return self._ids.tolist()

    def text(self, begin: int = 0, end: int | None = None) -> str:
        """Text of the tokens from one index on and before another; of all that follow when None."""
        last = len(self) if end is None else min(end, len(self))
        first, behind = (self._ends[number - 1] if number else 0 for number in (begin, last))
        return self._text[first:behind].decode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> TokenWritten: ...

    @overload
    def __getitem__(self, index: slice) -> list[TokenWritten]: ...

    def __getitem__(self, index: int | slice) -> TokenWritten | list[TokenWritten]:
        numbers = range(len(self))[index]
        return [self._token(each) for each in numbers] if isinstance(numbers, range) else self._token(numbers)

    def __iter__(self) -> Iterator[TokenWritten]:
        return map(self._token, range(len(self)))

    def _token(self, index: int) -> TokenWritten:
        scores = {
            name: TokenScore(value=value, control_mean=mean, control_sd=sd, alarm=alarms[index] == _ALARM)
            for name, (alarms, values) in list(self._scores.items())
            if alarms[index] != _NONE
            for value, mean, sd in [values[3 * index : 3 * index + 3]]
        }
        return TokenWritten(
            branch=self._branch, position=self._start + index, index=index, text=self.text(index, index + 1),
            token_id=self._ids[index], logprob=self._logprobs[index], is_given=index < self._n_given, scores=scores,
        )  # fmt: skip
