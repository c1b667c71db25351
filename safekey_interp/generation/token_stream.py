"""Decoding of one response, token by token: what each pass read, and the choice of the next token.

The token that it chooses is the one of :func:`~safekey_interp.generation.local_engine.generate`, with or without edits:
near ties of a greedy choice are decided by a pass of the whole row, draws come from the stream of the request. Nothing
stays attached to the model between two passes, and a stream may be left at any of them and gone on with later; keys
and values may be dropped meanwhile, and are then computed again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import DynamicCache

from safekey_interp.capture.architecture import evaluating, find_layout
from safekey_interp.capture.attention_hook import carried, hooked_attention
from safekey_interp.capture.decoded_rows import DecodedRows
from safekey_interp.capture.prefix_cache import beginning_of, has_prefix_cache
from safekey_interp.capture.residual_edits import prepared_edits
from safekey_interp.capture.streaming import on_threads, threads_for
from safekey_interp.generation.edited_decoding import EditedDecoding, EditedRow
from safekey_interp.generation.local_engine import checked_prompt, end_tokens
from safekey_interp.generation.requests import Request
from safekey_interp.generation.sampling import OwnStreams, Sampling, TiesAlone, is_near_tie, stream_seed
from safekey_interp.generation.tokens import usual_limit
from safekey_interp.measures.state_scores import StateScores
from safekey_interp.measures.token_scorer import TokenScorer
from safekey_interp.models.model import Model
from safekey_interp.segmentation.finder_registry import Finder

Around = Callable[[], AbstractContextManager[object]]
"""Makes a block in which one forward pass runs."""


class ReadTokens(NamedTuple):
    """Tokens that a pass has read for the first time."""

    begin: int
    """Position of the first."""
    ids: tuple[int, ...]
    """The tokens."""
    logprobs: Float[np.ndarray, " token"]
    """Log-probability of each, nats, float64; NaN of the prompt's."""
    scores: list[dict[str, Float[np.ndarray, " token"]]]
    """Of each scorer: score, and mean and sd of each kind of control."""
    masses: Mapping[str, Float[np.ndarray, "layer head"]]
    """Attention of the last of them on each span that is read."""


