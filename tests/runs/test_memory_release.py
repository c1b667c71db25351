"""Garbage of a block is collected; what was there before it is passed over, and stays frozen if it was."""

from __future__ import annotations

import gc
import weakref

import pytest

from safekey_interp.runs.memory_release import known_objects_frozen, release_memory


class _Node:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def nothing_is_frozen() -> None:
    gc.collect()
    gc.unfreeze()


@pytest.mark.usefixtures("nothing_is_frozen")
def test_what_was_there_is_frozen_for_the_block_alone() -> None:
    before = _Node()
    gone = weakref.ref(before)
    with known_objects_frozen():
        assert gc.get_freeze_count() > 0
        inside = weakref.ref(_Node())
        del before
        release_memory()
        assert inside() is None
        assert gone() is not None
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert gone() is None


@pytest.mark.usefixtures("nothing_is_frozen")
def test_what_a_program_has_frozen_stays_so() -> None:
    gc.freeze()
    try:
        with pytest.raises(ZeroDivisionError), known_objects_frozen():
            _ = 1 / 0
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
