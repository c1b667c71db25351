"""A probe's run with a sparse autoencoder: its tables, and every other table as without it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from killed_processes import n_changes, results, run_in_child
from sparse_autoencoders import random_sae
from tiny_models import traces as tiny_traces

import safekey_interp as ski
from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.runs.run_folder import TABLES_OF_PROBES

OF_SAE = ("sae_separability", "sae_latents")
POSITIONS = ("decision", "prompt")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Runs with and without the same SAE, the first killed in the middle, and what they were made of."""
    folder = tmp_path_factory.mktemp("probe")
    model, traces = load("organism:sft"), list(ski.read_traces(str(organism.TRACES), limit=48))
    sae = random_sae(folder / "sae", model.d_model, n_latents=100, layer=2)
    about = {"layers": [2, 3], "chunk": 16, "n_examples": 2, "positions": POSITIONS}
    plain = ski.run_probe(model, traces, out=folder / "plain", **about)
    run = ski.run_probe(model, traces, out=folder / "run", sae=folder / "sae", **about)
    return model, traces, sae, plain, run


def test_the_run_has_what_the_functions_give(made) -> None:
    model, traces, sae, _, run = made
    table = ski.measure_latents(model, traces, sae, positions=POSITIONS)
    pd.testing.assert_frame_equal(run.sae_latents, table, rtol=1e-4, atol=1e-6, check_dtype=False)
    probes = ski.measure_separability(model, traces, features=sae, positions=POSITIONS)
    pd.testing.assert_frame_equal(run.sae_separability, probes, rtol=1e-4, atol=1e-6, check_dtype=False)


def test_every_other_table_is_as_without_the_sae_and_the_manifest_says_which_it_was(made) -> None:
    *_, sae, plain, run = made
    for name in TABLES_OF_PROBES:
        if name not in OF_SAE and (plain.path / f"{name}.parquet").is_file():
            assert (plain.path / f"{name}.parquet").read_bytes() == (run.path / f"{name}.parquet").read_bytes(), name
    assert [name for name in OF_SAE if (plain.path / f"{name}.parquet").exists()] == []
    assert "sae" not in plain.manifest["settings"]
    assert run.manifest["settings"]["sae"] == sae.record()


def test_findings_and_page_say_what_the_latents_tell(made) -> None:
    *_, plain, run = made
    [line] = [line["text"] for line in run.findings["summary"] if line["label"] == "SAE"]
    first = run.sae_latents.iloc[0]
    assert f"latent {first['latent']} of layer 2" in line
    assert line in [finding["text"] for finding in run.findings["findings"]]
    assert "Which latents of the SAE" in ski.write_report(run.path).read_text(encoding="utf-8")
    assert "SAE" not in ski.write_report(plain.path).read_text(encoding="utf-8")


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_same_tables(tmp_path: Path) -> None:
    random_sae(tmp_path / "sae", 32)
    settings = {"chunk": 4, "n_examples": 3, "sae": tmp_path / "sae"}
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert run_in_child(tiny_traces(12), whole, **settings) == 0
    assert (whole / "sae_latents.parquet").is_file()
    n = n_changes(whole)
    for at in (n // 3, n // 2):
        assert run_in_child(tiny_traces(12), out, kill_at=at, **settings) == -9
    assert run_in_child(tiny_traces(12), out, **settings) == 0
    assert results(out) == results(whole)


def test_an_sae_that_cannot_be_read_or_is_of_another_model_is_refused_before_anything_is_written(
    made, tmp_path: Path
) -> None:
    model, traces, *_ = made
    random_sae(tmp_path / "narrow", 64)
    for sae, said in ((tmp_path / "absent", "no such file"), (tmp_path / "narrow", "of width 64")):
        with pytest.raises(ski.InputError, match=said):
            ski.run_probe(model, traces, out=tmp_path / "run", sae=sae)
    assert not (tmp_path / "run").exists()
