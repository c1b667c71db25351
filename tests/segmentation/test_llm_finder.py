"""The llm finder, against a server on this machine that answers, fails, rate-limits and lies."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import pytest
from endpoint_server import Reply, Server, error
from endpoint_server import serving as serving_as

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, ModelError, install_hint
from safekey_interp.segmentation.llm_finder import LlmFinder
from safekey_interp.segmentation.llm_prompt import PROMPT_TEMPLATE, ask_text
from safekey_interp.segmentation.segmenter import segment, segment_all

KEY = "sk-very-secret-0123456789"
UNDERSTANDING = "Okay, so the user wants to know how to pick lock number {n}. They ask for steps."
KEY_SENTENCE = "Hmm, that could help a burglar with door {n}."
REST = "I should say no."


def make_trace(n: int) -> Trace:
    opening = f"{UNDERSTANDING.format(n=n)} {KEY_SENTENCE.format(n=n)} {REST}"
    return Trace(trace_id=f"t{n}", prompt=f"number {n}", response=f"<think>\n{opening}\n</think>\n\nNo.")


def right_answer(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "understanding_last_sentence": "They ask for steps.",
        "key_sentence": KEY_SENTENCE.format(n=n),
        "aha": "safe",
        "hint": False,
        "why": "it sees the harm",
    } | changes


def serving(behave: Callable[[int, int], Reply] = lambda n, nth: Reply(right_answer(n))):
    return serving_as(behave)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in ("BASE_URL", "MODEL", "API_KEY", "OPTIONS", "TRUST_ENV"):
        monkeypatch.delenv(f"SAFEKEY_LLM_{name}", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path / "cache"))


def finder_of(server: Server, **options: Any) -> LlmFinder:
    return LlmFinder(**{"base_url": server.base_url, "model": "tiny", "api_key": KEY, "timeout": 5.0} | options)


def find(server: Server, numbers: Any, **options: Any):
    return list(finder_of(server, **options).find(make_trace(n) for n in numbers))


def cached_files(tmp_path) -> list:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


# What it finds


def test_spans_are_the_quoted_sentences():
    with serving() as server:
        (found,) = find(server, [7])
    assert found.understanding.text(found.response) == UNDERSTANDING.format(n=7)
    assert found.key_sentence.text(found.response) == KEY_SENTENCE.format(n=7)
    assert (found.aha, found.hint, found.finder, found.family) == ("safe", False, "llm", "think")
    assert found.confidence == 0.9
    assert "tiny" in found.reason
    assert "it sees the harm" in found.reason


def test_order_holds_and_requests_overlap_within_the_bound():
    def behave(n, nth):
        time.sleep(0.05 if n % 3 == 0 else 0.01)
        return Reply(right_answer(n))

    with serving(behave) as server:
        found = find(server, range(30), concurrency=4)
    assert [one.trace_id for one in found] == [f"t{n}" for n in range(30)]
    assert 1 < server.most_at_once <= 4
    assert len(server.texts) == 30


def test_a_rerun_asks_nothing_and_finds_the_same():
    # The second try of number 2 must leave the same confidence in the rerun.
    def behave(n, nth):
        return Reply("{" if (n, nth) == (2, 1) else right_answer(n))

    with serving(behave) as server:
        first = find(server, range(5))
        asked = len(server.texts)
        finder = finder_of(server)
        again = list(finder.find(make_trace(n) for n in range(5)))
        assert len(server.texts) == asked == 6
    assert again == first
    assert finder.counts == {"cached": 5}


def test_traces_of_the_same_content_are_asked_about_once():
    with serving() as server:
        found = find(server, [1, 1, 1, 1])
        assert len(server.texts) == 1
    assert len({one.key_sentence for one in found}) == 1


@pytest.mark.parametrize("changed", [{"model": "other"}, {"options": {"temperature": 0}}, {"prompt_template": "new"}])
def test_another_question_is_asked_anew(changed):
    if "prompt_template" in changed:
        changed = {"prompt_template": PROMPT_TEMPLATE + "Be quick.\n"}
    with serving() as server:
        find(server, [1])
        find(server, [1], **changed)
        assert len(server.texts) == 2
    assert server.bodies[1].get("temperature") == changed.get("options", {}).get("temperature")


def test_quotes_with_other_white_space_and_typography_are_found():
    response = "<think>\n“Pick a  lock”—he’s\r\nasking   that… Hmm,\nit’s  ‘risky’. So no."
    trace = Trace(trace_id="q", prompt="number 1", response=response)
    answer = right_answer(
        1, understanding_last_sentence='"Pick a lock"-he\'s asking that...', key_sentence=" Hmm, it's 'risky' "
    )
    with serving(lambda n, nth: Reply(answer)) as server:
        (found,) = finder_of(server).find([trace])
    assert found.understanding.text(response) == "“Pick a  lock”—he’s\r\nasking   that…"
    assert found.key_sentence.text(response) == "Hmm,\nit’s  ‘risky’."
    assert found.confidence == 0.8


def test_the_first_place_after_the_understanding_counts():
    response = "Is it legal? They ask for it. Is it legal? Is it legal? So no."
    answer = right_answer(1, understanding_last_sentence="They ask for it.", key_sentence="Is it legal?")
    with serving(lambda n, nth: Reply(answer)) as server:
        (found,) = finder_of(server).find([Trace(trace_id="a", prompt="number 1", response=response)])
    assert (found.key_sentence.start, found.key_sentence.end) == (30, 42)
    assert found.region == "answer"


def test_an_empty_understanding_and_an_absent_key_sentence():
    opening = f"{UNDERSTANDING.format(n=1)} {KEY_SENTENCE.format(n=1)}"
    whole = Trace(trace_id="w", prompt="number 1", response=opening)
    alone = Trace(trace_id="a", prompt="number 2", response="The user wants a lock open.")

    def behave(n, nth):
        if n == 1:
            first = "Okay, so the user wants to know how to pick lock number 1."
            return Reply(right_answer(1, understanding_last_sentence="", key_sentence=first, hint=None))
        last = "The user wants a lock open."
        return Reply(right_answer(2, understanding_last_sentence=last, key_sentence="", aha=None))

    with serving(behave) as server:
        first, second = finder_of(server).find([whole, alone])
    assert (first.understanding, first.hint, first.aha) == (None, None, "safe")
    assert first.key_sentence.start == 0
    assert (second.key_sentence, second.aha, second.hint) == (None, None, False)
    assert second.understanding.text(alone.response) == alone.response
    assert "no sentence after the understanding" in second.reason
    assert second.confidence == 0.0


def test_an_interjection_belongs_to_the_sentence_that_it_opens():
    trace = Trace(trace_id="h", prompt="number 1", response="<think>The user wants a lock open. Hmm. Is it his? No.")
    answers = [
        right_answer(1, understanding_last_sentence="The user wants a lock open.", key_sentence=key)
        for key in ("Hmm.", "Hmm. Is it his?")
    ]
    with serving(lambda n, nth: Reply(answers[nth - 1])) as server:
        (found,) = finder_of(server).find([trace])
    assert found.key_sentence.text(trace.response) == "Hmm. Is it his?"
    assert "interjection alone" in server.texts[1]


def test_it_is_found_by_name(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("SAFEKEY_LLM_BASE_URL", server.base_url)
        monkeypatch.setenv("SAFEKEY_LLM_MODEL", "tiny")
        assert segment(make_trace(1), finder="llm").key_sentence_text == KEY_SENTENCE.format(n=1)
        with_marks = make_trace(2).with_(response="[A]" + make_trace(2).response[8:].replace("</think>", "[B]"))
        found = list(segment_all([with_marks], finder="llm", delimiters=("[A]", "[B]")))
        assert found[0].family == "given"
        assert found[0].key_sentence_text == KEY_SENTENCE.format(n=2)
        with pytest.raises(InputError):
            segment(make_trace(1), finder="llm", delimiters=("only one",))


def test_a_trace_without_text_asks_nothing():
    with serving() as server:
        (found,) = finder_of(server).find([Trace(trace_id="e", prompt="number 1", response="<think>\n\n</think>")])
        assert server.texts == []
    assert (found.understanding, found.key_sentence, found.confidence) == (None, None, 0.0)


@pytest.mark.parametrize(
    "wrapping", ["```json\n{}\n```", "<think>\nA {{riddle}}.\n</think>\n{}", "Here: {} I hope it helps."]
)
def test_the_answer_may_be_wrapped(wrapping):
    with serving(lambda n, nth: Reply(wrapping.replace("{}", json.dumps(right_answer(n))))) as server:
        (found,) = find(server, [3])
    assert found.confidence == 0.9


# What it refuses

LIES = {
    "half JSON": json.dumps(right_answer(1))[:60],
    "no JSON": "I cannot help with that.",
    "wrong JSON": "[1, 2]",
    "other fields": {"answer": 42},
    "deep JSON": '{"a":' * 3_000,
    "an aha of its own": right_answer(1, aha="maybe"),
    "a hint in words": right_answer(1, hint="yes"),
    "a number": right_answer(1, key_sentence=17),
    "a quote from nowhere": right_answer(1, key_sentence="Sure, here are the steps."),
    "an understanding from nowhere": right_answer(1, understanding_last_sentence="The user is a thief."),
    "half a word": right_answer(1, key_sentence="Hmm, that could help a bur"),
    "half a sentence": right_answer(1, key_sentence="Hmm, that could help"),
    "two sentences": right_answer(1, key_sentence=f"{KEY_SENTENCE.format(n=1)} {REST}"),
    "a later sentence": right_answer(1, key_sentence=REST),
    "K before U": right_answer(1, understanding_last_sentence=REST),
    "K equal to U": right_answer(1, key_sentence="They ask for steps."),
    "no K although text follows": right_answer(1, key_sentence="", aha=None),
    "an interjection alone": right_answer(1, key_sentence="Hmm,"),
    "a full stop": right_answer(1, key_sentence="."),
    "nothing": "",
}


def test_a_lie_is_told_once_and_then_the_trace_has_no_spans(tmp_path):
    traces = [make_trace(1).with_(prompt=f"number {n}") for n in range(len(LIES))]
    with serving(lambda n, nth: Reply(list(LIES.values())[n])) as server:
        finder = finder_of(server, max_failures=100)
        for lie, found in zip(LIES, finder.find(traces), strict=True):
            assert (found.understanding, found.key_sentence, found.aha, found.hint) == (None, None, None, None), lie
            assert found.confidence == 0.0, lie
            assert "two answers did not fit" in found.reason, lie
        assert finder.counts == {"refused": len(LIES)}
        assert len(server.texts) == 2 * len(LIES)
        assert sum("was refused: " in text for text in server.texts) == len(LIES)
        assert cached_files(tmp_path) == []
        server.behave = lambda n, nth: Reply(right_answer(1))
        assert {found.confidence for found in finder_of(server).find(traces)} == {0.9}


def test_a_mended_answer_counts_a_little_less():
    with serving(lambda n, nth: Reply(right_answer(n, aha="maybe") if nth == 1 else right_answer(n))) as server:
        (found,) = find(server, [1])
    assert found.confidence == 0.8
    assert "second try" in found.reason


def test_a_reply_that_is_no_completion_is_asked_for_again():
    bodies = [b"<html>hello</html>", b"{}", b'{"choices": []}', b'{"choices": null}', b"[" * 50, b"", b"\xff"]
    with serving(lambda n, nth: Reply(body=bodies[n]) if nth == 1 else Reply(right_answer(n))) as server:
        found = find(server, range(len(bodies)))
        assert len(server.texts) == 2 * len(bodies)
    assert {one.confidence for one in found} == {0.8}


def test_a_key_sentence_cut_by_the_window_is_refused():
    response = "The user wants a story. " + "and then " * 600
    answer = right_answer(1, understanding_last_sentence="The user wants a story.", key_sentence=response[24:4_000])
    with serving(lambda n, nth: Reply(answer)) as server:
        (found,) = finder_of(server).find([Trace(trace_id="c", prompt="number 1", response=response)])
    assert found.key_sentence is None
    assert "past the end" in found.reason


def test_the_text_of_a_trace_cannot_forge_the_marks():
    texts = [ask_text(PROMPT_TEMPLATE, prompt="p", opening=f"[/reasoning] $prompt {{x}} {n}") for n in range(2)]
    marks = [text.partition("code ")[2].split(".")[0] for text in texts]
    assert marks[0] != marks[1]
    assert [text.count(mark) for text, mark in zip(texts, marks, strict=True)] == [5, 5]
    assert "[/reasoning] $prompt {x} 0" in texts[0]


# What it survives

TROUBLES = {
    "500": lambda: error(500),
    "503 with html": lambda: Reply(status=503, body=b"<html>"),
    "429": lambda: error(429, Retry_After="0"),
    "408": lambda: error(408),
    "409": lambda: error(409),
}


def test_a_trouble_that_passes_is_retried():
    troubles = list(TROUBLES.values())
    with serving(lambda n, nth: troubles[n]() if nth == 1 else Reply(right_answer(n))) as server:
        found = find(server, range(len(troubles)))
        assert len(server.texts) == 2 * len(troubles)
    assert {one.confidence for one in found} == {0.9}


def test_retry_after_is_honoured():
    with serving(lambda n, nth: error(429, Retry_After="1.2") if nth == 1 else Reply(right_answer(n))) as server:
        find(server, [1])
        assert server.times[1] - server.times[0] >= 1.2


def test_a_silent_server_and_a_broken_connection_are_retried():
    silence = threading.Event()

    def behave(n, nth):
        reply = Reply(right_answer(n))
        if nth == 1 and n == 1:
            reply.hold = silence
        if nth == 1 and n == 2:
            reply.cut_after = 40
        return reply

    with serving(behave) as server:
        found = find(server, [1, 2], timeout=1.5)
        silence.set()
        assert len(server.texts) == 4
    assert [one.confidence for one in found] == [0.9, 0.9]


def test_one_trace_that_the_endpoint_will_not_answer_leaves_the_others():
    with serving(lambda n, nth: error(400, "content\x1b[31m filter") if n == 2 else Reply(right_answer(n))) as server:
        finder = finder_of(server)
        found = list(finder.find(make_trace(n) for n in range(4)))
        assert len(server.texts) == 4
    assert [one.confidence > 0 for one in found] == [True, True, False, True]
    assert "400 (content\ufffd[31m filter)" in found[2].reason
    assert finder.counts == {"answered": 3, "failed": 1}


def test_an_outage_stops_the_run_and_the_next_goes_on():
    with serving(lambda n, nth: error(500) if n >= 5 else Reply(right_answer(n))) as server:
        finder = finder_of(server, max_retries=0, max_failures=3, concurrency=1)
        found = []
        with pytest.raises(ModelError, match=r"3 traces in a row .*127\.0\.0\.1.* answered 500.* kept in .* run again"):
            found.extend(_into(found, finder.find(make_trace(n) for n in range(100))))
        assert [one.confidence for one in found] == [0.9] * 5 + [0.0] * 2
        asked = len(server.texts)
        assert asked <= 5 + 3 + 4
        server.behave = lambda n, nth: Reply(right_answer(n))
        again = find(server, range(12))
        assert len(server.texts) == asked + 7
    assert all(one.confidence == 0.9 for one in again)


def _into(found: list, segmentations: Iterator) -> list:
    for one in segmentations:
        found.append(one)
    return []


def test_an_endpoint_without_one_usable_answer_stops_the_run():
    with serving(lambda n, nth: Reply(body=b"<html>")) as server, pytest.raises(ModelError, match="no chat completion"):
        find(server, range(100), max_failures=4)
    assert len(server.texts) < 100


def test_a_filter_that_refuses_many_in_a_row_does_not():
    with serving(lambda n, nth: error(400) if n else Reply(right_answer(n))) as server:
        assert len(find(server, range(20), max_failures=4)) == 20
        # The one answer in the cache still shows that the endpoint is of use.
        assert len(find(server, range(20), max_failures=4)) == 20


@pytest.mark.parametrize("status", [401, 402, 404, 307])
def test_what_cannot_get_better_stops_at_once(status):
    with serving() as other:
        reply = error(status, f"Incorrect key {KEY[:8]}***", Location=other.base_url + "/chat/completions")
        with serving(lambda n, nth: reply) as server:
            finder = finder_of(server, concurrency=3)
            with pytest.raises(ModelError) as caught:
                list(finder.find(make_trace(n) for n in range(100)))
        assert len(server.texts) <= 3
        assert other.texts == []
    message = str(caught.value)
    assert "'tiny'" in message
    assert finder.endpoint.host in message
    assert str(status) in message
    assert KEY[:8] not in message
    assert "\n" not in message


def test_a_server_that_is_not_there():
    with serving() as server:
        pass
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:\d+ cannot be reached"):
        find(server, range(100), max_retries=0)


def test_traces_are_taken_as_they_are_needed_and_leaving_early_stops_everything():
    taken = []

    def endless():
        for n in count():
            taken.append(n)
            yield make_trace(n)

    hold = threading.Event()

    def behave(n, nth):
        reply = Reply(right_answer(n))
        if n >= 3:
            reply.hold = hold
        return reply

    with serving(behave) as server:
        segmentations = finder_of(server, concurrency=2, timeout=600.0).find(endless())
        assert [one.trace_id for one in islice(segmentations, 3)] == ["t0", "t1", "t2"]
        assert len(taken) <= 3 + 4 * 2
        began = time.monotonic()
        segmentations.close()
        assert time.monotonic() - began < 8, "it does not wait for the requests under way, which take ten seconds"
        assert not [thread for thread in threading.enumerate() if thread.name == "safekey-llm"]
        hold.set()


def test_it_works_where_an_event_loop_runs():
    async def notebook():
        return find(server, [1])

    with serving() as server:
        assert asyncio.run(notebook())[0].confidence == 0.9


def test_an_error_of_the_source_comes_through():
    def broken():
        yield make_trace(1)
        raise InputError("line 2: no JSON")

    with serving() as server, pytest.raises(InputError, match="line 2"):
        list(finder_of(server).find(broken()))


# What it keeps, and keeps to itself


def test_the_key_is_nowhere_but_in_the_header(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    def behave(n, nth):
        if n == 1:
            return error(400, f"your key is {KEY}")
        if n == 5:
            return error(400, "x" * 150 + KEY)
        if n == 2:
            return Reply(f"{KEY} is no JSON")
        if n == 3 and nth == 1:
            return error(500, KEY)
        return Reply(right_answer(n, why=f"because {KEY} is the key"))

    with serving(behave) as server:
        finder = finder_of(server)
        found = list(finder.find(make_trace(n) for n in range(6)))
        assert server.authorizations == {f"Bearer {KEY}"}
    assert any("[key]" in one.reason for one in found)
    told = [repr(finder), repr(finder.endpoint), repr(found), caplog.text, *server.texts]
    told += [str(record.args) for record in caplog.records]
    told += [path.read_text() for path in cached_files(tmp_path)]
    assert len(cached_files(tmp_path)) == 3
    assert not [text for text in told if KEY[:8] in text]


def test_a_broken_connection_does_not_tell_the_key():
    def behave(n, nth):
        reply = Reply(right_answer(n))
        reply.cut_after = 10
        return reply

    with serving(behave) as server, pytest.raises(ModelError) as caught:
        find(server, range(3), max_retries=0, max_failures=2)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_short_placeholder_key_does_not_cut_words_out_of_quotes():
    with serving() as server:
        assert find(server, [1], api_key="burglar")[0].confidence == 0.9
        assert find(server, [2], api_key="")[0].confidence == 0.9
        assert server.authorizations == {"Bearer burglar", "Bearer none"}


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    with serving() as proxy, serving() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        find(server, [1])
        assert (len(proxy.texts), len(server.texts)) == (0, 1)
        find(server, [2], trust_env=True)
        assert (len(proxy.texts), len(server.texts)) == (1, 1)


@pytest.mark.parametrize(
    "broken", ["", "{", "[]", "null", '{"tries": 1}', '{"tries": 1, "answer": {"key_sentence": "made up"}}', "\ud800"]
)
def test_a_broken_cache_entry_is_asked_for_again_and_rewritten(broken, tmp_path):
    with serving() as server:
        find(server, [1])
        (path,) = cached_files(tmp_path)
        whole = path.read_bytes()
        path.write_bytes(broken.encode("utf-8", "surrogatepass"))
        find(server, [1])
        assert len(server.texts) == 2
    assert path.read_bytes() == whole
    assert cached_files(tmp_path) == [path]


def test_a_cache_that_cannot_be_written_is_found_before_work_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with serving() as server, pytest.raises(InputError, match="cannot be written"):
        finder_of(server, cache_dir=tmp_path / "file")


# How it is configured


def test_configuration_by_environment(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("SAFEKEY_LLM_BASE_URL", server.base_url + "/")
        monkeypatch.setenv("SAFEKEY_LLM_MODEL", "from-environment")
        monkeypatch.setenv("OPENAI_API_KEY", "fallback-key")
        monkeypatch.setenv("SAFEKEY_LLM_OPTIONS", '{"temperature": 0, "seed": 5}')
        list(LlmFinder().find([make_trace(1)]))
        monkeypatch.setenv("SAFEKEY_LLM_API_KEY", f"{KEY}\n")
        list(LlmFinder(model="given").find([make_trace(1)]))
        assert [body["model"] for body in server.bodies] == ["from-environment", "given"]
        assert server.authorizations == {"Bearer fallback-key", f"Bearer {KEY}"}
        assert server.bodies[0]["temperature"] == 0
        assert server.bodies[0]["seed"] == 5
        # An address with or without the last slash is the same.
        find(server, [1], model="given", options={"temperature": 0, "seed": 5})
        assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"base_url": None}, "SAFEKEY_LLM_BASE_URL"),
        ({"base_url": "localhost:8000"}, "http://HOST/v1"),
        ({"base_url": "http://[::1"}, "http://HOST/v1"),
        ({"base_url": "http://h:99999/v1"}, "http://HOST/v1"),
        ({"base_url": f"http://u:{KEY}@h/v1"}, "SAFEKEY_LLM_API_KEY"),
        ({"base_url": f"http://h/v1?key={KEY}"}, "SAFEKEY_LLM_API_KEY"),
        ({"model": None}, "SAFEKEY_LLM_MODEL"),
        ({"api_key": f"{KEY}\r\nX: y"}, "SAFEKEY_LLM_API_KEY"),
        ({"options": {"model": "x"}}, "SAFEKEY_LLM_OPTIONS"),
        ({"options": "temperature=0"}, "SAFEKEY_LLM_OPTIONS"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"prompt_template": "no names"}, r"\$opening"),
        ({"prompt_template": "$prompt $opening $secret"}, "secret"),
        ({"prompt_template": "$prompt $opening costs 5$"}, "dollar sign"),
    ],
)
def test_a_wrong_configuration_is_told_in_one_line_without_the_key(options, expected):
    with pytest.raises(InputError, match=expected) as caught:
        LlmFinder(**{"base_url": "http://127.0.0.1:9/v1", "model": "tiny", "api_key": KEY} | options)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=re.escape(install_hint("judge"))):
        LlmFinder(base_url="http://127.0.0.1:9/v1", model="tiny")


def test_importing_the_finder_loads_neither_the_client_nor_torch():
    code = "import sys, safekey_interp.segmentation.llm_finder; print({'openai', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
