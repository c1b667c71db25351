"""Command ``safekey-interp train``: from a recipe and a file of traces to a trained model, a run folder and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safekey_interp.cli.options import Details, NoReport, Overwrite, Shown, Started, option, progress_of, with_options
from safekey_interp.cli.run_summary import say_run
from safekey_interp.cli.shared import page_of, quiet_libraries, say, typed
from safekey_interp.display import one_line, printable
from safekey_interp.errors import InputError
from safekey_interp.models.checkpoints import check_revision
from safekey_interp.models.load_settings import CheckpointSettings
from safekey_interp.runs.processes import team

if TYPE_CHECKING:
    from rich.text import Text

    from safekey_interp.models.model import Model
    from safekey_interp.training.config import TrainingConfig
    from safekey_interp.training.examples import Example, Examples

app = typer.Typer()
_READING = "Brackets hold 95 % intervals over prompts. Losses are means over tokens or rows, and have none."
_SHOWN = 3
"""Examples, and reasons for leaving out, that a dry run prints."""
_MOST_TOKENS = 160
"""Tokens of the beginning of an example that a dry run prints."""
_STYLES = {"prompt": "blue", "understanding": "cyan", "key_sentence": "bold yellow"}


@app.command()
@with_options
def train(
    ctx: typer.Context,
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE...]",
            help="A YAML file of settings, then settings that win, such as traces=data.jsonl epochs=3.",
            show_default=False,
        ),
    ] = None,
    starting: Started,
    overwrite: Overwrite = False,
    no_report: NoReport = False,
    details: Details = False,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu.")] = None,
    revision: Annotated[str | None, option(CheckpointSettings, "revision")] = None,
    trust_remote_code: Annotated[bool, option(CheckpointSettings, "trust_remote_code")] = False,
) -> None:
    """Train the model, or print what a run would do."""
    # Cheap checks come before the seconds that the libraries and the model take.
    from safekey_interp.data.trace_reader import read_traces
    from safekey_interp.runs.run_writer import check_out
    from safekey_interp.training.config import read_config

    recipe, pairs = _recipe_and_settings(words or [])
    config = read_config(recipe, pairs)
    if not config.traces:
        raise InputError("traces: got none, expected files of traces, such as traces=data.jsonl")
    check_revision(config.model, revision)
    if team().is_first and not starting.dry_run:
        check_out(Path(config.out))
    source = read_traces(list(config.traces)).check()
    team().gather()  # so that what one process refuses is known before the others load a model
    with progress_of(Shown(quiet=starting.quiet)) as bar:
        bar.stage("loading the model", None)
        quiet_libraries()
        from safekey_interp.models.model import load
        from safekey_interp.training import distributed, training_run

        distributed.check_installed()
        model = load(
            config.model, device=device, dtype="float32", revision=revision, trust_remote_code=trust_remote_code
        )
        if starting.dry_run:
            from safekey_interp.training.examples import check_known_examples, prepare_examples

            bar.stage("reading", None)
            examples = prepare_examples(model, source, config, bar.advance)
            check_known_examples(model, examples, allowed=starting.allow_unknown)
            if not team().is_first:
                return
        else:
            options: Any = {"allow_unknown": starting.allow_unknown, "overwrite": overwrite, "command": typed(ctx)}
            run = training_run.train(model, source, config, **options, progress=bar)
            if not team().is_first:
                return
            page = page_of(run, bar, wanted=not no_report)
    if starting.dry_run:
        _print_plan(model, examples, config)
    else:
        from safekey_interp.reporting.findings.training_findings import tell
        from safekey_interp.reporting.labels import QUESTIONS

        titles = QUESTIONS["training"]
        say_run(ctx, run, page, titles=titles, reading=_READING, details=details, found=tell(run))


def _recipe_and_settings(words: list[str]) -> tuple[Path | None, list[str]]:
    """The recipe, if there is one, and the settings behind it."""
    recipes = [word for word in words if "=" not in word]
    if len(recipes) > 1 or (recipes and words[0] != recipes[0]):
        raise InputError(f"{recipes[-1]!r}: expected key=value; one recipe comes first")
    return (Path(recipes[0]) if recipes else None), words[len(recipes) :]


def _print_plan(model: Model, examples: Examples, config: TrainingConfig) -> None:
    """What a run would do, and what it would see."""
    from rich.console import Console

    from safekey_interp.training.examples import longest_row
    from safekey_interp.training.head_learning_rate import head_rate
    from safekey_interp.training.memory import available, check_memory, gigabytes
    from safekey_interp.training.other_prompts import second_pass
    from safekey_interp.training.training_cost import planned_cost
    from safekey_interp.training.training_run import check, needed_memory, plan

    report = examples.report
    schedule, way = plan(model, examples, config)
    check(model, examples, config)
    say(f"{model.name}: {_in_words(report['train'])}; held out: {_in_words(report['held_out'])}.")
    auxiliary = schedule.steps - schedule.auxiliary_from
    begin = f"with the auxiliary losses in the last {auxiliary:,}" if auxiliary else "without auxiliary losses"
    say(
        f"{schedule.steps:,} steps of {config.batch_size:,} traces ({schedule.steps_per_epoch:,} an epoch, "
        f"{schedule.warmup_steps:,} of warm-up), {begin}."
    )
    rate = head_rate(model, examples.train, config)
    if rate is not None:
        how = "as it was set" if rate.states_l1 is None else f"by the mean |x|₁ of its states, {rate.states_l1:.3g}"
        say(f"Learning rate: {config.learning_rate:g}; of the safety head {rate.learning_rate:g}, {how}.")
    again = second_pass(config, examples.train, longest_row(model, config), way.layout if way else None)
    if way is not None and again is not None:
        shown = "the prompt masked" if config.query_prompt == "masked" else "another request's prompt before it"
        say(
            f"Query mask: {way.layout}{f' ({way.why})' if way.why else ''}, {shown}: {again.tokens:,} tokens an epoch "
            f"beside {report['train']['tokens']:,}, in {again.n:,} traces."
        )
    if again is not None and again.n_without_partner:
        say(
            f"{again.n_without_partner:,} traces with K have no other prompt that fits, and are not in the second pass."
        )
    needed = needed_memory(model, examples, config, again)
    free = available(model.device)
    say(f"Memory: about {needed.in_words()}; {gigabytes(free)} are free beside the weights.")
    _print_dropped(report)
    cost = planned_cost(model, examples, config, schedule, way=way, memory=needed.total)
    for name, value in cost.rows():
        print(f"{name:<8}{value}")
    console = Console(highlight=False, width=min(80, Console().width))
    for example in _shown(examples.train):
        print()
        console.print(_coloured(model, example))
    check_memory(needed, free)


def _in_words(counts: dict[str, int]) -> str:
    return (
        f"{counts['traces']:,} traces of {counts['groups']:,} groups ({counts['harmful']:,} harmful, "
        f"{counts['benign']:,} benign, {counts['unlabelled']:,} without a label; {counts['with_understanding']:,} with "
        f"U, {counts['with_key_sentence']:,} with K; {counts['tokens']:,} tokens, at most {counts['longest']:,})"
    )


def _print_dropped(report: dict[str, Any]) -> None:
    dropped = report["left_out"]
    if not dropped:
        say(f"Nothing of {report['read']:,} is left out.")
    for entry in dropped[:_SHOWN]:
        say(f"left out (n = {entry['n']:,}): {entry['why']}; the first is {entry['first']}", indent="  - ", hang="    ")
    if len(dropped) > _SHOWN:
        say(f"and {sum(entry['n'] for entry in dropped[_SHOWN:]):,} for other reasons", indent="    ")
    given = report["given"]
    if given:
        say(
            f"Of {given['traces']:,} with spans of their own, the key sentence that is used is the same in "
            f"{given.get('same_key_sentence', 0):,}, the understanding in {given.get('same_understanding', 0):,}; in "
            f"{given.get('outside', 0):,} they lie outside the text."
        )


def _shown(train: tuple[Example, ...]) -> list[Example]:
    """One of each label first."""
    first = {example.label: example for example in reversed(train)}
    chosen = [first[label] for label in ("harmful", "benign", None) if label in first]
    return [*chosen, *(example for example in train if example not in chosen)][:_SHOWN]


def _coloured(model: Model, example: Example) -> Text:
    """The tokens as the model reads them, decoded, each span in its colour; control characters are not sent."""
    from rich.text import Text

    ids = example.encoding.input_ids.tolist()
    owner = {position: name for name in _STYLES for position in example.encoding.positions(name)}
    shown = Text(f"{one_line(example.trace_id)}  ", style="dim")
    shown.append(f"{example.label or 'no label'}, K {example.aha or 'absent'}, {len(ids):,} tokens\n")
    begin = 0
    for at in range(1, min(len(ids), _MOST_TOKENS) + 1):
        if at == min(len(ids), _MOST_TOKENS) or owner.get(at) != owner.get(begin):
            piece = model.tokenizer.decode(ids[begin:at], clean_up_tokenization_spaces=False)
            shown.append(printable(piece), style=_STYLES.get(owner.get(begin, ""), "dim"))
            begin = at
    if len(ids) > _MOST_TOKENS:
        shown.append(f" … and {len(ids) - _MOST_TOKENS:,} more tokens", style="dim italic")
    return shown
