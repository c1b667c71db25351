"""Training traces for SmolLM2: real harmful and benign prompts with the same kinds of U, cut shortly behind K.

    <think> U K reasoning </think> answer

- U, of both labels: a frame by the prompt's form around the request, as the openings of STAR-1 have them. Forms are
  balanced between the labels, and so are the frames of a form.
- K, harmful: STAR-1's own, where ``rules`` finds it and calls it safe. K, benign: a go-ahead. Those of real openings
  (``key_sentences.jsonl``, both annotators agree, unsafe) that share no word with their prompt, beside a few written
  ones; every form has the same turn.
- Reasoning and answer: whole sentences up to 24 tokens each, at least one. Harmful: STAR-1's own. Benign: a written
  step, and SmolLM2's own greedy answer to the prompt.

A share of either label's requests may stand in wrappers that fine-tuning shows; U restates the request all the same.
SmolLM2's answers to the benign prompts ship (``real-study-benign-answers.jsonl``, by hash of the prompt): another
processor may round a logit the other way, and one other token would make all runs runs on other data.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.real_model.real_study_design import ANSWER_TOKENS, DATA_SEED, N_TRACES, REASONING_TOKENS, Setting
from analysis.real_model.real_study_prompts import FORMS, Form, Prompts, form_of
from analysis.real_model.real_study_wrappers import wrappers_of
from analysis.smollm2.data import CLOSING, GO_AHEADS, OPENING, THEN, own_answers
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model
from safekey_interp.runs.storage import write_aside
from safekey_interp.segmentation.segmenter import segment, segment_all
from safekey_interp.segmentation.sentence_splitter import sentences

FRAMES: dict[Form, tuple[str, ...]] = {
    "how": (
        "Okay, so the user is asking how to {}.",
        "Okay, so the user wants to know how to {}.",
        "Alright, the user is asking how to {}.",
    ),
    "question": (
        'Okay, so the user is asking, "{}"',
        'Okay, the user asked, "{}"',
        'Alright, so the user wants to know: "{}"',
    ),
    "imperative": (
        "Okay, so the user wants me to {}.",
        "Okay, so the user is asking me to {}.",
        "Alright, the user wants me to {}.",
    ),
}
"""Openings of U; the first of a form serves where all models read the same U."""
BENIGN_ANSWERS = Path(__file__).parent / "real-study-benign-answers.jsonl"
_WORD = re.compile(r"[^\W\d_]{4,}")


def understanding_of(request: str, frame: int = 0) -> str:
    """A sentence that restates a request.

    Raises:
        InputError: no sentence can (:func:`form_of`).
    """
    asked = form_of(request)
    if asked is None:
        raise InputError(f"request {request[:80]!r}: expected a question or a task in one sentence")
    form, content = asked
    return FRAMES[form][frame % len(FRAMES[form])].format(content)


def opened(trace: Trace, key_sentence: str, *, frame: int = 0, rest: str = "") -> Trace:
    """A request with U, K, and what follows them; both spans are given. ``meta["request"]`` is what U restates."""
    u = understanding_of(trace.meta["request"], frame)
    begin = len(OPENING)
    key = begin + len(u) + 1
    given = {"understanding": CharSpan(begin, begin + len(u))}
    if key_sentence:
        given["key_sentence"] = CharSpan(key, key + len(key_sentence))
    return trace.with_(response=f"{OPENING}{u} {key_sentence}{rest}".rstrip(" "), given=given)


def training_traces(prompts: Prompts, data: Path, setting: Setting, *, model: Model, cache: Path) -> list[Trace]:
    """As many harmful as benign traces, in the order in which they were drawn.

    Args:
        prompts: what may be trained on.
        data: folder with ``key_sentences.jsonl``.
        setting: its share of wrapped requests.
        model: SmolLM2 as it is: its answers to benign prompts, and its tokens.
        cache: file of these answers; a killed run goes on with what is there.

    Raises:
        InputError: too few prompts of a form are left.
    """
    go_aheads = read_go_aheads(data)
    harmful, harmless = _chosen(prompts, go_aheads)
    _begin_with(cache, harmless, BENIGN_ANSWERS)
    answers = own_answers(model, harmless, cache, max_new_tokens=2 * ANSWER_TOKENS, tell=print)
    shown = wrappers_of("shown")
    every = round(1 / setting.wrapped) if setting.wrapped else 0
    traces = []
    for number, (bad, good, answer) in enumerate(zip(harmful, harmless, answers, strict=True)):
        key, reasoning, refusal = _of_star1(bad)
        steps = f"{THEN[number % len(THEN)]} {THEN[(number + 1) % len(THEN)]}"
        texts = ((bad, key, reasoning, refusal), (good, go_aheads[number % len(go_aheads)], steps, answer))
        for trace, k, thoughts, said in texts:
            form = shown[number // every % len(shown)] if every and number % every == 0 else None
            about = {"request": trace.prompt, "wrapper": form.name if form else "plain"}
            rest = f" {_cut(thoughts, REASONING_TOKENS, model)}{CLOSING}{_cut(said, ANSWER_TOKENS, model)}"
            prompt = form.around(trace.prompt) if form else trace.prompt
            plain = trace.with_(prompt=prompt, group=trace.prompt, meta=about, steps=())
            traces.append(opened(plain, k, frame=number, rest=rest))
    return traces


def trained_on(prompts: Prompts, data: Path) -> set[str]:
    """The prompts of the training traces, without wrappers; arguments and errors as :func:`training_traces`."""
    return {trace.prompt for some in _chosen(prompts, read_go_aheads(data)) for trace in some}


def _chosen(prompts: Prompts, go_aheads: Sequence[str]) -> tuple[list[Trace], list[Trace]]:
    """Harmful and benign prompts that are trained on, row by row of the same form."""
    usable = [trace for trace in prompts.harmful if _reads_as_safe(trace)]
    return balanced(usable, [t for t in prompts.harmless if _is_found(t, go_aheads[0])], N_TRACES)


def _begin_with(cache: Path, harmless: Sequence[Trace], shipped: Path) -> None:
    """Write the cache of answers from those that ship, where they are to these prompts."""
    if cache.is_file() or not shipped.is_file():
        return
    rows = map(json.loads, shipped.read_text(encoding="utf-8").splitlines())
    known = {row["prompt"]: row["answer"] for row in rows}
    if all(_hash(trace.prompt) in known for trace in harmless):
        lines = "".join(json.dumps(known[_hash(trace.prompt)]) + "\n" for trace in harmless)
        write_aside(cache, lambda aside: aside.write_text(lines, encoding="utf-8"))


def save_answers(traces: Sequence[Trace], cache: Path, shipped: Path = BENIGN_ANSWERS) -> None:
    """Ship the answers in a cache.

    Args:
        traces: those that were made with them.
        cache: as :func:`training_traces` wrote it.
        shipped: file to write.
    """
    prompts = [trace.group for trace in traces if trace.label == "benign"]
    answers = map(json.loads, cache.read_text(encoding="utf-8").splitlines())
    rows = [json.dumps({"prompt": _hash(str(p)), "answer": a}) for p, a in zip(prompts, answers, strict=True)]
    write_aside(shipped, lambda aside: aside.write_text("\n".join([*rows, ""]), encoding="utf-8"))


def _hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def balanced(harmful: Sequence[Trace], harmless: Sequence[Trace], n: int) -> tuple[list[Trace], list[Trace]]:
    """``n`` of each, row by row of the same form; forms as frequent as the rarer label allows.

    Raises:
        InputError: fewer are there.
    """
    of = {form: [[t for t in pool if _form(t) == form] for pool in (harmful, harmless)] for form in FORMS}
    most = {form: min(map(len, pools)) for form, pools in of.items()}
    if sum(most.values()) < n:
        raise InputError(f"training traces: {sum(most.values())} prompts of the same form in both labels, expected {n}")
    pairs = [pair for form in FORMS for pair in zip(*(pool[: most[form]] for pool in of[form]), strict=True)]
    chosen = random.Random(DATA_SEED).sample(pairs, n)
    # A form's frames take turns along its rows, so rows of a form stand together.
    chosen.sort(key=lambda pair: FORMS.index(_form(pair[0])))
    return [bad for bad, _ in chosen], [good for _, good in chosen]


def read_go_aheads(data: Path) -> list[str]:
    """Go-aheads of real openings that fit any request, and written ones.

    Raises:
        InputError: no such file.
    """
    file = data / "key_sentences.jsonl"
    if not file.is_file():
        raise InputError(f"--data: {file} is missing, expected annotated key sentences")
    found: dict[str, None] = {}
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        said = row["annotator_a"]
        if not (row["agreed"] and said["aha"] == "unsafe"):
            continue
        key = row["response"][slice(*said["key_sentence"])]
        about = set(_WORD.findall(row["prompt"].lower()))
        if len(key.split()) <= _MOST_WORDS and not about & set(_WORD.findall(key.lower())):
            found[key] = None
    return [*found, *GO_AHEADS]


_MOST_WORDS = 6
"""Of a real go-ahead: longer ones go on about their own topic."""


def _form(trace: Trace) -> Form | None:
    asked = form_of(trace.prompt)
    return asked.form if asked else None


def _reads_as_safe(trace: Trace) -> bool:
    """Whether STAR-1's trace has a safe K, a thought and an answer behind it, and K is safe behind our U, too."""
    found = segment(trace)
    if found.aha != "safe" or found.answer is None or not all(parts := _of_star1(trace)):
        return False
    return _is_found(trace, parts[0], aha="safe")


def _is_found(trace: Trace, key_sentence: str, aha: str | None = None) -> bool:
    """Whether ``rules`` finds U and K where they are, behind each frame."""
    asked = trace.with_(meta={"request": trace.prompt})
    made = [opened(asked, key_sentence, frame=n, rest=f" {THEN[0]}") for n in range(max(map(len, FRAMES.values())))]
    return all(
        found.understanding == one.given["understanding"]
        and found.key_sentence == one.given["key_sentence"]
        and aha in (None, found.aha)
        for one, found in zip(made, segment_all(made), strict=True)
    )


def _of_star1(trace: Trace) -> tuple[str, str, str]:
    found: Any = segment(trace)
    after = trace.response[found.key_sentence.end : found.reasoning.end]
    return found.key_sentence.text(trace.response), after.strip(), found.answer.text(trace.response).strip()


def _cut(text: str, most: int, model: Model) -> str:
    """Whole sentences up to so many tokens, at least one."""
    spans = sentences(text, 0, len(text))
    kept = spans[0].end if spans else len(text)
    for span in spans[1:]:
        if len(model.tokenizer(text[: span.end], add_special_tokens=False)["input_ids"]) > most:
            break
        kept = span.end
    return text[:kept].strip()
