"""Files of the measured batches of a chunk that is not complete, so that a kill loses no more than a minute.

Which traces share a batch is fixed by the chunk alone, and numbers are kept as they are, to the bit: a chunk that was
interrupted ends as one that was not. Fast batches are never written: a chunk of them is complete before it is time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from safekey_interp.capture.batch_runner import AttentionArrays, LeftOut, Measured
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.models.encoding import Encoding
from safekey_interp.runs.storage import save_tensors, write_aside

EVERY = 20.0
"""Seconds after which what was measured is written, once the batch that is then measured is done."""
_ARRAYS = [field.name for field in fields(AttentionArrays) if field.name != "spans"]
_REST = ("states", "features", "token_weights")

Answer = Measured | LeftOut


class KeptBatches:
    """The batches of one chunk."""

    def __init__(self, folder: Path, request: CaptureRequest) -> None:
        """Look into a folder, which is made when there is something to write."""
        self._folder, self._request = folder, request
        self._waiting: dict[int, Sequence[Answer]] = {}
        self._written_at = time.monotonic()

    def read(self, number: int, encodings: Sequence[Encoding]) -> list[Answer] | None:
        """The answers of a batch, in the order of its traces; None where they are not there as they were written."""
        file = self._file(number)
        try:
            with safe_open(file, framework="numpy") as stored:
                records = json.loads(stored.metadata()["records"])
                if [record["trace_id"] for record in records] != [encoding.trace_id for encoding in encodings]:
                    return None
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, it is no mapping
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None
        return [self._answer(row, *pair, arrays) for row, pair in enumerate(zip(encodings, records, strict=True))]

    def add(self, number: int, answers: Sequence[Answer]) -> None:
        """Keep the answers of a batch; they are written when it is time.

        Raises:
            OSError: they cannot be written.
        """
        self._waiting[number] = answers
        if time.monotonic() - self._written_at < EVERY:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for each, of_batch in self._waiting.items():
            write_aside(self._file(each), partial(_write, of_batch))
        self._waiting.clear()
        self._written_at = time.monotonic()

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"

    def _answer(self, row: int, encoding: Encoding, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Answer:
        if record["left_out"] is not None:
            return LeftOut(encoding=encoding, reason=record["left_out"])
        attention = None
        if f"{row}/mass" in arrays:
            named = {name: arrays[f"{row}/{name}"] for name in _ARRAYS}
            attention = AttentionArrays(spans=self._request.spans, **named)
        rest = {name: arrays.get(f"{row}/{name}") for name in _REST}
        without = tuple(record["layers_without_pattern"])
        return Measured(encoding=encoding, attention=attention, **rest, layers_without_pattern=without)


def _write(answers: Sequence[Answer], file: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    records = []
    for row, answer in enumerate(answers):
        record: dict[str, Any] = {"trace_id": answer.encoding.trace_id, "left_out": None}
        if isinstance(answer, LeftOut):
            record["left_out"] = answer.reason
        else:
            record["layers_without_pattern"] = list(answer.layers_without_pattern)
            parts = {name: getattr(answer, name) for name in _REST}
            if answer.attention is not None:
                parts |= {name: getattr(answer.attention, name) for name in _ARRAYS}
            arrays |= {
                f"{row}/{name}": np.ascontiguousarray(value) for name, value in parts.items() if value is not None
            }
        records.append(record)
    save_tensors(file, arrays, {"records": json.dumps(records)})
