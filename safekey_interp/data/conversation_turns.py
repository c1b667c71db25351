"""Turns of a conversation and the exchanges in them: each answer that has reasoning, with what came before it.

An answer that has reasoning makes an exchange, wherever it stands; where none has, the last does. Its prompt is the
user's latest turn before it; what lies between (calls of tools, and what the tools returned) are its steps. A
conversation that ends with a turn of the user or of a tool waits for an answer, and makes an exchange without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safekey_interp.data.cell_values import json_value, kind_in_words
from safekey_interp.data.turn_text import Turn, merged_channels, read_turn
from safekey_interp.errors import InputError

NO_ANSWER = Turn("assistant", "")


class Exchange(NamedTuple):
    """A prompt and its answer, in a conversation."""

    prompt: Turn
    answer: Turn
    before: Sequence[Turn] = ()
    """System and earlier turns."""
    steps: Sequence[Turn] = ()
    """Turns between the prompt and the answer."""
    number: int = 1
    """Of the answer among the assistant's turns, from 1."""


def read_turns(value: Any, where: str) -> list[Turn]:
    """The turns of a cell; a text is one turn of the user.

    Raises:
        InputError: it is no list, or one of them is no turn.
    """
    value = json_value(value)
    if isinstance(value, str):
        return [Turn("user", value)]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: got {kind_in_words(value)}, expected a list of {{role, content}}")
    turns = []
    for number, turn in enumerate(value):
        at = f"{where}[{number}]"
        turns.append(Turn("user", turn) if isinstance(turn, str) and not number else read_turn(turn, at))
    return merged_channels(turns)


def exchanges_of(turns: Sequence[Turn], where: str) -> list[Exchange]:
    """The exchanges of a conversation.

    Args:
        turns: in order.
        where: how messages name it.

    Raises:
        InputError: no turn of the user.
    """
    users = [number for number, turn in enumerate(turns) if turn.role == "user"]
    if not users:
        raise InputError(f"{where}: got no turn of the user among {len(turns)}, expected one at least")
    answers = [number for number, turn in enumerate(turns) if turn.role == "assistant" and number > users[0]]
    waits = not answers or answers[-1] < users[-1] or turns[-1].role == "tool"
    read = [number for number in answers if turns[number].has_reasoning] or ([] if waits else answers[-1:])
    return [exchange_at(turns, number) for number in (*read, *([len(turns)] if waits else []))]


def exchange_at(turns: Sequence[Turn], at: int) -> Exchange:
    """The exchange whose answer is the turn ``at``, or whose answer would stand there; the user spoke before it."""
    before = [turn.role for turn in turns[:at]]
    asked = at - 1 - before[::-1].index("user")
    answer = turns[at] if at < len(turns) else NO_ANSWER
    number = 1 + before.count("assistant")
    return Exchange(turns[asked], answer, turns[:asked], turns[asked + 1 : at], number)
