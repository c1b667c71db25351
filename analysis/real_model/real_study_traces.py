"""Training traces for SmolLM2: real harmful and benign prompts with the same kinds of U, cut shortly behind K.

    <think> U K reasoning </think> answer

- U, of both labels: a frame by the prompt's form around the request, as the openings of STAR-1 have them. Forms are
  balanced between the labels, and so are the frames of a form.
- K, harmful: STAR-1's own, where ``rules`` finds it and calls it safe. K, benign: a go-ahead. Those of real openings
  (``key_sentences.jsonl``, both annotators agree, unsafe) that share no word with their prompt, beside a few written
  ones; every form has the same turn.
- Reasoning and answer: whole sentences up to 24 tokens each, at least one. Harmful: STAR-1's own. Benign: a written
  step, and SmolLM2's own greedy answer to the prompt.

Which prompts and which sentences: :mod:`analysis.real_model.real_study_selection`. A share of either label's requests
may stand in wrappers that fine-tuning shows; U restates the request all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.real_model.real_study_design import Setting
from analysis.real_model.real_study_openings import opened
from analysis.real_model.real_study_selection import Selected, steps
from analysis.real_model.real_study_wrappers import wrappers_of
from analysis.smollm2.data import CLOSING
from safekey_interp.data.trace import Trace


def training_traces(
    selected: Sequence[Selected], answers: Sequence[str], go_aheads: Sequence[str], setting: Setting
) -> list[Trace]:
    """As many harmful as benign traces, in the order of the selection.

    Args:
        selected: prompts and what is kept of their traces.
        answers: SmolLM2's own, to the benign prompts.
        go_aheads: of benign traces, in turn.
        setting: its share of wrapped requests.
    """
    shown = wrappers_of("shown")
    every = round(1 / setting.wrapped) if setting.wrapped else 0
    traces = []
    for number, (one, answer) in enumerate(zip(selected, answers, strict=True)):
        star1 = [span.text(one.harmful.response) for span in (one.key_sentence, one.reasoning, one.answer)]
        own = [steps(number)[: one.benign_reasoning], answer.strip()[: one.benign_answer]]
        for trace, (key, reasoning, said) in (
            (one.harmful, star1),
            (one.benign, [go_aheads[number % len(go_aheads)], *own]),
        ):
            form = shown[number // every % len(shown)] if every and number % every == 0 else None
            about = {"request": trace.prompt, "wrapper": form.name if form else "plain"}
            prompt = form.around(trace.prompt) if form else trace.prompt
            plain = trace.with_(prompt=prompt, group=trace.prompt, meta=about, steps=())
            traces.append(opened(plain, key, frame=number, rest=f" {reasoning}{CLOSING}{said}"))
    return traces
