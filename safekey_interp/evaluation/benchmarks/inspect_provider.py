"""Inspect provider that separates reasoning from answers: ``python inspect_provider.py eval TASK …``.

It is inspect's own command line with one more provider, which calls the ``hf`` provider and moves what precedes the
last closing mark out of the answer. It needs inspect_ai alone, so that it runs in any environment that has it.
"""

from __future__ import annotations

import runpy
from typing import Any

NAME = "thinking"
"""Of the provider: ``--model thinking/NAME``, with the arguments of ``hf``, ``opening`` and ``closing``."""


def register() -> None:
    """Tell inspect of the provider."""
    from inspect_ai.model import (  # pyright: ignore[reportMissingImports]
        ContentReasoning,
        ContentText,
        GenerateConfig,
        ModelAPI,
        get_model,
        modelapi,
    )

    class Thinking(ModelAPI):
        """The ``hf`` provider, with reasoning separated from answers."""

        def __init__(
            self,
            model_name: str,
            base_url: str | None = None,
            api_key: str | None = None,
            config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect's own signature)
            *,
            opening: str,
            closing: str,
            **model_args: Any,
        ) -> None:
            super().__init__(model_name, base_url, api_key, [], config)
            self._opening, self._closing = opening, closing
            self._asked = get_model(f"hf/{model_name}", config=config, memoize=False, **model_args).api

        async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:
            output: Any = await self._asked.generate(input, tools, tool_choice, config)
            reasoning, mark, answer = output.completion.rpartition(self._closing)
            if mark:
                thought = reasoning.strip().removeprefix(self._opening).strip()
                output.message.content = [ContentReasoning(reasoning=thought), ContentText(text=answer.strip())]
                output.completion = output.message.text
            return output

        def max_tokens(self) -> int | None:
            return self._asked.max_tokens()

        def max_connections(self) -> int:
            return self._asked.max_connections()

        def collapse_user_messages(self) -> bool:
            return self._asked.collapse_user_messages()

    modelapi(name=NAME)(Thinking)


if __name__ == "__main__":
    register()
    runpy.run_module("inspect_ai", run_name="__main__", alter_sys=True)