class TokenStream:
    """A response while it is written."""

    def __init__(
        self,
        model: Model,
        request: Request,
        sampling: Sampling,
        *,
        finder: Finder,
        scorers: Sequence[TokenScorer] = (),
        rows: DecodedRows | None = None,
        first_draw: int = 0,
        around: Sequence[Around] = (),
    ) -> None:
        """Begin before the first pass.

        Args:
            model: the model.
            request: prompt, prefill and edits.
            sampling: of one sample.
            finder: finds U and K, for positions of edits.
            scorers: read every state.
            rows: reads the attention of each new token; None for none.
            first_draw: number in the request's stream of the first new token's draw.
            around: further blocks around each pass, within that of the edits.

        Raises:
            InputError: an unknown position of an edit.
            TraceError: the chat template refuses the prompt, or a position is neither there nor found later.
            TraceTooLong: prompt and response do not fit the positions that the model reads.
        """
        most = sampling.max_new_tokens or usual_limit(model.tokenizer, [request], model.max_positions)
        self.model = model
        """The model."""
        self.prompt = checked_prompt(model, request, most)
        """Tokens of prompt and prefill."""
        self.ids = list(self.prompt.ids)
        """All tokens; the last are read by the next pass."""
        self.n_read = 0
        """Tokens whose keys and values are in the cache."""
        self.end: Literal["end_of_turn", "limit"] | None = None
        """What ended the response; None while it goes on."""
        self.n_told = 0
        """Tokens that passes have returned, or that need not be."""
        self.row = EditedRow(model.tokenizer, request, self.prompt, finder, end_tokens(model))
        """What the edits do to its tokens."""
        self._decoding = EditedDecoding(model, [self.row])
        self._most, self._ends, self._rows = most, end_tokens(model), rows
        self._scores, self._decoder = StateScores(scorers), find_layout(model.hf).decoder
        self._scored = prepared_edits(model, self._scores.edits)
        self._around: list[Around] = [
            self._evaluating,
            partial(on_threads, threads_for(model)),
            self._decoding.applied,
            *around,
        ]
        self._cache: DynamicCache | None = None
        self._next_logprob = np.nan
        self._spares = "logits_to_keep" in inspect.signature(model.hf.forward).parameters
        self._modules = list(model.hf.modules())
        n = len(self.ids)
        self._is_greedy = sampling.is_greedy
        self._choose: Any = lambda _ids, logits: logits
        if not sampling.is_greedy:
            seed, draws = stream_seed(sampling.seed, request.trace.trace_id, request.sample), first_draw + most
            self._choose = OwnStreams([seed], sampling, width=n - first_draw, most=draws)
        elif model.dtype == torch.float32:
            mask = torch.ones((1, n), dtype=torch.int64, device=model.device)
            alone: Any = lambda row: self._decoding.passing([row], padded=False)  # noqa: E731
            self._choose = TiesAlone(model.hf, mask, self._ends, alone)

    @property
    def has_ended(self) -> bool:
        """Whether every token is read, and no other follows."""
        return self.end is not None and self.n_told == len(self.ids)

    def advance(self) -> ReadTokens | None:
        """Read the tokens that wait, those of prompt and prefill first, and choose the next; None at the end."""
        if self.has_ended:
            return None
        begin, first = self.n_read, max(self.n_read, self.prompt.response_start - 1)
        try:
            with self.applied():
                logits = self._read(begin, first)
                told = self._told(begin, first, logits)
                self.n_read = self.n_told = len(self.ids)
                if self.end is None:
                    self._take(logits[-1:])
        except BaseException:
            self.forget()  # some layers may have read what others have not
            raise
        return told

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which passes of its tokens from the first on, or of those that wait, are changed as it is."""
        with torch.inference_mode(), ExitStack() as stack:
            for around in self._around:
                stack.enter_context(around())
            yield

    def resume(self, new: Sequence[int], end: Literal["end_of_turn", "limit"] | None, *, n_told: int) -> None:
        """Take over new tokens, such as those of a file, and what ended them; the first ``n_told`` of all tokens need
        not be told again."""
        self.ids += new
        self.n_told, self.end = n_told, end

    def forget(self) -> None:
        """Drop keys and values; the next pass computes them again."""
        self._cache, self.n_read = None, 0

    def past(self, n: int) -> DynamicCache | None:
        """Keys and values of the first ``n`` tokens; None where they are not there, or cannot be told from later ones.

        Other streams may go on from them: what a stream adds lies in tensors of its own.
        """
        if self._cache is None or n > self.n_read or not has_prefix_cache(self.model):
            return None
        return beginning_of(self._cache, n)

    def begin_behind(self, past: DynamicCache, n: int) -> None:
        """Take over keys and values; the first ``n`` tokens, at least one more than these, need not be told."""
        self._cache, self.n_read, self.n_told = past, past.get_seq_length(), n

    @property
    def n_bytes(self) -> int:
        """Memory of keys and values, those that other streams share counted."""
        layers = () if self._cache is None else self._cache.layers
        # Layers of linear attention have neither.
        tensors = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)

    def _evaluating(self) -> AbstractContextManager[None]:
        """As :func:`evaluating`; quick where there is nothing to do: walking all modules takes as long as a layer."""
        return evaluating(self.model.hf) if any(each.training for each in self._modules) else nullcontext()

    def _read(self, begin: int, first: int) -> Float[Tensor, "token d_vocab"]:
        """Logits behind the tokens from ``first`` on, of one pass of those from ``begin`` on."""
        if self._cache is None:
            # Of a cache that knows the layers' kinds, sliding ones keep the window alone: no beginning can be taken.
            self._cache = DynamicCache() if has_prefix_cache(self.model) else DynamicCache(config=self.model.hf.config)
        hf, n = self.model.hf, len(self.ids)
        options: dict[str, Any] = {"logits_to_keep": n - first} if self._spares else {}
        ids = torch.tensor([self.ids[begin:]], device=self.model.device)
        with ExitStack() as stack:
            stack.enter_context(self._scored())
            if self._rows is not None:
                self._rows.begins(n)
                stack.enter_context(hooked_attention(hf, self._decoder))
                stack.enter_context(carried(self._decoder, self._rows))
            out = hf(input_ids=ids, past_key_values=self._cache, use_cache=True, **options)
        return out.logits[0, first - n :].float()

    def _told(self, begin: int, first: int, logits: Tensor) -> ReadTokens:
        """What the pass shows of tokens that were not told before."""
        new = range(self.n_told, len(self.ids))
        logprobs = np.full(len(self.ids) - begin, np.nan)
        if begin >= self.prompt.response_start:
            logprobs[0] = self._next_logprob
        predicted = self.ids[first + 1 :]
        if predicted:
            at = torch.tensor(predicted, device=logits.device)[:, None]
            logprobs[first + 1 - begin :] = logits[:-1].log_softmax(-1).gather(-1, at)[:, 0].double().cpu().numpy()
        skipped = new.start - begin
        scores = [{name: values[0, skipped:] for name, values in each.items()} for each in self._scores.values]
        masses = {} if self._rows is None else self._rows.masses()
        return ReadTokens(new.start, tuple(self.ids[new.start :]), logprobs[skipped:], scores, masses)

    def _take(self, logits: Float[Tensor, "1 d_vocab"]) -> None:
        """Choose the next token, or end."""
        if len(self.ids) - len(self.prompt.ids) == self._most:
            self.end = "limit"
            return
        best, (token, _) = (each[0].tolist() for each in logits.topk(2))
        if not self._is_greedy or is_near_tie(*best):
            token = int(self._choose(torch.tensor([self.ids], device=logits.device), logits)[0].argmax())
        if token in self._ends:
            self.end = "end_of_turn"
            return
        self._next_logprob = float(logits[0].log_softmax(-1)[token])
        self.ids.append(token)
