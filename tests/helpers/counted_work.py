"""Counts of what is done to traces: readings of files, segmentations, encodings, forward passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from safekey_interp.data.row_readers import RowFile
from safekey_interp.data.trace import Trace
from safekey_interp.models import model as model_module
from safekey_interp.models.model import Model
from safekey_interp.segmentation.rules_finder import RulesFinder
from safekey_interp.segmentation.segmenter import Segmentation


class Work:
    """What was done inside the block."""

    def __init__(self) -> None:
        self.readings: Counter[str] = Counter()
        """By file."""
        self.segmentations: Counter[str] = Counter()
        """By trace."""
        self.encodings: Counter[tuple[str, str]] = Counter()
        """By trace and response."""
        self.passes: list[tuple[int, ...]] = []
        """Shape of the tokens of each forward pass."""


@contextmanager
def counted(model: Model) -> Iterator[Work]:
    """Count the work on traces inside the block, of the rules' finder and one model."""
    work = Work()
    rows, find, encode = RowFile.rows, RulesFinder.find, model_module.encode

    def counting_rows(self: RowFile, digest: Any) -> Iterator[tuple[int, Any]]:
        work.readings[self.name] += 1
        return rows(self, digest)

    def counting_find(self: RulesFinder, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        for segmentation in find(self, traces):
            work.segmentations[segmentation.trace_id] += 1
            yield segmentation

    def counting_encode(tokenizer: Any, trace: Trace, segmentation: Segmentation, **options: Any) -> Any:
        work.encodings[trace.trace_id, trace.response] += 1
        return encode(tokenizer, trace, segmentation, **options)

    def see(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        ids = options["input_ids"] if "input_ids" in options else arguments[0]
        work.passes.append(tuple(ids.shape))

    hook = model.hf.get_decoder().register_forward_pre_hook(see, with_kwargs=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowFile, "rows", counting_rows)
        patch.setattr(RulesFinder, "find", counting_find)
        patch.setattr(model_module, "encode", counting_encode)
        try:
            yield work
        finally:
            hook.remove()
