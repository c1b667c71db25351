"""Record of an option of an intervention: its name, type, default, bounds and help."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass
from math import isfinite
from typing import Any, Literal

from safekey_interp.data.span_expressions import parse_span
from safekey_interp.errors import InputError


@dataclass(frozen=True)
class Option:
    """One option: the command's option, its check and the page's line are made from it."""

    name: str
    """Argument of the intervention's function."""
    help: str
    """What it sets."""
    type: type = str
    """``int``, ``float``, ``bool`` or ``str``; a flag turns a bool's default round."""
    default: Any = None
    """As the function has it."""
    _: KW_ONLY
    choices: Collection[str] = ()
    """The values that it may have; any when empty."""
    least: int | None = None
    """The smallest number that it may be."""
    several: bool = False
    """Whether it takes a sequence."""
    reads: Literal["", "layers", "key_sentences", "direction", "probe", "metric", "jacobian"] = ""
    """How the command makes the value from its text: numbers of layers or heads, or a file of this kind."""
    flag: str = ""
    """The command's option; ``--name`` when empty."""
    aliases: Collection[str] = ()
    """Other names of the command's option."""
    is_span: bool = False
    """Whether its values are span expressions; ``choices`` are then the usual ones."""
    is_open: bool = False
    """Whether it may have other values than ``choices``."""
    is_optional: bool = False
    """Whether it is recorded, and shown, only where it is given."""
    plain_help: str = ""
    """The help without a word of the built-in question; ``help`` up to its colon when empty."""
    needs: tuple[str, Any] | None = None
    """Another option, and the value without which this one has no effect."""

    @property
    def switch(self) -> str:
        """The command's option."""
        return self.flag or f"--{self.name.replace('_', '-')}"

    def check(self, value: Any, name: str = "") -> None:
        """Refuse a value that is none of the choices, or too small.

        Args:
            value: the value.
            name: what the message calls the option.

        Raises:
            InputError: with what is expected.
        """
        name = name or self.name
        values = tuple(value) if self.several and not isinstance(value, str) else (value,)
        if self.choices and not values and self.default is not None:
            raise InputError(f"{name}: got none, expected some of {', '.join(self.choices)}")
        for each in values:
            if self.is_span:
                self._check_span(each, name)
            elif self.choices and not self.is_open and each not in self.choices:
                some = "some" if self.several else "one"
                raise InputError(f"{name}: got {each!r}, expected {some} of {', '.join(self.choices)}")
            if isinstance(each, float) and not isfinite(each):
                raise InputError(f"{name}: got {each}, expected a finite number")
            if self.least is not None and (not isinstance(each, int) or each < self.least):
                raise InputError(f"{name}: got {each!r}, expected a whole number of at least {self.least}")

    def _check_span(self, value: Any, name: str) -> None:
        try:
            parse_span(value)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None


SEED = Option("seed", "Seed of every draw.", int, 0, least=0)
