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

from safekey_interp.cli.options import (
    Details,
    ModelName,
    NoReport,
    Overwrite,
    Started,
    Traces,
    progress_of,
    with_options,
)
from safekey_interp.cli.run_summary import say_run
from safekey_interp.cli.shared import (
    folder_name,
    loaded_model,
    page_of,
    parse_layers,
    run_options,
    traces_of,
)
from safekey_interp.cli.smallest_effect import SmallestEffect, retold
from safekey_interp.data.reading_settings import GroupedReadingSettings
from safekey_interp.errors import InputError
from safekey_interp.experiments.experiment_settings import InterventionSettings
from safekey_interp.interventions.intervention_parts import FITTING
from safekey_interp.interventions.intervention_record import Intervention
from safekey_interp.interventions.intervention_registry import choose_variant, find_intervention, intervention_names
from safekey_interp.interventions.option_record import Option
from safekey_interp.models.checkpoints import check_revision
from safekey_interp.models.load_settings import CheckpointSettings
from safekey_interp.models.organism import TRACES
from safekey_interp.runs.processes import team
from safekey_interp.runs.settings import option_values

_READING = (
    "X is the prompt, U how the model restates it, K the key sentence after it. Brackets hold 95 % intervals over "
    "prompts. Safe minus compliant key sentences: how much likelier the model finds sentences that turn safe than "
    "sentences that comply, in K's place."
)
_READING_PLAIN = "Brackets hold 95 % intervals over prompts."
_OUT = "Run folder. Default: runs/MODEL-KIND or -TRACES-KIND."
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
    own = {_argument(option): option for one in _all_of(intervention) for option in one.options}
    own |= {_argument(option): option for option in intervention.options}

    def command(
        *,
        ctx: typer.Context,
        model: ModelName = "organism",
        traces: Traces = None,
        out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
        settings: InterventionSettings,
        loading: CheckpointSettings,
        reading: GroupedReadingSettings,
        starting: Started,
        no_report: NoReport = False,
        overwrite: Overwrite = False,
        details: Details = False,
        smallest_effect: SmallestEffect = None,
        **words: Any,
    ) -> None:
        typed = [name for name in own if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
        # Cheap checks come before the seconds that the libraries and the model take.
        chosen, options = _options_typed(intervention, {name: words[name] for name in typed})
        from safekey_interp.runs.run_writer import check_out

        check_revision(model, loading.revision)
        folder = out or Path("runs") / f"{folder_name(model, traces)}-{chosen.name}"
        if team().is_first:
            check_out(folder)
        source = traces_of(traces or TRACES, reading, settings.delimiters, seed=settings.seed)
        team().gather()  # so that what one process refuses is known before the others load a model
        with progress_of(starting) as bar:
            loaded = loaded_model(model, bar, **loading.to_dict())
            from safekey_interp.experiments.intervene_run import run_intervention

            options |= option_values(settings) | run_options(ctx, folder, bar, overwrite=overwrite)
            options["allow_unknown"] = starting.allow_unknown
            run = run_intervention(chosen.name, loaded, source, **options)
            if not team().is_first:
                return
            run = retold(run, smallest_effect)
            page = page_of(run, bar, wanted=not no_report)
        from safekey_interp.reporting.labels import QUESTIONS

        is_plain = chosen.named(run.manifest["settings"]).is_plain
        meaning = _READING_PLAIN if is_plain else _READING
        say_run(ctx, run, page, titles=QUESTIONS["intervention"], reading=meaning, details=details)

    single = typer.Typer(add_completion=False)
    parameters = [_parameter(name, option) for name, option in own.items()]
    single.command(intervention.name, help=intervention.help)(with_options(command, parameters))
    return typer.main.get_command(single)


def _all_of(intervention: Intervention) -> list[Intervention]:
    """An intervention, and those that take its place by a flag."""
    return [intervention, *map(find_intervention, intervention.variants.values())]


def _options_typed(intervention: Intervention, typed: Mapping[str, Any]) -> tuple[Intervention, dict[str, Any]]:
    """The intervention that the typed flags choose, and its options.

    Raises:
        InputError: an option of another one, or what :func:`_options_of` refuses.
    """
    chosen, others = choose_variant(intervention, typed)
    known = {_argument(option): option for option in chosen.options}
    flags = " or ".join(f"--{flag}" for flag in intervention.variants)
    for name in others:
        if name not in known:
            way = f"without {flags}" if chosen is intervention else f"beside {flags}"
            raise InputError(f"--{name.replace('_', '-')}: has no effect {way}; leave it out")
    return chosen, _options_of(chosen, [(known[name], value) for name, value in others.items()])


def _argument(option: Option) -> str:
    return option.switch.lstrip("-").replace("-", "_")


def _parameter(name: str, option: Option) -> inspect.Parameter:
    default = option.default
    kind: Any = _WORDS.get(option.reads, option.type)
    words = option.help
    if option.choices and not any(choice in words for choice in option.choices):
        more = ", or any span expression" if option.is_span else ""
        words = f"{words.rstrip('.')}: {', '.join(option.choices)}{more}."
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
    info = typer.Option(option.switch, *option.aliases, min=option.least, help=words)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], default=default)


def _options_of(intervention: Intervention, typed: Sequence[tuple[Option, Any]]) -> dict[str, Any]:
    """The intervention's options from what was typed.

    Raises:
        InputError: a value that is none of the choices, a file that cannot be read, or options that exclude another.
    """
    given = {option.name: value for option, value in typed}
    fitting = [option.switch for option, _ in typed if option in FITTING]
    if fitting and (not intervention.fits or intervention.fits in given):
        what = "files are given" if intervention.fits else "a metric is read out"
        raise InputError(f"{', '.join(fitting)}: nothing is fitted where {what}; leave them out")
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
    if kind == "metric":
        from safekey_interp.interventions.metric_registry import parse_metric

        return parse_metric(value)
    if kind == "jacobian":
        from safekey_interp.interventions.jacobian_transport import read_jacobian_lens

        return read_jacobian_lens(value)
    return value
