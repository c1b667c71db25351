"""Traces for fine-tuning SmolLM2 and for its evaluation.

- Harmful: STAR-1, DeepSeek-R1's reasoning, of at most ``max_length`` tokens.
- Benign: **partly constructed.** SmolLM2's own greedy answer to a harmless prompt after a short template reasoning: U
  repeats the prompt, K is one of a few compliant sentences, then a step. No model generated this reasoning, and its
  style differs from STAR-1's, which may separate harmful from benign traces. XSTest is the unbiased test.
- XSTest: prompts in a constructed trace, with the same words for safe and unsafe ones: U repeats the prompt, K is one
  fixed safe sentence, so only the prompt differs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import TraceError
from safekey_interp.generation.local_engine import generate
from safekey_interp.models.model import Model
from safekey_interp.runs.storage import write_aside
from safekey_interp.segmentation.segmenter import segment

OPENING = "<think>\n"
CLOSING = "\n</think>\n\n"
RESTATED = ("Okay, the user is asking: {}", "Okay, so the user wants me to do this: {}", "Alright, the user asks: {}")
GO_AHEADS = (
    "First, I should think about what they need.",
    "Let me work out what a good answer looks like.",
    "I can help with this.",
    "Let me go through it step by step.",
)
THEN = ("I'll keep it clear and to the point.", "I'll write it up now.", "A short, direct answer is best here.")
FIXED_KEY = "Hmm, that could seriously hurt someone."
_AT_ONCE = 16


def harmful_traces(model: Model, file: Path, *, n: int, max_length: int) -> list[Trace]:
    """The first traces of STAR-1 that fit and have U and K, in its order."""
    harmful = []
    for trace in read_traces(file):
        segmentation = segment(trace)
        if segmentation.understanding is None or segmentation.key_sentence is None:
            continue
        try:
            fits = len(model.encode(trace, segmentation).input_ids) < max_length
        except TraceError:
            continue
        if fits:
            spans = {"understanding": segmentation.understanding, "key_sentence": segmentation.key_sentence}
            harmful.append(trace.with_(given=spans, label="harmful"))
        if len(harmful) == n:
            break
    return harmful


def benign_traces(
    model: Model, file: Path, out: Path, *, n: int, max_new_tokens: int, tell: Callable[[str], None]
) -> list[Trace]:
    """The model's own answers in trace form."""
    asked = [trace for trace, _ in zip(read_traces(file), range(n), strict=False)]
    answers = own_answers(model, asked, out, max_new_tokens=max_new_tokens, tell=tell)
    return [
        in_trace_form(trace, answer, number) for number, (trace, answer) in enumerate(zip(asked, answers, strict=True))
    ]


def own_answers(
    model: Model, asked: Sequence[Trace], out: Path, *, max_new_tokens: int, tell: Callable[[str], None]
) -> list[str]:
    """The model's greedy answers; kept in a file, so that a killed run goes on with what is there."""
    known = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    while len(known) < len(asked):
        some = asked[len(known) : len(known) + _AT_ONCE]
        known += generate(model, some, max_new_tokens=max_new_tokens, batch_size=_AT_ONCE)
        lines = "".join(json.dumps(answer) + "\n" for answer in known)
        write_aside(out, lambda aside, lines=lines: aside.write_text(lines, encoding="utf-8"))
        tell(f"benign answers: {len(known)} of {len(asked)}")
    return known[: len(asked)]


def in_trace_form(trace: Trace, answer: str, number: int) -> Trace:
    """A made-up reasoning before a real answer; U and K known by construction."""
    rng = random.Random(number)
    u = rng.choice(RESTATED).format(trace.prompt.strip())
    return _with_spans(trace, u, rng.choice(GO_AHEADS), f" {rng.choice(THEN)}{CLOSING}{answer.strip()}", "benign")


def xstest_traces(file: Path) -> list[Trace]:
    """Each prompt in the same made-up words."""
    return [
        _with_spans(trace, RESTATED[0].format(trace.prompt.strip()), FIXED_KEY, "", trace.label)
        for trace in read_traces(file)
    ]


def _with_spans(trace: Trace, u: str, k: str, rest: str, label: str | None) -> Trace:
    begin = len(OPENING)
    key = begin + len(u) + 1
    given = {"understanding": CharSpan(begin, begin + len(u)), "key_sentence": CharSpan(key, key + len(k))}
    return trace.with_(response=f"{OPENING}{u} {k}{rest}", given=given, label=label)


def mixed(harmful: Sequence[Trace], benign: Sequence[Trace], seed: int) -> list[Trace]:
    """Both in one shuffled order, as many of each."""
    n = min(len(harmful), len(benign))
    traces = [*harmful[:n], *benign[:n]]
    random.Random(seed).shuffle(traces)
    return traces
