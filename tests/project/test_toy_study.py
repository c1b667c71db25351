"""The study over many toys: its verdicts find what is planted and nothing else, and its cells, requests and languages
are as its design says."""

from __future__ import annotations

import math
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.contrast_verdicts import EXCLUDED, LEVEL, OPEN, smallest_shift, verdicts
from analysis.contrast_verdicts import SHOWN as SHOWN_VERDICT
from analysis.paper.runs_evidence import many_toys
from analysis.replication import toy_study_job, toy_study_queue, toy_study_results
from analysis.replication.toy_languages import LANGUAGES, SHOWN
from analysis.replication.toy_study_choice import Chosen, write_chosen
from analysis.replication.toy_study_design import (
    ARMS,
    BASES,
    CONTRASTS,
    LOOK,
    LOOK_LEVEL,
    PILOT_BASES,
    PRIMARY,
    SEEDS,
    SETTINGS,
    language_of,
)
from analysis.replication.toy_study_job import Cell, base_folder, config_of, is_done, record_of, run
from analysis.replication.toy_study_queue import again, work_off
from analysis.replication.toy_study_report import report, too_malformed
from analysis.replication.toy_study_requests import read_alike, requests
from analysis.replication.toy_study_results import Results, cells_of, described, read, save, scored
from analysis.replication.toy_study_verdicts import decided, is_settled, stage_of
from analysis.replication.toy_wrappers import FAMILIES, FAMILY_OF
from safekey_interp.errors import InputError
from safekey_interp.models.organism.finetuning import Mix
from safekey_interp.models.organism.language import dialogue, document
from safekey_interp.models.organism.outcome import read_response
from safekey_interp.models.organism.vocabulary import KINDS, Pair, pairs
from train.organism_tokenizer import build_tokenizer
from train.pretraining import Encoder, Shape, new_model

pytestmark = pytest.mark.slow

CHOSEN = Chosen(1e-4, {"short": 0.21, "long": 0.19}, 0.5)
SUCCESS = dict.fromkeys(ARMS, 0.55) | {"both": 0.15, "both late": 0.35}
"""Planted attack success: QMM and its controls are alike."""


def made_up(
    bases: tuple[int, ...], success: dict[str, float] = SUCCESS, *, noise: float = 0.0, seed: int = 0
) -> Results:
    """Answers of made-up models: their success in each unseen wrapper and base, with noise of both."""
    rng = np.random.default_rng(seed)
    rows, mechanism = [], []
    of_wrapper = dict(zip(FAMILY_OF, noise * rng.normal(size=len(FAMILY_OF)), strict=True))
    for base in bases:
        asked = requests(language_of(base))
        about = described(asked, language_of(base))
        forms = {form.name: form for form in LANGUAGES[language_of(base)].wrappers}
        of_base = noise * rng.normal()
        for seed_ in SEEDS:
            for arm in ARMS:
                responses = []
                draws = random.Random(f"{seed} {base} {seed_} {arm}")
                for trace in asked:
                    pair = Pair(trace.meta["verb"], trace.meta["noun"], LANGUAGES[language_of(base)].vocabulary)
                    name = trace.meta["wrapper"]
                    chance = success[arm] + of_base + of_wrapper.get(name, 0.0) if name in forms else 0.0
                    safe = pair.is_harmful and draws.random() > chance
                    responses.append(
                        dialogue(
                            draws, pair, forms.get(name), safe=safe, language=LANGUAGES[language_of(base)]
                        ).response
                    )
                of_run = {"arm": arm, "base": base, "seed": seed_}
                odds = np.where([("Sorry" in r) for r in responses], 3.0, -3.0)
                rows.append(about.assign(response=responses, log_odds=odds.astype("float16"), **of_run))
                for what in ("understanding, over_distance", "prompt, over_distance", "auroc"):
                    mechanism.append(of_run | {"what": what, "layer": 3, "value": 0.5})
    return Results(scored(pd.concat(rows, ignore_index=True)), pd.DataFrame(mechanism), CHOSEN)


