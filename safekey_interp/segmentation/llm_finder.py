"""LLM finder: U and K of a trace by the reading of a language model.

The paper (SafeKey, Zhou et al. 2025, arXiv 2505.16186) found key sentences with a model and a prompt. Here any
OpenAI-compatible endpoint does it, with a prompt of our own (:mod:`safekey_interp.segmentation.llm_prompt`); what it
answers is looked up in the text and refused where it does not fit. A refused answer is asked for once more with the
defect told; refused again, the trace has no spans, confidence 0 and a reason. Requests overlap, answers are cached on
disk by content, and a rerun asks only for what is missing: failed and refused answers are not kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

from safekey_interp.data.endpoint_replies import BadReply
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.endpoint import Chat, Endpoint, NoAnswer, open_chat
from safekey_interp.errors import InputError, ModelError
from safekey_interp.runs.storage import cache_folder
from safekey_interp.segmentation.answer_cache import AnswerCache, content_key
from safekey_interp.segmentation.llm_prompt import (
    PROMPT_TEMPLATE,
    VERSION,
    Placed,
    ask_text,
    check_template,
    place,
    read_answer,
)
from safekey_interp.segmentation.reasoning_span import Delimiters, Region, reasoning_region
from safekey_interp.segmentation.segmentation_record import Segmentation
from safekey_interp.segmentation.span_finder import NO_KEY_SENTENCE, NO_TEXT, language_at

# The model is shown this much of the prompt and of the reasoning: U and K open a trace, and K ends within.
_SHOWN_CHARACTERS = 4_000
# Traces held for each request under way: while the first in line waits, those behind it can be answered.
_TRACES_PER_REQUEST = 4

# How sure a finding is: levels, not measured probabilities.
_QUOTED_AT_ONCE, _MENDED = 0.9, 0.8

_NOWHERE = Placed(understanding=None, key_sentence=None, aha=None, hint=None, exact=False, why="")

Result = Literal["answered", "cached", "no text", "refused", "failed", "unreachable"]


class _Outcome(NamedTuple):
    segmentation: Segmentation
    result: Result


class LlmFinder:
    """Finds U and K by asking a language model at an OpenAI-compatible endpoint.

    ``counts`` tells how the traces so far came out: "answered", "cached", "no text" (nothing to ask about), "refused"
    (two answers that do not fit the text), "failed" (the endpoint would not answer this one), "unreachable" (no
    answer after all retries).
    """

    name = "llm"

    def __init__(
        self,
        delimiters: Delimiters | None = None,
        *,
        base_url: str | None = None,
        model: str | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        max_retries: int = 4,
        timeout: float = 120.0,
        max_failures: int = 10,
        options: Mapping[str, Any] | None = None,
        trust_env: bool | None = None,
        cache_dir: str | Path | None = None,
        prompt_template: str | None = None,
    ) -> None:
        """Configure; nothing is asked yet. What is None comes from the environment, see :class:`Endpoint`.

        Args:
            delimiters: what opens and closes the reasoning, where it is marked as by no known family.
            base_url: the endpoint, such as ``http://localhost:8000/v1``; else ``SAFEKEY_LLM_BASE_URL``.
            model: the model's name there; else ``SAFEKEY_LLM_MODEL``.
            api_key: else ``SAFEKEY_LLM_API_KEY``, else ``OPENAI_API_KEY``. Sent to ``base_url``, whichever it is.
            concurrency: most requests under way at once.
            max_retries: tries after the first of one request.
            timeout: seconds without a byte after which a try has failed.
            max_failures: so many traces unreachable in a row, or without one usable answer from the start, end the run.
            options: more fields of the request's body, such as ``{"temperature": 0}``; else ``SAFEKEY_LLM_OPTIONS``
                (JSON).
            trust_env: whether the environment's proxies and certificates count; else ``SAFEKEY_LLM_TRUST_ENV``; else
                no.
            cache_dir: where answers wait; default ``llm-finder`` in the user's cache folder (``SAFEKEY_CACHE``).
            prompt_template: a :class:`string.Template` with ``$prompt``, ``$opening`` and ``$mark``, asking for the
                same JSON.

        Raises:
            InputError: the package ``openai`` is missing, or no endpoint, no model, a value out of range, wrong
                delimiters, an unwritable cache.
        """
        reasoning_region("", delimiters)
        self.endpoint = Endpoint.from_environment(
            base_url=base_url,
            model=model,
            api_key=api_key,
            timeout=timeout,
            max_retries=max_retries,
            options=options,
            trust_env=trust_env,
        )
        if concurrency < 1 or max_failures < 1:
            raise InputError("llm finder: expected concurrency and max_failures of 1 or more")
        self.concurrency = concurrency
        self.max_failures = max_failures
        self.counts: Counter[Result] = Counter()
        self._template = check_template(PROMPT_TEMPLATE if prompt_template is None else prompt_template)
        self._delimiters = delimiters
        self._cache = AnswerCache(Path(cache_dir) if cache_dir is not None else cache_folder() / "llm-finder")

    def __repr__(self) -> str:
        return f"LlmFinder(model={self.endpoint.model!r}, host={self.endpoint.host!r}, concurrency={self.concurrency})"

    @property
    def identity(self) -> str:
        """What its answers depend on: a run with another is another run. Holds no key."""
        endpoint = self.endpoint
        return content_key(VERSION, self._template, endpoint.address, endpoint.model, dict(endpoint.options))

    @property
    def cache_folder(self) -> Path:
        """Where answers wait."""
        return self._cache.folder

    def find(self, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        """Segment ``traces`` in order, as they come; at most ``4 * concurrency`` of them are held at once.

        Yields:
            One segmentation a trace; one that could not be had has no spans, confidence 0 and the reason.

        Raises:
            ModelError: the endpoint cannot be reached, refuses the key or the model, or fails ``max_failures`` times
                in a row.
            InputError: the cache cannot be written any more.
        """
        watch = _Watch(self)
        with open_chat(self.endpoint, self.concurrency) as chat:
            locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
            window: deque[Future[_Outcome]] = deque()
            for trace in traces:
                window.append(chat.submit(self._segment(chat, locks, trace)))
                while window and (window[0].done() or len(window) >= _TRACES_PER_REQUEST * self.concurrency):
                    yield watch.passed(window.popleft().result())
            while window:
                yield watch.passed(window.popleft().result())

    async def _segment(self, chat: Chat, locks: WeakValueDictionary[str, asyncio.Lock], trace: Trace) -> _Outcome:
        region = reasoning_region(trace.response, self._delimiters)
        whole = region.span.text(trace.response)
        opening = whole[:_SHOWN_CHARACTERS]
        if not opening.strip():
            return self._outcome(trace, region, "no text", NO_TEXT)
        prompt = trace.prompt[:_SHOWN_CHARACTERS] + ("[...]" if len(trace.prompt) > _SHOWN_CHARACTERS else "")
        endpoint = self.endpoint
        options = dict(endpoint.options)
        key = content_key(VERSION, self._template, endpoint.address, endpoint.model, options, prompt, opening)
        cut = bool(whole[_SHOWN_CHARACTERS:].strip())
        # Traces of the same content wait for the first of them, and then find its answer in the cache.
        async with locks.setdefault(key, asyncio.Lock()):
            if (kept := self._kept(key, opening, cut)) is not None:
                return self._found(trace, region, "cached", placed=kept[0], tries=kept[1])
            defect = ""
            for tries in (1, 2):
                try:
                    reply = await chat.ask(ask_text(self._template, prompt=prompt, opening=opening, defect=defect))
                    answer = read_answer(reply.text())
                    placed = place(answer, opening, cut=cut)
                except BadReply as error:
                    defect = str(error)
                except NoAnswer as error:
                    result = "unreachable" if error.transient else "failed"
                    return self._outcome(trace, region, result, f"{endpoint.model}: no answer, {error.reason}")
                else:
                    self._cache.put(key, {"model": endpoint.model, "tries": tries, "answer": answer})
                    return self._found(trace, region, "answered", placed=placed, tries=tries)
        reason = f"{endpoint.model}: two answers did not fit the text; the last: {defect}"
        return self._outcome(trace, region, "refused", reason)

    def _kept(self, key: str, opening: str, cut: bool) -> tuple[Placed, int] | None:
        """The cached answer and the tries that it took, if there is one and it still fits the text."""
        entry = self._cache.get(key)
        if entry is None or not isinstance(entry.get("answer"), dict) or entry.get("tries") not in (1, 2):
            return None
        try:
            return place(entry["answer"], opening, cut=cut), entry["tries"]
        except BadReply:
            return None

    def _found(self, trace: Trace, region: Region, result: Result, *, placed: Placed, tries: int) -> _Outcome:
        how = "quoted" if placed.exact else "quoted with other white space or typography"
        if placed.key_sentence is None:
            how = NO_KEY_SENTENCE
        reason = f"{self.endpoint.model}: {how}{' at the second try' if tries == 2 else ''}"
        confidence = _QUOTED_AT_ONCE if placed.exact and tries == 1 else _MENDED
        return self._outcome(
            trace,
            region,
            result,
            "; ".join(filter(None, [reason, placed.why, region.caveat])),
            placed=placed,
            confidence=0.0 if placed.key_sentence is None else confidence * region.trust,
        )

    def _outcome(
        self,
        trace: Trace,
        region: Region,
        result: Result,
        reason: str,
        *,
        placed: Placed = _NOWHERE,
        confidence: float = 0.0,
    ) -> _Outcome:
        segmentation = Segmentation(
            trace_id=trace.trace_id,
            response=trace.response,
            reasoning=region.span,
            region=region.region,
            family=region.family,
            understanding=_moved(placed.understanding, region.span.start),
            key_sentence=_moved(placed.key_sentence, region.span.start),
            aha=placed.aha,
            hint=placed.hint,
            confidence=confidence,
            reason=reason,
            finder=self.name,
            answer=region.answer,
            marks=region.marks,
            language=language_at(trace.response, region),
        )
        return _Outcome(segmentation, result)


class _Watch:
    """Counts outcomes in the order of the traces, and ends a run that has stopped making sense."""

    def __init__(self, finder: LlmFinder) -> None:
        self._finder = finder
        self._unreachable_in_a_row = 0
        self._useless_so_far: int | None = 0
        """Traces without a usable answer while there has been none at all; None once there has."""

    def passed(self, outcome: _Outcome) -> Segmentation:
        """The segmentation, counted.

        Raises:
            ModelError: an outage, or an endpoint whose answers are of no use. One trace that a content filter refuses
                is neither.
        """
        result = outcome.result
        self._finder.counts[result] += 1
        if result in ("answered", "cached"):
            self._useless_so_far = None
        elif result != "no text" and self._useless_so_far is not None:
            self._useless_so_far += 1
        if result == "unreachable":
            self._unreachable_in_a_row += 1
        elif result in ("answered", "refused", "failed"):
            self._unreachable_in_a_row = 0
        limit = self._finder.max_failures
        if self._unreachable_in_a_row >= limit or (self._useless_so_far or 0) >= limit:
            raise ModelError(
                f"llm finder: {limit} traces in a row had no usable answer from {self._finder.endpoint.host}, "
                f"the last: {outcome.segmentation.reason}; answers so far are kept in {self._finder.cache_folder}, "
                "run again to resume"
            )
        return outcome.segmentation


def _moved(span: CharSpan | None, by: int) -> CharSpan | None:
    return None if span is None else CharSpan(span.start + by, span.end + by)
