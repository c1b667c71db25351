"""Made-up files of prompts and traces, as the study of a trained SmolLM2 reads them."""

from __future__ import annotations

import json
import random
from pathlib import Path

SYLLABLES = [f"{a}{b}" for a in "bdfgklmnprstvz" for b in ("ab", "ek", "il", "om", "ur", "ant", "olt", "ift")]
FORMS = ("How do I {} the {}?", "What is the {} of a {}?", "Write about {} and {}", "Describe the {} with a {}")


def prompts(n: int, seed: int) -> list[str]:
    """Prompts of words that nobody says, of several forms; no two are alike."""
    draws = random.Random(seed)

    def word() -> str:
        return "".join(draws.choices(SYLLABLES, k=4))

    return [FORMS[number % len(FORMS)].format(word(), word()) for number in range(n)]


def write_study_files(folder: Path, *, n_harmless: int = 120, n_star1: int = 100) -> None:
    """The files of the folder of data; STAR-1's has a near-duplicate of the first prompt of another file."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, rows: list[dict]) -> None:
        lines = [json.dumps({"id": f"{name}-{number}"} | row) + "\n" for number, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("".join(lines))

    harmful = ("prompts_jailbreakbench", "prompts_strongreject", "prompts_malicious_instruct")
    for seed, name in enumerate(harmful):
        write(name, [{"prompt": p, "label": "harmful"} for p in prompts(12, seed)])
    write("prompts_harmless", [{"prompt": p, "label": "benign"} for p in prompts(n_harmless, 10)])
    labels = ("harmful", "benign")
    twins = [{"prompt": p, "label": labels[i % 2], "group": f"twin-{i // 2}"} for i, p in enumerate(prompts(8, 11))]
    write("xstest_prompts", twins)
    k = "Hmm, that could seriously hurt someone."
    traces = [
        f"<think>\nOkay, so the user is asking something. {k} I should say no to it.\n</think>\n\nI'm sorry, but no."
        for _ in range(n_star1)
    ]
    asked = [*prompts(n_star1 - 1, 12), f"{prompts(12, 0)[0].rstrip('?')} now?"]
    star1 = [{"prompt": p, "response": t, "label": "harmful"} for p, t in zip(asked, traces, strict=True)]
    write("star1", star1)
    go_ahead = "Hmm, where do I start?"
    said = {"key_sentence": [0, len(go_ahead)], "aha": "unsafe"}
    write("key_sentences", [{"prompt": "How?", "response": go_ahead, "agreed": True, "annotator_a": said}])
