"""State of a branch: its tokens, spans and end, and the stream that goes on with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.decoded_rows import DecodedRows
from safekey_interp.data.trace import TokenSpan, Trace
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.exploration.branch_record import Branch, Status, Transcript
from safekey_interp.exploration.patched_states import PatchedStates
from safekey_interp.exploration.prefill_tokens import request_of
from safekey_interp.exploration.session_events import BranchEnded, BranchFailed, Event, SpansFound, TokenWritten
from safekey_interp.exploration.session_readers import SessionReader, token_scores
from safekey_interp.exploration.written_tokens import REPEATS, WrittenTokens, repeats_itself
from safekey_interp.generation.requests import Request
from safekey_interp.generation.token_stream import ReadTokens, TokenStream
from safekey_interp.generation.tokens import prompt_tokens, response_text, room_behind
from safekey_interp.generation.written_positions import WrittenPositions
from safekey_interp.generation.written_text import WrittenText
from safekey_interp.models.chat_template import render
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.tokenisation import tokenise
from safekey_interp.segmentation.finder_registry import Finder

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_SENTENCE_END = re.compile(r"[.!?…。！？\n>]")
"""What may end a sentence: the finder looks again when it is written, and not at every token."""
READ = ("prompt", "template", "first_token", "understanding", "key_sentence")
"""Spans whose attention is read while a branch is written."""


class BranchState:
    """One branch while the session has it."""

    def __init__(
        self,
        branch: Branch,
        model: Model,
        finder: Finder,
        *,
        readers: Callable[[], Sequence[SessionReader]],
        patched: Callable[[BranchState], PatchedStates | None],
    ) -> None:
        """Before the first pass.

        Args:
            branch: the branch.
            model: what writes it.
            finder: finds U and K.
            readers: those that score its tokens, asked for when it begins.
            patched: states that replace its own, asked for when it begins.

        Raises:
            TraceError: the chat template refuses the prompt.
            TraceTooLong: the prompt fills all that the model reads.
        """
        self.branch = branch
        """The branch."""
        asked = Request(trace=branch.trace, prefill=branch.prefill, edits=branch.edits)
        self.request = request_of(model.tokenizer, asked, branch.prefill_ids)
        """What the model is asked."""
        self.prompt = prompt_tokens(model.tokenizer, self.request)
        """Tokens of prompt and prefill."""
        self.tokens = WrittenTokens(branch.branch_id, self.prompt.response_start)
        """Of the response, without masses."""
        self.spans = SpansFound(branch=branch.branch_id, understanding=None, key_sentence=None, is_provisional=True)
        """As they were found last."""
        self.ended: BranchEnded | None = None
        """How it ended."""
        self.failed: BranchFailed | None = None
        """Why it stopped last."""
        self.must_stop = False
        """Whether it is to pause."""
        self.is_running = False
        """Whether a thread runs it."""
        self.is_deleted = False
        """Whether it is gone from the session."""
        self.is_fresh = True
        """Whether no pass was made, and none was taken over."""
        self.readers: Sequence[SessionReader] = ()
        """Those that have scored its tokens."""
        self.model = model
        """What writes it."""
        self.patched: PatchedStates | None = None
        """States that replace its own."""
        self._finder, self._readers_now, self._patched_now = finder, readers, patched
        self._room = room_behind(
            self.request, len(self.prompt.ids), branch.sampling.max_new_tokens, model.max_positions
        )
        self._stream: TokenStream | None = None
        self._rows: DecodedRows | None = None
        self._positions: WrittenPositions | None = None
        self._text: WrittenText | None = None

    @property
    def branch_id(self) -> str:
        """The branch's id."""
        return self.branch.branch_id

    @property
    def status(self) -> Status:
        """Whether it can go on."""
        if self.is_running:
            return "running"
        if self.failed is not None:
            return "failed"
        return "ended" if self.ended is not None else "paused" if self.tokens or not self.is_fresh else "ready"

    @property
    def response(self) -> str:
        """The response so far, prefill included."""
        return self._response(self.new_ids)

    @property
    def new_ids(self) -> list[int]:
        """Tokens that the model has written."""
        return self.tokens.ids[self.prompt.n_prefill :]

    @property
    def encoding(self) -> Encoding:
        """Its tokens and spans so far."""
        return self.written.encoding()

    @property
    def answered(self) -> Trace:
        """What it was asked, and has answered so far."""
        return self.branch.trace.with_(response=self.response)

    @property
    def written(self) -> WrittenPositions:
        """Positions and spans in what it begins with, and in all of it so far."""
        if self._positions is None:
            self._positions = WrittenPositions(self.model.tokenizer, self.request, self.prompt, self._finder)
            for token in self.new_ids:
                self._positions.write(token)
        return self._positions

    @property
    def stream(self) -> TokenStream:
        """What goes on with it; made again where it was dropped."""
        if self._stream is None:
            branch, self.readers = self.branch, tuple(self._readers_now())
            self.patched = self._patched_now(self)
            self._rows = DecodedRows(self.model.n_layers, self.model.n_heads)
            self._stream = TokenStream(
                self.model,
                self.request,
                replace(branch.sampling, max_new_tokens=self._room),
                finder=self._finder,
                scorers=[each.scorer for each in self.readers],
                rows=self._rows,
                first_draw=branch.first_draw,
                around=() if self.patched is None else [self.patched.applied],
            )
            self._text = WrittenText(self.model.tokenizer, self.request, self.prompt)
            for token in (new := self.new_ids):
                self._text.write(token)
            if self.tokens:
                why = None if self.ended is None else self.ended.reason
                n_told = self.prompt.response_start + len(self.tokens)
                self._stream.resume(new, "limit" if why == "context_full" else why, n_told=n_told)
                self.is_fresh = False
            self._choose_rows()
        return self._stream

    @property
    def n_bytes(self) -> int:
        """Memory of its keys and values, and of states that replace its own."""
        return sum(each.n_bytes for each in (self._stream, self.patched) if each is not None)

    def text_before(self, position: int) -> str:
        """The response before one of its tokens; the prefill where none is read."""
        index = position - self.prompt.response_start
        return self.tokens.text(0, index) if self.tokens else self.branch.prefill

    def drop(self) -> None:
        """Let go of the stream; while it runs, of its keys and values."""
        if self._stream is not None:
            self._stream.forget()  # it refers to itself, and would live on until Python looks for such circles
        if not self.is_running:
            self._stream = self._positions = self._rows = self._text = self.patched = None
            self.readers = ()

    def begin_as(self, other: BranchState, n: int) -> Iterator[Event]:
        """Begin with the first ``n`` tokens of another branch, of the same tokens and changes: their events.

        Args:
            other: which has read them.
            n: fewer than the tokens of prompt and prefill.
        """
        past = other.stream.past(n - 1) if n > 1 else None  # what the last of them predicts is read anew
        if past is not None:
            self.stream.begin_behind(past, n)
            for token in other.tokens[: max(0, n - self.prompt.response_start)]:
                known = replace(token, branch=self.branch_id, is_given=True)
                self.tokens.append(known)
                yield known

    def advance(self) -> Iterator[Event]:
        """Make one pass: its events; none where the branch has ended."""
        read = self.stream.advance()
        if read is not None:
            yield from self._told(read)
        if self.stream.has_ended and self.ended is None:
            yield from self._found(at_end=True)
            yield self._end()

    def _told(self, read: ReadTokens) -> Iterator[Event]:
        assert self._text is not None
        is_first = not self.tokens or self.tokens[-1].is_given
        for number, token_id in enumerate(read.ids):
            position = read.begin + number
            index = position - self.prompt.response_start
            if index < 0:
                continue
            is_given = index < self.prompt.n_prefill
            if is_given:
                text = self._given_text(position)
            else:
                text = self._text.write(token_id)
                if self._positions is not None:
                    self._positions.write(token_id)
            token = TokenWritten(
                branch=self.branch_id, position=position, index=index, text=text, token_id=token_id,
                logprob=float(read.logprobs[number]), is_given=is_given,
                scores=token_scores(self.readers, read, number),
            )  # fmt: skip
            self.tokens.append(token)
            yield token if is_given else replace(token, masses=read.masses)
        written = self.tokens[-1].text if self.tokens else ""
        if self.spans.is_provisional and (is_first or _SENTENCE_END.search(written)):
            yield from self._found()

    def _given_text(self, position: int) -> str:
        """What a token of the prefill adds to the response."""
        encoding = self.encoding
        shift = encoding.shifts["response"]
        ends = [max(0, end - shift) for _, end in encoding.offsets[max(0, position - 1) : position + 1]]
        return self.branch.prefill[ends[0] if len(ends) > 1 else 0 : ends[-1]]

    def _found(self, *, at_end: bool = False) -> Iterator[SpansFound]:
        """The spans, where they are others than before."""
        encoding = self.encoding
        understanding, key_sentence = (
            span if isinstance(span := encoding.spans[name], TokenSpan) else None
            for name in ("understanding", "key_sentence")
        )
        is_behind = key_sentence is not None and encoding.text[encoding.offsets[key_sentence.end - 1][1] :].strip()
        found = SpansFound(
            branch=self.branch_id,
            understanding=understanding,
            key_sentence=key_sentence,
            is_provisional=not at_end and not is_behind,
            reason="" if key_sentence else self.written.segmentation().reason,
            read_at={reader.name: reader.read_at(encoding) for reader in self.readers},
        )
        moved = replace(found, reason="") != replace(self.spans, reason="")
        if moved or (at_end and found != self.spans):
            self.spans = found
            self._choose_rows()
            yield found

    def _choose_rows(self) -> None:
        assert self._rows is not None
        self._rows.choose({name: where for name in READ if (where := self.encoding.positions(name))})

    def _end(self) -> BranchEnded:
        judged = judge_refusal(self.branch.trace.prompt, self.response)
        repeats = self.stream.end == "limit" and repeats_itself(self.new_ids)
        label, why = (None, REPEATS) if repeats else (judged.label, judged.reason)
        is_full = self._room != self.branch.sampling.max_new_tokens
        reason = "end_of_turn" if self.stream.end != "limit" else "context_full" if is_full else "limit"
        self.ended = BranchEnded(branch=self.branch_id, reason=reason, label=label, label_reason=why)
        return self.ended

    def _response(self, new: Sequence[int]) -> str:
        if not new:
            return self.branch.prefill
        return response_text(self.model.tokenizer, self.request, self.prompt, new)

    def transcript(self) -> Transcript:
        """What it has read and written so far; of any thread, while another one writes it."""
        prefill = self.branch.prefill if self.branch.prefill_ids is None else ""
        rendered = render(self.model.tokenizer, self.branch.trace.with_(response=prefill, given={}))
        _, offsets = tokenise(self.model.tokenizer, rendered)
        known: Any = {"status": self.status, "spans": self.spans, "ended": self.ended, "failed": self.failed}
        tokens = tuple(self.tokens)  # behind spans and end, which are of no later ones
        return Transcript(
            branch=self.branch,
            prompt_tokens=tuple(rendered.text[start:end] for start, end in offsets[: self.prompt.response_start]),
            tokens=tokens,
            response=self._response([token.token_id for token in tokens[self.prompt.n_prefill :]]),
            **known,
        )
