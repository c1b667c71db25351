"""The Jacobian lens: what is read through it is what TransformerLens reads through the same lens."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens.tools.analysis import JacobianLens

import safekey_interp as ski
from safekey_interp.cli.app import main
from safekey_interp.errors import InputError
from safekey_interp.interventions.jacobian_transport import read_jacobian_lens, transport_of
from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.runs.storage import read_json


@pytest.fixture(scope="module")
def lens() -> Any:
    """Of the organism, on a few of its own traces."""
    model = load("organism")
    prompts = [f"{trace.prompt} {trace.response}" for trace in list(organism.read_shipped())[:6]]
    options: Any = {"skip_first_positions": 2, "dim_batch": 32, "show_progress": False}
    return JacobianLens.fit(model.bridge(), prompts, corpus="the organism's own", **options)


def test_what_is_read_is_what_transformer_lens_reads(lens: Any) -> None:
    model, traces = load("organism"), list(organism.read_shipped())[:3]
    found = ski.logit_lens(model, traces, jacobian=transport_of(lens), n_others=0)
    found = found[found["metric"] == "key_sentence"]
    assert set(found["layer"]) == {0, 1, 2, 3}
    plain = ski.logit_lens(model, traces, n_others=0)
    plain = plain[plain["metric"] == "key_sentence"]
    for trace in traces:
        encoding = model.encode(trace)
        key = encoding.spans["key_sentence"]
        ids = encoding.input_ids[: key.end][None]
        read = lens.readout(model.bridge(), ids, return_full_logits=True)
        for layer in range(4):
            logprobs = read.lens_logits[layer][key.start - 1 : key.end - 1].log_softmax(-1)
            expected = float(logprobs.gather(-1, ids[0, key.start : key.end, None]).mean())
            row = found[(found["trace_id"] == trace.trace_id) & (found["layer"] == layer)]
            assert row["value"].item() == pytest.approx(expected, abs=1e-4)
    moved = found.set_index(["trace_id", "layer"])["value"] - plain.set_index(["trace_id", "layer"])["value"]
    assert (moved.xs(3, level="layer").abs() < 1e-6).all()
    assert (moved.drop(3, level="layer").abs() > 1e-3).all()


def test_the_identity_is_the_logit_lens() -> None:
    model, traces = load("organism"), list(organism.read_shipped())[:3]
    identity = JacobianLens({n: torch.eye(model.d_model) for n in range(3)}, n_prompts=1, d_model=model.d_model)
    found = ski.logit_lens(model, traces, jacobian=transport_of(identity))
    pd.testing.assert_frame_equal(found, ski.logit_lens(model, traces), atol=1e-5)
    some = ski.logit_lens(model, traces, jacobian=transport_of(identity), layers=[-1, 1])
    assert set(some["layer"]) == {1, 3}


@pytest.mark.slow
def test_a_run_says_which_lens_it_was(lens: Any, tmp_path: Path) -> None:
    lens.save(str(tmp_path / "lens.pt"), dtype=torch.float32)
    words = ["intervene", "lens", "--jacobian", str(tmp_path / "lens.pt"), "--limit", "12", "--out"]
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*words, str(tmp_path / "run")])
    recorded = (read_json(tmp_path / "run" / "run.json") or {})["settings"]["jacobian"]
    assert recorded == read_jacobian_lens(tmp_path / "lens.pt").record
    assert "moved to the last layer by a Jacobian lens" in (tmp_path / "run" / "report.html").read_text()
    table = pd.read_parquet(tmp_path / "run" / "effects.parquet")
    assert np.isfinite(table["value"].astype(float)).all()


def test_another_model_s_lens_and_other_files_are_refused(lens: Any, tmp_path: Path) -> None:
    model, traces = load("organism"), list(organism.read_shipped())[:1]
    few = JacobianLens({0: torch.eye(8)}, n_prompts=1, d_model=8)
    with pytest.raises(InputError, match=f"of states of 8 numbers, layers 0 to 0; expected {model.d_model} numbers"):
        ski.logit_lens(model, traces, jacobian=transport_of(few))
    one = JacobianLens({1: torch.eye(model.d_model)}, n_prompts=1, d_model=model.d_model)
    with pytest.raises(InputError, match=r"no layer 0, expected some of \[1, 3\]"):
        ski.logit_lens(model, traces, jacobian=transport_of(one), layers=[0])
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(print))
    (tmp_path / "text.pt").write_text("no lens")
    for name in ("bad.pt", "text.pt"):
        with pytest.raises(InputError, match=r"cannot be read .*expected a file of .*JacobianLens.save"):
            ski.logit_lens(model, traces, jacobian=tmp_path / name)
