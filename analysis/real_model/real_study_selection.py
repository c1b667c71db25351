"""Selection of what SmolLM2 is trained on: prompts, and the parts of their traces and answers that are kept.

What was selected ships (``real-study-training.jsonl``): ids of the prompts, and where K, reasoning and answer lie in
STAR-1's responses, without texts. A later finder or splitter of sentences would select otherwise, and all runs would be
runs on other data. Without that file, or with other prompts, the selection is made:

- harmful: STAR-1's traces in which ``rules`` finds a safe K, a thought and an answer behind it, and finds K behind our
  U, too; K is STAR-1's own
- benign: prompts behind whose U ``rules`` finds a go-ahead
- reasoning and answer: whole sentences up to the design's number of tokens, at least one
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.real_model.real_study_design import ANSWER_TOKENS, DATA_SEED, N_TRACES, REASONING_TOKENS
from analysis.real_model.real_study_openings import FRAMES, opened
from analysis.real_model.real_study_prompts import FORMS, Form, Prompts, form_of
from analysis.smollm2.data import GO_AHEADS, THEN, own_answers
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model
from safekey_interp.runs.storage import write_aside
from safekey_interp.segmentation.segmenter import segment, segment_all
from safekey_interp.segmentation.sentence_splitter import sentences

SELECTED = Path(__file__).parent / "real-study-training.jsonl"
BENIGN_ANSWERS = Path(__file__).parent / "real-study-benign-answers.jsonl"
"""SmolLM2's answers to the benign prompts, by hash of the prompt: another processor may round a logit the other way."""
_WORD = re.compile(r"[^\W\d_]{4,}")
_MOST_WORDS = 6
"""Of a real go-ahead: longer ones go on about their own topic."""


class Selected(NamedTuple):
    """A harmful and a benign prompt of the same form, and what is kept of their traces."""

    harmful: Trace
    benign: Trace
    key_sentence: CharSpan
    """Of the harmful one's response."""
    reasoning: CharSpan
    """Behind K."""
    answer: CharSpan
    benign_reasoning: int
    """Characters of the written steps."""
    benign_answer: int
    """Characters of SmolLM2's own answer."""

    def row(self) -> dict[str, Any]:
        """As the file has it."""
        ids = {"harmful": self.harmful.trace_id, "benign": self.benign.trace_id}
        ids["sha256"] = _hash("\0".join((self.harmful.prompt, self.harmful.response, self.benign.prompt)))[:16]
        places = {name: value for name, value in self._asdict().items() if name not in ids}
        return ids | {n: [v.start, v.end] if isinstance(v, CharSpan) else v for n, v in places.items()}


def select(
    prompts: Prompts, go_aheads: Sequence[str], *, model: Model, cache: Path, selected: Path | None = None
) -> tuple[list[Selected], list[str]]:
    """What is trained on, and SmolLM2's own answers to the benign prompts.

    Args:
        prompts: what may be trained on.
        go_aheads: of benign traces.
        model: SmolLM2 as it is: its answers, and its tokens.
        cache: file of its answers; a killed run goes on with what is there.
        selected: file of an earlier selection; that which ships by default.

    Raises:
        InputError: too few prompts of a form are left.
    """
    known = _read(SELECTED if selected is None else selected, prompts)
    pairs = [(one.harmful, one.benign) for one in known] or _chosen(prompts, go_aheads)
    harmless = [benign for _, benign in pairs]
    _begin_with(cache, harmless, BENIGN_ANSWERS)
    answers = own_answers(model, harmless, cache, max_new_tokens=2 * ANSWER_TOKENS, tell=print)
    made = known or [
        _parts(bad, good, answer, number, model)
        for number, ((bad, good), answer) in enumerate(zip(pairs, answers, strict=True))
    ]
    return made, answers


def trained_on(prompts: Prompts, data: Path) -> set[str]:
    """The prompts of the training traces, without wrappers.

    Args:
        prompts: what may be trained on.
        data: folder with ``key_sentences.jsonl``.

    Raises:
        InputError: as for :func:`select`.
    """
    pairs = [(one.harmful, one.benign) for one in _read(SELECTED, prompts)] or _chosen(prompts, read_go_aheads(data))
    return {trace.prompt for pair in pairs for trace in pair}


def save_selection(selected: Sequence[Selected], answers: Sequence[str]) -> None:
    """Write the files that ship.

    Raises:
        InputError: another selection ships, on which what else ships rests.
    """
    rows = [json.dumps(one.row()) for one in selected]
    if SELECTED.is_file() and SELECTED.read_text(encoding="utf-8").splitlines() != rows:
        raise InputError(f"{SELECTED}: is another selection than of these data; expected the same, or it moved away")
    write_aside(SELECTED, lambda aside: aside.write_text("\n".join([*rows, ""]), encoding="utf-8"))
    said = [
        json.dumps({"prompt": _hash(one.benign.prompt), "answer": answer})
        for one, answer in zip(selected, answers, strict=True)
    ]
    write_aside(BENIGN_ANSWERS, lambda aside: aside.write_text("\n".join([*said, ""]), encoding="utf-8"))


