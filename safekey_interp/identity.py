"""What was something made with, and what do two such records disagree on?"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """Python's version and the packages'; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: version_of(name) for name in packages}


def version_of(package: str) -> str | None:
    """The version that is installed; None for none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def tokenizer_hash(tokenizer: Any) -> str:
    """What it makes of a text: its vocabulary and rules, and its chat template."""
    rules = tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(f"{rules}\n{tokenizer.chat_template}".encode()).hexdigest()


def differences(known: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What two identities disagree on, in words."""
    found = []
    for name in sorted({*known, *asked}):
        old, new = known.get(name), asked.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {_short(old)}, now {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
