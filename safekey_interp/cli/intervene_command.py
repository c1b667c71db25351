"""``safekey-interp intervene KIND``: from a file of traces to a run folder of an intervention, a page and a summary."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from safekey_interp.cli.intervene_shared import Options, bank_in, direction_in, intervene, probe_in
from safekey_interp.cli.options import (
    Adapter,
    Delimiters,
    Device,
    Dtype,
    Finder,
    GroupField,
    IdField,
    LabelField,
    Limit,
    ModelName,
    NoReport,
    Overwrite,
    PromptField,
    ResponseField,
    Revision,
    Seed,
    Traces,
    TrustRemoteCode,
)
from safekey_interp.cli.shared import check_choice, parse_layers
from safekey_interp.errors import InputError

app = typer.Typer(help="Change the model while it reads traces, or read it on the way, each beside a control.")


def _shared(
    ctx: typer.Context,
    *,
    model: ModelName = "organism",
    traces: Traces = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/MODEL-KIND or -TRACES-KIND.")] = None,
    max_length: Annotated[int | None, typer.Option(min=2, help="Most tokens of a trace; longer are left out.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    adapter: Adapter = None,
    finder: Finder = "rules",
    delimiters: Delimiters = None,
    prompt_field: PromptField = None,
    response_field: ResponseField = None,
    label_field: LabelField = None,
    group_field: GroupField = None,
    id_field: IdField = None,
    seed: Seed = 0,
    limit: Limit = None,
    chunk: Annotated[int, typer.Option(min=1, help="Traces between two points from which a killed run goes on.")] = 16,
    no_report: NoReport = False,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """What every command of an intervention takes; see :func:`_command`."""


def _command(own: Callable[..., Options]) -> Callable[..., Options]:
    """A command with the options of ``own``, which makes the intervention's of them, before the shared ones."""
    mine = inspect.signature(own, eval_str=True).parameters
    shared = dict(inspect.signature(_shared, eval_str=True).parameters)
    context = shared.pop("ctx")

    def command(ctx: typer.Context, **words: Any) -> None:
        # Cheap checks come before the seconds that the libraries and the model take.
        options = own(**{name: words[name] for name in mine})
        intervene(own.__name__, ctx, options, **{name: words[name] for name in shared})

    parameters = [context, *mine.values(), *shared.values()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = own.__doc__
    app.command(own.__name__)(command)
    return own


_Layers = Annotated[str | None, typer.Option(help="Layers, such as 0-5,12,-1. Default: all.")]
_NRandom = Annotated[int, typer.Option(min=1, help="Draws of the control.")]
_Controls = Annotated[
    list[str] | None,
    typer.Option(
        help="Control directions: shuffled_labels, covariance, isotropic. Several may. Default: the first two."
    ),
]
_KeySentences = Annotated[
    Path | None, typer.Option(help="YAML or JSON with the lists safe and go_ahead. Default: the built-in sentences.")
]
_Position = Annotated[str, typer.Option(help="Position whose states directions are fitted on.")]
_LabelBy = Annotated[str, typer.Option(help="Fit directions by the file's label, or by each trace's aha.")]
_Folds = Annotated[int, typer.Option(min=2, help="Folds of requests; each is used on by directions of the others.")]
_Directions = Annotated[list[Path] | None, typer.Option(help="File of a direction; then none is fitted. Several may.")]
_Save = Annotated[bool, typer.Option("--save", help="Keep the fitted directions in the folder's directions/.")]


@_command
def knockout(
    *,
    from_span: Annotated[
        str, typer.Option(help="Whose view is changed: key_sentence, decision, or decision+key_sentence.")
    ] = "key_sentence",
    to_span: Annotated[
        list[str] | None,
        typer.Option(
            help="What is hidden: prompt, understanding, template, first_token. Several may. Default: both prompt and "
            "understanding, one at a time."
        ),
    ] = None,
    layers: _Layers = None,
    heads: Annotated[str | None, typer.Option(help="Heads, such as 0-3,7. Default: all.")] = None,
    by: Annotated[str, typer.Option(help="All layers together, or one layer or one head at a time.")] = "together",
    window: Annotated[int, typer.Option(min=1, help="With --by layer: so many consecutive layers at once.")] = 1,
    no_aha: Annotated[bool, typer.Option("--no-aha", help="Measure the trace's own K alone: far faster.")] = False,
    key_sentences: _KeySentences = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="outside_spans (as many random keys outside every tested span), dose (random quarters of the span), "
            "resample_same_label, resample_other_label (another request's span in its place). Several may. Default: "
            "all that the model allows."
        ),
    ] = None,
    n_random: Annotated[int, typer.Option(min=1, help="Random sets of keys outside the spans.")] = 20,
    n_dose: Annotated[int, typer.Option(min=1, help="Random parts of the span, of each share.")] = 4,
    n_donors: Annotated[int, typer.Option(min=1, help="Other requests of each label whose span is put in place.")] = 2,
) -> Options:
    """Hide a span from K, all of it and by quarters, and put another request's in its place; beside random keys."""
    check_choice("--by", by, ("together", "layer", "head"))
    spans = {} if to_span is None else {"to_span": tuple(to_span)}
    numbers = {"layers": parse_layers(layers), "heads": parse_layers(heads, "--heads"), "window": window}
    return (
        spans
        | numbers
        | {
            "from_span": from_span,
            "by": by,
            "aha": not no_aha,
            "bank": bank_in(key_sentences),
            "controls": tuple(control) if control else None,
            "n_random": n_random,
            "n_dose": n_dose,
            "n_donors": n_donors,
        }
    )