def steps(number: int) -> str:
    """Written steps of the reasoning of a benign trace."""
    return f"{THEN[number % len(THEN)]} {THEN[(number + 1) % len(THEN)]}"


def _read(file: Path, prompts: Prompts) -> list[Selected]:
    """The selection of a file; empty where there is none, or a prompt or response of it is not among these."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    harmful, harmless = ({trace.trace_id: trace for trace in pool} for pool in (prompts.harmful, prompts.harmless))
    if len(rows) != N_TRACES or not all(row["harmful"] in harmful and row["benign"] in harmless for row in rows):
        return []
    spans = ("key_sentence", "reasoning", "answer")
    traces = [{"harmful": harmful[row["harmful"]], "benign": harmless[row["benign"]]} for row in rows]
    texts = ("benign_reasoning", "benign_answer")
    made = [
        Selected(**found, **{n: CharSpan(*row[n]) for n in spans}, **{n: row[n] for n in texts})
        for row, found in zip(rows, traces, strict=True)
    ]
    return made if [one.row() for one in made] == rows else []


def _chosen(prompts: Prompts, go_aheads: Sequence[str]) -> list[tuple[Trace, Trace]]:
    usable = [trace for trace in prompts.harmful if _reads_as_safe(trace)]
    return list(
        zip(*balanced(usable, [t for t in prompts.harmless if _is_found(t, go_aheads[0])], N_TRACES), strict=True)
    )


def _parts(bad: Trace, good: Trace, said: str, number: int, model: Model) -> Selected:
    key, after, answer = _of_star1(bad)
    return Selected(
        harmful=bad,
        benign=good,
        key_sentence=key,
        reasoning=_cut(bad.response, after, REASONING_TOKENS, model),
        answer=_cut(bad.response, answer, ANSWER_TOKENS, model),
        benign_reasoning=len(_cut(steps(number), None, REASONING_TOKENS, model)),
        benign_answer=len(_cut(said.strip(), None, ANSWER_TOKENS, model)),
    )


def _begin_with(cache: Path, harmless: Sequence[Trace], shipped: Path) -> None:
    """Write the cache of answers from those that ship, where they are to these prompts."""
    if cache.is_file() or not shipped.is_file():
        return
    rows = map(json.loads, shipped.read_text(encoding="utf-8").splitlines())
    known = {row["prompt"]: row["answer"] for row in rows}
    if all(_hash(trace.prompt) in known for trace in harmless):
        lines = "".join(json.dumps(known[_hash(trace.prompt)]) + "\n" for trace in harmless)
        write_aside(cache, lambda aside: aside.write_text(lines, encoding="utf-8"))


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


def _form(trace: Trace) -> Form | None:
    asked = form_of(trace.prompt)
    return asked.form if asked else None


def _reads_as_safe(trace: Trace) -> bool:
    """Whether STAR-1's trace has a safe K, a thought and an answer behind it, and K is safe behind our U, too."""
    found = segment(trace)
    if found.aha != "safe" or found.answer is None or not all(map(len, parts := _of_star1(trace))):
        return False
    return _is_found(trace, parts[0].text(trace.response), aha="safe")


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


def _of_star1(trace: Trace) -> tuple[CharSpan, CharSpan, CharSpan]:
    """K, what follows it in the reasoning, and the answer, without white space around."""
    found: Any = segment(trace)
    after = CharSpan(found.key_sentence.end, found.reasoning.end)
    return found.key_sentence, _stripped(trace.response, after), _stripped(trace.response, found.answer)


def _stripped(text: str, span: CharSpan) -> CharSpan:
    inside = span.text(text)
    start = span.start + len(inside) - len(inside.lstrip())
    return CharSpan(start, max(start, span.start + len(inside.rstrip())))


def _cut(text: str, within: CharSpan | None, most: int, model: Model) -> CharSpan:
    """Whole sentences up to so many tokens, at least one."""
    whole = CharSpan(0, len(text)) if within is None else within
    part = whole.text(text)
    spans = sentences(part, 0, len(part))
    kept = spans[0].end if spans else len(part)
    for span in spans[1:]:
        if len(model.tokenizer(part[: span.end], add_special_tokens=False)["input_ids"]) > most:
            break
        kept = span.end
    return _stripped(text, CharSpan(whole.start, whole.start + kept))
