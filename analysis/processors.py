"""The processor of this machine, as results record it."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Its kind: another kind rounds sums otherwise, so that a training has other bits."""
    about = _about()
    return ", ".join(
        [processor_name(), *(f"{name} {about[name]}" for name in ("cpu family", "model") if name in about)]
    )


def processor_name() -> str:
    """The name that it is sold by."""
    return _about().get("model name") or platform.processor() or platform.machine()


def _about() -> dict[str, str]:
    """What Linux says of the first of its cores; nothing elsewhere."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
