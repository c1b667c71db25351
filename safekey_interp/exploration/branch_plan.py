"""Plan of a new branch: what a change leaves of its parent, and the random control beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from safekey_interp.data.trace import Message, Trace, replace_surrogates
from safekey_interp.errors import InputError, TraceError
from safekey_interp.exploration.branch_controls import NoControl, control_edits, control_patch, other_answers
from safekey_interp.exploration.branch_record import Branch, StatePatch, SwapKind
from safekey_interp.exploration.branch_state import BranchState
from safekey_interp.exploration.branch_tree import BranchTree
from safekey_interp.exploration.prefill_tokens import prefill_ids
from safekey_interp.generation.generation_edits import GENERATED, GenerationEdit, HideSpan, Steer
from safekey_interp.generation.prefill import SWAPS, swap_sentences_for
from safekey_interp.generation.sampling import Sampling

_LETTERS = {
    "understanding": "U",
    "key_sentence": "K",
    "prompt": "X",
    "first_token": "the first token",
    GENERATED: "all it writes",
}
_NAME = 60
"""Most characters of a name that is made."""


def root_branch(
    branch_id: str, prompt: str | Trace, *, turns: Sequence[Message], system: str | None, prefill: str, model: int,
    sampling: Sampling, name: str | None,
) -> Branch:  # fmt: skip
    """A root.

    Args:
        branch_id: its id.
        prompt: and the other arguments: as for :meth:`~.exploration_session.Session.start`.
    """
    if isinstance(prompt, Trace):
        trace = prompt.with_(response="", given={}, spans={})
    else:
        trace = Trace(trace_id="0", prompt=prompt, response="")  # as generate names the first of its prompts
    before = [] if system is None else [Message(role="system", content=system)]
    return Branch(
        branch_id=branch_id,
        name=replace_surrogates(name or _shortened(trace.prompt) or "empty prompt"),
        change="",
        model=model,
        trace=trace.with_(messages=(*before, *turns, *trace.messages)),
        prefill=replace_surrogates(prefill),
        edits=(),
        sampling=sampling,
    )


def forked(
    tree: BranchTree, parent: BranchState, *, at: int | None, text: str | None, edits: Sequence[GenerationEdit],
    swap: SwapKind | None, patch: StatePatch | None, controls: int, name: str | None, seed: int,
    traces: Sequence[Trace],
) -> list[Branch]:  # fmt: skip
    """A fork and its controls, where there are any.

    Args:
        tree: of the parent.
        parent: what it leaves.
        controls: how many, each drawn anew.
        at: and the other arguments: as for :meth:`~.exploration_session.Session.fork`.
        seed: of the control's draws.
        traces: other answers, beside those of the tree, whose states a control may have.

    Raises:
        InputError: no such token, ``text`` beside ``swap``, or no key sentence to swap.
    """
    if text is not None and swap is not None:
        raise InputError("fork: got text and swap, expected one: either puts a text in the place of what follows")
    branch_id = tree.new_id()
    neutral: list[str] = []
    if swap is not None:
        begin, at, text, neutral = _swapped(parent, swap, _draws(seed, branch_id))
    else:
        at = _place(parent, at)
        begin = _before(parent, at, text)
    branch = replace(
        parent.branch,
        branch_id=branch_id,
        name="",
        change=_change((*parent.branch.edits, *edits), text, swap, patch, at - parent.prompt.response_start + 1),
        prefill=(prefill := begin + replace_surrogates(text or "")),
        prefill_ids=_ids(parent, prefill, at),
        edits=(*parent.branch.edits, *edits),
        patch=patch or parent.branch.patch,
        first_draw=parent.branch.first_draw + max(0, at - len(parent.prompt.ids)),
        parent=parent.branch_id,
        at=at,
        control=None,
        control_of=None,
        no_control="",
    )
    branch = replace(branch, name=replace_surrogates(name or _shortened(branch.change)))
    if swap is not None:
        controls = min(controls, len(neutral))
    beside: list[Branch] = []
    for number in range(controls):
        try:
            made = _control(
                tree, parent, branch, edits, text=begin + neutral[number] if neutral else None, patch=patch,
                traces=traces, rng=_draws(seed, branch_id, number + 1),
            )  # fmt: skip
        except (NoControl, TraceError) as error:
            return [replace(branch, no_control=str(error))]
        if made is None:
            return [branch]
        which = "control" if number == 0 else f"control {number + 1}"
        beside.append(
            replace(made, branch_id=tree.new_id(), name=f"{which} of {branch.name}", control_of=branch.branch_id)
        )
    return [replace(branch, control=beside[0].branch_id) if beside else branch, *beside]


def _draws(seed: int, branch_id: str, number: int = 0) -> np.random.Generator:
    """Draws of a branch, or of its control of this number."""
    return np.random.default_rng([seed, number, *branch_id.encode()])


def _control(
    tree: BranchTree, parent: BranchState, branch: Branch, edits: Sequence[GenerationEdit], *, text: str | None,
    patch: StatePatch | None, traces: Sequence[Trace], rng: np.random.Generator,
) -> Branch | None:  # fmt: skip
    """None where nothing was changed that chance could change, too: a text of the user's own is what it is."""
    changes: dict[str, Any] = {}
    what: list[str] = []
    own = tree.make(branch).written.given if edits or patch is not None else None
    if text is not None:
        changes |= {"prefill": text, "prefill_ids": _ids(parent, text, branch.at or 0)}
        what.append("a neutral sentence")
    if edits and own is not None:
        changes["edits"] = (*branch.edits[: len(branch.edits) - len(edits)], *control_edits(edits, own, rng))
        kinds = ("random keys" if isinstance(edit, HideSpan) else "a random direction" for edit in edits)
        what += dict.fromkeys(kinds)
    if patch is not None and own is not None:
        source = tree.source_of(patch, branch.model)
        n = min(len(encoding.positions(patch.positions)) for encoding in (source.encoding, own))
        asked = [source.branch.trace, branch.trace]
        outcome = None if parent.ended is None else parent.ended.label
        others = other_answers([*traces, *(state.answered for state in tree.states())], asked, outcome, rng)
        changes["patch"] = control_patch(patch, n, others, lambda trace: tree.reading(trace, branch.model).encoding)
        what.append(f"states of {_spoken(patch.positions)} from an answer to another prompt")
    return replace(branch, **changes, change=f"control: {', '.join(what)}") if changes else None


