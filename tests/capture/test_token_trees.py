"""Sentences in one sequence have the numbers that each has alone."""

from __future__ import annotations

import numpy as np
import pytest
import reference_forward
import tiny_models
import torch

from safekey_interp.capture.token_trees import TreeBatch, packs, token_tree
from safekey_interp.generation.key_sentence_bank import GENERAL
from safekey_interp.generation.likelihood import score
from safekey_interp.interventions.effect_metrics import find_subjects, readout_of

ROWS = [[5, 6, 7], [5, 6, 8, 9], [5, 6], [4], []]


def test_every_path_spells_its_row_and_shares_what_is_equal() -> None:
    tree = token_tree(ROWS)
    assert [[tree.ids[node] for node in path] for path in tree.paths] == ROWS
    beginnings = {tuple(row[:n]) for row in ROWS for n in range(1, len(row) + 1)}
    assert len(tree.ids) == len(beginnings)
    assert all(tree.depths[node] == depth for path in tree.paths for depth, node in enumerate(path))


def test_a_token_sees_its_own_path_up_to_itself() -> None:
    tree = token_tree(ROWS)
    sees = TreeBatch.of([tree]).sees
    assert sees is not None
    for path in tree.paths:
        for depth, node in enumerate(path):
            assert sees[0, node].nonzero()[:, 0].tolist() == sorted(path[: depth + 1])


def test_one_path_needs_no_mask_of_its_own() -> None:
    assert TreeBatch.of([token_tree([[1, 2, 3]]), token_tree([[1, 2]])]).sees is None


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen3", "mistral", "gpt_oss"])
def test_sentences_that_share_a_sequence_score_as_each_alone(architecture: str) -> None:
    """Also behind beginnings of different length, and with a sliding window."""
    model = tiny_models.tiny_model(architecture)
    assert packs(model)
    traces = [reference_forward.with_given(trace) for trace in tiny_models.traces(3)]
    subjects, _ = find_subjects(model, traces, readout_of(model, None, GENERAL))
    families = [subject.rows for subject in subjects]
    with torch.no_grad():
        together = score(model, families)
        alone = [torch.cat([score(model, [[row]])[0] for row in family]) for family in families]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
