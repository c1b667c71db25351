"""A metric along the tokens of a trace is what the same metric says at each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_forward
import tiny_models
import torch

from safekey_interp.errors import InputError
from safekey_interp.experiments.intervene_run import run_intervention
from safekey_interp.generation.likelihood import score
from safekey_interp.interventions.metric_registry import parse_metric
from safekey_interp.interventions.metric_trajectory import measure_trajectory
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.trajectory import summarise_trajectory
from safekey_interp.reporting.report_file import write_report
from safekey_interp.segmentation.segmenter import segment

METRICS = ['logit_difference("a", "b")', 'logprob(" open the door")', "aha"]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
@pytest.mark.parametrize("notation", METRICS)
def test_every_token_has_the_metric_at_that_token(architecture: str, notation: str) -> None:
    model, [trace] = tiny_models.tiny_model(architecture), reference_forward.with_spans(1)
    table: Any = measure_trajectory(model, [trace], metric=notation, finder="given")
    segmentation = segment(trace, finder="given")
    n = len(model.encode(trace, segmentation).input_ids)
    assert list(table["position"]) == list(range(n)) * table["reader"].nunique()
    for position in (1, n // 2, n - 1):
        metric = parse_metric(f"{notation} at token({position})").bind(model, None)
        with torch.inference_mode():
            [by_row] = score(model, [metric.rows(model, trace, segmentation, None)])
        for number, value in enumerate(metric.values(by_row.numpy()[None])[0]):
            mine = table[(table["reader"] == number) & (table["position"] == position)]
            np.testing.assert_allclose(mine["score"], value, atol=1e-4)
    assert table.groupby("reader")["score"].nunique().gt(2).all()


def test_a_probe_as_a_metric_is_a_reader() -> None:
    model, traces = tiny_models.tiny_model("llama"), reference_forward.with_spans(2)
    vector = np.eye(model.d_model)[0]
    direction: Any = Direction(vector=vector, norm=2.0, layer=1, site="resid_post")
    options: Any = {"controls": (), "finder": "given"}
    as_metric, as_reader = (
        measure_trajectory(model, traces, **{name: direction}, **options) for name in ("metric", "readers")
    )
    assert as_metric.equals(as_reader)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (
            {"metric": "key_sentence"},
            "metric key_sentence: it is read where it stands",
        ),
        ({"metric": "logprob(answer)"}, r"metric logprob\(answer\): it is read where it stands"),
        ({"metric": lambda logits, encoding: 0.0}, "it is read where it stands"),
        ({"metric": 'logprob("a") at end'}, "a trajectory reads it at every token; leave 'at end' out"),
        ({}, "readers, metric: got neither"),
        ({"metric": "aha", "readers": []}, "readers, metric: got both"),
    ],
)
def test_what_has_no_trajectory_is_refused_in_a_line(asked: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        measure_trajectory(tiny_models.tiny_model("llama"), reference_forward.with_spans(1), finder="given", **asked)


def test_a_run_reads_metrics_and_its_page_says_them(tmp_path: Path) -> None:
    model, traces = tiny_models.tiny_model("llama"), reference_forward.with_spans(4)
    labelled = [trace.with_(label=("correct", "wrong")[number % 2]) for number, trace in enumerate(traces)]
    asked: Any = {"metric": METRICS[:2], "align": "last(prompt)", "finder": "given"}
    run = run_intervention("trajectory", model, labelled, out=tmp_path / "run", **asked)
    summary = summarise_trajectory(run.effects)
    assert dict(zip(summary["metric"], summary["unit"], strict=True)) == dict(
        zip(METRICS, ("logits", "nats per token"), strict=False)
    )
    told = [finding["text"] for finding in run.findings["findings"] if finding["question"] == "did"]
    assert all(f"the mean {name} (" in text for name, text in zip(METRICS, told, strict=False))
    assert run.manifest["settings"]["metric"] == METRICS[:2]
    assert "fit_position" not in run.manifest["settings"]
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "K’s first token" not in page
    assert "was read at every token" in page
