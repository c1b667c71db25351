"""Registry of finders of key sentences: plug-ins by name, each imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from safekey_interp.errors import InputError
from safekey_interp.segmentation.reasoning_span import Delimiters

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.segmentation.segmentation_record import Segmentation


@runtime_checkable
class Finder(Protocol):
    """Finds the understanding and the key sentence of traces."""

    name: str
    """Goes to ``Segmentation.finder``."""

    def find(self, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        """One segmentation a trace, in the order of the traces, lazily."""
        ...


FinderFactory = Callable[[Delimiters | None], Finder]
"""Builds a finder, given the delimiters of the reasoning (None: the known families)."""

# Modules rather than classes, so that a finder's own dependencies load only when it is asked for.
_BUILT_IN = {
    "rules": "safekey_interp.segmentation.rules_finder:RulesFinder",
    "given": "safekey_interp.segmentation.given_spans:GivenFinder",
    "llm": "safekey_interp.segmentation.llm_finder:LlmFinder",
}
WITHOUT_MEMORY = ("rules", "given")
"""Finders that ask nobody: for the others the first of several processes asks, and all find its answers."""
_REGISTERED: dict[str, FinderFactory] = {}


def register_finder(name: str, factory: FinderFactory) -> None:
    """Make a finder available by ``name``; a built-in or earlier one of that name is replaced.

    Args:
        name: what ``finder=`` and ``--finder`` then accept.
        factory: called with the delimiters, or None; returns the finder.

    Raises:
        InputError: an empty name, or a factory that cannot be called.
    """
    if not name or not callable(factory):
        raise InputError(
            f"register_finder: got {name!r} and {factory!r}, expected a name and a callable that builds a finder"
        )
    _REGISTERED[name] = factory


def finder_names() -> tuple[str, ...]:
    """Every name that ``finder=`` accepts."""
    return tuple(dict.fromkeys((*_BUILT_IN, *_REGISTERED)))


def make_finder(name: str, delimiters: Delimiters | None = None) -> Finder:
    """Build the finder called ``name``.

    Raises:
        InputError: when there is none of that name.
    """
    if name not in finder_names():
        raise InputError(f"finder: got {name!r}, expected one of {', '.join(finder_names())}; see register_finder")
    factory: FinderFactory = _REGISTERED.get(name) or resolve_name(_BUILT_IN[name])
    return factory(delimiters)
