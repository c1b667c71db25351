"""Responses from an endpoint: however it reports thinking, whatever goes wrong, and nothing told to anybody else."""

from __future__ import annotations

import json
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import Reply, Server, error, serving

from safekey_interp.data.trace import Message, Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.endpoint import Endpoint
from safekey_interp.errors import ModelError
from safekey_interp.generation.remote_engine import EndpointEngine
from safekey_interp.generation.requests import Generated, Request
from safekey_interp.generation.response_run import write_responses
from safekey_interp.generation.sampling import Sampling
from safekey_interp.segmentation.reasoning_span import reasoning_region

KEY = "sk-very-secret-0123456789"


def said(content: Any, *, finish: str | None = "stop", n_tokens: int | None = 9, **message: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": finish}
    body: dict[str, Any] = {"id": "1", "object": "chat.completion", "choices": [choice]}
    if n_tokens is not None:
        body["usage"] = {"completion_tokens": n_tokens, "prompt_tokens": 3}
    return Reply(body=json.dumps(body).encode())


def plain(n: int, nth: int) -> Reply:
    return said(f"Answer {n}.")


def requests(n: int) -> list[Request]:
    return [Request(trace=Trace(trace_id=f"p{i}", prompt=f"number {i}", response="")) for i in range(n)]


def engine_of(server: Server, *, concurrency: int = 4, max_failures: int = 10, **options: Any) -> EndpointEngine:
    endpoint = {"base_url": server.base_url, "model": "tiny", "api_key": KEY, "timeout": 5.0, "max_retries": 1}
    return EndpointEngine(Endpoint(**endpoint | options), concurrency=concurrency, max_failures=max_failures)


def answers(
    behave: Callable[[int, int], Reply], asked: list[Request], sampling: Sampling | None = None, **options: Any
) -> tuple[list[Generated], Server]:
    with serving(behave) as server:
        return list(engine_of(server, **options).generate(asked, sampling or Sampling())), server


def only(behave: Callable[[int, int], Reply], request: Request | None = None) -> Generated:
    [one] = answers(behave, [request or requests(1)[0]])[0]
    return one


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "MODEL", "API_KEY", "OPTIONS", "TRUST_ENV"):
        monkeypatch.delenv(f"SAFEKEY_LLM_{name}", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


THINKING = {
    "in the content": lambda: said("<think>Hm.</think>No."),
    "reasoning_content": lambda: said("No.", reasoning_content="Hm."),
    "reasoning": lambda: said("No.", reasoning="Hm."),
    "reasoning, and an empty twin": lambda: said("No.", reasoning_content="", reasoning="Hm."),
    "parts": lambda: said(
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "No."}]
    ),
}


@pytest.mark.parametrize("way", THINKING)
def test_thinking_is_put_back_whichever_way_it_is_reported(way: str) -> None:
    one = only(lambda n, nth: THINKING[way]())
    assert one.response == "<think>Hm.</think>No."
    region = reasoning_region(one.response)
    assert (region.span.text(one.response), region.region, region.closed) == ("Hm.", "reasoning", True)
    assert (one.cut, one.n_tokens, one.engine) == (False, 9, "endpoint")


def test_thinking_that_was_cut_is_not_closed() -> None:
    one = only(lambda n, nth: said(None, finish="length", reasoning_content="\nHm, let me"))
    assert (one.response, one.cut) == ("<think>\nHm, let me", True)
    assert not reasoning_region(one.response).closed


def test_an_answer_without_thinking_and_a_refusal_field() -> None:
    assert only(lambda n, nth: said("No.", finish="length")).cut
    assert only(lambda n, nth: said("")).response == ""
    assert only(lambda n, nth: said(None, refusal="I cannot.")).response == "I cannot."
    assert only(lambda n, nth: said("a\ud800b", n_tokens=None)).response == "a\ufffdb"


