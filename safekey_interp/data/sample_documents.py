"""Documents of samples, recognised by their head: Inspect logs and INIF documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.data.inif_document import InifRows, is_inif
from safekey_interp.data.inspect_sample import inspect_row, is_inspect_log
from safekey_interp.data.json_stream import RowOfSample


def document_kind(head: Mapping[str, Any]) -> RowOfSample | None:
    """What makes rows of a document's samples; None where the head is of no such document.

    Args:
        head: the fields that stand before the samples.
    """
    if is_inspect_log(head):
        return inspect_row
    return InifRows(head).row if is_inif(head) else None
