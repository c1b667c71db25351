"""Typer options made of settings models, and those that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args

import typer
from pydantic.fields import FieldInfo

from safekey_interp.capture.stream_settings import BatchSize
from safekey_interp.cli.shared import parse_delimiters, parse_layers, progress_bar
from safekey_interp.errors import InputError
from safekey_interp.progress import Progress
from safekey_interp.runs.settings import SettingError, Settings, fields_of, option_name, settings_model

_READERS: list[tuple[Any, Callable[[str], Any]]] = [
    (tuple[int, ...] | None, parse_layers),
    (tuple[str, str] | None, parse_delimiters),
    (BatchSize, lambda text: int(text) if text.isdecimal() else text),
]
"""How a text becomes a value of a type that a command line does not have."""


def option(model: type[Settings], name: str) -> Any:
    """What typer needs of one field of a settings model: its option's name, bounds and description."""
    field = fields_of(model)[name]
    flag = option_name(model, name)
    flags = f"{flag}/--no-{flag[2:]}" if flag and field.default is True else flag
    bounds = field.metadata if _type(field) is int else []
    least = next((bound.ge for bound in bounds if hasattr(bound, "ge")), None)
    return typer.Option(flags, help=field.description, min=least)


def with_options(command: Callable[..., None], own: Sequence[inspect.Parameter] = ()) -> Callable[..., None]:
    """A command with an option for each field of the settings models among its parameters, which it then builds.

    Options of its ``own`` come first; it takes them as further keywords.
    """
    named = inspect.signature(command, eval_str=True).parameters.values()
    parameters = {each.name: each for each in (*own, *named) if each.kind is not inspect.Parameter.VAR_KEYWORD}
    models = {name: parameter.annotation for name, parameter in parameters.items() if _is_model(parameter.annotation)}

    def run(**words: Any) -> None:
        settings = {name: built_from(model, words) for name, model in models.items()}
        command(**settings, **{name: words[name] for name in parameters if name not in models})

    spread: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        spread += options_of(models[name]) if name in models else [parameter]
    run.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _offered(model: type[Settings]) -> dict[str, FieldInfo]:
    """The fields of a settings model that have an option."""
    return {name: field for name, field in fields_of(model).items() if option_name(model, name)}


def options_of(model: type[Settings]) -> list[inspect.Parameter]:
    """The parameters of a command that stand for the fields of a settings model."""
    options = []
    for name, field in _offered(model).items():
        kind: Any = _type(field) if field.default is not None else _type(field) | None
        annotation = Annotated[kind, option(model, name)]
        options.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
        )
    return options


def built_from(model: type[Settings], words: dict[str, Any]) -> Settings:
    """Settings of what was typed; an error names the option."""
    try:
        return model(**{name: _value(field, words[name]) for name, field in _offered(model).items()})
    except SettingError as error:
        raise InputError(f"{option_name(model, error.name)}: {error.problem}") from None


def _value(field: FieldInfo, word: Any) -> Any:
    read = next((reader for kind, reader in _READERS if kind == field.annotation), None)
    return word if word is None or read is None else read(word)


def _type(field: FieldInfo) -> type:
    """The type of an option: that of its field where a command line has it, else a text."""
    if field.annotation == tuple[str, ...] | None:
        return list[str]
    kinds = [kind for kind in get_args(field.annotation) or [field.annotation] if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float) else str


@settings_model
class Shown(Settings):
    """What a command says while it works."""

    quiet: bool = False
    """Say nothing of the progress."""


@settings_model
class Asked(Shown):
    """What is asked before a command works."""

    dry_run: bool = False
    """Print passes, tokens, seconds and memory as estimated; run nothing."""


@settings_model
class Started(Asked):
    """What is asked before a command has a model read texts."""

    allow_unknown: bool = False
    """Accept text of which more than 5 % is unknown to the model."""


def progress_of(asked: Shown) -> Progress:
    """The progress of a command as it was asked for; errors as for :func:`~safekey_interp.cli.shared.progress_bar`."""
    return progress_bar(**{name: value for name, value in asked.to_dict().items() if name != "allow_unknown"})


ModelName = Annotated[str, typer.Option(help="Hub id, folder, .gguf file, or a name that `models` lists.")]
Traces = Annotated[
    list[str] | None,
    typer.Option(
        help="File of traces (JSONL, JSON, CSV, Parquet), glob, or -; may be given several times. "
        "Default: the organism's own."
    ),
]
NoReport = Annotated[bool, typer.Option("--no-report", help="Do not draw the page.")]
Details = Annotated[
    bool, typer.Option("--details", help="Print every finding with its n and control, and what was left out.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete a run that is in the folder.")]
