"""Names of columns and fields that say what a row holds, in any case, with ``_``, ``-`` or a space between words.

Where a row has several names of one kind, the first in its tuple is read; the others stay in ``meta``.
"""

from __future__ import annotations

import re
from functools import lru_cache

PROMPT_FIELDS = (
    *("jailbroken_prompt", "prompt", "question", "instruction", "query", "problem", "user_prompt", "user_input"),
    *("input", "goal", "behavior"),
)
OTHER_PROMPT_FIELDS = (
    *(
        "forbidden_prompt",
        "adversarial_prompt",
        "adversarial",
        "test_case",
        "full_prompt",
        "origin_prompt",
        "user_message",
        "user_query",
    ),
    *("inputs", "user", "human", "vanilla", "request"),
)
"""Names that hold a prompt where nothing else does, as text."""
RESPONSE_FIELDS = (
    *("response", "completion", "output", "answer", "responses", "completions", "outputs", "generation"),
    *("generations", "generated_text", "model_response", "model_output", "model_answer"),
)
OTHER_RESPONSE_FIELDS = (
    *("final_response", "final_answer", "prediction", "predictions", "preferred_output", "chosen", "samples"),
    *("rollouts", "assistant", "gpt", "bot", "text", "content", "attempt"),
)
"""Names that hold a response where nothing else does."""
REASONING_FIELDS = (
    *("reasoning_content", "reasoning", "thinking", "reasoning_details", "thoughts", "thought", "chain_of_thought"),
    *("thinking_blocks", "reasonings"),
    *("cot", "reasoning_trace", "thinking_trace", "thinking_content", "reasoning_text", "model_reasoning"),
)
MESSAGES_FIELDS = (
    "messages",
    "conversation",
    "conversations",
    "turns",
    "chat",
    "dialog",
    "dialogue",
    "contents",
    "chat_messages",
)
SYSTEM_FIELDS = ("system", "system_prompt", "system_instruction")
LABEL_FIELDS = ("label",)
GROUP_FIELDS = ("group",)
ID_FIELDS = ("trace_id", "id", "custom_id")
SOURCE_FIELDS = ("source",)

_READ = frozenset(
    (
        *(*PROMPT_FIELDS, *RESPONSE_FIELDS, *REASONING_FIELDS, *MESSAGES_FIELDS, *SYSTEM_FIELDS),
        *(*LABEL_FIELDS, *GROUP_FIELDS, *ID_FIELDS, *SOURCE_FIELDS),
        *("choices", "candidates", "request", "body", "doc", "resps", "arguments"),
    )
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN = re.compile(r"[\s_-]+")


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A name in small letters with ``_`` between its words: ``Model Response`` and ``modelResponse`` are one."""
    return _BETWEEN.sub("_", _CAMEL.sub("_", str(name).strip())).lower()


def is_read(name: str) -> bool:
    """Whether a column of this name has a meaning in rows."""
    return plain_name(name) in _READ
