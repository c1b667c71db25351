"""The same traces as more tools log them, with the marks of more models, and as spreadsheets and pandas write them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
from file_shapes import LABEL, PROMPT, SHAPES, TAGGED, Told, Writer, columns_of
from published_shapes import SHAPES as _PUBLISHED

from safekey_interp.data.reasoning_marks import FAMILIES, Family

assert SHAPES is _PUBLISHED
_SYSTEM = "<|im_start|>system\nBe good.<|im_end|>\n"


def _user(t: Told) -> dict:
    return {"role": "user", "content": t.prompt}


def _bedrock(t: Told) -> dict:
    reasoning = {"reasoningContent": {"reasoningText": {"text": t.reasoning, "signature": "s"}}}
    return {"output": {"message": {"role": "assistant", "content": [reasoning, {"text": t.answer}]}}}


def _marked(family: Family, column: str) -> Writer:
    def response(t: Told) -> str:
        return f"{family.opening}\n{t.reasoning}\n{family.closing}{family.answer}\n\n{t.answer}"

    return columns_of(prompt=PROMPT, **{column: response}, label=LABEL)


def _garak(folder: Path, told: list[Told]) -> Path:
    def message(text: str) -> dict[str, object]:
        return {"text": text, "lang": "en", "data_path": None, "notes": {}}

    def attempt(number: int, t: Told, status: int) -> dict[str, object]:
        asked = {"role": "user", "content": message(t.prompt)}
        said = {"role": "assistant", "content": message(t.tagged)}
        known = {"entry_type": "attempt", "uuid": f"u{number}", "seq": number, "probe_classname": "dan.Dan"}
        texts = {"prompt": {"turns": [asked], "notes": {}}, "outputs": [message(t.tagged), None]}
        both = {"conversations": [{"turns": [asked, said]}, {"turns": [asked]}], "goal": "a jailbreak"}
        return known | {"status": status, "label": t.label} | texts | both

    attempts = [attempt(number, t, status) for status in (1, 2) for number, t in enumerate(told)]
    lines = [{"entry_type": "start_run setup", "run": "r"}, *attempts, {"entry_type": "eval", "probe": "p", "total": 2}]
    file = folder / "garak.report.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def _opencompass(folder: Path, told: list[Told]) -> Path:
    file = folder / "predictions.json"
    rows = [
        {"origin_prompt": [{"role": "HUMAN", "prompt": t.prompt}], "prediction": t.tagged, "label": t.label}
        for t in told
    ]
    file.write_text(json.dumps({str(number): row for number, row in enumerate(rows)}))
    return file


def _spreadsheet(mark: str) -> Writer:
    def write(folder: Path, told: list[Told]) -> Path:
        with (folder / "traces.csv").open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=mark)
            writer.writerow(["Prompt", "Response", "Label"])
            writer.writerows([t.prompt, t.tagged, t.label] for t in told)
        return folder / "traces.csv"

    return write


def _pandas(folder: Path, told: list[Told]) -> Path:
    with (folder / "traces.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["messages", "label"])
        for t in told:
            writer.writerow([repr([_user(t), {"role": "assistant", "content": t.tagged}]), t.label])
    return folder / "traces.csv"


def _saved_to_disk(folder: Path, told: list[Told]) -> Path:
    """A folder as ``Dataset.save_to_disk`` writes it."""
    saved = folder / "saved"
    saved.mkdir()
    rows = [{"prompt": t.prompt, "response": t.tagged, "label": t.label} for t in told]
    table = pa.Table.from_pylist(rows)
    with (
        pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=7)
    for name in ("dataset_info.json", "state.json"):
        (saved / name).write_text(json.dumps({"citation": "", "features": {}}))
    return saved


def _arrow_file(folder: Path, told: list[Told]) -> Path:
    table = pa.Table.from_pylist([{"prompt": t.prompt, "response": t.tagged, "label": t.label} for t in told])
    with pa.OSFile(str(folder / "t.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)
    return folder / "t.arrow"


SHAPES |= {
    "a data set saved to disk": _saved_to_disk,
    "a file of Arrow": _arrow_file,
    "Bedrock Converse": columns_of(
        request=lambda t: {
            "system": [{"text": "Be good."}],
            "messages": [{"role": "user", "content": [{"text": t.prompt}]}],
        },
        response=_bedrock,
        label=LABEL,
    ),
    "LightEval details, reasonings apart": columns_of(
        doc=lambda t: {"query": t.prompt, "choices": [""], "instruction": "Answer the question."},
        model_response=lambda t: {"text": [t.answer], "reasonings": [t.reasoning]},
        label=LABEL,
    ),
    "LiteLLM thinking blocks": columns_of(
        messages=lambda t: [_user(t)],
        choices=lambda t: [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": t.answer,
                    "thinking_blocks": [{"type": "thinking", "thinking": t.reasoning, "signature": "s"}],
                },
            }
        ],
        label=LABEL,
    ),
    "an object of thinking and answer": columns_of(
        prompt=PROMPT, response=lambda t: {"thinking": t.reasoning, "answer": t.answer}, label=LABEL
    ),
    "lm-eval, rendered prompt": columns_of(
        doc_id=lambda t: t.prompt,
        doc=lambda t: {},
        arguments=lambda t: {
            "gen_args_0": {
                "arg_0": f"{_SYSTEM}<|im_start|>user\n{t.prompt}<|im_end|>\n<|im_start|>assistant\n",
                "arg_1": {},
            }
        },
        resps=lambda t: [[t.tagged]],
        label=LABEL,
    ),
    "lm-eval, messages as text": columns_of(
        doc_id=lambda t: t.prompt,
        doc=lambda t: {},
        arguments=lambda t: {"gen_args_0": {"arg_0": [json.dumps([_user(t)])], "arg_1": {}}},
        resps=lambda t: [[t.tagged]],
        label=LABEL,
    ),
    "Alpaca with an empty input": columns_of(
        instruction=PROMPT, input=lambda t: "", output=TAGGED, history=lambda t: [], label=LABEL
    ),
    "a jailbroken prompt": columns_of(
        forbidden_prompt=lambda t: "F", jailbroken_prompt=PROMPT, response=TAGGED, label=LABEL
    ),
    "Langfuse, JSON as text": columns_of(
        id=PROMPT,
        input=lambda t: json.dumps({"messages": [_user(t)]}),
        output=lambda t: json.dumps({"role": "assistant", "content": t.answer, "reasoning_content": t.reasoning}),
        label=LABEL,
    ),
    "semicolons": _spreadsheet(";"),
    "tabs in a CSV": _spreadsheet("\t"),
    "messages as pandas writes them": _pandas,
    "thinking apart, of two lists": columns_of(
        prompt=PROMPT, reasonings=lambda t: [t.reasoning], responses=lambda t: [t.answer], label=LABEL
    ),
    **{
        f"marks {family.opening} in {column}": _marked(family, column)
        for family in FAMILIES
        for column in ("response", "rollout")  # a name that says it, and one that does not
    },
    "garak": _garak,
    "OpenCompass": _opencompass,
    "Arena-Hard": columns_of(
        uid=lambda t: "u",
        messages=lambda t: [_user(t), {"role": "assistant", "content": {"answer": t.tagged}}],
        label=LABEL,
    ),
    "an answer that repeats its prompt": columns_of(
        prompt=PROMPT, response=lambda t: {"prompt": t.prompt, "completion": t.tagged}, label=LABEL
    ),
    "choices with an empty delta": columns_of(
        prompt=PROMPT,
        choices=lambda t: [
            {"message": {"role": "assistant", "content": t.tagged}, "delta": {"role": "assistant", "content": ""}}
        ],
        label=LABEL,
    ),
    "a switch beside the reasoning in its text": columns_of(
        prompt=PROMPT, reasoning=lambda t: "on", response=TAGGED, label=LABEL
    ),
}