def _ids(parent: BranchState, prefill: str, at: int) -> tuple[int, ...] | None:
    """Tokens of what a fork begins with, where they are not those of the text."""
    written = parent.tokens.ids if parent.tokens else parent.prompt.ids[parent.prompt.response_start :]
    known = written[: max(0, at - parent.prompt.response_start)]
    return prefill_ids(parent.model.tokenizer, parent.branch.trace, prefill, parent.prompt, known)


def _place(parent: BranchState, at: int | None) -> int:
    """Where a fork leaves its parent."""
    first, end = parent.prompt.response_start, parent.prompt.response_start + len(parent.tokens)
    if not parent.tokens:
        end = len(parent.prompt.ids)
        if at not in (None, end):
            raise InputError(f"at: got {at}, and branch {parent.branch_id} has written nothing; run it first")
    if at is None:
        key_sentence = parent.spans.key_sentence
        return end if key_sentence is None else key_sentence.start
    if not first <= at <= end:
        raise InputError(f"at: got {at}, expected a position of the response, {first} to {end}")
    return at


def _before(parent: BranchState, at: int, text: str | None) -> str:
    """The parent's text before a token; before a text that brings none, with the white space that the token begins
    with."""
    before, index = parent.text_before(at), at - parent.prompt.response_start
    if not text or text[:1].isspace() or index >= len(parent.tokens):
        return before
    following = parent.tokens[index].text
    return before + following[: len(following) - len(following.lstrip())]


def _swapped(parent: BranchState, kind: SwapKind, rng: np.random.Generator) -> tuple[str, int, str, list[str]]:
    """What is before K, its first token, a sentence in its place, and neutral ones for the controls."""
    if kind not in SWAPS[1:]:
        raise InputError(f"swap: got {kind!r}, expected one of {', '.join(SWAPS[1:])}")
    span, place = parent.written.segmentation().key_sentence, parent.encoding.spans["key_sentence"]
    if span is None or place is None:
        raise InputError(f"swap: branch {parent.branch_id} has no key sentence yet; run it further, or give a text")
    sentences = swap_sentences_for(parent.model.tokenizer)
    drawn = int(rng.integers(2**31))
    chosen = sentences.of(kind)[drawn % len(sentences.of(kind))]
    begin = drawn % len(sentences.neutral)
    neutral = [] if kind == "neutral" else [*sentences.neutral[begin:], *sentences.neutral[:begin]]
    return parent.response[: span.start], place.positions[0], chosen, neutral


def _change(
    edits: Sequence[GenerationEdit], text: str | None, swap: SwapKind | None, patch: StatePatch | None, number: int
) -> str:
    """In a few words; ``number`` is that of the token of the response at which it begins, from 1."""
    parts = [_edit_words(edit) for edit in edits]
    if swap is not None:
        parts.append(f"{'compliant' if swap == 'go_ahead' else swap} K")
    elif text:
        parts.append(f"“{_shortened(text)}” from token {number}")
    if patch is not None:
        source = f"branch {patch.source}" if isinstance(patch.source, str) else f"“{_shortened(patch.source.prompt)}”"
        parts.append(f"states of {_spoken(patch.positions)} from {source}")
    return ", ".join(parts) or f"again from token {number}"


def _edit_words(edit: GenerationEdit) -> str:
    where = "" if edit.layers is None else f" in layers {', '.join(map(str, edit.layers))}"
    if isinstance(edit, HideSpan):
        heads = "" if edit.heads is None else f", heads {', '.join(map(str, edit.heads))}"
        from_ = "all later tokens" if edit.from_ is None else _spoken(edit.from_)
        return f"{_spoken(edit.span)} hidden from {from_}{where}{heads}"
    at = " at all tokens" if edit.positions is None else f" at {', '.join(map(_spoken, edit.positions))}"
    if isinstance(edit, Steer):
        return f"steered by {edit.scale:g}{where}{at}"
    return f"direction ablated{where}{at}"


def _spoken(expression: str) -> str:
    """A span as the page calls it."""
    return _LETTERS.get(expression, expression)


def _shortened(text: str) -> str:
    words = " ".join(replace_surrogates(text).split())
    return words if len(words) <= _NAME else f"{words[: _NAME - 1]}…"
