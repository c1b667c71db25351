"""How the refusal judge is trained: what is left out stays out, training repeats, and the judge agrees with people."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from safekey_interp.errors import InputError
from safekey_interp.evaluation.answer import read_answer
from safekey_interp.evaluation.refusal_classifier import LABELS, Classifier, trained
from train.refusal_fitting import (
    Corpus,
    Labelled,
    Settings,
    fit,
    labels_of,
    predict,
    read_examples,
    read_labelled,
    splits,
)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "train" / "refusal_examples.jsonl"
LABELLED = sorted((ROOT.parent / "shared" / "data").glob("xstest_labelled_*.jsonl"))
needs_labelled = pytest.mark.skipif(len(LABELLED) < 3, reason="no labelled answers here")


@pytest.fixture(scope="module")
def small() -> Corpus:
    """The examples by hand as if two models had written most of them, in groups of two."""
    examples = read_examples(EXAMPLES)
    return Corpus(
        [
            example._replace(source=("a", "b", None)[number % 3], group=f"g{number // 6}" if number % 3 < 2 else "")
            for number, example in enumerate(examples)
        ]
    )


@pytest.mark.parametrize("leave_out_models", [True, False])
def test_no_group_and_no_left_out_model_is_learnt_from(small: Corpus, leave_out_models: bool) -> None:
    tested: list[int] = []
    for split in splits(small, np.arange(len(small)), seed=0, leave_out_models=leave_out_models):
        assert not set(small.group[split.train]) & set(small.group[split.test])
        assert "" in small.source[split.train]
        assert "" not in small.source[split.test]
        if leave_out_models:
            assert not set(small.source[split.train]) & set(small.source[split.test])
        tested += split.test.tolist()
    assert sorted(tested) == np.flatnonzero(small.source != "").tolist()  # each exactly once


def test_only_the_given_rows_are_split(small: Corpus) -> None:
    rows = np.arange(0, len(small), 2)
    for split in splits(small, rows, seed=0):
        assert set(split.train) | set(split.test) <= set(rows)


def test_all_at_once_is_one_by_one(small: Corpus) -> None:
    rows = np.arange(len(small))
    classifier = fit(small, rows, Settings(min_answers=2))
    at_once = predict(small, rows, classifier)
    for example, expected in zip(read_examples(EXAMPLES), at_once, strict=True):
        verdict = classifier(read_answer(example.response))
        assert (verdict.p_refusal, verdict.p_partial) == pytest.approx(tuple(expected))


def test_training_repeats_to_the_byte(small: Corpus) -> None:
    rows = np.arange(len(small))
    one, two = (json.dumps(fit(small, rows, Settings()).to_json()) for _ in range(2))
    assert one == two


def test_shuffled_labels_teach_nothing() -> None:
    examples = read_examples(EXAMPLES)
    rng = np.random.default_rng(0)
    truth = np.array([example.label != "full_compliance" for example in examples])
    shares = []
    for _ in range(4):
        labels = rng.permutation([example.label for example in examples])
        corpus = Corpus(
            [
                example._replace(label=str(label), source="a", group=str(number))
                for number, (example, label) in enumerate(zip(examples, labels, strict=True))
            ]
        )
        for split in splits(corpus, np.arange(len(corpus)), seed=0, leave_out_models=False):
            found = labels_of(predict(corpus, split.test, fit(corpus, split.train, Settings())))
            shares.append(np.mean((found > 0) == truth[split.test]))
    assert 0.35 < np.mean(shares) < 0.65


def test_the_weights_know_their_examples() -> None:
    classifier = trained()
    right = [classifier(read_answer(example.response)).label == example.label for example in read_examples(EXAMPLES)]
    assert np.mean(right) > 0.9


def test_answers_that_teach_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"answer 0 of a: got the label 'yes', expected one of full_compliance"):
        Corpus([Labelled("I can't.", "yes", "a", "g")])
    with pytest.raises(InputError, match="answer 0 of a: the answer is empty"):
        Corpus([Labelled(" ", LABELS[0], "a", "g")])


def test_files_that_are_no_answers_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"response": "No.", "human_label": "2_full_refusal", "group": "g"}\n\n{"response": "No."}\n')
    with pytest.raises(InputError, match="line 3: has no 'human_label'"):
        read_labelled([path])
    with pytest.raises(InputError, match="line 1: has no 'label'"):
        read_examples(path)
    path.write_text("{")
    with pytest.raises(InputError, match="line 1: broken JSON"):
        read_labelled([path])


@needs_labelled
@pytest.mark.slow
def test_the_weights_are_what_the_script_makes() -> None:
    made = json.loads(runpy.run_path(str(ROOT / "train" / "refusal_judge.py"))["weights"](LABELLED))
    shipped = json.loads((ROOT / "safekey_interp" / "evaluation" / "refusal_weights.json").read_text(encoding="utf-8"))
    assert made.keys() == shipped.keys()
    for name in ("settings", "trained_on"):
        assert made[name] == shipped[name]
    for name in ("features", "terms"):
        assert list(made[name]) == list(shipped[name])
    assert (made["terms"], made["n_with"]) == (shipped["terms"], shipped["n_with"])
    values = [np.array(list(side["features"].values())) for side in (made, shipped)]
    # To the byte on one machine; another's arithmetic may differ in the last digit that is kept.
    np.testing.assert_allclose(*values, rtol=2e-2, atol=1e-3)
    for name in ("refusal", "partial_refusal"):
        np.testing.assert_allclose(made[name], shipped[name], atol=1)


@needs_labelled
def test_rounded_weights_move_no_probability_by_more_than_four_hundredths() -> None:
    corpus = Corpus([*read_labelled(LABELLED), *read_examples(EXAMPLES)])
    rows = np.arange(len(corpus))
    exact = fit(corpus, rows, Settings(penalty=10.0, text_weight=2.0))
    rounded = Classifier.from_json(exact.to_json())
    both = [predict(corpus, rows, classifier) for classifier in (exact, rounded)]
    np.testing.assert_allclose(*both, atol=0.04)
    assert (labels_of(both[0]) == labels_of(both[1])).all()


@needs_labelled
@pytest.mark.slow
def test_it_agrees_with_people_on_models_and_prompts_that_it_has_not_learnt() -> None:
    corpus = Corpus([*read_labelled(LABELLED), *read_examples(EXAMPLES)])
    found = np.full(len(corpus), -1)
    for split in splits(corpus, np.arange(len(corpus)), seed=1):
        found[split.test] = labels_of(predict(corpus, split.test, fit(corpus, split.train, Settings())))
    tested = found >= 0
    assert tested.sum() == 1_350
    same = found[tested] == corpus.label[tested]
    same_side = (found[tested] > 0) == (corpus.label[tested] > 0)
    assert same.mean() > 0.86
    assert same_side.mean() > 0.93