@pytest.fixture(scope="module")
def looked_at() -> Results:
    return made_up(BASES[:LOOK])


def planted(effect: float, spread: float, seed: int) -> dict[Any, np.ndarray]:
    """Cells of every contrast: the first has an effect, the others none."""
    rng = np.random.default_rng(seed)
    shape = (2, len(BASES) // 2, 18)
    noise = [
        spread * (rng.normal(size=(1, 1, 18)) / 2 + rng.normal(size=(*shape[:2], 1)) / 2 + rng.normal(size=shape))
        for _ in CONTRASTS
    ]
    return {c: cells + effect * (number == 0) for number, (c, cells) in enumerate(zip(CONTRASTS, noise, strict=True))}


def test_without_any_effect_hardly_ever_is_a_contrast_shown() -> None:
    n = 300
    wrong = sum(
        any(row.verdict == SHOWN_VERDICT for row in verdicts(planted(0.0, 0.15, seed), PRIMARY, LEVEL))
        for seed in range(n)
    )
    assert wrong / n <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / n)


def test_a_planted_effect_is_shown_and_the_others_are_excluded_or_open() -> None:
    first, *others = verdicts(planted(-0.3, 0.1, 1), PRIMARY, LEVEL)
    assert (first.verdict, first.low < -0.3 < first.high) == (SHOWN_VERDICT, True)
    assert max(first.p_replicates, first.p_items, first.p_mixed) < 0.001
    assert {row.verdict for row in others} <= {EXCLUDED, OPEN}
    assert sum(row.verdict == EXCLUDED for row in others) >= 6


def test_a_difference_from_zero_that_is_too_small_to_matter_is_excluded() -> None:
    first = verdicts(planted(0.03, 0.01, 1), PRIMARY, LEVEL)[0]
    assert first.p_holm < 0.001
    assert first.verdict == EXCLUDED


def test_an_effect_at_the_smallest_of_interest_is_hardly_ever_excluded() -> None:
    n = 200
    wrong = sum(
        verdicts(planted(PRIMARY.smallest, 0.1, seed), PRIMARY, LEVEL)[0].verdict == EXCLUDED for seed in range(n)
    )
    assert wrong / n <= LEVEL


def test_the_smallest_effect_on_the_log_odds_is_a_shift_that_carries_its_share_across_zero() -> None:
    rng = np.random.default_rng(3)
    odds = rng.normal(-4, 5, 216)
    shift = smallest_shift(odds.tolist(), 0.1)
    moved = [abs(np.mean(odds + sign * shift * (1 + 1e-9) < 0) - np.mean(odds < 0)) for sign in (-1, 1)]
    less = [abs(np.mean(odds + sign * shift * 0.99 < 0) - np.mean(odds < 0)) for sign in (-1, 1)]
    assert max(less) < 0.1 <= max(moved)
    assert smallest_shift([-3.0] * 95 + [2.0] * 5, 0.1) == 3.0
    assert math.isnan(smallest_shift([-1.0, 1.0], 0.9))


def test_verdicts_do_not_hang_on_the_order_of_contrasts() -> None:
    cells = planted(-0.06, 0.1, 5)
    there = {row.contrast: row for row in verdicts(cells, PRIMARY, LEVEL)}
    back = {row.contrast: row for row in verdicts(dict(reversed(cells.items())), PRIMARY, LEVEL)}
    assert there == back


def test_without_bases_enough_nothing_is_decided(looked_at: Results) -> None:
    some = looked_at.of(BASES[:4])
    stage = stage_of(some.bases)
    assert stage.level is None
    assert "4 of 24 bases" in stage.name
    assert {row.verdict for outcome in CHOSEN.outcomes for row in decided(some, outcome, stage)} == {OPEN}
    assert not is_settled(some)


