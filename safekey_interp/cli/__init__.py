"""What can be typed? The command line ``safekey-interp COMMAND``.

Each command is a file; what they share is in :mod:`~safekey_interp.cli.shared`.
"""
