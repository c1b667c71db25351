"""Command ``safekey-interp intervene KIND``: from a file of traces to a run folder of an intervention, and its page.

Each intervention's record (:mod:`safekey_interp.interventions.intervention_record`) becomes a command when it is asked
for, so that one that was registered before has its command, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from safekey_interp.cli import options as shared
from safekey_interp.cli.shared import (
    check_choice,
    folder_name,
    loaded_model,
    page_of,
    parse_delimiters,
    parse_layers,
    progress_bar,
    say_findings,
)
from safekey_interp.errors import InputError
from safekey_interp.interventions.intervention_parts import FITTING
from safekey_interp.interventions.intervention_record import Intervention, Option
from safekey_interp.interventions.intervention_registry import find_intervention, intervention_names
from safekey_interp.models.organism import TRACES
from safekey_interp.runs.processes import team

_READING = (
    "X is the prompt, U how the model restates it, K the key sentence after it. Brackets hold 95 % intervals over "
    "prompts. Safe minus compliant key sentences: how much likelier the model finds sentences that turn safe than "
    "sentences that comply, in K's place."
)
_LOADING = {"device": shared.Device, "dtype": shared.Dtype, "revision": shared.Revision, "adapter": shared.Adapter}
_FIELDS = {"prompt_field": shared.PromptField, "response_field": shared.ResponseField, "label_field": shared.LabelField}
_FIELDS |= {"group_field": shared.GroupField, "id_field": shared.IdField}
_OUT = "Run folder. Default: runs/MODEL-KIND or -TRACES-KIND."
_SHARED: dict[str, tuple[Any, Any]] = {
    "model": (shared.ModelName, "organism"),
    "traces": (shared.Traces, None),
    "out": (Annotated[Path | None, typer.Option(help=_OUT)], None),
    "max_length": (
        Annotated[int | None, typer.Option(min=2, help="Most tokens of a trace; longer are left out.")],
        None,
    ),
    "finder": (shared.Finder, "rules"),
    "delimiters": (shared.Delimiters, None),
    "seed": (shared.Seed, 0),
    "limit": (shared.Limit, None),
    "chunk": (
        Annotated[int, typer.Option(min=1, help="Traces between two points from which a killed run resumes.")],
        16,
    ),
    **{name: (annotation, None) for name, annotation in (_LOADING | _FIELDS).items()},
    "no_report": (shared.NoReport, False),
    "overwrite": (shared.Overwrite, False),
    "trust_remote_code": (shared.TrustRemoteCode, False),
}
"""What every command of an intervention takes: annotation and default."""
_WORDS = {"layers": str, "key_sentences": Path, "direction": Path, "probe": Path}
"""Type of a word that is read: numbers, or a file."""


class _Interventions(TyperGroup):
    """A command for each intervention that is there when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(intervention_names())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _command(find_intervention(cmd_name)) if cmd_name in intervention_names() else None


app = typer.Typer(
    cls=_Interventions, help="Change the model while it reads traces, or read it on the way, each beside a control."
)


@app.callback()
def _interventions() -> None:
    """Without a command of its own."""


def _command(intervention: Intervention) -> Any:
    own = {_argument(option): option for option in intervention.options}
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *map(_parameter, own, own.values())]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in _SHARED.items()
    ]

    def command(ctx: typer.Context, **words: Any) -> None:
        typed = {name for name in words if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}
        # Cheap checks come before the seconds that the libraries and the model take.
        options = _options_of(intervention, [(own[name], words[name]) for name in own if name in typed])
        _intervene(intervention.name, ctx, options, {name: words[name] for name in words if name not in own})

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    single = typer.Typer(add_completion=False)
    single.command(intervention.name, help=intervention.help)(command)
    return typer.main.get_command(single)


def _argument(option: Option) -> str:
    return option.switch.lstrip("-").replace("-", "_")


