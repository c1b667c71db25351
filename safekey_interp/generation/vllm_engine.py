"""vLLM engine: responses of a model that vLLM runs in this process, for a GPU (extra ``[vllm]``).

Prompts are rendered and tokenised here, as for every local model, and vLLM is given their tokens; what it writes is
decoded here, too. Each request has a seed of its own, but vLLM's arithmetic depends on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safekey_interp.errors import InputError, ModelError
from safekey_interp.generation.requests import Generated, Request, check_different, check_unedited
from safekey_interp.generation.sampling import Sampling, stream_seed
from safekey_interp.generation.tokens import PromptTokens, check_room, generated_from, prompt_tokens, usual_limit
from safekey_interp.models.chat_template import tokenizer_hash
from safekey_interp.models.checkpoints import check_revision, resolve
from safekey_interp.models.vllm_loading import import_vllm, start_vllm
from safekey_interp.runs.manifest import version_of


class VllmEngine:
    """Answers with vLLM's offline engine."""

    name = "vllm"

    def __init__(
        self,
        spec: str,
        *,
        revision: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
        batch_size: int = 256,
        **options: Any,
    ) -> None:
        """Load the model.

        Args:
            spec: what ``load`` takes.
            revision: branch, tag or commit of a hub checkpoint.
            dtype: the checkpoint's own when None.
            trust_remote_code: run code that comes with a hub model.
            batch_size: requests handed over at once, and written together; vLLM makes its own batches of them.
            **options: for ``vllm.LLM``, such as ``tensor_parallel_size`` or ``max_model_len``.

        Raises:
            InputError: the package vllm is missing, or a batch size below 1.
            ModelError: vLLM cannot load the model.
        """
        self._vllm = import_vllm()
        if batch_size < 1:
            raise InputError(f"batch_size: got {batch_size}, expected at least 1")
        check_revision(spec, revision)
        checkpoint = resolve(spec)
        self.spec, self.revision, self.dtype = checkpoint.spec, revision, dtype
        self.batch_size = batch_size
        self._options = options
        self._llm = start_vllm(
            checkpoint, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code, **options
        )
        self.tokenizer: Any = self._llm.get_tokenizer()
        """The model's tokenizer."""
        self.max_positions: int | None = self._llm.model_config.max_model_len
        """How far it reads."""

    def record(self) -> Mapping[str, Any]:
        """Model, revision, precision, tokenizer, vLLM's version and options."""
        model = {"spec": self.spec, "revision": self.revision, "dtype": self.dtype or "auto"}
        model["tokenizer_sha256"] = tokenizer_hash(self.tokenizer)
        return {"engine": self.name, **model, "vllm": version_of("vllm"), "options": dict(self._options)}

    def usual_limit(self, requests: Sequence[Request]) -> int:
        """512, or as many as fit behind the longest prompt."""
        return usual_limit(self.tokenizer, requests, self.max_positions)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Generated]:
        """A response for each request, in their order.

        Raises:
            InputError: two requests are the same, or one has edits.
            ModelError: vLLM gave a request up.
            TraceError: the chat template refuses a prompt.
            TraceTooLong: prompt and response do not fit what vLLM was set up to read.
        """
        check_different(requests)
        check_unedited(requests, self.name)
        most = sampling.max_new_tokens or self.usual_limit(requests)
        prompts = [prompt_tokens(self.tokenizer, request) for request in requests]
        for request, prompt in zip(requests, prompts, strict=True):
            check_room(request, len(prompt.ids), most, self.max_positions)
        for start in range(0, len(requests), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield from self._answer(requests[part], prompts[part], sampling, most)

    def _answer(
        self, requests: Sequence[Request], prompts: Sequence[PromptTokens], sampling: Sampling, most: int
    ) -> Iterator[Generated]:
        seeds = [
            None if sampling.is_greedy else stream_seed(sampling.seed, request.trace.trace_id, request.sample)
            for request in requests
        ]
        params = [
            self._vllm.SamplingParams(
                temperature=sampling.temperature, top_p=sampling.top_p, seed=seed, max_tokens=most, detokenize=False
            )
            for seed in seeds
        ]
        inputs = [{"prompt_token_ids": prompt.ids} for prompt in prompts]
        outputs = self._llm.generate(inputs, params, use_tqdm=False)
        for request, prompt, seed, output in zip(requests, prompts, seeds, outputs, strict=True):
            written = output.outputs[0]
            if written.finish_reason not in ("stop", "length"):
                raise ModelError(f"trace {request.trace.trace_id}: vLLM ended it with {written.finish_reason!r}")
            # No stop texts are given, so what stopped it is a token that ends the turn, and the last.
            new = list(written.token_ids)[: -1 if written.finish_reason == "stop" else None]
            about: dict[str, Any] = {"cut": written.finish_reason == "length", "engine": self.name, "seed": seed}
            yield generated_from(self.tokenizer, request, prompt, new, **about)
