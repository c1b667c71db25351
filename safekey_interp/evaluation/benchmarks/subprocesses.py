"""Subprocess of a harness: its interpreter, versions, time limit, and the reason of a failure.

It is a process of its own, so that its imports, its versions and its crashes stay there. Its output goes to a file, of
which the end is kept.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from safekey_interp.errors import InputError, install_hint
from safekey_interp.evaluation.benchmarks.catalogue import INSPECT, LM_EVAL, Benchmark
from safekey_interp.evaluation.benchmarks.commands import Call

PACKAGES = {LM_EVAL: "lm-eval", INSPECT: "inspect-ai"}
"""The package of each harness."""
_ASK = """
import json, sys
from importlib import metadata
found = dict.fromkeys(sys.argv[1:])
for name in found:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_PATIENCE = 120.0
"""Seconds that an interpreter has to report its versions."""
KEPT_OF_LOG = 65_536
"""Bytes of a harness's output that are kept, from the end."""
_ERROR = re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt))\b.*", re.MULTILINE)
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LONGEST_REASON = 240
_PR_SET_PDEATHSIG = 1


def interpreter(python: str | None) -> str:
    """The interpreter that has the harnesses; this one when none is named.

    Raises:
        InputError: no such program.
    """
    if python is None:
        return sys.executable
    program = shutil.which(os.path.expanduser(python))
    if program is None:
        raise InputError(f"python {python}: no such program, expected the Python of an environment with the harnesses")
    return program


def versions_in(python: str, benchmarks: Iterable[Benchmark], *, is_named: bool) -> dict[str, str | None]:
    """The versions of what the benchmarks need, asked of the interpreter without importing them.

    Args:
        python: the interpreter.
        benchmarks: those that are to run.
        is_named: whether the user named the interpreter.

    Returns:
        By package, ``transformers`` and ``torch`` included.

    Raises:
        InputError: the interpreter does not answer, or lacks a package, with what to install.
    """
    needed = {name: one.name for one in benchmarks for name in (PACKAGES[one.harness], *one.needs)}
    names = [*needed, "transformers", "torch"]
    try:
        process = subprocess.run(
            [python, "-c", _ASK, *names], capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
        answer = json.loads(process.stdout)
        versions = {name: answer[name] for name in names}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"python {python}: does not say which packages it has, expected a Python of 3.11") from error
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        where = f" in the environment of {python}" if is_named else ""
        raise InputError(
            f"{needed.get(missing[0], 'eval')}: needs the package {missing[0]}; {install_hint('eval')}{where}"
        )
    return versions


def version_of_harness(benchmark: Benchmark, versions: Mapping[str, str | None]) -> str:
    """``lm-eval 0.4.13``; of inspect's tasks, their package's version, too."""
    names = [PACKAGES[benchmark.harness], *(name for name in benchmark.needs if name == "inspect-evals")]
    return ", ".join(f"{name} {versions[name]}" for name in names)


def run_harness(python: str, call: Call, log: Path, *, timeout: float | None) -> str:
    """Run a call to its end.

    Args:
        python: the interpreter.
        call: what to run; its files are there.
        log: file of its output.
        timeout: seconds after which it is ended; None for never.

    Returns:
        Why it failed; empty when its exit status is 0.
    """
    environment = {name: value for name, value in os.environ.items() if name not in call.environment}
    environment |= {name: value for name, value in call.environment.items() if value is not None}
    with log.open("wb") as words:
        try:
            process = subprocess.Popen(
                [python, *call.arguments],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_dying_with_parent(),  # noqa: PLW1509
            )
        except OSError as error:
            return f"{python} cannot be run: {error.strerror or error}"
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    reason = _cut(log)
    if status is None:
        return f"took longer than {timeout:,.0f} s"
    why = _ended(status) if status else ""
    return f"{why}: {reason}" if why and reason else why


def _ended(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of a harness behind, whatever it had started, and however this ends."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:  # Windows
            process.kill()
    process.wait()


def _dying_with_parent() -> Callable[[], object] | None:
    """What a child calls so that Linux ends it when this process is killed: else it would hold the GPU for hours."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)  # loaded before the fork, after which little is safe
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _cut(log: Path) -> str:
    """Keep the end of the log, and return the line of it that best explains a failure."""
    size = log.stat().st_size
    with log.open("rb") as words:
        words.seek(max(0, size - KEPT_OF_LOG))
        kept = words.read()
    if size > KEPT_OF_LOG:
        log.write_bytes(kept)
    text = _CODES.sub("", kept.decode("utf-8", "replace"))
    errors = _ERROR.findall(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = errors[-1] if errors else lines[-1] if lines else ""
    return line[:_LONGEST_REASON]