def _parameter(name: str, option: Option) -> inspect.Parameter:
    default = option.default
    kind: Any = _WORDS.get(option.reads, option.type)
    words = option.help
    if option.choices and not any(choice in words for choice in option.choices):
        words = f"{words.rstrip('.')}: {', '.join(option.choices)}."
    if option.several:
        words += " Several may be given."
        kind, default = list[kind], None
        if option.default is not None:
            values = option.default if isinstance(option.default, tuple) else (option.default,)
            words += f" Default: {', '.join(map(str, values))}."
    elif option.type is bool:
        default = False
    if default is None:
        kind = kind | None
    info = typer.Option(option.switch, min=option.least, help=words)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], default=default)


def _options_of(intervention: Intervention, typed: Sequence[tuple[Option, Any]]) -> dict[str, Any]:
    """The intervention's options from what was typed.

    Raises:
        InputError: a value that is none of the choices, a file that cannot be read, or options that exclude another.
    """
    given = {option.name: value for option, value in typed}
    fitting = [option.switch for option, _ in typed if option in FITTING]
    if intervention.fits in given and fitting:
        raise InputError(f"{', '.join(fitting)}: nothing is fitted where files are given; leave them out")
    defaults = {option.name: option.default for option in intervention.options}
    options: dict[str, Any] = {}
    for option, value in typed:
        option.check(value, option.switch)
        if option.needs and value != option.default and (defaults | given)[option.needs[0]] != option.needs[1]:
            other = next(each for each in intervention.options if each.name == option.needs[0])
            raise InputError(f"{option.switch}: has no effect without {other.switch} {option.needs[1]}")
        made = _value(option, value)
        if isinstance(options.get(option.name), tuple):
            made = (*options[option.name], *made)
        options[option.name] = made
    return options


def _value(option: Option, value: Any) -> Any:
    if option.type is bool:
        return not option.default
    if option.reads == "layers":
        return parse_layers(value, option.switch)
    values = [_read(option.reads, each) for each in (value if option.several else [value])]
    return tuple(values) if option.several else values[0]


def _read(kind: str, value: Any) -> Any:
    """What a file holds; other values as they are."""
    if kind == "key_sentences":
        from safekey_interp.generation.key_sentence_bank import read_key_sentences

        return read_key_sentences(value)
    if kind in ("direction", "probe"):
        from safekey_interp.measures.direction_record import Direction
        from safekey_interp.measures.probes import Probe

        return {"direction": Direction, "probe": Probe}[kind].load(value)
    return value


def _intervene(kind: str, ctx: typer.Context, options: Mapping[str, Any], words: Mapping[str, Any]) -> None:
    """Measure, draw and say; ``options`` are the intervention's, ``words`` those of every command."""
    from safekey_interp.data.trace_reader import read_traces
    from safekey_interp.runs.run_writer import check_out
    from safekey_interp.segmentation.segmenter import finder_names

    check_choice("--finder", words["finder"], finder_names())
    delimiters = parse_delimiters(words["delimiters"])
    folder = words["out"] or Path("runs") / f"{folder_name(words['model'], words['traces'])}-{kind}"
    if team().is_first:
        check_out(folder)
    fields = {name: words[name] for name in _FIELDS}
    source = read_traces(words["traces"] or TRACES, limit=words["limit"], **fields).check()
    team().gather()  # so that what one process refuses is known before the others load a model
    with progress_bar() as bar:
        model = loaded_model(words["model"], bar, **{name: words[name] for name in (*_LOADING, "trust_remote_code")})
        from safekey_interp.experiments.intervene_run import run_intervention

        settings = {name: words[name] for name in ("finder", "max_length", "seed", "chunk", "overwrite")}
        command = ["safekey-interp", *(ctx.obj or [])]
        settings |= {"out": folder, "delimiters": delimiters, "command": command, "progress": bar}
        run = run_intervention(kind, model, source, **settings, **options)
        if not team().is_first:
            return
        page = page_of(run, bar, wanted=not words["no_report"])
    from safekey_interp.reporting.labels import QUESTIONS

    say_findings(run, page, titles=QUESTIONS["intervention"], reading=_READING)
