"""Local engine: responses of a transformers model in this process, in batches.

Prompts of like length share a batch, padded on the left, and samples of one prompt what is computed of it;
what decodes them (:mod:`~safekey_interp.generation.batch_decoding`) stops at the end of the turn. Greedy text is the
same in every batch (:mod:`~safekey_interp.generation.sampling`). Marks of the end and padding are removed, everything
else stays, ``<think>`` included: the text is what :attr:`safekey_interp.Trace.response` holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.batch_decoding import decode
from safekey_interp.generation.edited_decoding import EditedDecoding, EditedRow
from safekey_interp.generation.generation_edits import Ablate, GenerationEdit, HideSpan, Steer, check_edits
from safekey_interp.generation.requests import Generated, Request, check_different
from safekey_interp.generation.sampling import Sampling, stream_seed
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
from safekey_interp.segmentation.finder_registry import Finder
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings


def generate(
    model: Model,
    prompts: Sequence[str | Trace] | Trace,
    *,
    prefill: str | Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 16,
    sampling: Sampling | None = None,
    edits: GenerationEdit | Sequence[GenerationEdit] = (),
    finder: str | Finder = "rules",
) -> list[str]:
    """The model's responses, as it is or under edits.

    Args:
        model: a model with its tokenizer.
        prompts: user texts; or traces, whose prompt and earlier turns are asked again and whose response is not read.
            One trace is a list of one.
        prefill: what the responses begin with: one text for all, or one for each prompt.
        max_new_tokens: largest number of tokens of a response, prefill not counted; a response that is longer is cut
            there. When None, 512, or as many as fit behind the longest prompt.
        batch_size: prompts decoded at once.
        sampling: how tokens are drawn; greedy when None. A response is the same whatever it shares a batch with.
        edits: what is changed in the model while it generates, in this order: ``Steer``, ``Ablate`` and ``HideSpan``.
            Their positions are tokens of prompt, prefill and response
            (:mod:`safekey_interp.generation.generation_edits` says which are known when): ``None`` all of them;
            ``generated`` every token that the model writes; ``understanding`` and ``key_sentence`` also where the
            finder sees them in the text so far; any other, such as ``prompt``, the tokens that it has before the first
            new one.
        finder: finds the understanding and the key sentence, for positions of edits.

    Returns:
        One response for each prompt, in their order, prefill included.

    Raises:
        InputError: one text in place of a list, a number below 1, another number of prefills than of prompts, several
            samples, or edits that do not fit the model.
        TraceError: the chat template refuses a prompt, or a position of an edit is not in prompt and prefill and cannot
            be found while the response is written.
        TraceTooLong: prompt and response do not fit the positions that the model reads.
    """
    if isinstance(prompts, str):
        raise InputError(f"prompts: got the text {prompts[:60]!r}, expected a list such as [{prompts[:60]!r}]")
    prompts = [prompts] if isinstance(prompts, Trace) else prompts
    edits = [edits] if isinstance(edits, Steer | Ablate | HideSpan) else edits
    texts = _prefills(prefill, len(prompts))
    requests = [
        Request(trace=_as_trace(prompt, number), prefill=text, edits=tuple(edits))
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    engine = LocalEngine(model, batch_size=batch_size, finder=finder)
    sampling = _sampling(sampling, max_new_tokens)
    responses = [""] * len(requests)
    for numbers, answers in engine.batches(requests, sampling):
        for number, answer in zip(numbers, answers, strict=True):
            responses[number] = answer.response
    return responses


class LocalEngine:
    """Answers with a transformers model in this process."""

    name = "transformers"

    def __init__(
        self,
        model: Model,
        *,
        batch_size: int = 16,
        finder: str | Finder = "rules",
        delimiters: tuple[str, str] | None = None,
    ) -> None:
        """Configure.

        Args:
            model: from ``load`` or ``from_hf``.
            batch_size: responses decoded at once.
            finder: finds U and K, for positions of edits.
            delimiters: marks of the reasoning; the known families' when None.

        Raises:
            InputError: a batch size below 1.
        """
        if batch_size < 1:
            raise InputError(f"batch_size: got {batch_size}, expected at least 1")
        self.model = model
        self.batch_size = batch_size
        self._finder = SegmentationSettings(finder=finder, delimiters=delimiters).make()

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
            InputError: two requests are the same, or their edits do not fit the model.
            TraceError: the chat template refuses a prompt, or a token has no embedding.
            TraceTooLong: prompt and response do not fit the positions that the model reads.
        """
        check_different(requests)
        for _, answers in self.batches(requests, sampling):
            yield from answers

    def check(self, requests: Sequence[Request], most: int) -> None:
        """Refuse requests whose prompts cannot be answered with ``most`` new tokens; errors as for :meth:`generate`."""
        for request in requests:
            checked_prompt(self.model, request, most)

    def batches(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Iterator[tuple[Sequence[int], Sequence[Generated]]]:
        """The numbers of the requests of a batch, and their responses; errors as for :meth:`generate`."""
        most = sampling.max_new_tokens or self.usual_limit(requests)
        own = {name for request in requests for name in request.trace.span_names}
        for edits in {id(request.edits): request.edits for request in requests}.values():
            check_edits(self.model, edits, own)
        prompts = [checked_prompt(self.model, request, most) for request in requests]
        ends = end_tokens(self.model)
        rows = [
            _Row(request, prompt, EditedRow(self.tokenizer, request, prompt, self._finder, ends))
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        # The longest first: what does not fit the memory shows at once.
        order = sorted(range(len(rows)), key=lambda number: -len(rows[number].prompt.ids))
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            yield numbers, self._answer([rows[number] for number in numbers], sampling, most)

    def _answer(self, rows: Sequence[_Row], sampling: Sampling, most: int) -> list[Generated]:
        ends, decoding = end_tokens(self.model), EditedDecoding(self.model, [row.edited for row in rows])
        seeds = [stream_seed(sampling.seed, row.request.trace.trace_id, row.request.sample) for row in rows]
        ids = [row.prompt.ids for row in rows]
        decoded = decode(self.model, ids, sampling, decoding, seeds=seeds, ends=ends, most=most)
        answers = []
        for (request, prompt, edited), seed, tokens in zip(rows, seeds, decoded, strict=True):
            new, drawn = before_end(tokens, ends), None if sampling.is_greedy else seed
            about: dict[str, Any] = {"cut": len(new) == most, "engine": self.name, "seed": drawn}
            about["edited"] = edited.touched()
            answers.append(generated_from(self.model.tokenizer, request, prompt, new, **about))
        return answers


class _Row(NamedTuple):
    """A row of a batch."""

    request: Request
    prompt: PromptTokens
    edited: EditedRow


def checked_prompt(model: Model, request: Request, most: int) -> PromptTokens:
    """Tokens of a request's prompt and prefill.

    Raises:
        TraceError: the chat template refuses the prompt, nothing is there to continue from, or a token has no
            embedding.
        TraceTooLong: they and ``most`` new ones do not fit the positions that the model reads.
    """
    prompt = prompt_tokens(model.tokenizer, request)
    check_room(request, len(prompt.ids), most, model.max_positions)
    if not prompt.ids:
        raise TraceError(
            request.trace.trace_id, "no token to continue from: the prompt is empty, and so is the template"
        )
    largest = max(prompt.ids)
    if largest >= model.n_embeddings:
        raise TraceError(
            request.trace.trace_id,
            f"its token {largest} has no embedding in the model, which has {model.n_embeddings}; is the "
            "tokenizer another model's?",
        )
    return prompt


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


def _sampling(sampling: Sampling | None, max_new_tokens: int | None) -> Sampling:
    how = sampling or Sampling()
    if how.n > 1:
        raise InputError(f"sampling: got n={how.n}, expected 1: each prompt has one response; write_responses takes n")
    if max_new_tokens is None:
        return how
    if how.max_new_tokens not in (None, max_new_tokens):
        raise InputError(f"max_new_tokens: got {max_new_tokens}, and {how.max_new_tokens} in sampling; give one")
    return replace(how, max_new_tokens=max_new_tokens)
