"""Command ``safekey-interp mcp``: a read-only MCP server over run folders, on standard input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def mcp(
    folder: Annotated[Path, typer.Argument(help="Folder that holds run folders, or is one.")] = Path("runs"),
) -> None:
    """Serve the runs until the client hangs up."""
    from safekey_interp.reporting.mcp_server import server_of

    server_of(folder).run("stdio")
