"""Training examples: traces that a run trains on, those held out, and those left out with the reason.

A trace is read as ``model.encode`` reads it, and the mark that ends the assistant's turn follows. Nothing is ever cut:
what is longer than the limit is left out and counted. Groups (prompts and their twins) are held out whole: of each
class, the share with the smallest sha256 of seed and name, so that the split does not depend on the file's order.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from safekey_interp.data.class_labels import HARM
from safekey_interp.data.span_expressions import check_spans
from safekey_interp.data.trace_reader import TraceSource, read_traces
from safekey_interp.errors import InputError, TraceError, TraceTooLong
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.unknown_tokens import UnknownTokens
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segment, segmented
from safekey_interp.segmentation.span_search import find_spans
from safekey_interp.training.config import TrainingConfig

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

_MARK = "AN ANSWER"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One trace as a step of training reads it."""

    trace_id: str
    """The trace."""
    group: str
    """Its group."""
    encoding: Encoding
    """Tokens of prompt, response and end of turn; without the text and the offsets."""
    label: str | None
    """Label of the safety head's loss: harmful, benign, or None."""
    aha: str | None
    """Outcome of K, from the finder."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples of a run."""

    train: tuple[Example, ...]
    """Rows of the steps, in the file's order."""
    held_out: tuple[Example, ...]
    """Rows of groups that no step sees."""
    report: dict[str, Any]
    """Counts for ``run.json``: read, train, held_out, left_out (why, n, first), given (compared with what was found),
    n_labels_shuffled."""


def check_known_examples(model: Model, examples: Examples, *, allowed: bool = False) -> None:
    """Refuse examples that the model's tokenizer does not know; errors as for ``UnknownTokens.check``."""
    unknown = UnknownTokens(model.tokenizer)
    for example in (*examples.train, *examples.held_out):
        unknown.add_ids(example.encoding.input_ids.tolist())
    unknown.check(model.name, allowed=allowed)


def traces_with_spans(traces: Any, config: TrainingConfig) -> TraceSource:
    """The traces that ``read_traces`` reads, with the spans that a configuration looks for, read once.

    Raises:
        InputError: they cannot be read, or a snapshot is to read a span that none has.
    """
    source = read_traces(traces)
    if config.spans or config.prompt_spans:
        spans, prompt = config.spans or {}, config.prompt_spans or {}
        source = find_spans(source, spans, prompt=prompt, delimiters=config.delimiters)
    source.check()
    expressions = (config.probe_queries, config.probe_keys, config.probe_positions)
    check_spans([one for several in expressions for one in several or ()], source.content.span_names)
    return source


def prepare_examples(
    model: Model, traces: Iterable[Trace], config: TrainingConfig, on_trace: Callable[[int], object] | None = None
) -> Examples:
    """Encode every trace and split by group.

    Args:
        model: its tokenizer, and how far it reads.
        traces: any number.
        config: finder, delimiters, max_length, held_out, seed, shuffled_labels, and which losses count.
        on_trace: is told how many traces were read since the last call.

    Raises:
        InputError: nothing is left to train on, a given span lies outside its text, or a loss has nothing to learn
            from.
    """
    ends = end_of_turn(model.tokenizer)
    limit = longest_row(model, config)
    left_out: dict[str, list[str]] = {}
    given: Counter[str] = Counter()
    kept: list[Example] = []
    n_read = 0
    settings = SegmentationSettings(finder=config.finder, delimiters=config.delimiters)
    for trace, segmentation in segmented(traces, settings):
        n_read += 1
        if trace.given:
            given += _compared(trace, segmentation, config)
        try:
            kept.append(_example(model, trace, segmentation, ends, limit))
        except TraceError as error:
            why = error.reason
            left_out.setdefault(why, []).append(trace.trace_id)
        if on_trace is not None:
            on_trace(1)
    dropped = [{"why": why, "n": len(ids), "first": ids[0]} for why, ids in left_out.items()]
    dropped.sort(key=lambda entry: -entry["n"])
    train, held_out = _split(kept, config)
    if not train:
        reasons = "; ".join(f"{entry['n']:,} {entry['why']}" for entry in dropped[:3])
        if held_out:
            reasons = "; ".join([f"{len(held_out):,} held out", *filter(None, [reasons])])
        raise InputError(f"traces: none of {n_read:,} left to train on ({reasons or 'the files hold none'})")
    true, train = train, _with_shuffled_labels(train, config.seed) if config.shuffled_labels else train
    report = {
        "read": n_read,
        "train": describe(train),
        "held_out": describe(held_out),
        "left_out": dropped,
        "given": dict(given) if given else None,
        "n_labels_shuffled": sum(before.label != after.label for before, after in zip(true, train, strict=True)),
    }
    _check_losses(report["train"], train, config)
    return Examples(train=tuple(train), held_out=tuple(held_out), report=report)


def longest_row(model: Model, config: TrainingConfig) -> int:
    """Most tokens of a row, as far as the run and the model read."""
    return min(config.max_length, model.max_positions or config.max_length)


