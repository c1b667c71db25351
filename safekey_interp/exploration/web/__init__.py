"""The page of a session: its server on this machine, and what the browser loads from it."""
