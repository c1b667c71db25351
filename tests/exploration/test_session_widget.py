"""The widget of a session: what its page asks over a notebook's messages is answered as over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import safekey_interp as ski

pytest.importorskip("anywidget")

import comm
from notebook_frontend import Frontend

PROMPT = "How do I stab the vug? Begin with: sure thing."


@pytest.fixture
def explored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(comm, "create_comm", Frontend)
    with ski.explore(ski.load("organism"), browser=False) as made:
        yield made


def opened(explored: Any) -> Frontend:
    """The front end of the cell that shows the session."""
    explored._repr_mimebundle_()
    return explored._widget.comm


def view(front: Frontend) -> tuple[Callable[[Callable[[Any], bool]], Any], dict[str, Any], str]:
    """A view's events, its first one, and the id of its stream."""
    name = front.begin("GET", "events")
    events = front.events(name)
    return events, events(lambda event: event["type"] == "session"), name


def test_a_cell_shows_the_page_and_a_link_for_where_it_cannot(explored):
    shown = explored._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert f'href="{explored.address}"' in shown["text/html"]
    assert explored._repr_mimebundle_() == shown


def test_tokens_come_as_messages_and_are_those_of_generate(explored):
    front = opened(explored)
    events, first, _ = view(front)
    status, made = front.ask("POST", "api/start", {"prompt": PROMPT}, X_Tab=first["tab"])
    assert status == 200
    texts = []
    while (event := events(lambda each: each.get("branch") == made["branches"][0]))["type"] != "ended":
        texts += [event["token"]["text"]] if event["type"] == "token" else []
    [answered] = ski.generate(explored.session.models[0], [PROMPT], sampling=ski.Sampling())
    assert "".join(texts) == answered

    key = explored.session.transcript(made["branches"][0]).spans.key_sentence
    status, read = front.ask("GET", f"api/attention?branch={made['branches'][0]}&position={key.start}")
    assert status == 200
    assert read["mass"] == pytest.approx(list(explored.session.attention(made["branches"][0], key.start)["mass"]))
    assert front.ask("GET", "api/attention?branch=none&position=0")[0] == 400
    assert front.ask("POST", "api/start", {"prompt": 3}, X_Tab=first["tab"])[0] == 400


def test_a_view_that_goes_leaves_the_session_to_the_next_one(explored):
    front = opened(explored)
    _, first, stream = view(front)
    events, second, _ = view(front)
    assert (first["is_writer"], second["is_writer"]) == (True, False)
    assert front.ask("POST", "api/start", {"prompt": PROMPT}, X_Tab=second["tab"])[0] == 409
    front.send_to_kernel({"id": stream, "method": "CLOSE"})
    assert events(lambda event: event["type"] == "role")["is_writer"]
    assert front.ask("POST", "api/start", {"prompt": PROMPT, "run": False}, X_Tab=second["tab"])[0] == 200


@pytest.mark.parametrize(
    "message", [None, 3, {}, {"id": "0", "method": "PUT"}, {"id": "0", "method": "GET", "wish": 1}]
)
def test_what_is_no_request_is_passed_over(explored, message):
    front = opened(explored)
    front.send_to_kernel(message)
    assert front.ask("GET", "api/code?branch=none")[0] == 400


def test_after_the_end_a_request_is_answered_in_one_line(explored):
    front = opened(explored)
    explored.close()
    status, answer = front.ask("GET", "api/code?branch=0")
    assert status == 503
    assert "closed" in answer["error"]
