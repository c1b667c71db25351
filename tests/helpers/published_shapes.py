"""The same traces in shapes of published data sets, of result files, of exports, and as chat templates render them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from file_shapes import ANSWER, LABEL, PROMPT, REASONING, SHAPES, TAGGED, Told, Writer, columns_of


def _document(build: Callable[[list[Told]], Any]) -> Writer:
    def write(folder: Path, told: list[Told]) -> Path:
        (folder / "traces.json").write_text(json.dumps(build(told)))
        return folder / "traces.json"

    return write


def _rendered(prompt: str, **more: Callable[[Told], Any]) -> Writer:
    more = more or {"response": TAGGED}
    return columns_of(prompt=lambda t: prompt.replace("PROMPT", t.prompt), label=LABEL, **more)


def _chatgpt(t: Told) -> dict:
    said = [
        ("system", {"content_type": "text", "parts": [""]}),
        ("user", {"content_type": "text", "parts": [t.prompt]}),
        ("assistant", {"content_type": "thoughts", "thoughts": [{"summary": "S", "content": t.reasoning}]}),
        ("assistant", {"content_type": "reasoning_recap", "content": "Thought for 3 s"}),
        ("assistant", {"content_type": "text", "parts": [t.answer]}),
    ]
    nodes: dict[str, Any] = {"root": {"message": None, "parent": None}}
    for number, (role, content) in enumerate(said):
        before = str(number - 1) if number else "root"
        nodes[str(number)] = {"message": {"author": {"role": role}, "content": content}, "parent": before}
    nodes["other"] = {
        "message": {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["Elsewhere."]}},
        "parent": "1",
    }
    return {"title": "t", "mapping": nodes, "current_node": str(len(said) - 1), "label": t.label}


def _open_webui(t: Told) -> dict:
    quoted = "\n".join(f"&gt; {line}".replace("&gt;", ">") for line in t.reasoning.split("\n"))
    folded = f'<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n{quoted}\n</details>\n'
    turns = [{"role": "user", "content": t.prompt}, {"role": "assistant", "content": f"{folded}{t.answer}"}]
    return {"id": t.prompt[:20], "chat": {"title": "t", "messages": turns}, "label": t.label}


SHAPES |= {
    "OpenThoughts": columns_of(
        system=lambda t: "Think.",
        conversations=lambda t: [
            {"from": "user", "value": t.prompt},
            {
                "from": "assistant",
                "value": f"<|begin_of_thought|>\n\n{t.reasoning}\n\n<|end_of_thought|>\n\n"
                f"<|begin_of_solution|>\n\n{t.answer}\n\n<|end_of_solution|>",
            },
        ],
        label=LABEL,
    ),
    "an answer to check against beside generations": columns_of(
        problem=PROMPT, solution=lambda t: "S", answer=lambda t: "7", generations=lambda t: [t.tagged], label=LABEL
    ),
    "s1K": columns_of(
        question=PROMPT,
        solution=lambda t: "S",
        thinking_trajectories=lambda t: [t.reasoning],
        attempt=ANSWER,
        cot_type=lambda t: "math",
        label=LABEL,
    ),
    "s1K of DeepSeek": columns_of(
        question=PROMPT, deepseek_thinking_trajectory=REASONING, deepseek_attempt=ANSWER, label=LABEL
    ),
    "medical reasoning": columns_of(Question=PROMPT, Complex_CoT=REASONING, Response=ANSWER, label=LABEL),
    "objects of model and response": columns_of(
        question=PROMPT,
        reference_answer=lambda t: "S",
        responses=lambda t: [{"response_model": "m", "response": t.tagged}],
        label=LABEL,
    ),
    "marked text in a column of any name": columns_of(prompt=PROMPT, xyz=TAGGED, note=lambda t: "a note", label=LABEL),
    "WildJailbreak": columns_of(
        vanilla=lambda t: "v",
        adversarial=PROMPT,
        completion=TAGGED,
        data_type=lambda t: f"adversarial_{'benign' if t.is_safe else 'harmful'}",
    ),
    "StrongREJECT": columns_of(
        forbidden_prompt=PROMPT, jailbreak=lambda t: "none", response=TAGGED, score=lambda t: 0.5, label=LABEL
    ),
    "preferences": columns_of(prompt=PROMPT, chosen=TAGGED, rejected=lambda t: "No.", label=LABEL),
    "fields of the two roles": columns_of(user=PROMPT, assistant=TAGGED, label=LABEL),
    "prediction": columns_of(question=PROMPT, prediction=TAGGED, gold_answer=lambda t: "S", label=LABEL),
    "prompt and final answer": columns_of(prompt=PROMPT, thought_process=REASONING, final_answer=ANSWER, label=LABEL),
    "traced calls": columns_of(
        inputs=lambda t: {"messages": [{"role": "user", "content": t.prompt}]},
        outputs=lambda t: {"generations": [[{"text": t.tagged, "type": "ChatGeneration"}]]},
        label=LABEL,
    ),
    "invocation log": columns_of(
        modelId=lambda t: "m",
        input=lambda t: {"inputBodyJson": {"messages": [{"role": "user", "content": t.prompt}]}},
        output=lambda t: {
            "outputBodyJson": {"choices": [{"message": {"content": t.answer, "reasoning_content": t.reasoning}}]}
        },
        label=LABEL,
    ),
    "bodies of request and reply": columns_of(
        request_body=lambda t: {"messages": [{"role": "user", "content": t.prompt}]},
        response_body=lambda t: {"choices": [{"message": {"content": t.answer, "reasoning": t.reasoning}}]},
        label=LABEL,
    ),
    "LightEval details": columns_of(
        doc=lambda t: {"query": t.prompt, "choices": []},
        model_response=lambda t: {"text": [t.tagged], "input": t.prompt},
        metric=lambda t: {"em": 0},
        label=LABEL,
    ),
    "Claude export": _document(
        lambda told: [
            {
                "uuid": t.prompt[:20],
                "chat_messages": [
                    {"sender": "human", "text": t.prompt, "content": [{"type": "text", "text": t.prompt}]},
                    {
                        "sender": "assistant",
                        "text": t.answer,
                        "content": [
                            {"type": "thinking", "thinking": t.reasoning},
                            {"type": "text", "text": t.answer},
                        ],
                    },
                ],
                "label": t.label,
            }
            for t in told
        ]
    ),
    "ChatGPT export": _document(lambda told: [_chatgpt(t) for t in told]),
    "Open WebUI export": _document(lambda told: [_open_webui(t) for t in told]),
    "promptfoo": _document(
        lambda told: {
            "results": {
                "results": [
                    {"prompt": {"raw": t.prompt}, "response": {"output": t.tagged}, "label": t.label} for t in told
                ]
            }
        }
    ),
    "HELM": _document(
        lambda told: {
            "adapter_spec": {"method": "generation"},
            "request_states": [
                {
                    "instance": {"input": {"text": t.prompt}, "id": str(number)},
                    "request": {"prompt": t.prompt},
                    "result": {"completions": [{"text": t.tagged}]},
                    "label": t.label,
                }
                for number, t in enumerate(told)
            ],
        }
    ),
    "HarmBench": _document(
        lambda told: {
            f"b{number}": [{"test_case": t.prompt, "generation": t.tagged, "label": t.label}]
            for number, t in enumerate(told)
        }
    ),
    "JailbreakBench": _document(
        lambda told: {
            "parameters": {"model": "m"},
            "jailbreaks": [
                {"goal": "g", "prompt": t.prompt, "response": t.tagged, "jailbroken": True, "label": t.label}
                for t in told
            ],
        }
    ),
    "table of rows": _document(
        lambda told: {
            "columns": ["prompt", "response", "label"],
            "index": [number for number, _ in enumerate(told)],
            "data": [[t.prompt, t.tagged, t.label] for t in told],
        }
    ),
    "table of columns": _document(
        lambda told: {
            name: {str(number): value(t) for number, t in enumerate(told)}
            for name, value in (("prompt", PROMPT), ("response", TAGGED), ("label", LABEL))
        }
    ),
    "lists by column": _document(
        lambda told: {
            name: [value(t) for t in told]
            for name, value in (("prompt", PROMPT), ("response", TAGGED), ("label", LABEL))
        }
    ),
    "rows of the dataset viewer": _document(
        lambda told: {
            "features": [],
            "rows": [
                {"row_idx": number, "row": {"prompt": t.prompt, "response": t.tagged, "label": t.label}}
                for number, t in enumerate(told)
            ],
        }
    ),
    "ChatML prompt": _rendered("<|im_start|>user\nPROMPT<|im_end|>\n<|im_start|>assistant\n"),
    "Llama prompt": _rendered(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe good.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nPROMPT<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "DeepSeek prompt": _rendered("<｜begin▁of▁sentence｜>Be good.<｜User｜>PROMPT<｜Assistant｜><think>\n"),
    "Gemma prompt": _rendered("<bos><start_of_turn>user\nPROMPT<end_of_turn>\n<start_of_turn>model\n"),
    "Mistral prompt": _rendered("<s>[INST] PROMPT [/INST]"),
    "Phi prompt": _rendered("<|system|>\nBe good.<|end|>\n<|user|>\nPROMPT<|end|>\n<|assistant|>\n"),
    "harmony prompt": _rendered(
        "<|start|>system<|message|>You are good.<|end|><|start|>user<|message|>PROMPT<|end|><|start|>assistant"
    ),
    "ChatML conversation": columns_of(
        text=lambda t: f"<|im_start|>user\n{t.prompt}<|im_end|>\n<|im_start|>assistant\n{t.tagged}<|im_end|>\n",
        label=LABEL,
    ),
    "harmony conversation": columns_of(
        text=lambda t: (
            f"<|start|>user<|message|>{t.prompt}<|end|><|start|>assistant<|channel|>analysis<|message|>{t.reasoning}"
            f"<|end|><|start|>assistant<|channel|>final<|message|>{t.answer}<|return|>"
        ),
        label=LABEL,
    ),
    "transcript": columns_of(text=lambda t: f"\n\nHuman: {t.prompt}\n\nAssistant: {t.tagged}", label=LABEL),
}
