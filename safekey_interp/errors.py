"""Errors that the user can mend: one line each, with what, where, expected and remedy.

Every error here prints as its message alone on the command line, with exit status 2; anything else is a bug and shows
its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SafekeyError(Exception):
    """Base of every error that the user can mend; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class OnlyEstimated(Exception):
    """End of a dry run, which is no mistake: what the work would cost."""

    def __init__(self, cost: Any) -> None:
        super().__init__(str(cost))
        self.cost = cost
        """Numbers by ``cost.rows()``."""


class InputError(SafekeyError):
    """A file, an option or a record that cannot be used as it is."""


class NothingMeasured(InputError):
    """Data of which nothing could be measured, although what was asked for is sound; names one reason."""

    def __init__(self, message: str, left_out: Mapping[str, str]) -> None:
        example = next((f"trace {name}: {reason}" for name, reason in left_out.items()), "there are none")
        super().__init__(f"{message}; {example}")
        self.left_out = dict(left_out)
        """Why, by trace."""


class ModelError(SafekeyError):
    """A model that cannot be found, loaded or measured."""


class RunError(SafekeyError):
    """A run folder that cannot be written, read or continued."""


class TraceError(SafekeyError):
    """One trace that cannot be measured; the others can. Begins with ``trace ID:``."""

    def __init__(self, trace_id: str, message: str) -> None:
        super().__init__(f"trace {trace_id}: {message}")
        self.trace_id = trace_id
        """The trace."""
        self.reason = " ".join(message.split())
        """Why, without the trace."""


class TraceTooLong(TraceError):
    """The tokens up to the end of the key sentence do not fit ``max_length``; spans are never clipped."""


def install_hint(extra: str) -> str:
    """The command that installs an optional dependency: from the folder that this package was installed from, if any.

    A folder stands in ``direct_url.json`` of the installation (PEP 610); elsewhere the package's name is used.
    """
    import json
    from importlib import metadata
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    source = "safekey-interp"
    try:
        recorded = metadata.distribution(source).read_text("direct_url.json")
        url = urlparse(json.loads(recorded or "{}").get("url", ""))
    except (metadata.PackageNotFoundError, ValueError):
        url = urlparse("")
    if url.scheme == "file" and not url.path.endswith((".whl", ".tar.gz")):
        source = url2pathname(url.path)
    return f"pip install '{source}[{extra}]'"


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says; the name of its class when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