@_command
def patch(
    *,
    source: Annotated[str, typer.Option(help="Outcome of the traces whose states are put in: refused or complied.")] = (
        "refused"
    ),
    layers: _Layers = None,
    position: Annotated[
        list[str] | None,
        typer.Option(
            help="Where: prompt, prompt_end, template, understanding, understanding_end, decision. Several may. "
            "Default: prompt_end, template, understanding, decision."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="exact (a pass a swap), attribution (first order), or both.")] = "both",
    key_sentences: _KeySentences = None,
    n_random: Annotated[int, typer.Option(min=0, help="Other requests' traces as controls of each pair.")] = 1,
) -> Options:
    """Put states of a refused run into a complied one of the same request, beside another request's."""
    check_choice("--source", source, ("refused", "complied"))
    check_choice("--method", method, ("exact", "attribution", "both"))
    where = {} if position is None else {"positions": tuple(position)}
    chosen = {"source": source, "layers": parse_layers(layers), "method": method}
    return where | chosen | {"bank": bank_in(key_sentences), "n_random": n_random}


@_command
def direction(
    *,
    mode: Annotated[str, typer.Option(help="ablate (take it out everywhere) or add.")] = "ablate",
    scale: Annotated[
        list[float] | None,
        typer.Option(help="With --mode add: in norms of the direction, below 0 away from harmful. Several may."),
    ] = None,
    direction: _Directions = None,
    layers: Annotated[str | None, typer.Option(help="Layers whose states directions are fitted on. Default: all.")] = (
        None
    ),
    position: _Position = "decision",
    label_by: _LabelBy = "label",
    n_folds: _Folds = 5,
    at_layers: Annotated[
        str | None, typer.Option(help="After which layers it is changed. Default: everywhere; to add, its own.")
    ] = None,
    at: Annotated[list[str] | None, typer.Option(help="At which positions it is changed. Default: all.")] = None,
    save: _Save = False,
    key_sentences: _KeySentences = None,
    controls: _Controls = None,
    n_random: _NRandom = 20,
) -> Options:
    """Take a direction out of the residual stream or add it, beside controls; fitted on held-out requests."""
    check_choice("--mode", mode, ("ablate", "add"))
    if scale and mode == "ablate":
        raise InputError("--scale: nothing is added; use --mode add")
    known = [direction_in(file) for file in direction or ()]
    chosen = {"controls": tuple(controls)} if controls else {}
    how = {"layers": layers, "position": position, "label_by": label_by, "n_folds": n_folds, "save": save}
    return (
        _fitting({"directions": known}, **how)
        | chosen
        | {
            "mode": mode,
            "scales": tuple(scale or (1.0,)),
            "layers": parse_layers(at_layers, "--at-layers"),
            "positions": tuple(at) if at else None,
            "bank": bank_in(key_sentences),
            "n_random": n_random,
        }
    )


@_command
def suppress(
    *,
    most: Annotated[int, typer.Option(min=2, help="First sentences of the reasoning that are taken.")] = 12,
    n_random: _NRandom = 5,
) -> Options:
    """Hide each sentence of the reasoning from all later ones, beside as many random keys."""
    return {"most": most, "n_random": n_random}


@_command
def lens(
    *,
    layers: _Layers = None,
    n_others: Annotated[int, typer.Option(min=0, help="Other requests' key sentences as controls of each K.")] = 3,
    key_sentences: _KeySentences = None,
) -> Options:
    """Read every layer as if it were the last: from which on is K likely? Beside other requests' K."""
    return {"layers": parse_layers(layers), "n_others": n_others, "bank": bank_in(key_sentences)}


@_command
def trajectory(
    *,
    align: Annotated[str, typer.Option(help="Where offset 0 lies: key_sentence or reasoning_end.")] = "key_sentence",
    direction: _Directions = None,
    probe: Annotated[list[Path] | None, typer.Option(help="File of a probe; then none is fitted. Several may.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers whose states directions are fitted on. Default: one, two thirds up.")
    ] = None,
    position: _Position = "decision",
    label_by: _LabelBy = "label",
    n_folds: _Folds = 5,
    save: _Save = False,
    controls: _Controls = None,
    n_random: _NRandom = 20,
) -> Options:
    """Score every token's state with a direction or a probe, beside controls; fitted on held-out requests."""
    check_choice("--align", align, ("key_sentence", "reasoning_end"))
    known = [*(direction_in(file) for file in direction or ()), *(probe_in(file) for file in probe or ())]
    how = {"layers": layers, "position": position, "label_by": label_by, "n_folds": n_folds, "save": save}
    chosen = {"controls": tuple(controls)} if controls else {}
    return _fitting({"readers": known}, **how) | chosen | {"align": align, "n_random": n_random}


def _fitting(
    known: dict[str, list[Any]], *, layers: str | None, position: str, label_by: str, n_folds: int, save: bool
) -> Options:
    """What is used, or how it is fitted."""
    check_choice("--label-by", label_by, ("label", "aha"))
    if not any(known.values()):
        how = {"fit_layers": parse_layers(layers), "fit_position": position, "label_by": label_by, "n_folds": n_folds}
        return how | {"keep_directions": save}
    if layers is not None or save:
        raise InputError("--layers, --save: nothing is fitted where files are given; leave them out")
    return known
