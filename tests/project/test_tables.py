"""Tables of RESULTS.md that a script writes in part."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import tables
from analysis.tables import markdown, publish, with_rows_of
from safekey_interp.errors import InputError


def table(**cells: str) -> str:
    return markdown(pd.DataFrame({"statement": list(cells), "found": list(cells.values())}))


def test_rows_that_begin_alike_are_replaced_and_others_stay() -> None:
    old = "200 runs\n\n" + table(a="1", b="2", c="3")
    assert with_rows_of(old, "400 runs\n\n" + table(d="5", b="4")) == "400 runs\n\n" + table(a="1", b="4", c="3", d="5")
    assert with_rows_of("", table(a="1")) == table(a="1")
    with pytest.raises(InputError, match="columns"):
        with_rows_of(old, markdown(pd.DataFrame({"statement": ["a"], "lost": ["1"]})))


def test_a_part_is_put_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "RESULTS.md"
    monkeypatch.setattr(tables, "RESULTS", file)
    file.write_text(f"before\n<!-- one -->\n{table(a='1', b='2')}\n<!-- end -->\nbehind\n", encoding="utf-8")
    publish({"one": table(b="3")}, write=True, is_part=True)
    assert file.read_text(encoding="utf-8") == f"before\n<!-- one -->\n{table(a='1', b='3')}\n<!-- end -->\nbehind\n"
    publish({"one": table(b="4")}, write=True)
    assert table(b="4") + "\n<!-- end -->" in file.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="no place for two"):
        publish({"two": table(b="4")}, write=True)