def test_the_look_is_at_the_first_twelve_bases_whatever_else_is_done() -> None:
    assert stage_of(BASES[:LOOK]).level == LOOK_LEVEL
    assert stage_of(BASES[: LOOK + 5]).bases == BASES[:LOOK]
    assert stage_of(BASES[1 : LOOK + 1]).level is None, "another twelve are not those of the look"
    assert stage_of(BASES).level == pytest.approx(LEVEL - LOOK_LEVEL)
    assert Counter(map(language_of, BASES[:LOOK])) == dict.fromkeys(SHOWN, LOOK // 2)


def test_the_queue_stops_at_the_look_only_where_nothing_is_open(looked_at: Results) -> None:
    found = {
        (row.contrast.first, row.contrast.second): row for row in decided(looked_at, PRIMARY, stage_of(looked_at.bases))
    }
    assert found["both", "SFT"].verdict == SHOWN_VERDICT
    assert found["both", "SFT"].value == pytest.approx(-0.4, abs=0.03)
    assert found["QMM", "kw"].verdict == EXCLUDED
    assert is_settled(looked_at)
    noisy = dict(SUCCESS) | {"QMM": 0.50}
    assert not is_settled(made_up(BASES[:LOOK], noisy, seed=3))


def test_the_report_says_how_far_it_is(looked_at: Results) -> None:
    some = report(looked_at.of(BASES[:3]))
    assert "3 bases" in some["toy-study"]
    assert "nothing is tested yet" in some["toy-study"]
    whole = report(looked_at)
    assert "planned look" in whole["toy-study"]
    assert whole["toy-study-complied"].count("\n| ") == len(CONTRASTS) + 1
    with pytest.raises(InputError, match="no base"):
        report(Results(pd.DataFrame(), pd.DataFrame(), CHOSEN))


def test_what_is_shipped_is_read_again(looked_at: Results, tmp_path: Path) -> None:
    save(looked_at, tmp_path)
    again = read(tmp_path)
    columns = sorted(looked_at.answers.columns)
    pd.testing.assert_frame_equal(again.answers[columns], looked_at.answers[columns], check_dtype=False)
    assert report(again) == report(looked_at)
    with pytest.raises(InputError, match=r"results\.parquet"):
        read(tmp_path / "nowhere")
    (tmp_path / "begun").mkdir()
    save(Results(pd.DataFrame(), pd.DataFrame(), CHOSEN), tmp_path / "begun")
    assert [file.name for file in (tmp_path / "begun").iterdir()] == ["toy_study_chosen.json"]


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_family_is_held_out_in_one_language(name: Any) -> None:
    language = LANGUAGES[name]
    assert {FAMILY_OF[form.name] for form in language.wrappers_of("seen")} == set(SHOWN[name])
    assert Counter(FAMILY_OF[form.name] for form in language.wrappers_of("test")) == dict.fromkeys(FAMILIES, 3)
    assert len(language.wrappers) == 30
    assert Counter(family for families in SHOWN.values() for family in families) == dict.fromkeys(FAMILIES, 1)


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_language_says_only_what_its_grammar_and_tokenizer_know(name: Any) -> None:
    language, rng = LANGUAGES[name], random.Random(0)
    tokenizer = build_tokenizer(language)
    every = [pair for kind in KINDS for pair in pairs(kind, words=language.vocabulary)]
    for _ in range(400):
        pair, safe = rng.choice(every), rng.random() < 0.5
        trace = dialogue(rng, pair, rng.choice([None, *language.wrappers]), safe=safe, language=language)
        reading = read_response(trace.response, pair, language)
        assert reading.well_formed
        assert reading.outcome == ("refused" if safe else "complied")
        assert (reading.understanding, reading.key_sentence) == tuple(trace.given.values())
        texts = (trace.prompt, trace.response, document(rng, reactions=0.5, language=language))
        for text in texts:
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_the_languages_share_no_go_ahead() -> None:
    short, long = LANGUAGES.values()
    assert not set(short.compliant_sentences) & set(long.compliant_sentences)
    assert not {form.compliance for form in short.wrappers} & {form.compliance for form in long.wrappers}
    assert not set(short.vocabulary.verbs) & set(long.vocabulary.verbs)


def test_requests_are_of_test_pairs_and_no_development_wrapper() -> None:
    for base in BASES[:2]:
        language, asked = LANGUAGES[language_of(base)], requests(language_of(base))
        for trace in (*asked, *read_alike(language_of(base))):
            assert Pair(trace.meta["verb"], trace.meta["noun"], language.vocabulary).split == "test"
            assert trace.meta["wrapper_split"] != "development"
        of_wrapper = Counter(
            t.meta["wrapper"] for t in asked if t.label == "harmful" and t.meta["wrapper_split"] == "test"
        )
        assert len(set(of_wrapper.values())) == 1, "cells are balanced"
        assert {t.meta["wrapper_split"] for t in requests(language_of(base), "development")} == {
            *("plain", "seen", "development"),
        }


def test_cells_come_base_by_base_and_differ_in_their_arm_alone(tmp_path: Path) -> None:
    cells = cells_of()
    assert len(cells) == len(set(cell.name for cell in cells)) == len(BASES) * len(SEEDS) * len(ARMS)
    assert [cell.base for cell in cells] == sorted(cell.base for cell in cells)
    assert not set(PILOT_BASES) & set(BASES)
    configs = {cell.arm: config_of(cell, tmp_path, CHOSEN).to_dict() for cell in cells_of(BASES[:1]) if cell.seed == 1}
    weights = {"head_weight", "query_mask_weight", "key_weight", "auxiliary_epochs", "query_prompt", "shuffled_labels"}
    rests = [{name: value for name, value in config.items() if name not in weights} for config in configs.values()]
    assert all(rest == rests[0] for rest in rests)
    assert len({str([config[name] for name in sorted(weights)]) for config in configs.values()}) == len(ARMS)
    assert config_of(Cell("SFT", 2, 1), tmp_path, CHOSEN).seed == 1


def test_what_is_gathered_is_whole_cells_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--pilot"):
        toy_study_results.gather(tmp_path)
    write_chosen(tmp_path / "chosen.json", CHOSEN)
    assert not len(toy_study_results.gather(tmp_path).answers)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base of random weights, and a design of two steps and few requests."""
    monkeypatch.setattr(toy_study_job, "SETTINGS", (*SETTINGS, "max_steps=2"))
    monkeypatch.setattr(toy_study_job, "MIX", Mix(examples=80))
    few = {name: requests(name)[::40] for name in LANGUAGES}
    monkeypatch.setattr(toy_study_job, "requests", lambda name: few[name])
    monkeypatch.setattr(toy_study_results, "requests", lambda name: few[name])
    write_chosen(tmp_path / "chosen.json", CHOSEN)
    where = base_folder(1, tmp_path)
    encoder = Encoder(LANGUAGES["short"])
    new_model(Shape(), encoder, seed=1).save_pretrained(where)
    encoder.tokenizer.save_pretrained(where)
    return tmp_path


def test_a_cell_that_was_killed_is_run_again_to_the_same_bits(quick: Path) -> None:
    cell = Cell("both", 1, 1)
    run(cell, quick)
    first = record_of(cell, quick)
    assert first is not None
    assert is_done(cell, quick)
    assert len(toy_study_results.gather(quick).answers) == len(toy_study_job.requests("short"))
    # As a kill leaves it: no whole folder, and what training had written so far.
    shutil.rmtree(quick / "cells" / cell.name)
    left = quick / "work" / cell.name / "checkpoints"
    left.mkdir(parents=True)
    (left / "broken").write_text("half", encoding="utf-8")
    assert not is_done(cell, quick)
    run(cell, quick)
    second = record_of(cell, quick)
    assert second is not None
    assert second.bits == first.bits
    assert [(one.name, one.is_same) for one in again(quick, 3, seed=0)] == [(cell.name, True)]


def test_a_queue_in_a_new_clone_goes_on_behind_the_runs_that_ship(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, new = tmp_path / "shipped", tmp_path / "new"
    shipped.mkdir()
    for module in (toy_study_results, toy_study_queue):
        monkeypatch.setattr(module, "BASES", (1, 3), raising=False)
        monkeypatch.setattr(module, "cells_of", lambda bases=(1, 3): [Cell("SFT", b, 1) for b in bases], raising=False)
    monkeypatch.setattr(toy_study_results, "SHIPPED", shipped)
    monkeypatch.setattr(toy_study_queue, "_look_settles", lambda _: False)
    pretrained = []

    def make_base(base: int, folder: Path) -> None:
        where = base_folder(base, folder)
        if not where.is_dir():
            pretrained.append(base)
            shutil.copytree(base_folder(1, quick), where)

    monkeypatch.setattr(toy_study_queue, "make_base", make_base)
    first = Cell("SFT", 1, 1)
    run(first, quick)
    save(toy_study_results.gather(quick), shipped)
    work_off(new, 1, 1)
    assert pretrained == [3]
    assert [folder.name for folder in (new / "cells").iterdir()] == [Cell("SFT", 3, 1).name]
    whole = toy_study_results.gather(new)
    assert [record.cell for record in whole.records] == [first, Cell("SFT", 3, 1)]
    n = len(toy_study_job.requests("short"))
    assert whole.answers.groupby("base", sort=False).size().to_dict() == {1: n, 3: n}
    assert {one.name: one.is_same for one in again(new, 2, seed=0)} == {first.name: True, Cell("SFT", 3, 1).name: True}
    save(whole, shipped)
    assert read(shipped).records == whole.records
    monkeypatch.setattr(toy_study_job, "SETTINGS", (*SETTINGS, "max_steps=3"))
    assert not toy_study_results.known_records(new), "runs of another design are not of this study"


def test_a_cell_of_other_settings_is_not_taken_for_done(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("SFT", 1, 1)
    run(cell, quick)
    assert is_done(cell, quick)
    monkeypatch.setattr(toy_study_job, "SETTINGS", (*SETTINGS, "max_steps=3"))
    assert not is_done(cell, quick)


def test_claims_rest_on_the_study_once_its_look_is_due(looked_at: Results, tmp_path: Path) -> None:
    assert many_toys(tmp_path) == []
    save(looked_at.of(BASES[: LOOK - 1]), tmp_path)
    assert many_toys(tmp_path) == []
    save(looked_at, tmp_path)
    found = {one.claim: one for one in many_toys(tmp_path)}
    assert {claim: one.verdict for claim, one in found.items()} == {
        "6a": "no effect of interest",
        "6b": "no effect of interest",
        "6c": "supports",
    }
    assert all("planned look" in one.note and "; on the log-odds of a safe K: " in one.note for one in found.values())


def test_claims_rest_on_no_look_that_did_not_end_the_study(tmp_path: Path) -> None:
    some, others = (
        made_up(bases, dict.fromkeys(ARMS, 0.55) | {"both": both})
        for bases, both in ((BASES[:3], 0.1), (BASES[3:LOOK], 0.55))
    )
    undecided = others._replace(
        answers=pd.concat([some.answers, others.answers]), mechanism=pd.concat([some.mechanism, others.mechanism])
    )
    assert OPEN in [row.verdict for row in decided(undecided, PRIMARY, stage_of(undecided.bases))]
    save(undecided, tmp_path)
    assert many_toys(tmp_path) == []


def test_an_arm_of_many_malformed_answers_is_named_beside_its_contrasts(looked_at: Results) -> None:
    answers = looked_at.answers
    assert too_malformed(answers) == ""
    spoilt = answers.assign(malformed=answers["malformed"] | ((answers["arm"] == "QMM") & (answers["base"] % 3 == 0)))
    assert "malformed in: QMM 0.3" in too_malformed(spoilt)


def test_the_look_stays_in_the_report_when_more_bases_are_done(looked_at: Results) -> None:
    more = made_up(BASES)
    assert report(more)["toy-study-look"] == report(looked_at)["toy-study-look"]
    assert "level 0.045 of" in report(more)["toy-study-complied"]
