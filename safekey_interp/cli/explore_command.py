"""Command ``safekey-interp explore``: a page on this machine where a model writes, is read and is changed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safekey_interp.cli.options import Shown, Traces, progress_of, with_options
from safekey_interp.cli.shared import folder_name, if_stopped, loaded_model, quiet_libraries, say, traces_of
from safekey_interp.data.reading_settings import ReadingSettings
from safekey_interp.display import one_line
from safekey_interp.errors import InputError
from safekey_interp.models.load_settings import LoadSettings
from safekey_interp.models.organism import TRACES, is_organism

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.exploration.exploration_session import Session
    from safekey_interp.measures.direction_record import Direction
    from safekey_interp.measures.probes import Probe
    from safekey_interp.models.model import Model
    from safekey_interp.progress import Progress

app = typer.Typer()
_MOST_TRACES = 600
"""Traces that are read unless ``--limit`` says otherwise: presets are chosen from them, and a probe is fitted."""


@app.command()
@with_options
def explore(
    ctx: typer.Context,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Hub id, folder, .gguf file, or a name that `models` lists; several answer side by side. Default: "
            "organism."
        ),
    ] = None,
    traces: Traces = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a saved session, which goes on with its own models (in their type, on any --device) and "
            "traces; or of `probe`, for its model and traces."
        ),
    ] = None,
    reader: Annotated[
        list[Path] | None,
        typer.Option(help="File of a saved probe or direction that scores each token; may be given several times."),
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit/--no-fit", help="Fit a probe and a direction to the labels of the traces, where no reader is given."
        ),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the session. Default: runs/explore-MODEL, the next that is free.")
    ] = None,
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    reading: ReadingSettings,
    loading: LoadSettings,
    asked: Shown,
) -> None:
    """Ask a model, watch what it attends to and what a probe reads at each token, change it, and compare."""
    if_stopped(ctx, "start it again")
    saved = None if run is None else _saved(run)
    if run is not None and saved == "explore":
        typed = {
            "--model": model,
            "--traces": traces,
            "--out": out,
            "the options of reading traces": reading != ReadingSettings(),
        }
        _check_saved(run, [name for name, value in typed.items() if value], loading.dtype)
    from safekey_interp.exploration.web.session_server import SessionServer

    # What cannot be is known before a model is loaded.
    server, readers = SessionServer(host=host, port=port), _readers_in(reader or [])
    with progress_of(asked) as bar:
        if run is not None and saved == "explore":
            session = _reopened(run, bar, device=loading.device, trust_remote_code=loading.trust_remote_code)
        else:
            names = model or ["organism"] if run is None else model or _models_of(run)
            presets = _presets(names, traces, run, reading)
            loaded = [loaded_model(name, bar, **loading.to_dict()) for name in names]
            session = _new(loaded, presets, out or _free_folder(names))
        again = f"`safekey-interp explore --run {shlex.quote(str(session.folder))}` opens it again"
        if_stopped(ctx, again)
        try:
            _add_readers(session, readers, bar, fit=fit)
        except BaseException:
            session.close()
            raise

    def ready(address: str) -> None:
        print(address, flush=True)
        if browser:
            import webbrowser

            webbrowser.open(address)

    with session:
        server.run(session, ready)
    say(f"kept; {again}", stream=sys.stderr)


def _saved(run: Path) -> str:
    """The kind of a run: ``explore`` or ``probe``."""
    from safekey_interp.runs.run_folder import open_run

    kind = open_run(run).manifest.get("kind") or "probe"
    if kind not in ("explore", "probe"):
        raise InputError(f"--run {run}: got a run of {kind}, expected a saved session, or a run of `probe`")
    return kind


def _check_saved(run: Path, typed: Sequence[str], dtype: str | None) -> None:
    """Refuse what contradicts a saved session."""
    from safekey_interp.runs.run_folder import open_run

    if typed:
        raise InputError(
            f"--run {run}: a saved session has its own models, traces and folder; leave {', '.join(typed)}"
        )
    for record in open_run(run).manifest["models"]:
        if dtype not in (None, record["dtype"]):
            raise InputError(
                f"--dtype: got {dtype}, expected {record['dtype']}, in which {record['spec']} wrote session {run}; "
                "leave it, or start a session of its own"
            )


def _models_of(run: Path) -> list[str]:
    from safekey_interp.runs.run_folder import open_run

    return [open_run(run).manifest["model"]["spec"]]


def _presets(
    names: Sequence[str], files: list[str] | None, run: Path | None, reading: ReadingSettings
) -> Sequence[Trace]:
    """The traces of files, of a run, or of the organism, of which none are given for other models."""
    if files is None and run is not None:
        from safekey_interp.experiments.compare_outcomes import traces_of as traces_in
        from safekey_interp.runs.run_folder import open_run

        return list(traces_in(open_run(run)))
    chosen = files or ([str(TRACES)] if all(map(is_organism, names)) else None)
    if chosen is None:
        return ()
    is_limited = reading.limit is not None or reading.first is not None
    return list(traces_of(chosen, reading if is_limited else replace(reading, limit=_MOST_TRACES)))


def _new(models: Sequence[Model], presets: Sequence[Trace], folder: Path) -> Session:
    from safekey_interp.exploration.exploration_session import Session

    return Session(models, traces=presets, out=folder)


def _reopened(run: Path, bar: Progress, **loading: Any) -> Session:
    bar.stage("loading the model", None)
    quiet_libraries()
    from safekey_interp.exploration.exploration_session import Session

    return Session.open(run, **loading)


def _readers_in(files: Sequence[Path]) -> dict[str, Probe | Direction]:
    """Probes and directions by the names of their files."""
    from safekey_interp.measures.direction_record import Direction
    from safekey_interp.measures.probe_files import kind_of_record
    from safekey_interp.measures.probes import Probe

    return {
        one_line(file.stem): (Direction if kind_of_record(file) == "Direction" else Probe).load(file) for file in files
    }


def _add_readers(session: Session, readers: Mapping[str, Probe | Direction], bar: Progress, *, fit: bool) -> None:
    for name, record in readers.items():
        session.add_reader(record, name=name)
    labels = {trace.label for trace in session.traces} - {None}
    if fit and not session.readers and len(labels) > 1:
        bar.stage("fitting a probe", None)
        probe = session.fit_reader()
        session.fit_reader(kind="direction", layer=probe.reader.layer)


def _free_folder(models: list[str]) -> Path:
    """``runs/explore-MODEL``, with a number where there is one already."""
    base = Path("runs") / f"explore-{folder_name('-'.join(Path(name).name for name in models), None)}"
    numbered = (base if number == 1 else base.with_name(f"{base.name}-{number}") for number in count(1))
    return next(folder for folder in numbered if not folder.exists())
