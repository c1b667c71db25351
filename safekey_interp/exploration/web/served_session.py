"""Session with its page, served in the background of a Python process or a notebook.

explored = ski.explore(ski.load("organism"))
explored                     # the page in this cell (extra [notebook]), else a link to it
explored.session.tree()      # what was done on the page so far
explored.close()
"""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.data.trace import Trace
from safekey_interp.display import escaped, is_listening
from safekey_interp.errors import RunError
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.session_server import SessionServer
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.models.model import Model

if TYPE_CHECKING:
    from safekey_interp.exploration.web.session_widget import SessionWidget

Reader = Probe | Direction


class ServedSession:
    """A session and the server of its page; a context manager that ends both."""

    def __init__(self, session: Session, *, port: int = 0) -> None:
        """Serve a session until :meth:`close`.

        Args:
            session: shown and changed.
            port: of TCP, on this machine alone; a free one when 0.

        Raises:
            InputError: the port is taken.
        """
        self.session = session
        """What the page shows; it can be used from Python, too."""
        self._server = SessionServer(port=port)
        is_ready = threading.Event()
        run = {"target": self._server.run, "args": [session, lambda _: is_ready.set()]}
        self._thread = threading.Thread(**run, name="explore", daemon=True)
        self._thread.start()
        while not is_ready.wait(0.1):
            if not self._thread.is_alive():
                raise RunError("explore: the server ended before it answered; see what was printed above")

    @property
    def address(self) -> str:
        """The page's address, with the token that lets in."""
        return self._server.address

    def close(self) -> None:
        """Stop what is being written, the server and the session."""
        self._server.stop()
        self._thread.join()
        self.session.close()

    def __enter__(self) -> ServedSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """The page itself where the extra ``notebook`` is installed, and a link to it for where it is not shown."""
        address = escaped(self.address)
        names = ", ".join(model.name for model in self.session.models)
        link = f'<a href="{address}" target="_blank" rel="noopener">Explore {escaped(names)}</a>'
        data, _ = (self._widget and self._widget._repr_mimebundle_()) or ({}, {})
        return data | {"text/plain": repr(self), "text/html": link}

    @cached_property
    def _widget(self) -> SessionWidget | None:
        try:
            from safekey_interp.exploration.web.session_widget import SessionWidget
        except ModuleNotFoundError:
            return None
        return SessionWidget(self._server)


def explore(
    model: Model | Sequence[Model],
    *,
    traces: str | Path | Iterable[Trace] = (),
    readers: Reader | Sequence[Reader] | Mapping[str, Reader] = (),
    out: str | Path | None = None,
    port: int = 0,
    browser: bool | None = None,
) -> ServedSession:
    """Open a page where a model writes, is read token by token, and goes on with something changed.

    Args:
        model: from ``load`` or ``from_hf``; several answer side by side.
        traces: presets for prompts, and what probes are fitted to; a file or traces.
        readers: probes or directions that score each token, by name or in order.
        out: the run folder; nothing is kept on disk when None.
        port: of TCP, on this machine alone; a free one when 0.
        browser: whether to open the page; when None, outside of notebooks, which show a link.

    Returns:
        The session with its page's address, until it is closed.

    Raises:
        InputError: a reader that fits none of the models, or a port that is taken.
        RunError: the folder holds something else, or another process writes to it.
    """
    session = Session(model, traces=traces, readers=readers, out=out)
    try:
        served = ServedSession(session, port=port)
    except BaseException:
        session.close()
        raise
    if not is_listening() if browser is None else browser:
        webbrowser.open(served.address)
    return served
