"""Web application of a session: its page, its events as they happen, and the requests that change or read it.

Server-sent events carry the session as it is when a tab opens, then each change. Requests are JSON; an error that the
user can mend is ``{"error": LINE}`` with status 400, and leaves the session usable.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from safekey_interp.display import one_line
from safekey_interp.errors import SafekeyError
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.branch_queue import BranchQueue
from safekey_interp.exploration.web.open_tabs import OpenTabs
from safekey_interp.exploration.web.page_files import page_files, saved_page
from safekey_interp.exploration.web.position_readings import READINGS, PositionReadings
from safekey_interp.exploration.web.request_bodies import (
    Body,
    BranchBody,
    CancelBody,
    FitBody,
    ForkBody,
    RenameBody,
    StartBody,
    read_body,
)
from safekey_interp.exploration.web.session_json import difference_json, json_text, readers_json, session_json

Json = dict[str, Any]
_KEEP_ALIVE = 15.0
"""Seconds without an event after which a tab is sent a comment: what lies between would close the connection."""


class SessionApp:
    """The requests that a session's page makes."""

    def __init__(self, session: Session, log: Callable[[str], None]) -> None:
        self._session, self._log = session, log
        self._tabs = OpenTabs(on_writer_closed=self._stop)
        self._queue = BranchQueue(session, self._tabs.publish)
        self._readings = PositionReadings(session)

    def starlette(self) -> Starlette:
        """As a server runs it."""
        changes: list[tuple[str, type[Body], Callable[[Any], Json]]] = [
            ("start", StartBody, self._start),
            ("fork", ForkBody, self._fork),
            ("run", BranchBody, lambda body: self._run(body.branch)),
            ("step", BranchBody, lambda body: self._run(body.branch, one_token=True)),
            ("cancel", CancelBody, lambda body: self._queue.cancel(body.branch) or {}),
            ("rename", RenameBody, self._rename),
            ("delete", BranchBody, self._delete),
            ("fit", FitBody, self._fit),
        ]
        readings: dict[str, Callable[[Any], str]] = {
            **{kind: functools.partial(self._readings.read, kind) for kind in READINGS},
            "difference": self._difference,
            "code": lambda asked: json_text(self._session.code(asked["branch"])._asdict()),
        }
        return Starlette(
            routes=[
                Route("/", self._file),
                Route("/static/{name}", self._file),
                Route("/events", self._events),
                Route("/traces.jsonl", self._traces),
                Route("/session.html", self._page),
                Route("/api/take_over", self._take_over, methods=["POST"]),
                *(Route(f"/api/{name}", self._change(kind, act), methods=["POST"]) for name, kind, act in changes),
                *(Route(f"/api/{name}", self._reading(read)) for name, read in readings.items()),
            ]
        )

    def end_streams(self) -> None:
        """Let open tabs go, and begin no further reading; from the event loop's thread."""
        self._tabs.end()
        self._readings.end()

    def close(self) -> None:
        """Pause what is being written, and wait for it."""
        self._queue.close()

    def _stop(self) -> None:
        self._queue.cancel()

    async def _file(self, request: Request) -> Response:
        file = page_files().get(request.path_params.get("name", "index.html"))
        if file is None:
            return _json({"error": "no such file"}, 404)
        return Response(file.text, media_type=file.media_type)

    async def _events(self, _: Request) -> Response:
        def snapshot() -> Json:
            return session_json(self._session, lambda branch: self._queue.transcript(branch.branch_id))

        async def stream() -> AsyncIterator[str]:
            tab = self._tabs.open()
            try:
                first = await _in_thread(snapshot)
                message = first | {"tab": tab.tab_id, "is_writer": self._tabs.may_write(tab.tab_id)}
                text = await _in_thread(lambda: json_text(message))
                while not tab.is_over:
                    yield f"data: {text}\n\n"
                    while (message := await tab.next(_KEEP_ALIVE)) is None:
                        yield ": still here\n\n"
                    text = json_text(message)
            finally:
                self._tabs.close(tab)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _traces(self, request: Request) -> Response:
        chosen = request.query_params.getlist("branch") or None

        def written() -> bytes:
            if self._session.folder is not None:  # beside the session, and nowhere else
                self._session.save_traces(file := self._session.folder / "saved_traces.jsonl", chosen)
                return file.read_bytes()
            with tempfile.TemporaryDirectory() as folder:
                self._session.save_traces(file := Path(folder) / "traces.jsonl", chosen)
                return file.read_bytes()

        return await self._saved(written, "traces.jsonl", "application/x-ndjson")

    async def _page(self, _: Request) -> Response:
        return await self._saved(
            lambda: saved_page(self._session, self._readings).encode(), "session.html", "text/html"
        )

    async def _saved(self, written: Callable[[], bytes], name: str, media_type: str) -> Response:
        """A file that the browser keeps."""

        async def answer() -> Response:
            headers = {"content-disposition": f'attachment; filename="{name}"'}
            return Response(await _in_thread(written), media_type=media_type, headers=headers)

        return await self._answered(answer)

    async def _take_over(self, request: Request) -> Response:
        """Let the tab that asks change the session, in the place of the one that could."""
        if not self._tabs.take_over(request.headers.get("x-tab")):
            return _json({"error": "no open tab; load the page again"}, 409)
        return _json({})

    def _change(self, kind: type[Body], act: Callable[[Any], Json]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            if not self._tabs.may_write(request.headers.get("x-tab")):
                return _json({"error": "another tab has this session; this one only shows it"}, 409)
            raw = await request.body()

            async def answer() -> Response:
                return _json(await _in_thread(lambda: act(read_body(kind, raw))))

            return await self._answered(answer)

        return endpoint

    def _reading(self, read: Callable[[Any], str]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            async def answer() -> Response:
                text = await _in_thread(lambda: read({"branch": "", **request.query_params}))
                return Response(text, media_type="application/json")

            return await self._answered(answer)

        return endpoint

    async def _answered(self, answer: Callable[[], Any]) -> Response:
        try:
            return await answer()
        except SafekeyError as error:
            return _json({"error": one_line(str(error))}, 400)
        except Exception as error:  # out of memory, or a bug: one line, and the session goes on
            words = one_line(f"{type(error).__name__}: {error}")
            self._log(f"500: {words}")
            return _json({"error": words}, 500)

    def _start(self, body: StartBody) -> Json:
        made: list[str] = []
        try:
            for model in body.models:
                made.append(self._session.start(model=model, **body.asked()).branch_id)
        except SafekeyError:
            for branch_id in made:  # all of them or none
                self._session.delete(branch_id)
            raise
        return self._begun(made, run=body.run)

    def _fork(self, body: ForkBody) -> Json:
        branch = self._session.fork(body.branch, **body.asked(self._session))
        controls = [control.branch_id for control in self._session.controls(branch)]
        begun = self._begun([branch.branch_id, *controls[:1]], run=body.run)
        further = self._begun(controls[1:], run=body.run, is_behind=True)
        return {"branches": [*begun["branches"], *further["branches"]]}

    def _begun(self, branches: list[str], *, run: bool, is_behind: bool = False) -> Json:
        for branch_id in branches:
            self._queue.show(branch_id)
        if run:
            self._queue.add(branches, is_behind=is_behind)
        return {"branches": branches}

    def _run(self, branch_id: str, *, one_token: bool = False) -> Json:
        self._session.branch(branch_id)
        self._queue.add([branch_id], one_token=one_token)
        return {}

    def _rename(self, body: RenameBody) -> Json:
        self._session.rename(body.branch, body.name)
        self._queue.show(body.branch)
        return {}

    def _delete(self, body: BranchBody) -> Json:
        self._queue.cancel(body.branch)
        gone = list(self._session.delete(body.branch))
        self._tabs.publish({"type": "deleted", "branches": gone})
        return {"branches": gone}

    def _fit(self, body: FitBody) -> Json:
        self._session.fit_reader(layer=body.layer, position=body.position, model=body.model)
        described = readers_json(self._session)
        self._tabs.publish({"type": "readers", "readers": described})
        return {"readers": described}

    def _difference(self, asked: dict[str, str]) -> str:
        return json_text(difference_json(self._session.difference(asked["branch"], asked.get("other"))))


async def _in_thread(act: Callable[[], Any]) -> Any:
    """What ``act`` returns; where the request is cancelled, its thread is left to itself."""
    return await to_thread.run_sync(act, abandon_on_cancel=True)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_text(value), status, media_type="application/json")
