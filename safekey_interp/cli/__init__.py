"""The command line: ``safekey-interp COMMAND``. Each command is a file; what they share is in :mod:`shared`."""

from safekey_interp.cli.app import main

__all__ = ["main"]