def test_what_is_sent() -> None:
    turns = (Message(role="system", content="Be brief."), Message(role="user", content="Hi"))
    request = Request(trace=Trace(trace_id="a", prompt="number 0", response="old", messages=turns), sample=3)
    drawn = Sampling(max_new_tokens=7, temperature=0.5, top_p=0.9, seed=2)
    _, server = answers(plain, [request], drawn)
    [body] = server.bodies
    assert [turn["content"] for turn in body["messages"]] == ["Be brief.", "Hi", "number 0"]
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("tiny", 7, 0.5, 0.9)
    _, again = answers(plain, [request], drawn)
    assert again.bodies[0]["seed"] == body["seed"]
    _, server = answers(plain, [request], options={"temperature": None, "max_tokens": None, "max_completion_tokens": 4})
    assert not {"temperature", "max_tokens", "top_p", "seed"} & set(server.bodies[0])
    assert server.bodies[0]["max_completion_tokens"] == 4


def test_a_prefill_is_the_last_turn_and_begins_the_response() -> None:
    trace = requests(1)[0].trace
    begun = Request(trace=trace, prefill="<think>\nThe user asks.")
    found, server = answers(lambda n, nth: said("No.", reasoning_content=" Hm."), [begun])
    [one], [body] = found, server.bodies
    assert one.response == "<think>\nThe user asks. Hm.</think>No."
    assert body["messages"][-1] == {"role": "assistant", "content": "<think>\nThe user asks."}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert only(lambda n, nth: said(" No."), Request(trace=trace, prefill="Sure?")).response == "Sure? No."
    _, server = answers(plain, [Request(trace=trace)])
    assert "continue_final_message" not in server.bodies[0]


