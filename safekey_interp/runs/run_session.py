"""Session of a run: its folder, clock, progress and completion, in one process or in several.

Every run (probe, train, intervene, compare, eval) takes the same steps, in all of its processes::

    with run_session(out, overwrite=overwrite, progress=progress) as session:
        ...                                              # read and check the data
        if (run := session.finished(manifest)) is not None:
            return run
        with session.writing(manifest) as writer:
            ...                                          # measure and write the tables
        return session.result()

Nothing is written before :meth:`RunSession.writing`; the run is complete when its block ends without an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safekey_interp.errors import RunError
from safekey_interp.progress import Progress, open_progress
from safekey_interp.runs.manifest import differences, shortened
from safekey_interp.runs.multiprocess import wait_until
from safekey_interp.runs.processes import RESUMES, Team, team
from safekey_interp.runs.run_folder import Run, manifest_in, open_run
from safekey_interp.runs.run_writer import RunWriter, check_out, known_run, parts_in
from safekey_interp.runs.whole_files import has_its_sizes


@contextmanager
def run_session(
    out: str | Path, *, overwrite: bool = False, progress: Progress | None = None, processes: Team | None = None
) -> Iterator[RunSession]:
    """A run that begins, is resumed or is found complete in a folder.

    Args:
        out: the run folder.
        overwrite: delete a run that is there.
        progress: shows how far the run is; bars in a notebook, and nothing elsewhere, when None.
        processes: those that make the run; all that the launcher started when None.

    Raises:
        RunError: the folder cannot be used.
    """
    with open_progress(progress) as shown, processes or team() as together:
        if together.is_first:
            check_out(Path(out))
        yield RunSession(Path(out), together, shown, overwrite=overwrite)


class RunSession:
    """A run from its beginning to its end."""

    def __init__(self, path: Path, processes: Team, progress: Progress, *, overwrite: bool) -> None:
        self.path = path
        """The run folder."""
        self.team = processes
        """The processes that make the run."""
        self.progress = progress
        """Shows how far the run is."""
        self.timings: dict[str, float] = {}
        """Seconds of each part of the run, from :meth:`lap`."""
        self._overwrite, self._lap_began = overwrite, time.perf_counter()

    def lap(self, name: str) -> None:
        """Record the seconds since the last lap, or since the beginning."""
        now = time.perf_counter()
        self.timings[name] = round(now - self._lap_began, 2)
        self._lap_began = now

    def check_same_task(self, manifest: Mapping[str, Any]) -> None:
        """Refuse processes with different data, settings or kinds of device.

        Raises:
            RunError: with what differs.
        """
        first, *others = self.team.gather(manifest["identity"])
        for rank, other in enumerate(others, start=1):
            if changed := differences(first, other):
                given = "; ".join(
                    f"{one.name} is {shortened(one.known)} in process 0, in process {rank} {shortened(one.asked)}"
                    for one in changed[:3]
                )
                raise RunError(f"the processes were not given the same task: {given}; give each the same command")

    def finished(self, manifest: Mapping[str, Any]) -> Run | None:
        """The run, where the folder holds it complete; its leftovers are then deleted.

        Raises:
            RunError: the folder holds another run, or the processes were not given the same task.
        """
        self.check_same_task(manifest)
        known = known_run(self.path, manifest) if self.team.is_first and not self._overwrite else None
        if known is not None and known.is_complete:
            with RunWriter.begin(self.path, manifest):
                pass
        is_complete = self.team.gather(known is not None and known.is_complete)[0]
        return open_run(self.path) if is_complete else None

    def done_parts(self, manifest: Mapping[str, Any]) -> set[int]:
        """Numbers of the chunks that a run of the same identity has in the folder."""
        return parts_in(self.path) if self._resumes(manifest) else set()

    def done_steps(self, manifest: Mapping[str, Any]) -> int:
        """Steps of training that the newest whole checkpoint of a run of the same identity has."""
        found = (self.path / "checkpoints").glob("checkpoint-*")
        names = [path.name for path in found if has_its_sizes(path)]
        numbers = [int(name.removeprefix("checkpoint-")) for name in names if self._resumes(manifest)]
        return max(numbers, default=0)

    def _resumes(self, manifest: Mapping[str, Any]) -> bool:
        known = None if self._overwrite else manifest_in(self.path)
        return known is not None and not differences(known.get("identity", {}), manifest["identity"])

    @contextmanager
    def writing(self, manifest: Mapping[str, Any]) -> Iterator[RunWriter]:
        """The writer of the folder; the first process holds it, and marks the run complete at the end of the block.

        Raises:
            RunError: the folder cannot be used, or not be written to (a full disk, permissions).
        """
        with self._writer(manifest) as writer:
            try:
                yield writer
                if self.team.is_first:
                    if self.timings and not writer.is_complete:
                        writer.manifest["timings"] = self.timings
                    writer.finish()
            except OSError as error:
                why = f"{error.strerror or error}; once that is mended, {RESUMES}"
                raise RunError(f"out {self.path}: cannot be written: {why}") from error

    def result(self) -> Run:
        """The run, once the first process has completed it."""
        self.team.gather()
        if not self.team.is_first:
            wait_until(
                lambda: (manifest_in(self.path) or {}).get("status") == "complete",
                f"out {self.path}: its end does not appear there",
            )
        return open_run(self.path)

    @contextmanager
    def _writer(self, manifest: Mapping[str, Any]) -> Iterator[RunWriter]:
        if self.team.is_first:
            with RunWriter.begin(self.path, manifest, overwrite=self._overwrite) as writer:
                self.team.gather(writer.manifest.get("created"))
                yield writer
        else:
            began = self.team.gather()[0]
            wait_until(
                lambda: (manifest_in(self.path) or {}).get("created") == began,
                f"out {self.path}: the run of process 0 is not there; expected a folder that all machines share",
            )
            with RunWriter.join(self.path) as writer:
                yield writer