def describe(examples: Sequence[Example]) -> dict[str, int]:
    """How many traces, of what, and how long."""
    labels = Counter(example.label for example in examples)
    lengths = [len(example.encoding.input_ids) for example in examples]
    return {
        "traces": len(examples),
        "groups": len({example.group for example in examples}),
        "harmful": labels["harmful"],
        "benign": labels["benign"],
        "unlabelled": labels[None],
        "with_understanding": sum(_has(example, "understanding") for example in examples),
        "with_key_sentence": sum(_has(example, "key_sentence") for example in examples),
        "tokens": sum(lengths),
        "response_tokens": sum(lengths) - sum(example.encoding.response_start for example in examples),
        "longest": max(lengths, default=0),
    }


def end_of_turn(tokenizer: Any) -> tuple[int, ...]:
    """The mark that the chat template puts behind an assistant's turn, else the tokenizer's end of sequence.

    Returns:
        One id; none where the tokenizer knows neither.
    """
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "A question"}, {"role": "assistant", "content": _MARK}]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception:  # a template may refuse anything, in any words
            text = ""
        behind = tokenizer(text.rpartition(_MARK)[2], add_special_tokens=False)["input_ids"] if _MARK in text else []
        mark = next((token for token in behind if token in special), None)
        if mark is not None:
            return (mark,)
    return () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)


def _example(model: Model, trace: Trace, segmentation: Segmentation, ends: tuple[int, ...], limit: int) -> Example:
    if not trace.response.strip():
        raise TraceError(trace.trace_id, "no response")
    too_long = TraceTooLong(trace.trace_id, f"longer than {limit:,} tokens")
    try:
        encoding = model.encode(trace, segmentation)
    except TraceTooLong as error:
        raise too_long from error
    ids = encoding.input_ids
    if encoding.response_start >= len(ids):
        raise TraceError(trace.trace_id, "no token of the response")
    if tuple(ids[len(ids) - len(ends) :].tolist()) != ends:
        ids = torch.cat([ids, torch.tensor(ends, dtype=ids.dtype)])
    if len(ids) > limit:
        raise too_long
    if int(ids.max()) >= model.n_embeddings:
        raise TraceError(trace.trace_id, f"a token has no embedding in the model, which has {model.n_embeddings:,}")
    return Example(
        trace_id=trace.trace_id,
        group=trace.group,
        encoding=replace(encoding, input_ids=ids, text="", offsets=()),
        label=trace.label if trace.label in HARM else None,  # the head reads whether the prompt asks for harm
        aha=segmentation.aha,
    )


def _compared(trace: Trace, segmentation: Segmentation, config: TrainingConfig) -> Counter[str]:
    """How the spans that came with a trace compare with those that were found."""
    for name, span in trace.given.items():
        if span.end > len(trace.response):
            if config.finder == "given":
                raise InputError(
                    f"trace {trace.trace_id}: given {name} [{span.start}, {span.end}) lies outside the response of "
                    f"{len(trace.response):,} characters; mend the offsets, or take finder=rules"
                )
            return Counter(traces=1, outside=1)
    given = segment(trace, finder="given", delimiters=config.delimiters)
    same_key = given.key_sentence == segmentation.key_sentence
    same_understanding = given.understanding == segmentation.understanding
    return Counter(traces=1, same_key_sentence=int(same_key), same_understanding=int(same_understanding))


def _split(examples: Sequence[Example], config: TrainingConfig) -> tuple[list[Example], list[Example]]:
    """Rows of training and rows that are held out; of every class the same share of groups."""
    labels: dict[str, str | None] = {}
    for example in examples:
        labels[example.group] = labels.get(example.group) or example.label
    chosen: set[str] = set()
    for label in set(labels.values()):
        groups = sorted(
            (group for group in labels if labels[group] == label), key=lambda group: _digest(config.seed, group)
        )
        n = round(config.held_out * len(groups))
        if config.held_out and not n and len(groups) > 1:
            n = 1
        chosen |= set(groups[:n])
    train = [example for example in examples if example.group not in chosen]
    return train, [example for example in examples if example.group in chosen]


def _digest(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed} {group}".encode()).hexdigest()


def _with_shuffled_labels(examples: Sequence[Example], seed: int) -> list[Example]:
    """Every labelled group has the label of another, drawn without replacement: the balance stays."""
    labels: dict[str, str] = {}
    for example in examples:
        if example.label is not None:
            labels.setdefault(example.group, example.label)
    drawn = random.Random(f"{seed} shuffled labels").sample(list(labels.values()), len(labels))
    given = dict(zip(labels, drawn, strict=True))
    return [example if example.label is None else replace(example, label=given[example.group]) for example in examples]


def _check_losses(counts: dict[str, int], train: Sequence[Example], config: TrainingConfig) -> None:
    """Refuse a loss that would learn nothing."""
    if config.head_weight:
        classes = Counter(example.label for example in train if _has(example, "understanding"))
        n_harmful, n_benign = classes["harmful"], classes["benign"]
        if not (n_harmful and n_benign):
            raise InputError(
                f"head_weight: the safety head needs traces of both labels with an understanding, got {n_harmful:,} "
                f"harmful and {n_benign:,} benign; add the other, or take head_weight=0"
            )
    for name in ("query_mask_weight", "key_weight"):
        if getattr(config, name) and not counts["with_key_sentence"]:
            raise InputError(f"{name}: no trace has a key sentence; take {name}=0, or another finder")


def _has(example: Example, span: str) -> bool:
    return len(example.encoding.positions(span)) > 0