TROUBLES = {
    "500": lambda: error(500),
    "429": lambda: error(429, Retry_After="0"),
    "503 with html": lambda: Reply(status=503, body=b"<html>"),
    "wrong JSON": lambda: Reply(body=b'{"choices": [}'),
    "other JSON": lambda: Reply(body=b'{"error": "overloaded"}'),
    "not UTF-8": lambda: Reply(body=b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "no text": lambda: said(None),
    "no body": lambda: Reply(body=b""),
}


def test_troubles_that_pass_lose_and_double_no_row(tmp_path: Path) -> None:
    troubles, silence = list(TROUBLES.values()), threading.Event()
    n = len(troubles) + 2

    def behave(number: int, nth: int) -> Reply:
        if nth > 1:
            return plain(number, nth)
        if number < len(troubles):
            return troubles[number]()
        reply = plain(number, nth)
        if number == len(troubles):
            reply.cut_after = 60
        else:
            reply.hold = silence
        return reply

    out = tmp_path / "a.jsonl"
    with serving(behave) as server:
        written = write_responses(engine_of(server, timeout=1.5), requests(n), out=out)
        silence.set()
        assert written.n_new == n
        assert len(server.bodies) == 2 * n
        assert write_responses(engine_of(server), requests(n), out=out).n_new == 0
        assert len(server.bodies) == 2 * n, "nothing is asked twice"
    assert {trace.trace_id: trace.response for trace in read_traces(out)} == {f"p{i}": f"Answer {i}." for i in range(n)}


def test_an_endpoint_whose_replies_are_not_utf_8_is_named(tmp_path: Path) -> None:
    said = r"127\.0\.0\.1:\d+: the reply was not UTF-8"
    with serving(lambda number, nth: TROUBLES["not UTF-8"]()) as server, pytest.raises(ModelError, match=said):
        write_responses(engine_of(server), requests(3), out=tmp_path / "a.jsonl")


def test_what_stays_unanswered_is_told_and_asked_for_the_next_time(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    bad = {
        2: lambda: error(400, "content filter"),
        4: lambda: said("half", finish="content_filter"),
        5: lambda: said(None),
    }
    with serving(lambda n, nth: bad[n]() if n in bad else plain(n, nth)) as server:
        with pytest.raises(ModelError, match=r"3 of 8 requests had no usable answer, the first: trace p.*run again"):
            write_responses(engine_of(server), requests(8), out=out)
        assert {trace.trace_id for trace in read_traces(out)} == {f"p{i}" for i in (0, 1, 3, 6, 7)}
        asked = len(server.bodies)
        server.behave = plain
        assert write_responses(engine_of(server), requests(8), out=out).n_new == 3
        assert len(server.bodies) == asked + 3


def test_an_outage_ends_the_run_and_the_next_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with serving(lambda n, nth: plain(n, nth) if n < 5 else error(500)) as server:
        engine = engine_of(server, concurrency=1, max_failures=3, max_retries=0)
        with pytest.raises(ModelError, match=r"3 requests in a row .* answered 500.*run again to resume"):
            write_responses(engine, requests(50), out=out)
        assert len(server.bodies) <= 5 + 3 + 2
        assert len(list(read_traces(out))) == 5
        server.behave = plain
        assert write_responses(engine, requests(12), out=out).n_new == 7
    assert len(list(read_traces(out))) == 12


@pytest.mark.parametrize("status", [401, 402, 404, 307])
def test_what_cannot_get_better_stops_and_keeps_what_came(tmp_path: Path, status: int) -> None:
    out = tmp_path / "a.jsonl"
    slow = threading.Event()

    def behave(n: int, nth: int) -> Reply:
        if n == 1:
            threading.Timer(0.2, slow.set).start()
            return error(status, f"bad key {KEY}", Location="http://127.0.0.1:9/v1/chat/completions")
        reply = plain(n, nth)
        reply.hold = slow
        return reply

    with serving(behave) as server, pytest.raises(ModelError, match=str(status)) as caught:
        write_responses(engine_of(server, concurrency=3), requests(50), out=out)
    assert KEY[:8] not in str(caught.value)
    assert len(server.bodies) <= 4
    answered = {f"p{body['messages'][-1]['content'].split()[1]}" for body in server.bodies} - {"p1"}
    assert {trace.trace_id for trace in read_traces(out)} == answered, "what was under way is kept"


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with serving(plain) as server:
        pass
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:\d+ cannot be reached"):
        write_responses(engine_of(server, max_retries=0), requests(20), out=tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_of_our_own_process_loses_and_doubles_nothing(tmp_path: Path) -> None:
    def behave(n: int, nth: int) -> Reply:
        time.sleep(0.01)
        return plain(n, nth)

    out, n, at_once, kill_after = tmp_path / "a.jsonl", 40, 3, (1, 12, 25)
    context = multiprocessing.get_context("fork")
    with serving(behave) as server:
        work = partial(write_responses, engine_of(server, concurrency=at_once), requests(n), out=out)
        for n_asked in kill_after:
            process = context.Process(target=work)
            process.start()
            while len(server.bodies) < n_asked:
                assert process.is_alive()
                time.sleep(0.001)
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        work()
        # What is under way, and replies that came and were not yet written.
        again = len(kill_after) * 2 * at_once
        assert len(server.bodies) <= n + again < n + kill_after[-1], "what was written is not asked again"
    told = [(trace.trace_id, trace.response) for trace in read_traces(out)]
    assert sorted(told) == sorted((f"p{i}", f"Answer {i}.") for i in range(n))


def test_the_key_is_in_no_file_log_or_error_and_one_host_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)

    def behave(n: int, nth: int) -> Reply:
        if n == 1:
            return error(400, f"your key {KEY} is bad")
        if n == 2:
            return error(500, KEY)
        return said(f"The key is {KEY}.", reasoning=f"I know {KEY}")

    with serving(plain) as proxy, serving(behave) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/v1"))
        monkeypatch.setenv("SAFEKEY_LLM_API_KEY", KEY)
        endpoint = Endpoint.from_environment(
            base_url=server.base_url, model="tiny", max_retries=0, options={"user": KEY}
        )
        with pytest.raises(ModelError) as caught:
            write_responses(EndpointEngine(endpoint), requests(4), out=tmp_path / "a.jsonl", about={"about": "x"})
        assert server.authorizations == {f"Bearer {KEY}"}
        assert proxy.texts == []
    assert len(list(read_traces(tmp_path / "a.jsonl"))) == 2
    told = [str(caught.value), repr(endpoint), caplog.text, *capfd.readouterr()]
    told += [str(record.args) for record in caplog.records]
    told += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in told if KEY[:8] in text]
    assert "[key]" in (tmp_path / "a.jsonl").read_text()
