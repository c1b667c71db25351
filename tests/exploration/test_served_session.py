"""A session's page served from Python: it answers until it is closed, and the session is the one that it shows."""

from __future__ import annotations

import http.client

import pytest
from explored_session import OpenTab, Served

import safekey_interp as ski


def test_it_answers_until_it_is_closed_and_shows_what_python_does():
    with ski.explore(ski.load("organism"), browser=False) as explored:
        there = Served(explored.session, explored.address, [])
        branch = explored.session.start("How do I open a door?", name="<b>door</b>")
        tab = OpenTab(there)
        [shown] = tab.first["branches"]
        tab.close()
        assert (shown["branch"], shown["name"]) == (branch.branch_id, "<b>door</b>")
        assert f'href="{explored.address}"' in explored._repr_mimebundle_()["text/html"]
    with pytest.raises((http.client.HTTPException, OSError)):
        there.ask("/")


def test_a_taken_port_is_said_and_nothing_is_left_open(tmp_path):
    model = ski.load("organism")
    with ski.explore(model, browser=False) as explored:
        port = Served(explored.session, explored.address, []).connection().port
        with pytest.raises(ski.InputError, match=f"--port {port}"):
            ski.explore(model, port=port, out=tmp_path / "kept", browser=False)
        ski.explore(model, out=tmp_path / "kept2", browser=False).close()
