"""Account of a reading: what the rows of a source were read as, in a sentence, and which columns were left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_SHOWN = 6
"""Names that a sentence lists."""


class RowReading(NamedTuple):
    """How one row was read."""

    shape: str
    """Name of its shape."""
    prompt: str
    """Where its prompt was."""
    answers: tuple[tuple[str, str], ...]
    """Where the reasoning, if that stood apart, and the answer of each trace were; empty names for nowhere."""
    label: str
    """The column of its label; empty for none."""
    left: tuple[str, ...]
    """Columns that were not read; ``meta`` has them."""


@dataclass
class ReadingAccount:
    """What was read so far, by source and shape."""

    rows: dict[tuple[str, RowReading], int] = field(default_factory=dict)
    """Rows by the name of their source and how they were read."""

    def add(self, source: str, reading: RowReading) -> None:
        """One more row."""
        key = source, reading
        self.rows[key] = self.rows.get(key, 0) + 1

    def lines(self) -> list[str]:
        """One sentence for each source and shape, with counts where traces differ."""
        kinds: dict[tuple[str, str], Counter[RowReading]] = {}
        for (source, reading), n in self.rows.items():
            kinds.setdefault((source, reading.shape), Counter())[reading] = n
        return [_sentence(source, shape, rows) for (source, shape), rows in kinds.items()]


def _sentence(source: str, shape: str, rows: Counter[RowReading]) -> str:
    parts: dict[str, Counter[str]] = {name: Counter() for name in ("prompt", "reasoning", "answer", "label")}
    left: dict[str, None] = {}
    total = 0
    for row, n in rows.items():
        left |= dict.fromkeys(row.left)
        total += n * len(row.answers)
        parts["prompt"][row.prompt] += n * len(row.answers)
        parts["label"][row.label] += n * len(row.answers)
        for reasoning, answer in row.answers:
            parts["reasoning"][reasoning] += n
            parts["answer"][answer] += n
    apart = any(parts["reasoning"])
    said = [
        f"{name if apart or name != 'answer' else 'response'} from {_listed(counts, total)}"
        for name, counts in parts.items()
        if any(counts)
    ]
    if not any(parts["answer"]) and not apart:
        said.append("no response")
    what = f"{total:,} {'trace' if total == 1 else 'traces'} of {source} read as {shape}: {', '.join(said)}"
    if not left:
        return what
    names = ", ".join([*list(left)[:_SHOWN], *(["…"] if len(left) > _SHOWN else [])])
    return f"{what}; {len(left)} {'column' if len(left) == 1 else 'columns'} left: {names}"


def _listed(counts: Counter[str], total: int) -> str:
    named = {name: n for name, n in counts.items() if name}
    return " or ".join(name if n == total else f"{name} ({n:,})" for name, n in _shown(named))


def _shown(named: dict[str, int]) -> Iterator[tuple[str, int]]:
    yield from sorted(named.items(), key=lambda item: -item[1])[:_SHOWN]
