"""Concatenation of the tables of single traces."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from safekey_interp.errors import NothingMeasured


def concatenate_tables(tables: Sequence[pd.DataFrame], left_out: dict[str, str], why: str) -> pd.DataFrame:
    """The tables of the traces that were measured as one, the others' reasons in ``attrs["left_out"]``.

    Raises:
        NothingMeasured: there is none; ``why`` is the message.
    """
    if not tables:
        raise NothingMeasured(why, left_out)
    table = pd.concat(tables, ignore_index=True)
    table.attrs["left_out"] = left_out
    return table
