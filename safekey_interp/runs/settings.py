"""Settings models: type, default, bounds and description of every option, checked by pydantic.

A settings model is a frozen dataclass. Keywords in Python, options of a command and a recipe in YAML all build it, so
that a value is checked in one place; the command line and the documentation read the words below each field.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from copy import copy
from dataclasses import fields
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs

from safekey_interp.errors import InputError

_T = TypeVar("_T")
LARGEST_SEED = 2**32 - 1
"""Of numpy's and scikit-learn's generators."""
_CONFIG = ConfigDict(
    strict=True,
    extra="forbid",
    allow_inf_nan=False,
    use_attribute_docstrings=True,
    arbitrary_types_allowed=True,
)
_ONE = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_MANY = {int: "whole numbers", float: "numbers", str: "texts"}


class SettingError(InputError):
    """A setting of another type, out of bounds or without such a name."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name, self.problem = name, problem


def fields_of(model: type) -> dict[str, FieldInfo]:
    """The fields of a settings model by name, with default, bounds and description."""
    return model.__pydantic_fields__  # type: ignore[attr-defined]


def option_name(model: type, name: str) -> str | None:
    """The name of a field's option on the command line; None for a field that has none."""
    extra: Any = fields_of(model)[name].json_schema_extra or {}
    named = extra.get("option", name)
    return named and f"--{named.replace('_', '-')}"


def option_values(values: Settings) -> dict[str, Any]:
    """The settings that have an option on the command line, by name."""
    return {name: getattr(values, name) for name in fields_of(type(values)) if option_name(type(values), name)}


def same_as(model: type, name: str) -> Any:
    """The field of another settings model, for a model that has the same one."""
    return copy(fields_of(model)[name])


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def settings_model(cls: type[_T]) -> type[_T]:
    """Make a subclass of :class:`Settings` a model; inherited fields keep their descriptions."""
    model: Any = dataclass(cls, frozen=True, kw_only=True, config=_CONFIG)
    for base in cls.__mro__[1:-1]:
        for name, field in fields_of(base).items():
            known = fields_of(model)[name]
            known.description = known.description or field.description
    for field in fields_of(model).values():
        field.description = " ".join((field.description or "").split())
    return model


@settings_model
class Settings:
    """Base of all settings models; a wrong value raises :class:`SettingError`."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, given: ArgsKwargs, check: Callable[[Any], Any]) -> Any:
        # YAML and JSON have lists alone.
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in (given.kwargs or {}).items()}
        try:
            return check(ArgsKwargs(given.args, values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name, known = str(first["loc"][0]), fields_of(cls)
            if name not in known:
                near = get_close_matches(name, known, n=1)
                meant = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(known)}"
                raise SettingError(name, f"no such setting; {meant}") from None
            is_finite = first["type"] != "finite_number"
            expected = in_words(known[name]) if is_finite else "a finite number"
            raise SettingError(name, f"got {(given.kwargs or {})[name]!r}, expected {expected}") from None

    def to_dict(self) -> dict[str, Any]:
        """Settings by name, as YAML writes them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def in_words(field: FieldInfo) -> str:
    """The values that a field accepts, None left out."""
    return _kind_in_words(field.annotation, field.metadata)


def _kind_in_words(kind: Any, bounds: list[Any]) -> str:
    origin: Any = get_origin(kind)
    arguments: list[Any] = list(get_args(kind))
    if origin is Annotated:
        return _kind_in_words(arguments[0], arguments[1].metadata)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind_in_words(kind, bounds) for kind in arguments if kind is not type(None))
    if origin is Literal:
        return f"one of {', '.join(arguments)}" if len(arguments) > 1 else arguments[0]
    if origin is dict:
        return f"{_MANY[arguments[1]]} by name"
    if origin is tuple:
        count = "" if arguments[-1] is ... else f"{len(arguments)} "
        return f"a list of {count}{_MANY[arguments[0]]}"
    return _ONE.get(kind, getattr(kind, "__name__", str(kind))) + _bounds_in_words(bounds)


def _bounds_in_words(bounds: list[Any]) -> str:
    words = {"ge": "of at least", "gt": "greater than", "le": "at most"}
    limits = {name: getattr(bound, name) for name in words for bound in bounds if hasattr(bound, name)}
    if {"ge", "le"} <= set(limits):
        return f" from {limits['ge']} to {limits['le']}"
    return " and".join(f" {words[name]} {limit}" for name, limit in limits.items())
