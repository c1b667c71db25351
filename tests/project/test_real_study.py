"""The study of a trained SmolLM2: its gate and verdicts find what is planted and nothing else, its data are apart, and
its cells resume to the same bits."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import Type
from study_files import prompts as made_up_prompts
from study_files import write_study_files
from tiny_models import BASE, byte_level_tokenizer
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from analysis import study_queue
from analysis.contrast_verdicts import EXCLUDED, LEVEL, OPEN, SHOWN, error_of_arms, verdict_told, verdicts
from analysis.paper.runs_evidence import trained_smollm2
from analysis.real_model import (
    real_study_design,
    real_study_job,
    real_study_pilot,
    real_study_prompts,
    real_study_report,
    real_study_selection,
    real_study_shipping,
)
from analysis.real_model.real_study_audit import agreement, doubt, read_sheet, write_sheet
from analysis.real_model.real_study_choice import Chosen, begin_with, read_chosen, save_pilot, write_chosen
from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import (
    ARMS,
    CONTRASTS,
    GO,
    GRID,
    LEAST_FOUND,
    MOST_STYLE,
    PRIMARY,
    SEEDS,
    SETTINGS,
    SHIPPED,
    SHUFFLED_SEEDS,
    Setting,
    Sizes,
)
from analysis.real_model.real_study_gate import check_style, masked, style
from analysis.real_model.real_study_interventions import COMMANDS, commands, interventions, one_of_each
from analysis.real_model.real_study_job import (
    Cell,
    Record,
    cells,
    config_of,
    is_done,
    read_alike,
    record_of,
    run,
    words_auroc,
)
from analysis.real_model.real_study_openings import opened, understanding_of
from analysis.real_model.real_study_pilot import is_go, shares, trial
from analysis.real_model.real_study_prompts import form_of
from analysis.real_model.real_study_report import report
from analysis.real_model.real_study_results import (
    Results,
    counted,
    gather,
    known_records,
    read,
    read_answers,
    save,
    with_words,
)
from analysis.real_model.real_study_selection import save_selection
from analysis.real_model.real_study_shipping import make_adapter, ship_adapters
from analysis.real_model.real_study_verdicts import decided, stage_of, unseen
from analysis.real_model.real_study_wrappers import FAMILIES, WRAPPERS, wrappers_of
from analysis.study_queue import settings_that_count
from safekey_interp.cli.app import command_named
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError
from safekey_interp.models import checkpoints, smollm2_adapters
from safekey_interp.models.model import Model, from_hf, load
from safekey_interp.runs.run_folder import open_run
from safekey_interp.segmentation.segmenter import segment_all

SETTING = Setting(1e-3, 0.25)
CHOSEN = Chosen(SETTING, True, 0.2, 0.5, 5e-4)
AHA = dict.fromkeys([cell.arm for cell in cells()], 0.5) | {"both": 0.85}
"""Planted shares of safe key sentences: both losses move them, nothing else does."""


def tiny() -> Model:
    """A small random model with room for the study's texts."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](**BASE | {"max_position_embeddings": 2048})
    return from_hf(AutoModelForCausalLM.from_config(config, dtype=torch.float32), byte_level_tokenizer(), spec="tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_study_files(folder)
    return folder


@pytest.fixture(scope="module")
def study(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A study of a tiny model, few prompts and few steps, after its pilot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_study_prompts, "TESTS", Sizes(harmful=4, harmless=12, wrappers=1, xstest=2))
        patch.setattr(real_study_prompts, "DEVELOPMENT", Sizes(harmful=2, harmless=6, wrappers=1, xstest=0))
        patch.setattr(real_study_selection, "N_TRACES", 40)
        quick = ("max_length=1024", "max_steps=24", "save_every=4", "batch_size=4", "micro_batch_size=4")
        patch.setattr(real_study_job, "SETTINGS", (*SETTINGS, *quick))
        patch.setattr(real_study_job, "ANSWER_LIMIT", 8)
        made = Study(tmp_path_factory.mktemp("study"), data, tiny)
        write_chosen(made.out / "chosen.json", CHOSEN)
        yield made


def finish(study: Study, *wanted: Cell) -> None:
    """Run cells that no test before has run."""
    for cell in wanted:
        if not is_done(cell, study):
            run(cell, study)


def with_frames(frames: dict[str, tuple[int, ...]]) -> list[Trace]:
    """Traces of both labels; ``frames`` says which frames of U a label has."""
    made = []
    for label in ("harmful", "benign"):
        for number, prompt in enumerate(made_up_prompts(80, len(label))):
            frame = frames[label][number // 4 % len(frames[label])]
            trace = Trace(trace_id=f"{label} {number}", prompt=prompt, response="", label=label)
            made.append(opened(trace.with_(meta={"request": prompt}), "Hmm.", frame=frame))
    return made


def made_up(aha: dict[str, float], *, seed: int = 0, of: list[Cell] | None = None) -> Results:
    """Answers of made-up models: their share of safe K, with noise of prompts and seeds."""
    rng = np.random.default_rng(seed)
    tests = [w.name for w in wrappers_of("test")]
    rows, mechanism = [], []
    prompt_noise = 0.1 * rng.normal(size=72)
    for cell in of or cells():
        run_noise = 0.02 * rng.normal()
        for number in range(72):
            for turn in range(3):
                wrapper = tests[(3 * number + turn) % len(tests)]
                safe = rng.random() < np.clip(aha[cell.arm] + prompt_noise[number] + run_noise, 0, 1)
                about = {"request": f"p{number}", "source": "wrapped", "label": "harmful", "wrapper": wrapper}
                judged = "full_refusal" if safe or turn else "compliance"
                read_ = {"aha": "safe" if safe else "neutral", "found": True, "hint": True, "judged": judged}
                odds = {"log_odds": 2.0 * safe - 1 + 0.1 * rng.normal()}
                rows.append(cell._asdict() | about | {"family": "role"} | read_ | odds)
        mechanism.append(cell._asdict() | {"what": "auroc", "layer": 0, "value": 0.7})
    records = [Record(*cell, "", "", "", "", 1.0) for cell in of or cells()]
    return Results(counted(pd.DataFrame(rows)), pd.DataFrame(mechanism), CHOSEN, tuple(records))


# The gate


@pytest.mark.slow
def test_the_gate_lets_labels_of_one_style_pass() -> None:
    found = style(with_frames({"harmful": (0, 1, 2), "benign": (0, 1, 2)}))
    assert found.passes
    assert found.frame < 0.6


@pytest.mark.slow
def test_the_gate_stops_labels_of_two_styles() -> None:
    traces = with_frames({"harmful": (0,), "benign": (1, 2)})
    assert style(traces).frame > 0.9
    with pytest.raises(
        InputError, match=f"AUROC .*expected at most {MOST_STYLE}; give both labels the same kinds of U"
    ):
        check_style(traces)


def test_the_gate_reads_u_without_the_request_whatever_its_case() -> None:
    for prompt in ("Write about frogs", "What is a frog?", "How do I find a frog?"):
        for number in range(3):
            trace = Trace(trace_id="1", prompt=f"Please answer. {prompt}", response="", meta={"request": prompt})
            assert "frog" not in masked(opened(trace, "Hmm.", frame=number))


def test_one_label_alone_is_refused() -> None:
    with pytest.raises(InputError, match="gate: one class only"):
        style([t for t in with_frames({"harmful": (0,), "benign": (0,)}) if t.label == "benign"])


# Data


@pytest.mark.slow
def test_tests_development_and_training_share_no_prompt(study: Study) -> None:
    asked = study.prompts
    tests, development = ({t.meta["request"] for t in part} for part in (asked.tests, asked.development))
    training = {trace.meta["request"] for trace in study.traces(SETTING)}
    assert not tests & development
    assert not (tests | development) & training
    duplicate = next(t for t in (study.data / "star1.jsonl").read_text().splitlines() if " now?" in t)  # type: ignore[operator]
    assert json.loads(duplicate)["prompt"] not in {trace.prompt for trace in asked.harmful}
    assert len(asked.harmful) == 99


def test_wrappers_are_balanced_and_those_of_tests_are_in_no_other_part(study: Study) -> None:
    for label in ("harmful", "benign"):
        of = Counter(t.meta["wrapper"] for t in study.prompts.tests if t.source == "wrapped" and t.label == label)
        assert set(of) == {w.name for w in wrappers_of("test")}
        assert len(set(of.values())) == 1
    shown = {trace.meta["wrapper"] for trace in study.traces(SETTING)} - {"plain"}
    assert shown <= {w.name for w in wrappers_of("shown")}
    assert {t.meta["wrapper"] for t in study.prompts.development} - {"plain"} <= {
        w.name for w in wrappers_of("development")
    }


def test_wrappers_say_the_whole_request() -> None:
    assert Counter(w.split for w in WRAPPERS) == {"shown": 6, "development": 6, "test": 12}
    assert Counter(w.family for w in wrappers_of("test")) == dict.fromkeys(FAMILIES, 2)
    assert len({w.name for w in WRAPPERS}) == len({w.template for w in WRAPPERS}) == len(WRAPPERS)
    for wrapper in WRAPPERS:
        said = wrapper.around("alpha beta gamma delta epsilon")
        assert all(said.count(word) == 1 for word in ("alpha", "beta", "gamma", "delta", "epsilon")), wrapper.name


def test_training_traces_are_alike_but_for_what_they_ask(study: Study) -> None:
    traces = study.traces(SETTING)
    harmful, benign = ([t for t in traces if t.label == label] for label in ("harmful", "benign"))
    assert len(harmful) == len(benign) == 40
    frames = [Counter((form_of(t.meta["request"]).form, masked(t)) for t in part) for part in (harmful, benign)]  # type: ignore[union-attr]
    assert frames[0] == frames[1]
    assert Counter(t.meta["wrapper"] for t in harmful) == Counter(t.meta["wrapper"] for t in benign)
    assert sum(t.meta["wrapper"] != "plain" for t in harmful) == 40 * SETTING.wrapped
    for trace, found in zip(traces, segment_all(traces), strict=True):
        assert (found.understanding, found.key_sentence) == tuple(trace.given.values()), trace.response
        assert (found.aha == "safe") == (trace.label == "harmful")


def test_a_request_that_u_cannot_restate_is_refused() -> None:
    assert form_of("I feel bad. Why?") is None
    assert form_of("My dog ate it") is None
    with pytest.raises(InputError, match="expected a question or a task in one sentence"):
        understanding_of("My dog ate it")


def test_missing_files_and_too_few_prompts_are_said(tmp_path: Path, study: Study) -> None:
    with pytest.raises(InputError, match=r"prompts_jailbreakbench\.jsonl is missing"):
        _ = Study(tmp_path, tmp_path).prompts
    with pytest.raises(InputError, match="--data: expected the folder"):
        _ = Study(tmp_path).prompts
    write_study_files(tmp_path / "few", n_harmless=40)
    with pytest.raises(InputError, match="expected 40"):
        Study(study.out, tmp_path / "few", tiny).traces(SETTING)


# Go or no-go


def test_a_go_leaves_room_in_both_directions_and_reads_as_reasoning() -> None:
    good = {"wrapped": 0.5, "found": 0.95, "plain": 0.9, "plain_harmless": 0.1}
    assert is_go(good)
    for change in (
        {"wrapped": GO[0] - 0.01},
        {"wrapped": GO[1] + 0.01},
        {"found": LEAST_FOUND - 0.01},
        {"plain": 0.7},
        {"plain_harmless": 0.3},
    ):
        assert not is_go(good | change), change


def test_shares_of_development_count_each_kind_apart() -> None:
    asked = [
        Trace(
            trace_id=f"{label} {source}",
            prompt="What is it?",
            response="",
            label=label,
            source=source,
            meta={"wrapper": source, "family": "role"},
        )
        for label in ("harmful", "benign")
        for source in ("plain", "wrapped")
    ]
    u = "<think>\nOkay, the user is asking what it is."
    said = [f"{u} Hmm, that could seriously hurt someone.", f"{u} Let me start.", f"{u} Let me start.", "…"]
    found = shares(counted(read_answers(asked, said)))
    assert found == {"wrapped": 0.0, "wrapped_harmless": 0.0, "plain": 1.0, "plain_harmless": 0.0, "found": 0.75}


def test_settings_are_tried_without_wrapped_traces_first() -> None:
    assert len(set(GRID)) == len(GRID)
    assert [setting.wrapped for setting in GRID] == sorted(setting.wrapped for setting in GRID)


# Verdicts


def _verdicts_of(effect: float, seeds: Any, rng: np.random.Generator, *, pooled: bool = True) -> list[Any]:
    """Of made-up arms, whose seeds are apart by ``seeds``; the arm ``both`` has an effect."""
    cells = {}
    for arm, apart in zip(ARMS, np.broadcast_to(seeds, len(ARMS)), strict=True):
        n = len(SHUFFLED_SEEDS) if arm == "DPSH shuffled" else len(SEEDS)
        by = apart * rng.normal(size=(n, 1)) + 0.07 * rng.normal(size=(1, 72)) + 0.21 * rng.normal(size=(n, 72))
        cells[arm] = by + effect * (arm == "both")
    means = np.full((len(ARMS), len(SEEDS)), np.nan)
    for number, values in enumerate(cells.values()):
        means[number, : len(values)] = values.mean(1)
    apart = {}
    for contrast in CONTRASTS:
        n = min(len(cells[arm]) for arm in contrast[:2])
        apart[contrast] = (cells[contrast.first][:n] - cells[contrast.second][:n])[np.newaxis]
    return verdicts(apart, PRIMARY, LEVEL, error_of_arms(means) if pooled else None)


@pytest.mark.parametrize(
    "seeds", [0.03, 0.10, (0.03, 0.03, 0.10, 0.10, 0.10, 0.03), (0.03, 0.03, 0.03, 0.15, 0.03, 0.03)], ids=str
)
def test_without_an_effect_hardly_ever_is_a_contrast_shown(seeds: Any) -> None:
    n, rng = 300, np.random.default_rng(0)
    wrong = sum(any(row.verdict == SHOWN for row in _verdicts_of(0.0, seeds, rng)) for _ in range(n))
    assert wrong / n <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / n)


def test_three_seeds_of_a_contrast_alone_show_null_contrasts_too_often() -> None:
    """Why the variance of seeds is that of all arms."""
    n, rng = 300, np.random.default_rng(0)
    wrong = sum(any(row.verdict == SHOWN for row in _verdicts_of(0.0, 0.10, rng, pooled=False)) for _ in range(n))
    assert wrong / n > 2 * LEVEL


@pytest.mark.parametrize(("seeds", "least"), [(0.03, 0.7), (0.05, 0.5)])
def test_a_planted_effect_of_arms_is_shown(seeds: float, least: float) -> None:
    rng, n = np.random.default_rng(1), 100
    assert np.mean([_verdicts_of(0.25, seeds, rng)[0].verdict == SHOWN for _ in range(n)]) >= least


@pytest.mark.parametrize("seeds", [0.01, 0.03, 0.10], ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_effect_of_the_smallest_size_of_interest_is_hardly_ever_excluded(seeds: float, sign: int) -> None:
    rng, n = np.random.default_rng(3), 200
    effect = sign * PRIMARY.smallest
    wrong = sum(_verdicts_of(effect, seeds, rng)[0].verdict == EXCLUDED for _ in range(n))
    assert wrong / n <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / n)
    small = [_verdicts_of(0.0, 0.003, rng)[0].verdict == EXCLUDED for _ in range(100)]
    assert np.mean(small) > 0.5, "the tests exclude nothing"


def test_what_is_shown_against_the_question_is_said() -> None:
    rng = np.random.default_rng(2)
    assert verdict_told(_verdicts_of(0.4, 0.02, rng)[0], PRIMARY) == SHOWN
    assert verdict_told(_verdicts_of(-0.4, 0.02, rng)[0], PRIMARY) == "shown, in the other direction"


def test_the_error_of_arms_is_that_of_their_seeds() -> None:
    rng, n = np.random.default_rng(3), 200
    means = rng.normal(size=(n, 1)) + rng.normal(size=(1, 3)) + 0.2 * rng.normal(size=(n, 3))
    found = error_of_arms(means)
    assert found is not None
    assert found.freedom == (n - 1) * 2
    assert np.sqrt(found.variance) == pytest.approx(0.2, rel=0.1)
    means[0, 2] = np.nan
    assert error_of_arms(means).freedom == (n - 1) * 2 - 1  # type: ignore[union-attr]
    assert error_of_arms(means[:1]) is None


def test_a_planted_effect_is_shown_and_no_other(tmp_path: Path) -> None:
    results = made_up(AHA)
    for outcome in CHOSEN.outcomes:
        found = {one.tested.contrast[:2]: one.tested for one in decided(results, outcome)}
        for pair in (("both", "SFT"), ("both", "DPSH")):
            assert found[pair].verdict == SHOWN
            assert found[pair].low > 0
        others = [row.verdict for pair, row in found.items() if pair[0] != "both"]
        assert set(others) <= {EXCLUDED, OPEN}
    text = report(results)
    assert text["real-study-safe"].count("\n| ") == len(CONTRASTS) + 1
    full = unseen(results.answers[results.answers["way"] == "full"], "harmful")
    told = [
        f"{full['refused'][which].mean():.2f} ({int(which.sum()):,})" if which.any() else "–"
        for which in (full["safe"], full["go_ahead"], ~full["safe"] & ~full["go_ahead"])
    ]
    assert f"| wrapped | harmful | {' | '.join(told)} |" in text["real-study-answers"]
    save(results, tmp_path)
    again = read(tmp_path)
    assert report(again) == text
    shipped = pd.read_parquet(tmp_path / "real-study.parquet")
    assert not {"prompt", "response"} & set(shipped.columns)


def test_nothing_is_tested_before_the_end_or_after_a_no_go() -> None:
    some = made_up(AHA, of=cells()[:8])
    assert "8 of 19 runs; nothing is tested yet" in stage_of(some).name
    no_go = made_up(AHA)._replace(chosen=CHOSEN._replace(go=False))
    assert "no-go" in stage_of(no_go).name
    for results in (some, no_go):
        assert {one.tested.verdict for one in decided(results, PRIMARY)} == {OPEN}
        assert "| open |" in report(results)["real-study-safe"]


def test_the_runs_that_ship_are_no_part_of_a_verdict() -> None:
    results = made_up(AHA)
    answers = results.answers
    turned = answers.assign(safe=answers["safe"].where(answers["way"] == "full", ~answers["safe"]))
    assert decided(results, PRIMARY) == decided(results._replace(answers=turned), PRIMARY)


def test_claims_rest_on_the_study_once_it_is_whole_and_a_go(tmp_path: Path) -> None:
    for name in ("some", "no-go"):
        (tmp_path / name).mkdir()
    save(made_up(AHA, of=cells()[:8]), tmp_path / "some")
    save(made_up(AHA)._replace(chosen=CHOSEN._replace(go=False)), tmp_path / "no-go")
    for name in ("some", "no-go", "none"):
        assert trained_smollm2(tmp_path / name) == []
    save(made_up(AHA), tmp_path)
    found = {one.claim: one for one in trained_smollm2(tmp_path)}
    assert {claim: one.verdict == "supports" for claim, one in found.items()} == {"6a": False, "6b": False, "6c": True}
    assert not any(one.toy for one in found.values())
    assert all("3 seeds" in one.note and "not audited by hand" in one.note for one in found.values())
    assert all("; on the log-odds of a safe K: " in one.note for one in found.values())


# Cells


def test_the_design_has_a_run_of_every_arm() -> None:
    assert {cell.arm for cell in cells()} == set(ARMS)


@pytest.mark.slow
def test_the_words_that_all_runs_read_are_measured_beside_the_probes(study: Study, tmp_path: Path) -> None:
    finish(study, Cell("SFT", 1))
    plain = gather(study, tmp_path)
    found = with_words(plain, study)
    save(found, tmp_path)
    assert report(read(tmp_path)) == report(found)
    told = report(found)["real-study-mechanism"]
    assert re.match(r"AUROC of the words up to .*: [01]\.\d\d\n", told)
    assert told.endswith(report(plain)["real-study-mechanism"])
    assert words_auroc(study.base(), read_alike(study.prompts.tests)) == found.mechanism["value"].iloc[-1]


def test_arms_of_a_seed_differ_in_their_losses_alone(tmp_path: Path) -> None:
    assert len(cells()) == len({cell.name for cell in cells()}) == 19
    losses = {"head_weight", "query_mask_weight", "key_weight", "shuffled_labels"}
    full = [config_of(cell, tmp_path, CHOSEN).to_dict() for cell in cells() if cell.seed == 1 and cell.way == "full"]
    rests = [{name: value for name, value in config.items() if name not in losses} for config in full]
    assert all(rest == rests[0] for rest in rests)
    assert len({str([config[name] for name in sorted(losses)]) for config in full}) == len(full) == 6
    for arm in SHIPPED.values():
        plain, lora = (config_of(Cell(arm, 1, way), tmp_path, CHOSEN) for way in ("full", "LoRA"))
        assert dataclasses.replace(lora, lora_rank=None, learning_rate=plain.learning_rate) == plain
        assert (plain.learning_rate, lora.learning_rate) == (SETTING.rate, CHOSEN.lora_rate)


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bits(study: Study) -> None:
    cell = Cell("both", 1)
    finish(study, cell)
    other = study.beside("killed")
    child = multiprocessing.get_context("fork").Process(target=run, args=(cell, other))
    child.start()
    while not list(other.out.glob("work/*/checkpoints/checkpoint-*")):
        assert child.is_alive()
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert not is_done(cell, other)
    assert list(other.out.glob("work/*/checkpoints/checkpoint-*"))
    run(cell, other)
    first, second = record_of(cell, study), record_of(cell, other)
    assert first is not None
    assert second is not None
    assert first.bits == second.bits
    assert not list(other.out.glob("work/*"))
    assert len(gather(other).answers) == len(study.prompts.tests)


@pytest.mark.slow
def test_a_cell_of_other_settings_is_not_taken_for_done(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("SFT", 1)
    finish(study, cell)
    monkeypatch.setattr(real_study_job, "SETTINGS", (*real_study_job.SETTINGS, "max_steps=3"))
    assert not is_done(cell, study)
    with pytest.raises(InputError, match="no cell is done"):
        report(gather(study))


@pytest.mark.slow
def test_a_queue_in_a_new_clone_goes_on_behind_the_runs_that_ship(study: Study, tmp_path: Path) -> None:
    done, other = Cell("SFT", 1), study.beside("new clone")
    finish(study, done)
    save(gather(study, tmp_path), tmp_path)
    assert set(known_records(other, tmp_path)) == set(known_records(study, tmp_path)) >= {done}
    assert not is_done(done, other)
    assert report(gather(other, tmp_path)) == report(gather(study, tmp_path))
    run(done, other)
    assert known_records(other, tmp_path)[done].bits == known_records(study, tmp_path)[done].bits
    other.__dict__["chosen"] = CHOSEN._replace(setting=Setting(2e-3, 0.25))
    assert not known_records(other, tmp_path), "runs of another choice are not taken for done"


def test_the_pilot_takes_the_first_go_of_full_runs_and_of_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []
    aha = {("full", 5e-5): 0.1, ("full", 1e-4): 0.5, ("LoRA", 5e-4): 0.05, ("LoRA", 1e-3): 0.25, ("LoRA", 2e-3): 0.95}

    def tried(setting: Setting, _: Study, way: str = "full") -> dict[str, Any]:
        asked.append((way, setting.rate))
        shares = {"wrapped": aha[way, setting.rate], "wrapped_harmless": 0.1, "plain": 0.9, "plain_harmless": 0.0}
        return {"setting": setting._asdict(), "found": 1.0, "log_odds": -1.0, "smallest": 0.7} | shares

    monkeypatch.setattr(real_study_pilot, "trial", tried)
    monkeypatch.setattr(real_study_pilot, "matched", lambda *_: (0.3, 0.9))
    text = real_study_pilot.pilot(Study(tmp_path))
    assert read_chosen(tmp_path / "chosen.json") == Chosen(Setting(1e-4, 0.0), True, 0.3, 0.7, 1e-3)
    assert asked == list(aha), "full runs end at their first go; LoRA has none, and the nearest is taken"
    assert "query-mask modelling: 0.3; it has 0.90 of that dose" in text
    assert "by LoRA: 0.001; by the same rules no go" in text


@pytest.mark.slow
def test_a_pilot_in_a_new_clone_goes_on_behind_what_ships(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trial(SETTING, study)
    assert save_pilot(study.out, tmp_path) == 1
    other = Study(tmp_path / "clone", study.data, tiny)
    begin_with(other.out, tmp_path)
    assert other.chosen == study.chosen
    monkeypatch.setattr(real_study_pilot, "tuned", lambda *_: pytest.fail("it was trained again"))
    assert trial(SETTING, other) == found
    monkeypatch.setattr(real_study_job, "SETTINGS", (*real_study_job.SETTINGS, "max_steps=3"))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        trial(SETTING, other)


def test_a_selection_that_ships_makes_the_same_traces_whatever_the_finder_says(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces, files = study.traces(SETTING), (tmp_path / "training.jsonl", tmp_path / "answers.jsonl")
    for name, file in zip(("SELECTED", "BENIGN_ANSWERS"), files, strict=True):
        monkeypatch.setattr(real_study_selection, name, file)
    save_selection(*study.selection)
    written = [file.read_text() for file in files]
    assert not any(trace.meta["request"] in text for trace in traces for text in written)
    assert not any(trace.response[-20:] in written[0] for trace in traces)
    monkeypatch.setattr("analysis.smollm2.data.generate", lambda *_, **__: pytest.fail("it was generated again"))
    monkeypatch.setattr(real_study_selection, "segment", lambda *_: pytest.fail("it was segmented again"))
    monkeypatch.setattr(real_study_selection, "sentences", lambda *_: pytest.fail("it was cut again"))
    assert Study(tmp_path / "clone", study.data, tiny).traces(SETTING) == traces


def test_the_selection_that_ships_is_whole_and_without_texts() -> None:
    rows = [json.loads(line) for line in real_study_selection.SELECTED.read_text().splitlines()]
    assert len(rows) == real_study_design.N_TRACES
    assert all(len(row["sha256"]) == 16 for row in rows)
    numbers = [value for row in rows for name, value in row.items() if name not in ("harmful", "benign", "sha256")]
    assert all(isinstance(value, int) or all(isinstance(one, int) for one in value) for value in numbers)


def test_results_that_would_be_lost_are_not_written_over(tmp_path: Path) -> None:
    record = Record("SFT", 1, "full", "i", "w", "a", "m", 1.0)
    both = made_up(AHA, of=cells()[:2])._replace(records=(record, record._replace(arm="DPSH")))
    save(both, tmp_path)
    with pytest.raises(InputError, match="has seed1-DPSH, which these settings and data do not know"):
        save(both._replace(records=(record,)), tmp_path)
    assert len(read(tmp_path).records) == 2


def test_a_new_option_at_its_default_changes_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(Cell("SFT", 1), Path("o"), CHOSEN)
    known = settings_that_count(config, ("out",))
    assert known["seed"] == 1
    monkeypatch.setattr(study_queue, "_KNOWN", study_queue._KNOWN - {"theta", "batch_size"})
    later = settings_that_count(config, ("out",))
    assert "theta" not in later
    assert later["batch_size"] == known["batch_size"]


@pytest.mark.slow
def test_the_audit_is_blind_and_agrees_with_itself(study: Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no cell is done"):
        write_sheet(study.beside("empty"), tmp_path)
    finish(study, Cell("SFT", 1))
    sheet = write_sheet(study, tmp_path)
    rows = [json.loads(line) for line in sheet.read_text().splitlines()]
    assert {frozenset(row) for row in rows} == {frozenset({"number", "prompt", "response", "aha"})}
    with pytest.raises(InputError, match=r"sheet\.jsonl, line 1: aha is None, expected one of safe"):
        read_sheet(study.out, tmp_path)
    with pytest.raises(InputError, match="is there already"):
        write_sheet(study, tmp_path)
    key = json.loads((sheet.parent / "key.json").read_text())
    filled = [json.dumps(row | {"aha": said["aha"]}) for row, said in zip(rows, key, strict=True)]
    sheet.write_text("\n".join(reversed(filled)))
    labels = Counter(one["label"] for one in key)
    written = list(sheet.parent.iterdir())
    kept = [file.read_text() for file in written]
    for _ in range(2):  # the second time as after a kill before the sheet was moved away
        told = read_sheet(study.out, tmp_path)
        for label, words in (("harmful", "harmful"), ("benign", "harmless")):
            assert f"| all, {words} | {labels[label]} | 1.00 " in told
        shipped = json.loads((tmp_path / "real-study-audit.json").read_text())
        assert len(shipped) == len(rows)
        names = {"cell", "request", "label", "prompt", "aha", "by_hand"}
        assert {frozenset(row) for row in shipped} == {frozenset(names)}
        sheet.parent.mkdir()
        for file, text in zip(written, kept, strict=True):
            file.write_text(text)
    shutil.rmtree(sheet.parent)
    with pytest.raises(InputError, match="was in no sheet"):
        write_sheet(study, tmp_path)


def _audited(folder: Path, said: dict[str, tuple[int, int]], n: int = 18) -> None:
    """A file of what was audited: of each arm how many are safe by rules and by hand."""
    harmful, harmless = ({"label": label} for label in ("harmful", "benign"))
    rows = [
        {
            "cell": [arm, 1, "full"],
            "aha": _safe(at < rules),
            "by_hand": _safe(at < hand),
            "prompt": f"p{at}",
        }
        for arm, (rules, hand) in said.items()
        for at in range(n)
    ]
    other = {"aha": "safe", "by_hand": "unsafe"}
    lora = [{"cell": ["SFT", 1, "LoRA"], **other, **harmful, "prompt": f"p{n}"} for n in range(6)]
    # What the hand says of harmless requests is no part of the aha share.
    beside = [{"cell": ["DPSH", 1, "full"], **other, **harmless, "prompt": f"h{n}"} for n in range(12)]
    told = [*(row | harmful for row in rows), *lora, *beside]
    (folder / "real-study-audit.json").write_text(json.dumps([row | {"request": 0} for row in told]))


def _safe(is_safe: bool) -> str:
    return "safe" if is_safe else "unsafe"


def test_an_audit_against_the_finder_stands_in_the_head_of_the_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not audited by hand are SFT, DPSH" in doubt(tmp_path)
    _audited(tmp_path, {"SFT": (9, 9), "both": (17, 16)})
    assert "not audited by hand are DPSH, QMM" in doubt(tmp_path)
    alike = dict.fromkeys(ARMS, (9, 9))
    _audited(tmp_path, alike | {"both": (17, 16)})
    assert doubt(tmp_path) == ""
    assert "| SFT, LoRA | 6 | 0.00 | 0.00 | " in agreement(tmp_path)
    assert "| all, harmless | 12 | 0.00 [0.00, 0.2" in agreement(tmp_path)
    _audited(tmp_path, alike | {"both": (17, 14)})
    assert doubt(tmp_path, ("SFT", "DPSH")) == ""
    assert doubt(tmp_path) == "the finder's alone: both 0.94 by rules and 0.78 by hand (n 18)"
    _audited(tmp_path, dict.fromkeys(ARMS, (9, 13)))
    assert "agrees in 0.78" in doubt(tmp_path)
    assert "SFT 0.50 by rules and 0.72 by hand" in doubt(tmp_path, ("SFT", "DPSH"))
    assert "both" not in doubt(tmp_path, ("SFT", "DPSH"))
    monkeypatch.setattr(real_study_report, "doubt", lambda: doubt(tmp_path))
    text = report(made_up(AHA))
    assert "the finder's alone" in text["real-study-safe"].splitlines()[0]
    assert "finder's alone" not in text["real-study-log-odds"]


def test_the_choice_is_read_as_it_was_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--pilot"):
        read_chosen(tmp_path / "chosen.json")
    for chosen in (CHOSEN, CHOSEN._replace(log_odds=float("nan"), go=False)):
        write_chosen(tmp_path / "chosen.json", chosen)
        assert str(read_chosen(tmp_path / "chosen.json")) == str(chosen)


@pytest.mark.slow
def test_an_adapter_is_that_of_its_arm_and_loads_by_name(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    base = tmp_path / "base"
    tiny().hf.save_pretrained(base)
    tiny().tokenizer.save_pretrained(base)
    monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path / "cache"))
    for module, name in ((smollm2_adapters, "SHIPPED"), (real_study_shipping, "FOLDER")):
        monkeypatch.setattr(module, name, tmp_path / "none")
    monkeypatch.setattr(checkpoints, "_find_smollm2", lambda: base)
    monkeypatch.setattr(checkpoints, "dequantised", lambda file: base)
    with pytest.raises(InputError, match="SFT-LoRA is not done"):
        ship_adapters(study.beside("empty"), tmp_path / "package")
    cell = Cell("both", 1, "LoRA")
    made = make_adapter("safekey", study)
    assert json.loads((made / "adapter_config.json").read_text())["base_model_name_or_path"] == "smollm2"
    loaded = load("smollm2:safekey").hf.state_dict()
    finish(study, cell)
    trained = load(str(base), adapter=str(study.out / "cells" / cell.name / "model")).hf.state_dict()
    plain = tiny().hf.state_dict()
    moved = max(float((trained[name] - plain[name]).abs().max()) for name in plain)
    apart = max(float((trained[name] - loaded[name]).abs().max()) for name in plain)
    assert 0 < apart < 1e-3 * moved + 1e-6, "half precision alone lies between them"
    finish(study, Cell("SFT", 1, "LoRA"))
    assert 0 < ship_adapters(study, tmp_path / "package") < 6_000_000
    assert {path.name for path in (tmp_path / "package").iterdir()} == {"sft", "safekey"}
    monkeypatch.setattr(real_study_shipping, "MOST_BYTES", 10)
    with pytest.raises(InputError, match="bytes, expected at most 10"):
        ship_adapters(study, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_interventions_commands_exist_and_read_the_models_answers(study: Study) -> None:
    lines = commands(study, lambda name: tiny())
    assert len(lines) == 2 * len(COMMANDS)
    read: dict[str, Path] = {}
    for line in lines:
        _, group, name, *words = line.split()
        command = command_named(group).get_command(None, name)
        with command.make_context(name, words) as context:
            [traces] = context.params["traces"]
            read[Path(traces).stem.rsplit("-", 1)[1]] = Path(traces)
    every, wrapped, harmful = (list(read_traces(read[part])) for part in ("all", "wrapped", "harmful"))
    assert {(trace.label, trace.source) for trace in every} == {
        (label, source) for label in ("harmful", "benign") for source in ("plain", "wrapped")
    }
    n = len(wrapped) // 2
    assert [trace.trace_id for trace in wrapped[:n]] == [trace.trace_id for trace in harmful[:n]]
    assert [trace.label for trace in wrapped] == ["harmful"] * n + ["benign"] * n
    assert len(wrapped) == len({trace.group for trace in wrapped})
    assert len(harmful) == len({trace.group for trace in every if trace.label == "harmful"})


def test_one_wrapped_answer_of_each_request_is_of_all_sources_and_of_each_wrapper_equally_often() -> None:
    forms = [
        Trace(
            trace_id=f"{at}-{wrapper}",
            prompt="",
            response="",
            group=f"{at // 18}-{at}",
            source=source,
            meta={"wrapper": wrapper},
        )
        for at in range(72)
        for source, wrapper in [("plain", ""), *(("wrapped", f"{at % 4}{form}") for form in "abc")]
    ]
    chosen = one_of_each(forms)
    assert len({trace.group for trace in chosen}) == len(chosen) == 72
    assert set(Counter(trace.meta["wrapper"] for trace in chosen).values()) == {6}
    assert min(Counter(trace.group[0] for trace in chosen[:36]).values()) >= 4


_SMALLER = {
    "knockout": {"32": "24"},
    "patch": {"192": "192 --confirm 1"},
    "edges": {"24": "40", "16": "2", "19": "2"},
    "waking": {"19": "2 --limit 48", "160": "48"},
    "waking-scales": {"--scale 0.7 --scale 1": "--limit 48", "160": "48"},
}


@pytest.mark.slow
def test_tables_of_the_interventions_have_the_numbers_of_their_runs(tmp_path: Path, command: Type) -> None:
    for what, changes in _SMALLER.items():
        words = COMMANDS[what].words
        for old, new in changes.items():
            assert old in words
            words = words.replace(old, new)
        out = tmp_path / "interventions" / f"smollm2-sft-{what}"
        done = command("intervene", *words.split(), "--model", "organism:sft", "--out", out)
        assert done.status == 0, done.err
        shutil.copytree(out, out.with_name(f"smollm2-safekey-{what}"))
    tables = {name: text.splitlines() for name, text in interventions(tmp_path).items()}
    assert {name: len(lines) - 2 for name, lines in tables.items()} == {
        "real-study-knockout": 2 * 4,
        "real-study-patching": 2,
        "real-study-edges": 2 * 4,
        "real-study-waking": 2 * 2 * 3,
    }
    effects: Any = open_run(tmp_path / "interventions" / "smollm2-sft-knockout").effects
    hidden = effects[(effects["control"] == "none") & (effects["metric"] == "difference")]
    mean = hidden[(hidden["label"] == "harmful") & (hidden["to_span"] == "prompt")]["effect"].mean()
    assert tables["real-study-knockout"][2].startswith(f"| smollm2:sft | harmful | prompt | {mean:+.2f}")
    effects = open_run(tmp_path / "interventions" / "smollm2-sft-waking").effects
    added = effects[(effects["control"] == "none") & (effects["metric"] == "refused") & (effects["scale"] == 0.4)]
    harmful = added[added["label"] == "harmful"]
    [line] = [
        line for line in tables["real-study-waking"] if line.startswith("| smollm2:sft | refused, harmful | 0.4 |")
    ]
    assert line.startswith(
        f"| smollm2:sft | refused, harmful | 0.4 | {harmful['baseline'].mean():.2f} | {harmful['value'].mean():.2f}"
    )
    effects = open_run(tmp_path / "interventions" / "smollm2-sft-edges").effects
    whole = effects[(effects["cut"] == "all") & (effects["metric"] == "difference")]["effect"].mean()
    assert tables["real-study-edges"][2].startswith(f"| smollm2:sft | all 16 | {whole:+.2f}")
    assert not any("nan" in line for lines in tables.values() for line in lines)


def test_runs_again_are_of_this_processor_and_say_how_other_bits_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = Cell("SFT", 1), Cell("both", 1)
    first, second = (
        pd.DataFrame({"outcome": found, "counts": [one == "safe" for one in found]})
        for found in (["safe", "safe", "none", "unsafe"], ["safe", "none", "none", "none"])
    )

    def again(made_on: dict[Cell, str], bits: tuple[int, int]) -> list[study_queue.Again]:
        rerun = study_queue.Rerun[Cell](lambda _: None, lambda _: bits, lambda _: (first, second))
        return list(study_queue.same_again(made_on, 2, 0, rerun))

    monkeypatch.setattr(study_queue, "processor", lambda: "A")
    same = again({here: "A", there: "B"}, (1, 1))
    assert [str(one) for one in same] == ["seed1-SFT: the same bits"]
    differ = "OTHER BITS; primary outcome 0.500 and again 0.250, the same outcome in 0.500 of 4 requests"
    assert [(str(one), one.is_failure) for one in again({here: "A"}, (1, 2))] == [(f"seed1-SFT: {differ}", True)]
    (other,) = again({there: "B"}, (1, 2))
    assert str(other) == f"seed1-both: {differ}; made on B, again on A, and bits repeat on one kind of processor"
    assert not other.is_failure
    (unknown,) = again({there: ""}, (1, 2))
    assert "made on a processor that was not recorded, again on A" in str(unknown)
    assert unknown.is_failure
