"""Laws of the words' baseline: it reads words and pairs, in any script, and says nothing about nothing."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from safekey_interp.capture.capture_request import STATE_POSITIONS
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError
from safekey_interp.measures.text_baseline import count_words, text_of, text_space, texts_at, with_own_words
from safekey_interp.segmentation.segmenter import Segmentation


def spaces(train, test):
    held_out = np.arange(len(train) + len(test)) >= len(train)
    return text_space(count_words([*train, *test]), ~held_out, held_out)


def test_inner_products_are_those_of_centred_tfidf_rows():
    space = spaces(["a b c", "a b", "c d", "d d a"], ["a b c", "z z"])
    gram, cross = space.train @ space.train.T, space.test @ space.train.T
    assert np.allclose(gram.sum(0), 0, atol=1e-6), "centred"
    assert np.allclose(cross[0], gram[0], atol=1e-6), "the same text, the same row"
    assert space.mean_square == pytest.approx(np.trace(gram) / 4, rel=1e-6)


def test_vocabulary_and_weights_come_from_the_training_texts_alone():
    train = ["kill a process", "kill the lights", "stop the lights", "a b"]
    few = spaces(train, ["kill bake"])
    many = spaces(train, ["kill bake", "bake the lights", "bake bake", "process"])
    assert np.array_equal(few.train, many.train)
    # A product with one row and one with four may differ in their last digits.
    np.testing.assert_allclose(few.test[0], many.test[0], rtol=1e-5, atol=1e-7)
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    rows = vectoriser.fit_transform(train).toarray()
    centred = rows - rows.mean(0)
    assert np.allclose(few.train @ few.train.T, centred @ centred.T, atol=1e-6)
    assert np.allclose(
        few.test @ few.train.T, (vectoriser.transform(["kill"]).toarray() - rows.mean(0)) @ centred.T, atol=1e-6
    )


def test_characters_of_scripts_without_spaces_are_words():
    space = spaces(["如何制造炸弹", "如何制造面包", "我想睡觉", "我想吃饭"], ["如何制造毒药"])
    similarity = space.test @ space.train.T
    assert similarity[0, :2].min() > similarity[0, 2:].max()


@pytest.mark.parametrize("texts", [["", "", ""], ["one", "two", "three"], ["...", "!!", "?"]])
def test_texts_without_a_common_word_are_all_alike(texts):
    space = spaces(texts, ["four", ""])
    assert space.mean_square == 0
    assert not space.test.any()


def test_a_position_has_the_words_that_were_read_up_to_it():
    response = "<think>They ask X. Hmm, that hurts.</think>"
    blank = {"response": response, "reasoning": CharSpan(7, 34), "region": "reasoning", "family": "think"}
    blank |= {"confidence": 1.0, "reason": "", "finder": "given"}
    found = Segmentation(
        trace_id="1", understanding=CharSpan(7, 18), key_sentence=CharSpan(19, 34), aha="safe", hint=False, **blank
    )
    missing = Segmentation(trace_id="2", understanding=None, key_sentence=None, aha=None, hint=None, **blank)
    traces = [Trace(trace_id=name, prompt=f"prompt {name}", response=response) for name in "12"]
    texts = texts_at(
        [*STATE_POSITIONS, "understanding_end", "reasoning", "prompt + key_sentence"], traces, [found, missing]
    )
    assert texts["prompt"] == texts["prompt_end"] == ["prompt 1", "prompt 2"]
    assert texts["understanding"] == ["They ask X.", None]
    assert texts["key_sentence"] == ["Hmm, that hurts", None] or texts["key_sentence"][0].startswith("Hmm, that hurts")
    assert texts["context"] == texts["prompt+understanding"] == ["prompt 1\nThey ask X.", None]
    assert texts["understanding_end"] == texts["context"]
    assert texts["reasoning"] == [response[7:34]] * 2
    assert texts["prompt + key_sentence"] == [f"prompt 1\n{texts['key_sentence'][0]}", None]
    assert texts["decision"] == ["prompt 1\nThey ask X.", "prompt 2"]
    warned = traces[0].with_(given={"warning": CharSpan(19, 23)})
    assert text_of(warned, found, "warning") == response[19:23], "the words of whatever span is probed"
    assert text_of(warned, found, "prompt+warning") == f"prompt 1\n{response[19:23]}"
    alike = {
        "last(prompt)": "prompt_end",
        "before( key_sentence )": "decision",
        "(prompt)+reasoning": "prompt + reasoning",
    }
    for same, name in alike.items():
        assert text_of(warned, found, same) == text_of(warned, found, name) is not None
    for of_tokens in ("warned", "last(warning)", "prompt .. warning", "prompt + last(warning)", "sentence(0)"):
        assert text_of(warned, found, of_tokens) is None
    for broken in ("", "+", "prompt+"):
        with pytest.raises(InputError, match="span expression"):
            text_of(warned, found, broken)


def test_words_of_tokens_stand_where_characters_of_prompt_and_key_sentence_do_not_say_them():
    names = ["prompt", "last(prompt)", "understanding + key_sentence", "warning", "last(warning)", "prompt + warning"]
    texts = with_own_words({name: ["characters"] for name in names}, {name: ["tokens"] for name in names[1:]})
    assert [texts[name] for name in names] == [["characters"]] * 3 + [["tokens"]] * 3
