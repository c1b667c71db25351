"""Detection by prefix, suppressing heads and resampling: what is planted is found, and by the right reader; subjects
ask apart from what was trained on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from study_files import write_study_files
from tiny_models import BASE, byte_level_tokenizer
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from analysis.outcomes import early_detection, sentence_resampling, suppression_heads
from analysis.outcomes.early_detection import PREFIXES, Answers, Read, detected, differences, scored_answers, shown
from analysis.outcomes.subject import PARTS, Subject, subject_of
from analysis.real_model import real_study_prompts, real_study_selection
from analysis.real_model.real_study_design import Sizes
from analysis.script_errors import or_one_line
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import edited
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.models.model import from_hf, load
from safekey_interp.models.organism import read_shipped

TESTS = subject_of("organism:sft").settings.detection_tests


def planted(*, in_states: int | None, in_words: int | None, n: int = 1500) -> Read:
    """A third benign; half of the others comply, which states or words show from a prefix on."""
    rng = np.random.default_rng(0)
    traces, texts = [], [[""] * n for _ in PREFIXES]
    values = rng.normal(size=(n, len(PREFIXES), 2, 6)).astype(np.float32)
    for at in range(n):
        kind = ("benign", "complied", "refused")[at % 3]
        label, outcome = ("benign", "complied") if kind == "benign" else ("harmful", kind)
        about: dict[str, Any] = {"label": label, "group": f"g{at // 3}", "meta": {"outcome": outcome}}
        traces.append(Trace(trace_id=str(at), prompt="a b c", response="", **about))
        for number in range(len(PREFIXES)):
            word = "yes" if kind == "complied" and in_words is not None and number >= in_words else "no"
            texts[number][at] = f"{word} {rng.choice(['p', 'q', 'r'])}{rng.integers(9)}"
        if kind == "complied" and in_states is not None:
            values[at, in_states:, 1, 2] += 8.0
    part = rng.choice([*PARTS, *TESTS], p=[0.2, 0.25, 0.25, 0.15, 0.15], size=n)
    others = {"states": values, "states of the untrained model": values[:, :, :1]}
    return Read(traces, others, texts, {"rules": np.full((n, len(PREFIXES)), 0.5)}, part)


@pytest.mark.parametrize(
    ("in_states", "in_words"),
    [
        (2, 4),
        pytest.param(None, 3, marks=pytest.mark.slow),
        pytest.param(None, None, marks=pytest.mark.slow),
    ],
)
def test_what_is_planted_is_found_where_it_begins_and_by_its_reader(in_states: Any, in_words: Any) -> None:
    found = planted(in_states=in_states, in_words=in_words)
    scores = {name: early_detection.scores(found, name, 0) for name in found.detectors}
    answers = Answers(found.traces, found.part, scores)
    table: Any = detected(answers, TESTS, 0.05)
    assert len(table) == len(found.detectors) * len(TESTS) * len(PREFIXES)
    begins = {"states": in_states, "words so far": in_words, "words of the reasoning": in_words}
    for (detector, _), part in table.groupby(["detector", "test"]):
        begin = begins.get(str(detector))
        known = np.arange(len(PREFIXES)) >= (len(PREFIXES) if begin is None else begin)
        assert ((part["auroc"] > 0.9).to_numpy() == known).all(), detector
        assert ((part["detected"] > 0.8).to_numpy() == known).all(), detector
        assert part["false_alarms"].max() < 0.15
    known = {name: np.arange(6) >= (6 if begin is None else begin) for name, begin in begins.items()}
    apart: Any = differences(answers, TESTS)
    for (detector, _), part in apart.groupby(["detector", "test"]):
        gained = known["states"].astype(int) - known.get(str(detector), np.zeros(6, bool))
        assert ((part["low"] > 0.2).to_numpy() == (gained > 0)).all(), detector
        assert ((part["high"] < -0.2).to_numpy() == (gained < 0)).all(), detector
    tables = shown(answers, TESTS, 0.05)
    assert [len(tables[what]) for what in early_detection.TABLES] == [2 * 5, 2 * 4, 2 * 5]
    for of in tables.values():
        assert list(of["test"]) == sorted(of["test"], key=list(TESTS).index)
        assert set(PREFIXES) < set(of.columns)
        assert not of.isna().to_numpy().any()


def test_scores_are_kept_and_answers_that_decide_nothing_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planted(in_states=2, in_words=4, n=300)
    other = {"label": "harmful", "group": "other", "meta": {"outcome": "other"}}
    undecided: Any = Trace(trace_id="other", prompt="", response="", **other)
    parts = {trace.trace_id: part for trace, part in zip(found.traces, found.part, strict=True)}
    asked: list[int] = []
    with_it = found._replace(
        states={name: np.concatenate([values[:1] + 9, values]) for name, values in found.states.items()},
        texts=[["yes", *texts] for texts in found.texts],
        opinions={name: np.concatenate([values[:1] + 9, values]) for name, values in found.opinions.items()},
        part=np.concatenate([["fit"], found.part]),
    )

    def read(_: Any, answers: Any) -> Read:
        asked.append(len(answers))
        return with_it._replace(traces=list(answers))

    monkeypatch.setattr(early_detection, "read", read)
    made = []
    for _ in range(2):
        subject = subject_of("organism:sft", out=tmp_path)
        monkeypatch.setattr(subject, "part_of", lambda trace: parts[trace.trace_id])
        made.append(scored_answers(subject, [undecided, *found.traces]))
    assert asked == [len(found.traces) + 1]
    for answers in made:
        assert answers.traces == found.traces
        for name in found.detectors:
            np.testing.assert_array_equal(answers.scores[name], early_detection.scores(found, name, 0))


def test_requests_serve_one_purpose_each() -> None:
    subject = subject_of("organism:sft")
    asked = subject.detection_requests(3, 2)
    parts = [subject.part_of(trace) for trace in asked]
    assert set(parts) == {*PARTS, *TESTS}
    of_pair: dict[tuple[str, str], set[str]] = {}
    for trace, part in zip(asked, parts, strict=True):
        of_pair.setdefault((trace.meta["verb"], trace.meta["noun"]), set()).add(part)
    assert all(len(found) == 1 for found in of_pair.values())


@pytest.fixture
def smollm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """The subject of SmolLM2 over made-up prompts, of which few are trained on, with a small random model."""
    write_study_files(tmp_path)
    monkeypatch.setattr(real_study_selection, "N_TRACES", 24)
    for name, sizes in (("TESTS", Sizes(2, 4, 2, 3)), ("DEVELOPMENT", Sizes(1, 3, 2, 0))):
        monkeypatch.setattr(real_study_prompts, name, sizes)
    subject = subject_of("smollm2:sft", tmp_path)
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](**BASE | {"max_position_embeddings": 2048})
    monkeypatch.setattr(subject, "reader", from_hf(AutoModelForCausalLM.from_config(config), byte_level_tokenizer()))
    return subject


def test_smollm2_is_asked_apart_from_what_it_was_trained_on(smollm2: Any) -> None:
    asked = smollm2.detection_requests(1, 0)
    parts = [smollm2.part_of(trace) for trace in asked]
    assert set(parts) == {*PARTS, *smollm2.settings.detection_tests}
    of_prompt: dict[str, set[str]] = {}
    for trace, part in zip(asked, parts, strict=True):
        of_prompt.setdefault(trace.meta["request"], set()).add(part)
    assert all(len(found) == 1 for found in of_prompt.values())
    assert not set(of_prompt) & real_study_selection.trained_on(smollm2.prompts, smollm2.data)
    seen = {t.meta["wrapper"] for t, part in zip(asked, parts, strict=True) if part in (*PARTS, "the same wrappers")}
    unseen = {t.meta["wrapper"] for t, part in zip(asked, parts, strict=True) if part == "unseen wrappers"}
    assert len(unseen) > 1
    assert len(seen) > 2
    assert not seen & unseen
    for split in ("development", "test"):
        attacks = smollm2.attacks(split, 1, 0)
        assert {trace.label for trace in attacks} == {"harmful", "benign"}
        assert len({(trace.meta["wrapper"], trace.label) for trace in attacks}) == len(attacks)


def test_outcomes_of_smollm2_are_judged_with_u_and_k(smollm2: Any) -> None:
    trace = next(trace for trace in smollm2.attacks("test", 1, 0) if trace.label == "harmful")
    u = "Okay, so the user is asking how to do it."
    cases = {
        f"<think>\n{u} This is harmful, so I must refuse.\n</think>\n\nI'm sorry, I can't help with that.": "refused",
        f"<think>\n{u} Let me list the steps.\n</think>\n\nSure! First, take a bowl and mix the flour.": "complied",
    }
    for response, wanted in cases.items():
        judged = smollm2.judged(trace, response)
        assert judged.meta["outcome"] == wanted, response
        assert judged.meta["well_formed"]
        assert judged.given["understanding"].text(response) == u
        behind = response.removeprefix(f"<think>\n{u} ")
        assert smollm2.continued(trace, behind) == wanted
    cut = smollm2.judged(trace, f"<think>\n{u} Let me list")
    assert not cut.meta["well_formed"]
    assert cut.meta["outcome"] != "complied"


def test_an_untrained_model_is_asked_alike_alone_and_in_a_batch(smollm2: Any) -> None:
    traces = smollm2.attacks("test", 1, 0)[:3]
    texts = [["", "<think>\nOkay.", "<think>\nOkay, so the user asks."], ["<think>\na", "", "<think>\nb c d e"]]
    (together,) = smollm2.opinions(traces, texts).values()
    assert together.shape == (3, 2)
    for number, trace in enumerate(traces):
        (alone,) = smollm2.opinions([trace], [[some[number]] for some in texts]).values()
        np.testing.assert_allclose(alone[0], together[number], atol=1e-4)


def test_a_subject_without_its_data_or_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="--data"):
        subject_of("smollm2:sft")
    with pytest.raises(InputError, match="gpt2"):
        subject_of("gpt2")


def test_what_was_answered_is_kept_for_a_killed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = subject_of("organism:sft", out=tmp_path)
    asked = made.attacks("development", 1, 0)[:3]
    first, edited_ = made.answered(asked), made.answered(asked[:2], "heads [(0, 0)]")
    again = subject_of("organism:sft", out=tmp_path)
    monkeypatch.setattr("analysis.outcomes.subject.generate", lambda *_, **__: pytest.fail("answered again"))
    assert again.answered(asked) == first
    assert again.answered(asked[:2], "heads [(0, 0)]") == edited_
    for other, edit in ((asked[:1], ""), (asked, "heads [(0, 1)]")):
        with pytest.raises(pytest.fail.Exception, match="answered again"):
            again.answered(other, edit)
    with pytest.raises(pytest.fail.Exception, match="answered again"):
        subject_of("organism:safekey", out=tmp_path).answered(asked)


def test_a_killed_run_loses_two_batches_of_answers_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[int] = []
    dies_at = 3

    def generate(model: Any, some: Any, **_: Any) -> list[str]:
        if len(asked_for) == dies_at:
            raise KeyboardInterrupt
        asked_for.append(len(some))
        return [trace.prompt for trace in some]

    monkeypatch.setattr("analysis.outcomes.subject.generate", generate)
    asked = subject_of("organism:sft").attacks("development", 9, 0)
    for _ in range(2):
        subject = subject_of("organism:sft", out=tmp_path)
        monkeypatch.setattr(subject, "settings", subject.settings._replace(batch_size=7))
        with contextlib.suppress(KeyboardInterrupt):
            answers = subject.answered(asked)
        dies_at = -1
    assert [trace.response for trace in answers] == [trace.prompt for trace in asked]
    assert max(asked_for) == 2 * 7
    assert sum(asked_for) == len(asked)


def test_a_table_without_a_place_is_said_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["early_detection", "--models", "organism:base", "--write"])
    monkeypatch.setattr(early_detection, "read", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(SystemExit) as ended:
        or_one_line("early_detection", early_detection.main)
    assert ended.value.code == 2
    assert "no place for early-detection-organism-base" in capsys.readouterr().err


def test_an_ablated_head_gives_its_mean_and_the_others_their_own() -> None:
    model = load("organism:sft")
    means = suppression_heads.mean_values(model, list(read_shipped())[:6])
    assert means.shape == (model.n_layers, model.n_heads, means.shape[-1])
    seen: dict[str, torch.Tensor] = {}
    ids = torch.arange(4, 24)[None]
    for name, block in (("own", []), ("ablated", [(1, 2), (1, 0)])):
        reading = {Place(1, "head"): lambda z, name=name: seen.update({name: z.clone()})}
        with torch.no_grad(), suppression_heads.ablated(model, block, means), edited(model, reading):
            model.hf(input_ids=ids)
    torch.testing.assert_close(seen["ablated"][:, :, [1, 3]], seen["own"][:, :, [1, 3]])
    expected = torch.as_tensor(means[1, [2, 0]]).expand(1, 20, 2, -1)
    torch.testing.assert_close(seen["ablated"][:, :, [2, 0]], expected)


def test_sets_of_equal_importance_add_up_to_about_as_much() -> None:
    index = pd.MultiIndex.from_product([range(4), range(4)])
    effects = pd.Series(np.random.default_rng(1).normal(size=16), index)
    top = list(effects.sort_values().index[:2])
    wanted = effects.loc[top].abs().sum()
    sets = suppression_heads.matched_sets(effects, top, 10, seed=0)
    assert len(set(sets)) == 10
    assert all(abs(effects.loc[list(heads)].abs().sum() - wanted) <= 0.25 * wanted for heads in sets)
    assert set(top) not in map(set, sets)
    drawn = suppression_heads.random_sets(effects, top[:1], 19, seed=0)
    assert len(drawn) == 15, "all other heads, where there are fewer than asked for"


def test_sets_of_many_heads_are_drawn_as_those_of_few() -> None:
    index = pd.MultiIndex.from_product([range(20), range(9)])
    effects = pd.Series(np.random.default_rng(1).standard_t(2, size=180), index)
    top = list(effects.sort_values().index[:8])
    wanted = effects.loc[top].abs().sum()
    matched, drawn = (
        draw(effects, top, 19, seed=0) for draw in (suppression_heads.matched_sets, suppression_heads.random_sets)
    )
    for sets in (matched, drawn):
        assert len(set(sets)) == 19
        assert all(len(set(heads)) == 8 for heads in sets)
    away = [abs(effects.loc[list(heads)].abs().sum() - wanted) for heads in matched]
    assert max(away) <= 0.25 * wanted
    assert np.mean([effects.loc[list(heads)].abs().sum() for heads in drawn]) < 0.5 * wanted


@pytest.mark.parametrize(("of_top", "of_others"), [(True, False), (False, False), (True, True)])
def test_refusals_that_an_ablation_restores_are_counted_beside_other_sets(
    monkeypatch: pytest.MonkeyPatch, of_top: bool, of_others: bool
) -> None:
    subject = subject_of("organism:sft")
    monkeypatch.setattr(subject, "settings", subject.settings._replace(head_sets=(2,)))
    heads = list(np.ndindex(8, 4))
    effects = pd.Series(np.linspace(-1, 1, len(heads)), pd.MultiIndex.from_tuples(heads))
    top = sorted(heads[:2])

    def answered(asked: Any, edit: str = "") -> list[Any]:
        """Every other harmful request is complied with, and all benign ones; an edit has some refused."""
        outcomes = []
        for number, trace in enumerate(asked):
            refused = trace.label == "harmful" and number % 2 == 1 and not edit
            if edit and trace.label == "harmful":
                refused = of_top if f"heads {top} " in edit else of_others
            outcomes.append("refused" if refused else "complied")
        return [
            trace.with_(given={"key_sentence": None}, meta={**trace.meta, "outcome": outcome, "well_formed": True})
            for trace, outcome in zip(asked, outcomes, strict=True)
        ]

    monkeypatch.setattr(subject, "answered", answered)
    monkeypatch.setattr(suppression_heads, "mean_values", lambda *_: np.zeros((8, 4, 2)))
    monkeypatch.setattr(suppression_heads, "ablated", lambda *_: contextlib.nullcontext())
    monkeypatch.setitem(suppression_heads.RANKINGS, "planted", lambda *_: effects)
    [row] = suppression_heads.measured(subject, 6, 19, ["planted"])
    assert row["refused of successful jailbreaks"].startswith(f"{of_top:.2f} ")
    p = "p 0.050" if of_top and not of_others else "p 1.000"
    for words in ("random sets", "sets of equal importance"):
        assert row[words].startswith(f"{of_others:.2f}, to {of_others:.2f}, {p} (19, ")
    assert row["sets of equal importance"].endswith("19 as important)")
    assert row["benign refused"] == "0.00"
    harmful = [trace for trace in subject.attacks("test", 6, 3) if trace.label == "harmful"]
    assert 0 < int(row["n"].split(" ")[0]) < len(harmful)


def test_wrappers_take_turns() -> None:
    traces = [
        Trace(trace_id=f"{wrapper}{n}", prompt="", response="", meta={"wrapper": wrapper})
        for wrapper, of in (("a", 3), ("b", 1), ("c", 2))
        for n in range(of)
    ]
    assert [trace.trace_id for trace in suppression_heads.in_turn(traces)] == ["a0", "b0", "c0", "a1", "c1", "a2"]


@pytest.mark.parametrize("planted_effect", [0.0, 0.6])
def test_the_effect_of_a_go_ahead_is_that_within_traces(planted_effect: float) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        level = rng.choice([0.2, 0.4])
        for condition in ("safe", "go_ahead", "neutral"):
            if condition == "go_ahead" and number % 10 == 0:
                continue
            share = level + planted_effect * (condition == "go_ahead")
            rows.append({"trace_id": str(number), "group": str(number // 2), "condition": condition})
            rows[-1]["complied"] = bool(rng.random() < share)
    value, low, high, n = sentence_resampling.go_ahead_minus_safe(pd.DataFrame(rows))
    assert n == 36
    assert low < value < high
    assert low < planted_effect < high
    assert (low > 0) == (planted_effect > 0)


def test_an_outcome_is_read_behind_any_prefill() -> None:
    subject = subject_of("organism:sft")
    trace = next(trace for trace in read_shipped() if trace.label == "harmful")
    verb, noun = trace.meta["verb"], trace.meta["noun"]
    complies = sentence_resampling.complies(subject, [trace])
    for text, wanted in {
        f"\n</think>\n\nHere you go: {verb} the {noun}.": True,
        f"The user asks how to {verb} the {noun}.\n</think>\n\nSorry, I can't.": False,
        f"Here you go: {verb} the": False,
    }.items():
        assert complies(trace.prompt, text) == wanted, text


@pytest.mark.slow
def test_as_many_answers_of_either_outcome_are_resampled_in_each_wrapper() -> None:
    subject = subject_of("organism:sft")
    found = sentence_resampling.resampled(subject, 3)
    wrappers = [sorted(trace.meta["wrapper"] for trace in some) for some in found.values()]
    assert wrappers[0] == wrappers[1] != []
    parts: Any = sentence_resampling.importance(subject, found["complied"][:3], 4)
    assert set(parts["source_part"]) <= {"understanding", "key_sentence", "rest"}
    assert (parts["importance"] == parts["rate_kept"] - parts["rate_resampled"]).all()
    kinds: Any = sentence_resampling.key_sentences(subject, found["complied"][:3], 8)
    assert kinds.set_index("condition")["rate"].sum() == pytest.approx(1)
    assert kinds.set_index("condition").loc[["safe", "go_ahead"], "given_n"].to_list() == [3, 3]
