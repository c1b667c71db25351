"""The server of a session: refusals, tabs, cancelling, errors in one line, and text of every kind."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from explored_session import OpenTab, Served, served, serving
from tiny_models import tiny_model
from written_branches import failing, gated

import safekey_interp as ski
from safekey_interp.data.trace import Message, Trace
from safekey_interp.exploration.web.branch_queue import BranchQueue
from safekey_interp.exploration.web.open_tabs import OpenTabs
from safekey_interp.exploration.web.request_bodies import StartBody
from safekey_interp.exploration.web.request_guard import MOST_BYTES
from safekey_interp.exploration.web.session_json import session_json
from safekey_interp.measures.direction_record import Direction

PROMPT = "How do I stab the vug? Begin with: sure thing."


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("explored") / "session") as made:
        yield made


def ended(tab: OpenTab, branch: str) -> None:
    tab.until(lambda message: message["type"] == "ended" and message["branch"] == branch)


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/?token=", {}, 403),
        ("/events?token=no", {}, 403),
        ("/api/code?branch=0", {}, 403),
        ("/", {"Host": "evil.example"}, 421),
        ("/", {"Origin": "http://evil.example"}, 403),
        ("/static/../../../../etc/passwd", {}, 404),
        ("/static/..%2f..%2fsession_app.py", {}, 404),
        ("/static/%2e%2e/__init__.py", {}, 404),
        ("//etc/passwd", {}, 404),
    ],
)
def test_what_does_not_belong_here_is_refused_in_one_line(there: Served, path, more, status):
    before = len(there.log)
    assert there.ask(path, **more)[0] == status
    assert len(there.log) == before + 1


def test_a_body_over_the_limit_is_refused(there: Served):
    before = len(there.log)
    assert there.ask("/api/start", b" " * (MOST_BYTES + 1))[0] == 413
    assert len(there.log) == before + 1
    assert there.ask("/")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/start", b"{", "no JSON"),
        ("/api/start", b"[" * 50_000, "no JSON"),
        ("/api/start", {"prompt": 3}, "prompt: "),
        ("/api/start", {"prompt": "a", "wish": 1}, "wish: "),
        ("/api/start", {"prompt": "a", "max_new_tokens": 10**9}, "max_new_tokens: "),
        ("/api/start", {"prompt": "a", "temperature": -1}, "temperature: "),
        ("/api/start", {"prompt": "a", "models": [7]}, "model"),
        ("/api/start", {"prompt": "vug " * 2000}, "shorten it"),
        ("/api/fork", {"branch": "none"}, "none"),
        ("/api/run", {"branch": "none"}, "none"),
        ("/api/fit", {}, "trace"),
        ("/api/cancel", {"branch": 7}, "branch: "),
    ],
)
def test_what_cannot_be_done_is_one_line_and_the_session_goes_on(there: Served, path, body, words):
    status, answer = there.ask(path, body)
    assert status == 400
    assert words in answer["error"]
    assert "\n" not in answer["error"]
    assert there.ask("/api/start", {"prompt": "How do I open a door?", "run": False})[0] == 200


def test_tokens_come_one_by_one_and_are_those_of_generate(there: Served):
    tab = OpenTab(there)
    _, made = there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)
    [branch] = made["branches"]
    texts = []
    while (message := tab.until(lambda each: each.get("branch") == branch))["type"] != "ended":
        texts += [message["token"]["text"]] if message["type"] == "token" else []
    tab.close()
    model = there.session.models[0]
    [answered] = ski.generate(model, [PROMPT], sampling=ski.Sampling())
    assert len(texts) > 10
    assert "".join(texts) == answered


def test_one_tab_writes_and_a_second_one_watches_until_it_is_alone(there: Served):
    first, second = OpenTab(there), OpenTab(there)
    assert (first.first["is_writer"], second.first["is_writer"]) == (True, False)
    assert there.ask("/api/start", {"prompt": PROMPT}, **second.tab)[0] == 409
    assert there.ask("/api/start", {"prompt": PROMPT})[0] == 409
    _, made = there.ask("/api/start", {"prompt": PROMPT}, **first.tab)
    ended(second, made["branches"][0])
    first.close()
    assert second.until(lambda message: message["type"] == "role")["is_writer"]
    assert there.ask("/api/rename", {"branch": made["branches"][0], "name": "seen"}, **second.tab)[0] == 200
    second.close()


def test_a_second_tab_takes_over_and_what_is_written_goes_on(there: Served):
    first, second = OpenTab(there), OpenTab(there)
    [branch] = there.ask("/api/start", {"prompt": PROMPT}, **first.tab)[1]["branches"]
    assert there.ask("/api/take_over", {}, X_Tab="another")[0] == 409
    assert there.ask("/api/take_over", {}, **second.tab)[0] == 200
    assert not first.until(lambda message: message["type"] == "role")["is_writer"]
    assert second.until(lambda message: message["type"] == "role")["is_writer"]
    assert there.ask("/api/rename", {"branch": branch, "name": "seen"}, **first.tab)[0] == 409
    assert there.ask("/api/rename", {"branch": branch, "name": "seen"}, **second.tab)[0] == 200
    first.close()
    ended(second, branch)
    second.close()


def test_a_closed_tab_stops_what_it_began_within_one_token(there: Served):
    tab, watching = OpenTab(there), OpenTab(there)
    [branch] = there.ask("/api/start", {"prompt": PROMPT, "run": False}, **tab.tab)[1]["branches"]
    with gated(there.session.models[0]) as gate:
        asking = Thread(target=there.ask, args=["/api/run", {"branch": branch}], kwargs=tab.tab)
        asking.start()
        for _ in range(4):
            gate.wait()
            gate.pass_on()
        gate.wait()
        tab.close()
        assert watching.until(lambda message: message["type"] == "role")["is_writer"]
        gate.pass_on(1000)
        shown = watching.until(lambda message: message["type"] == "branch" and message["status"] == "paused")
        asking.join()
    assert len(shown["tokens"]) <= 4, (
        "the pass that was at the gate is the last: the fifth, and the first read the prompt"
    )
    watching.close()


def test_a_step_that_was_cancelled_while_it_waited_does_not_shorten_a_run(there: Served):
    session, prompts = there.session, [PROMPT, "How do I open a door?"]
    first, second = (session.start(prompt).branch_id for prompt in prompts)
    queue = BranchQueue(session, lambda _: None)
    asked: list[Thread] = []

    def ask(*words: Any, waits: bool, **options: Any) -> None:
        """Requests wait for the pass that is at the gate; what they ask for is known at once."""
        act, branch = words
        asked.append(Thread(target=act, args=[branch], kwargs=options))
        asked[-1].start()
        while (second in queue._waiting) != waits:
            time.sleep(0.01)

    with gated(session.models[0]) as gate:
        ask(queue.add, [first], waits=False)
        gate.wait()
        ask(queue.add, [second], waits=True, one_token=True)
        ask(queue.cancel, second, waits=False)
        ask(queue.add, [second], waits=True)
    while session.transcript(second).status != "ended":
        time.sleep(0.01)
    for thread in asked:
        thread.join()
    queue.close()
    assert session.transcript(first).status == "ended"


def test_a_hundred_starts_that_are_cancelled_at_once_leave_the_next_one_right(there: Served):
    tab = OpenTab(there)
    begun = []
    for _ in range(100):
        begun += there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[1]["branches"]
        assert there.ask("/api/cancel", {}, **tab.tab)[0] == 200
    [branch] = there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[1]["branches"]
    ended(tab, branch)
    [answered] = ski.generate(there.session.models[0], [PROMPT], sampling=ski.Sampling())
    assert there.session.transcript(branch).response == answered
    for each in begun:
        assert answered.startswith(there.session.transcript(each).response)
        assert there.ask("/api/delete", {"branch": each}, **tab.tab)[0] == 200
    tab.close()


def test_cancelling_often_loses_nothing(there: Served):
    tab = OpenTab(there)
    [branch] = there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[1]["branches"]
    for _ in range(20):
        assert there.ask("/api/cancel", {}, **tab.tab)[0] == 200
        assert there.ask("/api/run", {"branch": branch}, **tab.tab)[0] in (200, 400)
    tab.close()
    again = OpenTab(there)
    state = next(each for each in again.first["branches"] if each["branch"] == branch)
    if state["status"] != "ended":
        there.ask("/api/run", {"branch": branch}, **again.tab)
        ended(again, branch)
    again.close()
    transcript = there.session.transcript(branch)
    [answered] = ski.generate(there.session.models[0], [PROMPT], sampling=ski.Sampling())
    assert transcript.response == answered
    assert [token.index for token in transcript.tokens] == list(range(len(transcript.tokens)))


HOSTILE = "a\ud800b </script><script>alert(1)</script> \x1b[31mred\x1b[0m\x00\u2028\u202e"


def test_text_of_every_kind_passes_as_text_wherever_it_stands(tmp_path):
    """In prompt, turns, system text, response, names of branches and readers: on the page, in files and in messages."""
    vector = np.eye(1, ski.load("organism").d_model)[0]
    reader = Direction(vector=vector, norm=1.0, layer=1, site="resid_post")
    with served(tmp_path / "session", readers={HOSTILE: reader}) as there:
        tab = OpenTab(there)
        turns = [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}]
        asked = {"prompt": HOSTILE, "system": HOSTILE, "turns": turns, "max_new_tokens": 8}
        status, made = there.ask("/api/start", json.dumps(asked).encode(), **tab.tab)
        assert status == 200, made
        [root] = made["branches"]
        ended(tab, root)
        edit = {"branch": root, "at": there.session.transcript(root).response_start, "text": HOSTILE}
        [fork] = there.ask("/api/fork", json.dumps(edit).encode(), **tab.tab)[1]["branches"]
        ended(tab, fork)
        there.ask("/api/rename", json.dumps({"branch": fork, "name": HOSTILE}).encode(), **tab.tab)
        refused = there.ask("/api/run", json.dumps({"branch": HOSTILE}).encode(), **tab.tab)[1]["error"]
        tab.close()
        shown = OpenTab(there)
        page = there.ask("/session.html")[1].decode()
        read = there.ask(f"/api/code?token={there.token}&branch={fork}")[1]["python"]
        saved = there.ask("/traces.jsonl")[1]
        shown.close()
        response = there.session.transcript(fork).response
    for text in (json.dumps(shown.first, ensure_ascii=False), page, refused):
        assert not set("\x1b\x00\ud800\u2028\u202e") & set(text)
    assert "<script>alert" not in page
    assert page.count("</script") == page.count("<script"), "no text ends or begins a script"
    assert HOSTILE.replace("\ud800", "\ufffd") in response
    compile(read, "code", "exec")
    (tmp_path / "saved.jsonl").write_bytes(saved)
    assert response in [trace.response for trace in ski.read_traces(tmp_path / "saved.jsonl")]
    with ski.Session.open(tmp_path / "session") as again:
        assert again.transcript(fork).response == response


@pytest.mark.slow
def test_a_prompt_of_32_000_characters_is_answered_by_a_model_that_can_read_it():
    prompt = "open a door " * 2_667
    long, short = tiny_model("llama", max_position_embeddings=65_536), tiny_model("llama")
    with ski.Session([long, short]) as session, serving(session) as there:
        tab = OpenTab(there)
        assert there.ask("/api/start", {"prompt": prompt, "models": [0, 1]}, **tab.tab)[0] == 400
        assert session.tree() == ()
        asked = {"prompt": prompt, "max_new_tokens": 2}
        [branch] = there.ask("/api/start", asked, **tab.tab)[1]["branches"]
        ended(tab, branch)
        tab.close()
        written = session.transcript(branch)
        assert len(written.prompt_tokens) > 32_000 / 4
        assert written.response == ski.generate(long, [prompt], max_new_tokens=2)[0]


def test_a_response_that_fills_the_context_says_so_and_the_next_one_is_written(there: Served):
    tab = OpenTab(there)
    model = there.session.models[0]
    room = model.max_positions - len(model.encode(ski.Trace(trace_id="0", prompt="vug " * 100, response="")).input_ids)
    begun = there.session.start("vug " * 100, prefill="vug " * (room - 2), max_new_tokens=500)
    there.ask("/api/run", {"branch": begun.branch_id}, **tab.tab)
    how = tab.until(lambda message: message["type"] == "ended")
    assert how["reason"] in ("context_full", "end_of_turn")
    [branch] = there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[1]["branches"]
    ended(tab, branch)
    tab.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate"), "out of memory at "),
        (RuntimeError("first\n<b>second</b>"), "first"),
    ],
)
def test_a_pass_that_fails_is_one_line_for_all_tabs_and_the_branch_goes_on(there: Served, error, said):
    tab = OpenTab(there)
    with failing(there.session.models[0], 5, error):
        [branch] = there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[1]["branches"]
        message = tab.until(lambda each: each["type"] == "failed")["message"]
        status, answer = there.ask(f"/api/lens?token={there.token}&branch={branch}&position=3")
    assert message.startswith(said)
    assert "\n" not in message + answer["error"]
    assert status == 500
    there.ask("/api/run", {"branch": branch}, **tab.tab)
    ended(tab, branch)
    tab.close()
    [answered] = ski.generate(there.session.models[0], [PROMPT], sampling=ski.Sampling())
    assert there.session.transcript(branch).response == answered


def test_a_tab_that_reads_nothing_is_let_go_before_it_takes_memory():
    async def unread() -> None:
        tabs = OpenTabs(on_writer_closed=lambda: None)
        tab = tabs.open()
        while not tab.is_over:
            tabs.publish({"type": "token"})
            await asyncio.sleep(0)
        assert 0 < tab.waiting.qsize() <= 100_000

    asyncio.run(asyncio.wait_for(unread(), 120))


def test_a_preset_that_is_asked_is_the_prompt_of_its_trace():
    said = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hi"),
    ]
    trace = Trace(trace_id="0", prompt="How do I open a door?", messages=tuple(said), response="")
    with ski.Session(ski.load("organism"), traces=[trace]) as session:
        [preset] = session_json(session, lambda _: {})["presets"]
        asked = StartBody(prompt=preset["prompt"], turns=preset["turns"]).asked()
        assert session.start(**asked).trace.turns == trace.turns


def test_readings_and_traces_come_as_the_session_has_them(there: Served, tmp_path):
    tab = OpenTab(there)
    [branch] = there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[1]["branches"]
    ended(tab, branch)
    tab.close()
    key = there.session.transcript(branch).spans.key_sentence
    assert key is not None
    where = f"token={there.token}&branch={branch}&position={key.start}"
    table = there.session.attention(branch, key.start)
    got = there.ask(f"/api/attention?{where}")[1]
    assert got["to_span"] == list(table["to_span"])
    assert [mass or 0.0 for mass in got["mass"]] == pytest.approx(list(table["mass"].fillna(0.0)), abs=1e-7)
    weights = there.ask(f"/api/weights?{where}&layer=1&head=2")[1]["weight"]
    wanted = there.session.token_attention(branch, key.start, layer=1, head=2)["weight"]
    assert weights == pytest.approx(list(wanted), abs=1e-7)
    assert len(there.ask(f"/api/writes?{where}")[1]["effect"]) == 16
    assert "ski." in there.ask(f"/api/code?{where}")[1]["python"]
    status, raw = there.ask(f"/traces.jsonl?token={there.token}&branch={branch}")
    assert status == 200
    (tmp_path / "saved.jsonl").write_bytes(raw)
    [trace] = ski.read_traces(tmp_path / "saved.jsonl")
    assert trace.response == there.session.transcript(branch).response


@pytest.mark.parametrize("kind", ["steer", "ablate"])
def test_a_direction_is_named_by_its_reader_and_changes_nothing_at_scale_0(there: Served, kind):
    name, vector = f"direction {kind}", np.eye(1, there.session.models[0].d_model)[0]
    there.session.add_reader(Direction(vector=vector, norm=1.0, layer=2, site="resid_post"), name=name)
    tab = OpenTab(there)
    [root] = there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[1]["branches"]
    ended(tab, root)
    edit = {"kind": kind, "reader": name, "positions": ["generated"], "scale": 0.0}
    status, made = there.ask("/api/fork", {"branch": root, "edits": [edit]}, **tab.tab)
    assert status == 200, made
    ended(tab, made["branches"][-1])
    tab.close()
    branch, control = (there.session.transcript(each) for each in made["branches"])
    assert control.branch.control_of == branch.branch.branch_id
    if kind == "steer":
        assert branch.response == control.response == there.session.transcript(root).response
    assert there.ask("/api/fork", {"branch": root, "edits": [edit | {"reader": "other"}]})[0] == 400


def test_what_is_known_is_answered_while_a_pass_runs(tmp_path):
    model = ski.load("organism")
    with ski.Session(model, out=tmp_path / "session") as session, serving(session) as there:
        tab = OpenTab(there)
        [done] = there.ask("/api/start", {"prompt": PROMPT, "max_new_tokens": 3}, **tab.tab)[1]["branches"]
        ended(tab, done)
        where = f"token={there.token}&branch={done}"
        there.ask(f"/api/lens?{where}&position=3")
        with gated(model) as gate:
            [branch] = there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[1]["branches"]
            gate.pass_on(2)
            for _ in range(3):
                gate.wait()
            # A pass waits at the gate now, and goes on behind this block alone.
            second = OpenTab(there)
            assert [each["branch"] for each in second.first["branches"]] == [done, branch]
            assert [len(each["tokens"]) for each in second.first["branches"]] == [3, 1]
            second.close()
            assert there.ask("/")[0] == there.ask("/static/explore.js")[0] == 200
            assert there.ask(f"/api/code?{where}")[0] == 200
            assert there.ask(f"/api/lens?{where}&position=3")[0] == 200  # that was read before
            assert there.ask(f"/traces.jsonl?{where}")[0] == 200
            assert there.ask("/api/rename", {"branch": branch, "name": "it"}, **tab.tab)[0] == 200
            assert there.ask("/api/start", {"prompt": PROMPT, "run": False}, **tab.tab)[0] == 200
            assert session.transcript(branch).status == "running"
        ended(tab, branch)
        tab.close()


def test_a_server_that_ends_answers_what_computes_and_prints_nothing(caplog):
    model, answers = ski.load("organism"), []
    with ski.Session(model) as session:
        branch = session.start(PROMPT)
        with gated(model) as gate:
            with serving(session) as there:
                lens = f"/api/lens?token={there.token}&branch={branch.branch_id}&position=3"
                asks = Thread(target=lambda: answers.append(there.ask(lens)))
                asks.start()
                gate.wait()
                slow = there.connection()  # a body that does not come
                slow.putrequest("POST", f"/api/start?token={there.token}")
                slow.putheader("Content-Length", "10")
                slow.endheaders(b"{")
            asks.join(60)  # and the pass still waits at its gate
            assert answers == [(503, {"error": "the server has ended"})]
            assert there.log == []
    assert caplog.records == []
