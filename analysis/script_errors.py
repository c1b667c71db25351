"""Errors of scripts: a mistake that the user can mend is one line on standard error, and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from safekey_interp.errors import SafekeyError


def or_one_line(name: str, do: Callable[[], object]) -> None:
    """Do what a script does.

    Args:
        name: of the script, before the message.
        do: does it.
    """
    try:
        do()
    except SafekeyError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
