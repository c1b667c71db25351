"""Agreement of texts whose reasoning marks were taken away with the same texts as they were.

    python -m analysis.validation.unmarked_reasoning TRACES.jsonl ANNOTATIONS.jsonl [ANSWERS.jsonl …] [--write]

Each trace is segmented with its marks, and once more after every way of losing them: the opening tag alone, all tags,
harmony's special tokens, all tags and the interjection that the reasoning begins with. Counted are the traces whose U,
K and aha stay, and those whose answer begins where it did. Answers of chat models (the rows' ``response``) never had
reasoning: counted are those that are read as answers. The last line is the trust in texts without marks: the lowest
lower bound (95 % interval) of a row without any mark, answers' places left out. ``--write`` puts both into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis.tables import markdown, publish
from safekey_interp.data.trace import Trace
from safekey_interp.measures.intervals import share_interval
from safekey_interp.segmentation.reasoning_span import reasoning_region
from safekey_interp.segmentation.segmenter import Segmentation, segment_all

_INTERJECTION = re.compile(r"\A(?:(?:okay|alright|hmm+|so|well)\b\W+)+", re.IGNORECASE)
Loss = Callable[[str, str], str]


def _bare(reasoning: str) -> str:
    rest = _INTERJECTION.sub("", reasoning)
    return rest[:1].upper() + rest[1:]


LOSSES: dict[str, Loss] = {
    "closing tag alone": lambda reasoning, answer: f"{reasoning}\n</think>\n\n{answer}",
    "channel names": lambda reasoning, answer: f"analysis{reasoning}assistantfinal{answer}",
    "no mark": lambda reasoning, answer: f"{reasoning}\n\n{answer}".rstrip(),
    "no mark, no interjection": lambda reasoning, answer: f"{_bare(reasoning)}\n\n{answer}".rstrip(),
}
"""Names of the ways in which marks are lost, and what is left of reasoning and answer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("traces", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("answers", type=Path, nargs="*")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    table = pd.DataFrame([*_of_traces((options.traces, options.annotations)), *_of_answers(options.answers)])
    unmarked = table[table["marks"].str.startswith(("no mark", "none"))]
    trust = f"trust in texts without marks: {unmarked['low'].min():.3f}"
    publish({"unmarked-reasoning": f"{markdown(table.drop(columns='low'))}\n\n{trust}"}, write=options.write)


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _of_traces(paths: Sequence[Path]) -> Iterator[dict[str, object]]:
    for path in paths:
        rows = _rows(path)
        regions = [reasoning_region(row["response"]) for row in rows]
        parts = [
            (region.span.text(row["response"]), "" if region.answer is None else region.answer.text(row["response"]))
            for region, row in zip(regions, rows, strict=True)
        ]
        for name, loss in LOSSES.items():
            bare = name.endswith("interjection")
            whole = [f"<think>\n{_bare(reasoning) if bare else reasoning}\n</think>" for reasoning, _ in parts]
            lost = [loss(*part) for part in parts]
            pairs = list(zip(_segmented(rows, whole), _segmented(rows, lost), strict=True))
            same = [_said(a) == _said(b) for a, b in pairs]
            answered = [
                (None if b.answer is None else b.answer.text(b.response)) == answer
                for (_, b), (_, answer) in zip(pairs, parts, strict=True)
                if answer
            ]
            yield _row(path, name, "U, K and aha as with marks", same)
            if answered:
                yield _row(path, name, "answer as with marks", answered)


def _of_answers(paths: Sequence[Path]) -> Iterator[dict[str, object]]:
    for path in paths:
        read = [reasoning_region(row["response"]).region == "answer" for row in _rows(path)]
        yield _row(path, "none: answers of a chat model", "read as an answer", read)


def _segmented(rows: Sequence[dict[str, str]], responses: Sequence[str]) -> list[Segmentation]:
    traces = (
        Trace(trace_id=str(number), prompt=row["prompt"], response=response)
        for number, (row, response) in enumerate(zip(rows, responses, strict=True))
    )
    return list(segment_all(traces))


def _said(found: Segmentation) -> tuple[object, ...]:
    return found.understanding_text, found.key_sentence_text, found.aha


def _row(path: Path, marks: str, what: str, hits: Sequence[bool]) -> dict[str, object]:
    low, high = share_interval(pd.Series(hits).to_numpy(), range(len(hits)))
    share = sum(hits) / len(hits)
    read = float("nan") if what.startswith("answer as") else low
    interval = f"{share:.3f} [{low:.3f}, {high:.3f}]"
    return {"file": path.stem, "marks": marks, "counted": what, "n": len(hits), "share": interval, "low": read}


if __name__ == "__main__":
    main()
