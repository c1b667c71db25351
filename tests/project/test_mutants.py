"""The catalogue of mutants: each text that a mutant replaces is there once, and its tests are files."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants.catalogue import MUTANTS, Mutant

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_a_change_of_one_place_and_names_its_tests(mutant: Mutant) -> None:
    text = (TESTS.parent / "safekey_interp" / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} has changed; write the mutant anew"
    compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
    assert all((TESTS / test.partition("::")[0]).exists() for test in mutant.tests.split())


def test_there_are_sixty_of_all_subjects() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 60
    packages = {mutant.file.partition("/")[0] for mutant in MUTANTS}
    assert packages >= {"capture", "measures", "training", "interventions", "evaluation", "generation", "runs"}
