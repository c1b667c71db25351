"""Local engine: responses of a transformers model in this process, in batches.

Prompts of like length share a batch, padded on the left, and samples of one prompt what is computed of it;
transformers' own ``generate`` decodes them with its cache and stops at the end of the turn. Greedy text is the same in
every batch (:mod:`~safekey_interp.generation.sampling`). What else a checkpoint's generation configuration sets
(penalties, temperatures, texts to suppress) is ignored: the likeliest token is the argmax of the plain forward pass,
and :class:`~safekey_interp.generation.sampling.Sampling` decides a draw. Marks of the end and padding are removed,
everything else stays, ``<think>`` included: the text is what :attr:`safekey_interp.Trace.response` holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicCache

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.prefix_cache import has_prefix_cache
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.requests import Generated, Request, check_different
from safekey_interp.generation.sampling import OwnStreams, Sampling, TiesAlone, stream_seed
from safekey_interp.generation.tokens import (
    PromptTokens,
    before_end,
    check_room,
    generated_from,
    prompt_tokens,
    usual_limit,
)
from safekey_interp.models.chat_template import tokenizer_hash
from safekey_interp.models.model import Model


def generate(
    model: Model,
    prompts: Sequence[str | Trace],
    *,
    prefill: str | Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 16,
) -> list[str]:
    """The model's greedy responses.

    Args:
        model: a model with its tokenizer.
        prompts: user texts; or traces, whose prompt and earlier turns are asked again and whose response is not read.
        prefill: what the responses begin with: one text for all, or one for each prompt.
        max_new_tokens: largest number of tokens of a response, prefill not counted; a response that is longer is cut
            there. When None, 512, or as many as fit behind the longest prompt.
        batch_size: prompts decoded at once.

    Returns:
        One response for each prompt, in their order, prefill included.

    Raises:
        InputError: a number below 1, or another number of prefills than of prompts.
        TraceError: the chat template refuses a prompt.
        TraceTooLong: prompt and response do not fit the positions that the model reads.
    """
    if isinstance(prompts, str):
        raise InputError(f"prompts: got the text {prompts[:60]!r}, expected a list such as [{prompts[:60]!r}]")
    prompts = [prompts] if isinstance(prompts, Trace) else prompts
    texts = _prefills(prefill, len(prompts))
    requests = [
        Request(trace=_as_trace(prompt, number), prefill=text)
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    engine = LocalEngine(model, batch_size=batch_size)
    sampling = Sampling(max_new_tokens=max_new_tokens)
    responses = [""] * len(requests)
    for numbers, answers in engine.batches(requests, sampling):
        for number, answer in zip(numbers, answers, strict=True):
            responses[number] = answer.response
    return responses


class LocalEngine:
    """Answers with a transformers model in this process."""

    name = "transformers"

    def __init__(self, model: Model, *, batch_size: int = 16) -> None:
        """Configure.

        Args:
            model: from ``load`` or ``from_hf``.
            batch_size: responses decoded at once.

        Raises:
            InputError: a batch size below 1.
        """
        if batch_size < 1:
            raise InputError(f"batch_size: got {batch_size}, expected at least 1")
        self.model = model
        self.batch_size = batch_size

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.model.tokenizer

    @property
    def max_positions(self) -> int | None:
        """How far the model reads; None where it is not known."""
        return self.model.max_positions

    def record(self) -> Mapping[str, Any]:
        """The model, its precision, its weights and its tokenizer with the chat template."""
        record = self.model.record()
        names = ("spec", "revision", "adapter", "architecture", "dtype", "attn", "weights_sha256")
        made = {"engine": self.name, "tokenizer_sha256": tokenizer_hash(self.model.tokenizer)}
        return made | {name: record[name] for name in names}

    def usual_limit(self, requests: Sequence[Request]) -> int:
        """512, or as many as fit behind the longest prompt."""
        return usual_limit(self.model.tokenizer, requests, self.model.max_positions)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Generated]:
        """A response for each request, batch by batch.

        Raises:
            InputError: two requests are the same.
            TraceError: the chat template refuses a prompt, or a token has no embedding.
            TraceTooLong: prompt and response do not fit the positions that the model reads.
        """
        check_different(requests)
        for _, answers in self.batches(requests, sampling):
            yield from answers

    def batches(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Iterator[tuple[Sequence[int], Sequence[Generated]]]:
        """The numbers of the requests of a batch, and their responses; errors as for :meth:`generate`."""
        most = sampling.max_new_tokens or self.usual_limit(requests)
        prompts = [self._prompt(request, most) for request in requests]
        # The longest first: what does not fit the memory shows at once.
        order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number].ids))
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            yield numbers, self._answer([requests[i] for i in numbers], [prompts[i] for i in numbers], sampling, most)

    def _prompt(self, request: Request, most: int) -> PromptTokens:
        prompt = prompt_tokens(self.model.tokenizer, request)
        check_room(request, len(prompt.ids), most, self.model.max_positions)
        if not prompt.ids:
            raise TraceError(
                request.trace.trace_id, "no token to continue from: the prompt is empty, and so is the template"
            )
        largest = max(prompt.ids)
        if largest >= self.model.n_embeddings:
            raise TraceError(
                request.trace.trace_id,
                f"its token {largest} has no embedding in the model, which has {self.model.n_embeddings}; is the "
                "tokenizer another model's?",
            )
        return prompt

    def _answer(
        self, requests: Sequence[Request], prompts: Sequence[PromptTokens], sampling: Sampling, most: int
    ) -> list[Generated]:
        seeds = [stream_seed(sampling.seed, request.trace.trace_id, request.sample) for request in requests]
        ends = end_tokens(self.model)
        rows = _decode(self.model, [prompt.ids for prompt in prompts], sampling, seeds=seeds, ends=ends, most=most)
        answers = []
        for request, prompt, seed, row in zip(requests, prompts, seeds, rows, strict=True):
            new, drawn = before_end(row, ends), None if sampling.is_greedy else seed
            about: dict[str, Any] = {"cut": len(new) == most, "engine": self.name, "seed": drawn}
            answers.append(generated_from(self.model.tokenizer, request, prompt, new, **about))
        return answers


def end_tokens(model: Model) -> list[int]:
    """The tokens that end a turn: the generation configuration's, which may be several, and the tokenizer's."""
    configured: Any = getattr(model.hf.generation_config, "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    return [token for token in dict.fromkeys([*ends, model.tokenizer.eos_token_id]) if token is not None]


def _prefills(prefill: str | Sequence[str] | None, n: int) -> Sequence[str]:
    if prefill is None or isinstance(prefill, str):
        return [prefill or ""] * n
    if len(prefill) != n or not all(isinstance(text, str) for text in prefill):
        raise InputError(f"prefill: got {len(prefill)} for {n} prompts, expected one text, or one for each prompt")
    return prefill


def _as_trace(prompt: str | Trace, number: int) -> Trace:
    return prompt if isinstance(prompt, Trace) else Trace(trace_id=str(number), prompt=prompt, response="")


def _decode(
    model: Model, ids: Sequence[list[int]], sampling: Sampling, *, seeds: list[int], ends: list[int], most: int
) -> list[list[int]]:
    """New token ids of one batch, the mark of the end and padding included."""
    width = max(map(len, ids))
    padding = _padding(model, ends)
    inputs = torch.tensor([[padding] * (width - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    chosen = LogitsProcessorList()
    if not sampling.is_greedy:
        chosen.append(OwnStreams(seeds, sampling, width=width, most=most))
    elif model.dtype == torch.float32:
        chosen.append(TiesAlone(model.hf, mask, ends))
    plain = GenerationConfig(
        max_new_tokens=most, do_sample=False, use_cache=True, pad_token_id=padding, eos_token_id=ends or None
    )
    with torch.no_grad(), evaluating(model.hf), _configured(model.hf, plain):
        past = _shared_past(model, ids, inputs, mask)
        options = {} if past is None else {"past_key_values": past}
        output: Tensor = model.hf.generate(input_ids=inputs, attention_mask=mask, logits_processor=chosen, **options)
    return output[:, width:].tolist()


def _shared_past(model: Model, ids: Sequence[list[int]], inputs: Tensor, mask: Tensor) -> DynamicCache | None:
    """Keys and values of all but the last token of each row, computed once for rows of the same tokens; None where that
    saves nothing, or the model has no such past."""
    first: dict[tuple[int, ...], int] = {}
    of = [first.setdefault(tuple(row), number) for number, row in enumerate(ids)]
    if 2 * len(first) > len(ids) or inputs.shape[1] < 2 or not has_prefix_cache(model):
        return None
    rows = sorted(first.values())
    cache = DynamicCache(config=model.config)
    before = mask[rows, :-1]
    positions = (before.cumsum(-1) - 1).clamp(min=0)
    model.hf.get_decoder()(
        input_ids=inputs[rows, :-1],
        attention_mask=before,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    place = {row: number for number, row in enumerate(rows)}
    cache.batch_select_indices(torch.tensor([place[row] for row in of], device=inputs.device))
    return cache


@contextmanager
def _configured(hf: Any, configuration: GenerationConfig) -> Iterator[None]:
    """Has ``hf.generate`` do what is asked and no more: what is left open would come from the model's own."""
    own = hf.generation_config
    hf.generation_config = configuration
    try:
        yield
    finally:
        hf.generation_config = own


def _padding(model: Model, ends: list[int]) -> int:
    """Any token does, since the mask hides it."""
    padding: int | None = model.tokenizer.pad_token_id
    return padding if padding is not None else next(iter(ends), 0)
