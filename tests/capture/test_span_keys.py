"""Keys of donors that are read once and turned to the places that they take."""

from __future__ import annotations

import pytest
import torch

from safekey_interp.capture import span_keys
from safekey_interp.capture.span_keys import KeptSpans, check_resampling, read_matched
from tests.helpers import tiny_models

POSITIONS, PLACES = [3, 4, 9, 12], [13, 14, 20, 2]
WANTED = (*range(3, 13), 17)


def ids_of(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, 250, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the sequences that are read."""
    found: list[int] = []
    plain = span_keys.read_span

    def counted(model, ids, positions, *, shift=0):
        found.append(len(ids))
        return plain(model, ids, positions, shift=shift)

    monkeypatch.setattr(span_keys, "read_span", counted)
    return found


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "phi3", "mistral", "gemma3_text", "gemma2", "gpt_oss"])
def test_turned_keys_are_those_that_are_read_at_the_place(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    check_resampling(model)
    kept = KeptSpans()
    for seed in (0, 1, 0):
        ids = ids_of(25, seed)
        expected = read_matched(model, ids, POSITIONS, PLACES)
        found = kept.matched(model, ids, POSITIONS, PLACES, wanted=WANTED)
        for layer, both in expected.items():
            for mine, its in zip(found[layer], both, strict=True):
                torch.testing.assert_close(mine, its, atol=2e-5, rtol=1e-4)


def test_a_donor_is_read_once_and_anew_where_the_weights_have_changed(reads: list[int]) -> None:
    model = tiny_models.tiny_model("llama")
    check_resampling(model)
    ids, kept = ids_of(25), KeptSpans()
    reads.clear()
    for shift in range(4):
        kept.matched(model, ids, [4, 5], [4 + shift, 5 + shift], wanted=WANTED)
    assert len(reads) == 1
    with torch.no_grad():
        model.hf.get_input_embeddings().weight.mul_(1.5)
    found = kept.matched(model, ids, [4, 5], [8, 9], wanted=WANTED)
    assert len(reads) == 2
    expected = read_matched(model, ids, [4, 5], [8, 9])
    torch.testing.assert_close(found[1][1], expected[1][1], atol=2e-5, rtol=1e-4)


def test_what_was_read_first_leaves_when_memory_is_full(reads: list[int]) -> None:
    model = tiny_models.tiny_model("llama")
    check_resampling(model)
    size = sum(part.nbytes for both in span_keys.read_span(model, ids_of(25), WANTED).values() for part in both)
    kept = KeptSpans(memory_gb=2.5 * size / 1e9)
    reads.clear()
    for seed in (0, 1, 0, 2, 0, 1):
        kept.matched(model, ids_of(25, seed), [4], [6], wanted=WANTED)
    assert len(reads) == 4  # 0, 1, 2 in the place of 1, and 1 again


def test_keys_that_the_rotary_embedding_does_not_turn_are_read_at_each_place(reads: list[int]) -> None:
    model = tiny_models.tiny_model("gpt_oss")  # its rotary embedding also scales
    check_resampling(model)
    kept = KeptSpans()
    reads.clear()
    for shift in range(3):
        kept.matched(model, ids_of(25), [4], [4 + shift], wanted=WANTED)
    assert len(reads) == 3
