"""Replies of APIs: chat completions, batches, Anthropic messages, Gemini candidates, OpenAI responses, vLLM outputs.

:data:`FORMS` has one line a form: its name, what tells it, and how its answers are read. A form that holds another
(a line of a batch holds a completion) gives that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from safekey_interp.data.cell_values import json_value, kind_in_words
from safekey_interp.data.column_names import OTHER_RESPONSE_FIELDS, RESPONSE_FIELDS, plain_name
from safekey_interp.data.turn_text import CONTENT_FIELDS, ROLE_FIELDS, Turn, read_turn
from safekey_interp.errors import InputError


class ReplyForm(NamedTuple):
    """One form of replies."""

    name: str
    """As a note calls it."""
    field: str
    """The field in which the answers are."""
    fits: Callable[[Mapping[str, Any]], bool]
    """Whether an object has it."""
    read: Callable[[Mapping[str, Any], str], list[Turn]]
    """The answers in it, given how messages name it."""


_INNER = (*RESPONSE_FIELDS, *OTHER_RESPONSE_FIELDS, "message", "body", "output_body_json", "result")
"""Names of an answer inside an object that has no form of its own."""


def reply_form(value: Any) -> ReplyForm | None:
    """The form that an object has; None for none."""
    value = json_value(value, ("{",))
    forms = (*FORMS, MESSAGE)
    return next((form for form in forms if form.fits(value)), None) if isinstance(value, Mapping) else None


def whole_reply(text: str) -> Any:
    """A reply of an API that a cell holds as JSON text; None where it holds none."""
    value = json_value(text, ("{",))
    is_reply = isinstance(value, Mapping) and (
        any(form.fits(value) for form in FORMS) or value.keys() >= {"role", "content"}
    )
    return value if is_reply else None


def holds_reply(value: Mapping[str, Any]) -> bool:
    """Whether an object is a reply of an API, or has an answer under one of the usual names."""
    return any(form.fits(value) for form in FORMS) or any(plain_name(name) in RESPONSE_FIELDS for name in value)


def read_replies(value: Any, where: str) -> list[Turn]:
    """The answers that a value holds: a text, a turn, a reply of an API, or a list of these.

    Raises:
        InputError: none of them.
    """
    value = json_value(value, ("{", "[{"))
    if isinstance(value, str):
        return [Turn("assistant", value, read_from=("", ""))]
    if form := reply_form(value):
        return form.read(value, where)
    if isinstance(value, list) and value:
        return [turn for number, one in enumerate(value) for turn in read_replies(one, f"{where}[{number}]")]
    if isinstance(value, Mapping):
        names = {plain_name(name): name for name, inner in value.items() if inner}
        found = next((names[name] for name in _INNER if name in names), None)
        if found is not None:
            return read_replies(value[found], f"{where}.{found}")
    raise InputError(f"{where}: got {kind_in_words(value)}, expected text")


def _choices(value: Mapping[str, Any], where: str) -> list[Turn]:
    turns = []
    for number, choice in enumerate(_listed(value, "choices", where)):
        at = f"{where}.choices[{number}]"
        if not isinstance(choice, Mapping):
            raise InputError(f"{at}: got {kind_in_words(choice)}, expected a choice with a message")
        finish, message = choice.get("finish_reason"), choice.get("message")
        if message is None and "delta" in choice:
            raise InputError(f"{at}: got a streamed chunk, expected whole replies; join the chunks of each reply")
        if message is None:  # of the older API, or with the fields of a message
            message = choice
        turns.append(read_turn(message, f"{at}.message", role="assistant", finish=finish))
    return turns


def _candidates(value: Mapping[str, Any], where: str) -> list[Turn]:
    turns = []
    for number, candidate in enumerate(_listed(value, "candidates", where)):
        at = f"{where}.candidates[{number}]"
        content = candidate.get("content") if isinstance(candidate, Mapping) else candidate
        finish = candidate.get("finishReason", candidate.get("finish_reason")) if content is not candidate else None
        turns.append(read_turn(content, f"{at}.content", role="assistant", finish=finish))
    return turns


def _items(value: Mapping[str, Any], where: str) -> list[Turn]:
    """OpenAI's responses: reasoning, calls and messages as items of one list."""
    parts: list[Any] = []
    for item in _listed(value, "output", where):
        inner = item.get("content") if isinstance(item, Mapping) and item.get("type") == "message" else None
        parts += inner if isinstance(inner, list) else [item]
    turn = {"role": "assistant", "content": parts}
    return [read_turn(turn, where, finish=value.get("status"))]


def _vllm(value: Mapping[str, Any], where: str) -> list[Turn]:
    outputs = enumerate(_listed(value, "outputs", where))
    return [turn for number, output in outputs for turn in read_replies(output, f"{where}.outputs[{number}]")]


def _listed(value: Mapping[str, Any], field: str, where: str) -> list[Any]:
    items = json_value(value[field])
    if not isinstance(items, list | tuple) or not items:
        raise InputError(f"{where}.{field}: got {kind_in_words(items)}, expected a list of answers")
    return list(items)


def _inside(*path: str) -> Callable[[Mapping[str, Any], str], list[Turn]]:
    def read(value: Mapping[str, Any], where: str) -> list[Turn]:
        inner: Any = value
        for name in path:
            inner = json_value(inner, ("{",)).get(name)
        return read_replies(inner, ".".join((where, *path)))

    return read


def _has_list(field: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda value: isinstance(json_value(value.get(field)), list)


def _has_reply(*path: str) -> Callable[[Mapping[str, Any]], bool]:
    def fits(value: Mapping[str, Any]) -> bool:
        inner: Any = value
        for name in path:
            inner = json_value(inner, ("{",))
            inner = inner.get(name) if isinstance(inner, Mapping) else None
        return reply_form(inner) is not None

    return fits


def _is_anthropic(value: Mapping[str, Any]) -> bool:
    return value.get("type") == "message" and isinstance(value.get("content"), list)


def _is_response(value: Mapping[str, Any]) -> bool:
    return value.get("object") == "response" and isinstance(value.get("output"), list)


def _is_vllm(value: Mapping[str, Any]) -> bool:
    return "prompt_token_ids" in value and isinstance(value.get("outputs"), list)


def _is_message(value: Mapping[str, Any]) -> bool:
    return any(name in value for name in ROLE_FIELDS) or any(
        isinstance(value.get(name), str | list) for name in CONTENT_FIELDS
    )


def _turn(value: Mapping[str, Any], where: str) -> list[Turn]:
    return [read_turn(value, where, role="assistant", finish=value.get("stop_reason", value.get("finish_reason")))]


FORMS = (
    ReplyForm("chat completion", "choices", _has_list("choices"), _choices),
    ReplyForm("Gemini reply", "candidates", _has_list("candidates"), _candidates),
    ReplyForm("OpenAI response", "output", _is_response, _items),
    ReplyForm("Anthropic message", "content", _is_anthropic, _turn),
    ReplyForm("batch output", "response", _has_reply("response", "body"), _inside("response", "body")),
    ReplyForm("batch output", "result", _has_reply("result", "message"), _inside("result", "message")),
    ReplyForm("chat completion", "response", _has_reply("response"), _inside("response")),
    ReplyForm("chat completion", "message", _has_reply("message"), _inside("message")),
    ReplyForm("vLLM output", "outputs", _is_vllm, _vllm),
)
"""Forms of a whole row, in the order in which they are tried."""
MESSAGE = ReplyForm("message", "content", _is_message, _turn)
"""One turn, where an answer is looked for."""
