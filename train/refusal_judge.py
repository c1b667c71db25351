"""Training of the refusal judge's weights; half a minute, byte-identical on one machine.

    python -m train.refusal_judge LABELLED.jsonl … [--out safekey_interp/evaluation/refusal_weights.json]

Each file contains the answers of one model with annotators' labels (:mod:`train.refusal_fitting`).
The weights of the package are fitted to XSTest's completions of three models and to ``refusal_examples.jsonl``, written
by hand: short and recent forms of refusal that those models lack. Settings are selected on left-out models and groups;
the final weights are fitted to all rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from safekey_interp.evaluation.refusal_classifier import WEIGHTS
from safekey_interp.runs.storage import sha256_of, write_aside
from train.refusal_fitting import Corpus, choose, fit, read_examples, read_labelled

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = Path(__file__).with_name("refusal_examples.jsonl")
SEED = 0


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("labelled", type=Path, nargs="+", help="one JSONL file per model")
    parser.add_argument("--out", type=Path, default=ROOT / "safekey_interp" / "evaluation" / WEIGHTS)
    options = parser.parse_args()
    text = weights(options.labelled)
    write_aside(options.out, lambda file: file.write_text(text, encoding="utf-8"))
    print(f"{options.out}: {len(text.encode()):,} bytes")


def weights(labelled: Sequence[Path]) -> str:
    """Text of the weights' file fitted to these answers."""
    corpus = Corpus([*read_labelled(labelled), *read_examples(EXAMPLES)])
    rows = np.arange(len(corpus))
    settings = choose(corpus, rows, seed=SEED)
    classifier = fit(corpus, rows, settings).to_json()
    about = {**asdict(settings), "seed": SEED}
    trained_on = {path.name: sha256_of(path) for path in (*labelled, EXAMPLES)}
    # A line a feature, and a line of each column a first word.
    sizes = [len(words.split(" ")) for words in classifier["terms"].values()]
    parts = {name: _in_lines(value, sizes) for name, value in classifier.items()}
    return _in_braces({"settings": json.dumps(about), "trained_on": json.dumps(trained_on), **parts}) + "\n"


def _in_lines(value: Any, sizes: Sequence[int]) -> str:
    if isinstance(value, dict):
        return _in_braces({name: _compact(row) for name, row in value.items()})
    if isinstance(value, list) and len(value) == sum(sizes):
        numbers = iter(value)
        return "[\n" + ",\n".join(_compact(list(islice(numbers, size)))[1:-1] for size in sizes) + "\n]"
    return _compact(value)


def _in_braces(values: Mapping[str, str]) -> str:
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {text}" for name, text in values.items()) + "\n}"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main()
