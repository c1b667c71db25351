"""Bad input of every kind: files, words, models and environments that no command can use.

Each is refused in one line with exit status 2 that names what is wrong, before anything is written.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from .processes import Ended, run
from .victims import copy

_GOOD = '{"prompt": "How?", "response": "<think>\\nOkay, so the user asks how. Hmm, no.\\n</think>\\n\\nNo."}\n'


def _row(**changes: object) -> str:
    return json.dumps(json.loads(_GOOD) | changes) + "\n"


def _parquet(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    table.to_parquet(stream)
    return stream.getvalue()


def _zip(**files: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return stream.getvalue()


_MANY = (_GOOD * 500).encode()
_TABLE = _parquet(pd.DataFrame([json.loads(_GOOD)] * 50))
FILES: dict[str, tuple[str, bytes | str]] = {
    "empty": ("t.jsonl", ""),
    "empty csv": ("t.csv", ""),
    "empty parquet": ("t.parquet", ""),
    "empty json": ("t.json", ""),
    "empty list": ("t.json", "[]"),
    "blank lines": ("t.jsonl", "\n \n\t\n"),
    "null alone": ("t.json", "null"),
    "a text alone": ("t.json", '"x"'),
    "binary": ("t.jsonl", bytes(range(256)) * 4),
    "NUL bytes": ("t.jsonl", b"\0" * 200),
    "UTF-16": ("t.jsonl", _GOOD.encode("utf-16")),
    "UTF-16 csv": ("t.csv", "prompt,response\nx,y\n".encode("utf-16")),
    "Latin-1": ("t.jsonl", _row(prompt="x").replace("How", "caf\xe9").replace('"x"', '"caf\xe9"').encode("latin-1")),
    "cut gzip": ("t.jsonl.gz", gzip.compress(_MANY)[:-20]),
    "no gzip": ("t.jsonl.gz", _GOOD),
    "cut bzip2": ("t.jsonl.bz2", bz2.compress(_MANY)[:-20]),
    "cut xz": ("t.jsonl.xz", lzma.compress(_MANY)[:-20]),
    "no zstd": ("t.jsonl.zst", b"\x28\xb5\x2f\xfd" + b"x" * 40),
    "cut parquet": ("t.parquet", _TABLE[: len(_TABLE) // 2]),
    "parquet without its head": ("t.parquet", b"\0" * 64 + _TABLE[64:]),
    "parquet of other columns": ("t.parquet", _parquet(pd.DataFrame({"a": [1], "b": [2]}))),
    "parquet of no rows": ("t.parquet", _parquet(pd.DataFrame({"prompt": pd.Series([], dtype=str)}))),
    "parquet of lists": ("t.parquet", _parquet(pd.DataFrame({"prompt": [[1, 2]], "response": ["x"]}))),
    "parquet of numbers": ("t.parquet", _parquet(pd.DataFrame({"prompt": [1.5], "response": [float("nan")]}))),
    "csv of other columns": ("t.csv", "a,b\n1,2\n"),
    "csv with an open quote": ("t.csv", 'prompt,response\n"x,y\nz,w\n'),
    "csv with a long row": ("t.csv", "prompt,response\nx,y,z,w\n"),
    "csv with one name twice": ("t.csv", "prompt,prompt,response\nx,y,z\n"),
    "half an array": ("t.json", f"[{_GOOD.strip()}, {_GOOD[:30]}"),
    "half a line": ("t.jsonl", _GOOD + _GOOD[:40]),
    "nested too deeply": ("t.json", "[" * 100_000),
    "a row nested too deeply": ("t.jsonl", '{"prompt": ' + "[" * 100_000 + "\n"),
    "a number of 10,000 digits": ("t.jsonl", '{"prompt": "x", "response": "y", "label": ' + "9" * 10_000 + "}\n"),
    "prompt null": ("t.jsonl", _row(prompt=None)),
    "prompt a number": ("t.jsonl", _row(prompt=3)),
    "prompt an object": ("t.jsonl", _row(prompt={"a": 1})),
    "response a truth value": ("t.jsonl", _row(response=True)),
    "response numbers": ("t.jsonl", _row(response=[1, 2])),
    "messages without roles": ("t.jsonl", '{"messages": [{"content": "x"}]}\n'),
    "messages of numbers": ("t.jsonl", '{"messages": [1, 2]}\n'),
    "label a list": ("t.jsonl", _row(label=["harmful"])),
    "one id twice": ("t.jsonl", _row(id="a") + _row(id="a")),
    "id an object": ("t.jsonl", _row(id={"a": 1})),
    "span past the end": ("t.jsonl", _row(key_sentence=[0, 10**6])),
    "span reversed": ("t.jsonl", _row(key_sentence=[9, 3])),
    "span below nothing": ("t.jsonl", _row(key_sentence=[-5, 3])),
    "span of words": ("t.jsonl", _row(key_sentence=["a", "b"])),
    "span of a huge number": ("t.jsonl", _row(key_sentence=[0, 10**400])),
    "span of fractions": ("t.jsonl", _row(key_sentence=[0.5, 3.5])),
    "spans a list": ("t.jsonl", _row(spans=[1, 2])),
    "spans without intervals": ("t.jsonl", _row(spans={"a": "b"})),
    "unknown kind": ("t.docx", _GOOD),
    "no kind": ("t", _GOOD),
    "broken log": ("t.eval", "x"),
    "log of nothing": ("t.eval", _zip()),
    "log with a broken header": ("t.eval", _zip(**{"header.json": "{"})),
    "log with broken samples": ("t.eval", _zip(**{"header.json": "{}", "samples__1_epoch_1.json": "{"})),
    "cut log": ("t.eval", _zip(**{"header.json": "{}", "samples__1_epoch_1.json": "{}"})[:-30]),
    "broken inif": ("t.inif", "x"),
    "inif of nothing": ("t.inif", _zip()),
}
"""Files for ``segment``, by what is wrong with them."""
READ = {
    "BOM": ("t.jsonl", b"\xef\xbb\xbf" + _GOOD.encode()),
    "lone surrogates": ("t.jsonl", _row(prompt="\ud800 x").encode("utf-8", "surrogatepass")),
    "escaped surrogates": ("t.jsonl", _GOOD.replace("How", "\\ud800")),
    "a number beyond floats": ("t.jsonl", _row(x=1).replace("1}", "1e999}")),
    "Windows line ends": ("t.jsonl", _GOOD.replace("\n", "\r\n") * 2),
    "messages a text": ("t.jsonl", '{"messages": "x"}\n'),
    "label NaN": ("t.jsonl", _row(label="x").replace('"x"', "NaN")),
    "label of a third kind": ("t.jsonl", _row(label="maybe")),
    "control characters": ("t.jsonl", _row(prompt="\x1b[31m\x07\u202e")),
}
"""Files that look wrong and can be read."""
_P, _T = ("probe", "--traces", "traces.jsonl"), ("--traces", "traces.jsonl")
WORDS: dict[str, tuple[str, ...]] = {
    "no such file": ("segment", "gone.jsonl"),
    "a folder of nothing": ("segment", "tmp"),
    "a loop of links": ("segment", "loop.jsonl"),
    "a link to nothing": ("segment", "dangling.jsonl"),
    "NUL in a name": ("segment", "a\0b.jsonl"),
    "an endless name": ("segment", "x" * 5000),
    "a good and a bad file": ("segment", "traces.jsonl", "recipe.yaml"),
    "a hub that is offline": ("segment", "hf:nobody/nothing"),
    "a hub path of nothing": ("segment", "hf:"),
    "prompt field": ("segment", "traces.jsonl", "--prompt-field", "x"),
    "id field": ("segment", "traces.jsonl", "--id-field", "label"),
    "label map without a meaning": ("segment", "traces.jsonl", "--label-map", "x"),
    "label map of both": ("segment", "traces.jsonl", "--label-map", "x=harmful,X=benign"),
    "limit and first": ("segment", "traces.jsonl", "--limit", "3", "--first", "3"),
    "limit 0": ("segment", "traces.jsonl", "--limit", "0"),
    "limit a word": ("segment", "traces.jsonl", "--limit", "many"),
    "limit a fraction": ("segment", "traces.jsonl", "--limit", "1.5"),
    "span without a pattern": ("segment", "traces.jsonl", "--span", "a"),
    "span of a broken pattern": ("segment", "traces.jsonl", "--span", "a=("),
    "span without a name": ("segment", "traces.jsonl", "--span", "=x"),
    "span of a finder that is not there": ("segment", "traces.jsonl", "--span", "a=@x.key_sentence"),
    "span twice": ("segment", "traces.jsonl", "--span", "a=x", "--span", "a=y"),
    "span of a taken name": ("segment", "traces.jsonl", "--span", "prompt=x"),
    "delimiters of one": ("segment", "traces.jsonl", "--delimiters", "<a>"),
    "out of a wrong kind": ("segment", "traces.jsonl", "--out", "x.xlsx"),
    "out what is read": ("segment", "traces.jsonl", "--out", "traces.jsonl", "--overwrite"),
    "out nowhere": ("segment", "traces.jsonl", "--out", "/proc/x.jsonl"),
    "out nothing": ("segment", "traces.jsonl", "--out", ""),
    "out with NUL": ("segment", "traces.jsonl", "--out", "a\0.jsonl"),
    "agreement of other traces": ("segment", "traces.jsonl", "--agreement", "recipe.yaml"),
    "agreement of no annotations": ("segment", "traces.jsonl", "--agreement", "prompts.jsonl"),
    "finder": (*_P, "--finder", "x"),
    "finder without an endpoint": (*_P, "--finder", "llm"),
    "layers": (*_P, "--layers", "0-"),
    "no such layer": (*_P, "--layers", "77"),
    "no such layer from behind": (*_P, "--layers", "-77"),
    "query of nothing": (*_P, "--query", ""),
    "query": (*_P, "--query", "key_sentenc"),
    "query of an open bracket": (*_P, "--query", "last(("),
    "query of endless brackets": (*_P, "--query", "first(" * 3000 + "prompt" + ")" * 3000),
    "key that nothing has": (*_P, "--key", "nothing"),
    "position": (*_P, "--position", "prompt["),
    "label by": (*_P, "--label-by", "x"),
    "label by many values": (*_P, "--label-by", "noun"),
    "by": (*_P, "--by", "x"),
    "estimator": (*_P, "--estimator", "svm"),
    "backend": (*_P, "--backend", "jax"),
    "batch size 0": (*_P, "--batch-size", "0"),
    "batch size NaN": (*_P, "--batch-size", "nan"),
    "chunk 0": (*_P, "--chunk", "0"),
    "seed below 0": (*_P, "--seed", "-1"),
    "seed beyond integers": (*_P, "--seed", "9" * 30),
    "most tokens too few": (*_P, "--max-length", "2"),
    "stream and limit": (*_P, "--stream", "--limit", "3"),
    "generate without prompts": ("probe", "--generate"),
    "prompts without generate": ("probe", "--prompts", "prompts.jsonl"),
    "prompts and traces": (*_P, "--prompts", "prompts.jsonl", "--generate"),
    "device": (*_P, "--device", "abacus"),
    "dtype": (*_P, "--dtype", "int8"),
    "out a file": (*_P, "--out", "recipe.yaml"),
    "out under a file": (*_P, "--out", "recipe.yaml/x"),
    "out a folder of others": (*_P, "--out", "harness"),
    "out /proc": (*_P, "--out", "/proc/x"),
    "model of nothing": (*_P, "--model", ""),
    "model nowhere": (*_P, "--model", "./nowhere"),
    "model offline": (*_P, "--model", "nobody/nothing"),
    "model with NUL": (*_P, "--model", "a\0b"),
    "model a file": (*_P, "--model", "traces.jsonl"),
    "no such toy": (*_P, "--model", "organism:x"),
    "no such option": (*_P, "--tracez", "x"),
    "no such command": ("prob",),
    "adapter nowhere": (*_P, "--adapter", "nowhere"),
    "generate out": ("generate", "--prompts", "prompts.jsonl", "--out", "x.csv"),
    "generate into a folder": ("generate", "--prompts", "prompts.jsonl", "--out", "harness"),
    "generate into what is read": ("generate", "--prompts", "prompts.jsonl", "--out", "prompts.jsonl"),
    "generate no tokens": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--max-new-tokens", "0"),
    "generate none": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--n", "0"),
    "several greedy ones": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--n", "2"),
    "temperature NaN": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--temperature", "nan"),
    "temperature below 0": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--temperature", "-1"),
    "temperature without end": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--temperature", "inf"),
    "top p 0": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--top-p", "0"),
    "top p NaN": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--top-p", "nan"),
    "prefill": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--prefill", "nowhere.jsonl"),
    "endpoint": ("generate", "--prompts", "prompts.jsonl", "--out", "o.jsonl", "--endpoint", "ftp://x"),
    "endpoint with a bad port": (
        "generate",
        "--prompts",
        "prompts.jsonl",
        "--out",
        "o.jsonl",
        "--endpoint",
        "http://h:99999/v1",
    ),
    "endpoint and vllm": (
        "generate",
        "--prompts",
        "prompts.jsonl",
        "--out",
        "o.jsonl",
        "--endpoint",
        "http://h/v1",
        "--vllm",
    ),
    "intervene nothing": ("intervene",),
    "intervene x": ("intervene", "x"),
    "metric": ("intervene", "knockout", *_T, "--metric", "x"),
    "metric of an open bracket": ("intervene", "patch", *_T, "--metric", "logprob("),
    "metric of no file": ("intervene", "patch", *_T, "--metric", "probe(nowhere.safetensors)"),
    "heads": ("intervene", "knockout", *_T, "--heads", "99"),
    "by of a knockout": ("intervene", "knockout", *_T, "--by", "token"),
    "window alone": ("intervene", "knockout", *_T, "--window", "2"),
    "window of nothing": ("intervene", "knockout", *_T, "--by", "layer", "--window", "0"),
    "control": ("intervene", "knockout", *_T, "--control", "x"),
    "no random keys": ("intervene", "knockout", *_T, "--n-random", "0"),
    "key sentences of no file": ("intervene", "knockout", *_T, "--key-sentences", "nowhere.json"),
    "key sentences of another file": ("intervene", "knockout", *_T, "--key-sentences", "recipe.yaml"),
    "key sentences of traces": ("intervene", "lens", *_T, "--key-sentences", "traces.jsonl"),
    "top 0": ("intervene", "edges", *_T, "--top", "0"),
    "top of more than all": ("intervene", "edges", *_T, "--top", "99999"),
    "sender": ("intervene", "paths", *_T, "--sender", "x"),
    "sender of no layer": ("intervene", "paths", *_T, "--sender", "9.mlp"),
    "receiver before its sender": ("intervene", "paths", *_T, "--sender", "3.mlp", "--receiver", "1.mlp"),
    "source": ("intervene", "patch", *_T, "--source", "x"),
    "component": ("intervene", "patch", *_T, "--component", "x"),
    "method": ("intervene", "patch", *_T, "--method", "x"),
    "mode": ("intervene", "direction", *_T, "--mode", "x"),
    "scale NaN": ("intervene", "direction", *_T, "--mode", "add", "--scale", "nan"),
    "scale without end": ("intervene", "direction", *_T, "--mode", "add", "--scale", "inf"),
    "folds of one": ("intervene", "direction", *_T, "--n-folds", "1"),
    "direction of no file": ("intervene", "direction", *_T, "--direction", "nowhere.safetensors"),
    "direction of traces": ("intervene", "direction", *_T, "--direction", "traces.jsonl"),
    "direction of half a file": ("intervene", "direction", *_T, "--direction", "half.safetensors"),
    "direction of another size": ("intervene", "direction", *_T, "--direction", "wide.safetensors"),
    "direction of another depth": ("intervene", "direction", *_T, "--direction", "deep.safetensors"),
    "direction of NaN": ("intervene", "direction", *_T, "--direction", "nan.safetensors"),
    "sentences of one": ("intervene", "suppress", *_T, "--most", "1"),
    "others of the lens": ("intervene", "lens", *_T, "--n-others", "-1"),
    "align": ("intervene", "trajectory", *_T, "--align", "x"),
    "probe of a direction": ("intervene", "trajectory", *_T, "--probe", "wide.safetensors"),
    "one model": ("compare", "organism"),
    "a model twice": ("compare", "organism", "organism"),
    "a run that is no run": ("compare", "harness", "organism", *_T),
    "suite of other columns": ("compare", "organism:base", "organism:sft", "--suite", "xstest=traces.jsonl"),
    "suite of no name": ("compare", "organism:base", "organism:sft", "--suite", "x=traces.jsonl"),
    "rubric without an endpoint": ("compare", "organism:base", "organism:sft", *_T, "--rubric"),
    "guard nowhere": ("compare", "organism:base", "organism:sft", *_T, "--guard", "./nowhere"),
    "template without a guard": ("compare", "organism:base", "organism:sft", *_T, "--guard-template", "recipe.yaml"),
    "benchmark": ("eval", "--allow-unknown", "organism", "--benchmarks", "x", "--python", "harness/python"),
    "benchmark of no harness": (
        "eval",
        "--allow-unknown",
        "organism",
        "--benchmarks",
        "y:x",
        "--python",
        "harness/python",
    ),
    "python nowhere": ("eval", "--allow-unknown", "organism", "--benchmarks", "lm-eval:x", "--python", "nowhere"),
    "python no program": (
        "eval",
        "--allow-unknown",
        "organism",
        "--benchmarks",
        "lm-eval:x",
        "--python",
        "traces.jsonl",
    ),
    "python a folder": ("eval", "--allow-unknown", "organism", "--benchmarks", "lm-eval:x", "--python", "harness"),
    "recipe nowhere": ("train", "nowhere.yaml"),
    "recipe a folder": ("train", "harness"),
    "recipe binary": ("train", "binary.yaml"),
    "recipe of nothing": ("train", "empty.yaml", "traces=nowhere.jsonl"),
    "recipe a list": ("train", "list.yaml"),
    "recipe with a tag": ("train", "tag.yaml"),
    "recipe of broken YAML": ("train", "broken.yaml"),
    "recipe of an unknown key": ("train", "recipe.yaml", "learnin_rate=1"),
    "recipe of a wrong type": ("train", "recipe.yaml", "epochs=many"),
    "rate NaN": ("train", "recipe.yaml", "learning_rate=.nan"),
    "rate without end": ("train", "recipe.yaml", "learning_rate=.inf"),
    "rate below 0": ("train", "recipe.yaml", "learning_rate=-1"),
    "weight NaN": ("train", "recipe.yaml", "head_weight=.nan"),
    "betas": ("train", "recipe.yaml", "betas=[2, 3]"),
    "no epochs": ("train", "recipe.yaml", "epochs=0"),
    "held out all": ("train", "recipe.yaml", "held_out=1"),
    "head layer": ("train", "recipe.yaml", "head_layer=99"),
    "report to nobody": ("train", "recipe.yaml", "report_to=[nobody]"),
    "traces nowhere": ("train", "recipe.yaml", "traces=gone.jsonl"),
    "lora targets": ("train", "recipe.yaml", "lora_rank=2", "lora_targets=[nothing]"),
    "no setting": ("train", "recipe.yaml", "seed"),
    "report nowhere": ("report", "nowhere"),
    "report no run": ("report", "harness"),
    "report a file": ("report", "traces.jsonl"),
}
"""What is typed, by what is wrong with it."""
MODELS: dict[str, Callable[[Path], object]] = {
    "config alone": lambda model: _keep(model, "config.json"),
    "no weights": lambda model: (model / "model.safetensors").unlink(),
    "no tokenizer": lambda model: [file.unlink() for file in model.glob("token*")],
    "broken config": lambda model: (model / "config.json").write_text("{"),
    "config a list": lambda model: (model / "config.json").write_text("[]"),
    "config of an unknown kind": lambda model: _edit(model / "config.json", model_type="x"),
    "config of another size": lambda model: _edit(model / "config.json", hidden_size=96),
    "config of no layers": lambda model: _edit(model / "config.json", num_hidden_layers=0),
    "config of more layers": lambda model: _edit(model / "config.json", num_hidden_layers=5),
    "config of words": lambda model: _edit(model / "config.json", hidden_size="many"),
    "half of the weights": lambda model: _cut(model / "model.safetensors"),
    "weights of nothing": lambda model: (model / "model.safetensors").write_bytes(b""),
    "weights of NaN": lambda model: _spoil(model / "model.safetensors"),
    "half of the tokenizer": lambda model: _cut(model / "tokenizer.json"),
    "tokenizer of nothing": lambda model: (model / "tokenizer.json").write_text("{}"),
    "template that is broken": lambda model: _template(model, "{% for"),
    "template that raises": lambda model: _template(model, "{{ raise_exception('no') }}"),
    "template without the prompt": lambda model: _template(model, "x"),
    "template without end": lambda model: _template(model, "{% for i in range(10**9) %}{% endfor %}"),
}
"""What is done to a saved model, by what then is wrong with it."""
ENVIRONMENTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "endpoint no address": ((*_P, "--finder", "llm"), {"SAFEKEY_LLM_BASE_URL": "x", "SAFEKEY_LLM_MODEL": "m"}),
    "endpoint no model": ((*_P, "--finder", "llm"), {"SAFEKEY_LLM_BASE_URL": "http://127.0.0.1:9/v1"}),
    "endpoint with a key in it": (
        (*_P, "--finder", "llm"),
        {"SAFEKEY_LLM_BASE_URL": "http://a:b@127.0.0.1:9/v1", "SAFEKEY_LLM_MODEL": "m"},
    ),
    "options no JSON": (
        (*_P, "--finder", "llm"),
        {"SAFEKEY_LLM_BASE_URL": "http://127.0.0.1:9/v1", "SAFEKEY_LLM_MODEL": "m", "SAFEKEY_LLM_OPTIONS": "{"},
    ),
    "nobody listens": (
        (*_P, "--finder", "llm"),
        {"SAFEKEY_LLM_BASE_URL": "http://127.0.0.1:9/v1", "SAFEKEY_LLM_MODEL": "m"},
    ),
    "rank without the others": (_P, {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "y"}),
    "rank past the last": (_P, {"RANK": "5", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}),
}
"""What is typed and set, by what is wrong with it."""


def attacked(template: Path, at: Path, only: str = "") -> Iterator[tuple[str, list[str]]]:
    """Each bad input and what was wrong with its end; nothing where it was refused as it should be.

    Args:
        template: a folder as :func:`~.victims.prepare` makes it.
        at: a folder in which another is made.
        only: a part of the names of the cases to try.
    """
    for case, words, fill, more in _cases():
        if only in case:
            folder = copy(template, at / "bad")
            fill(folder)
            yield case, _wrong(words, folder, **more)
    shutil.rmtree(at / "bad", ignore_errors=True)


def _cases() -> Iterator[tuple[str, tuple[str, ...], Callable[[Path], object], dict[str, Any]]]:
    """What each is called, what is typed, how its folder is filled, and how it is run."""
    for case, (name, data) in {**FILES, **READ}.items():
        content = data.encode() if isinstance(data, str) else data
        write = partial(lambda name, content, folder: (folder / name).write_bytes(content), name, content)
        yield f"file: {case}", ("segment", name), write, {"is_read": case in READ}
    for case, words in WORDS.items():
        yield f"words: {case}", words, _spread, {}
    for case, spoil in MODELS.items():
        words = (*_P, "--limit", "8", "--no-report", "--model", "model")
        yield f"model: {case}", words, partial(_spoiled_model, spoil), {}
    for case, (words, variables) in ENVIRONMENTS.items():
        yield f"environment: {case}", words, lambda folder: None, {"variables": variables}


def _spoiled_model(spoil: Callable[[Path], object], folder: Path) -> None:
    save_model(folder / "model")
    spoil(folder / "model")


def save_model(folder: Path) -> None:
    """A tiny model with a tokenizer of bytes, as ``save_pretrained`` leaves them."""
    from tiny_models import byte_level_tokenizer, tiny_model

    tiny_model("llama").hf.save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)


def _wrong(
    words: tuple[str, ...], folder: Path, *, is_read: bool = False, variables: dict[str, str] | None = None
) -> list[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    before = _contents(folder)
    ended = run(words, folder, variables=variables, limit=60.0)
    told = _end(ended, 0 if is_read else 2)
    if _contents(folder) != before:
        told.append(f"written: {sorted(set(_contents(folder).items()) ^ set(before.items()))}")
    return told


def _end(ended: Ended, expected: int) -> list[str]:
    if ended.status == 0 == expected and "Traceback" not in ended.err:
        return []
    lines = ended.err.splitlines()
    if ended.status == expected and len(lines) == 1 and lines[0].startswith("safekey-interp: ") and not ended.out:
        return []
    return [f"status {ended.status}, {len(lines)} lines, {ended.seconds:.0f} s: {ended.err[-700:]}"]


def _contents(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.name != "asked")
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in files if not path.is_dir()}


def _spread(folder: Path) -> None:
    """What the words name: links, recipes and directions that cannot be used."""
    import numpy as np

    from safekey_interp.measures.direction_record import Direction

    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    (folder / "dangling.jsonl").symlink_to("nowhere.jsonl")
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "empty.yaml").write_text("")
    (folder / "list.yaml").write_text("- model\n- traces\n")
    (folder / "tag.yaml").write_text("model: !!python/object/apply:os.system ['true']\n")
    (folder / "broken.yaml").write_text("model: [\n")
    about = {"norm": 2.0, "site": "resid_post", "position": "decision"}
    Direction(vector=np.eye(64)[3], layer=1, **about).save(folder / "wide.safetensors")
    Direction(vector=np.eye(128)[3], layer=50, **about).save(folder / "deep.safetensors")
    Direction(vector=np.eye(128)[3], layer=1, **about).save(folder / "half.safetensors")
    _cut(folder / "half.safetensors")
    Direction(vector=np.eye(128)[3], layer=1, **about).save(folder / "nan.safetensors")
    _spoil(folder / "nan.safetensors")


def _keep(folder: Path, name: str) -> None:
    for file in folder.iterdir():
        if file.name != name:
            file.unlink()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _template(model: Path, text: str) -> None:
    (model / "chat_template.jinja").write_text(text)
    file = model / "tokenizer_config.json"
    _edit(file, chat_template=text)


def _spoil(file: Path) -> None:
    """Make every number of a file NaN."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    save_file({name: tensor * float("nan") for name, tensor in load_file(file).items()}, file, metadata)
