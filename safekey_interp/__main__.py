"""``python -m safekey_interp`` is the console script."""

from safekey_interp.cli.app import main

main()
