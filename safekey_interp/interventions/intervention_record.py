"""Record of an intervention: its functions, options, controls, figures and words.

The run, the command, the findings and the page read this record and know no intervention by name. A record is light:
its functions may be named as ``module:function``, so that listing commands loads no model library.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Literal, NamedTuple

from safekey_interp.data.span_expressions import ALIASES, SPAN_NAMES
from safekey_interp.interventions.option_record import SEED, Option

Function = str | Callable[..., Any]
"""A function, or ``module:function``, which is imported when it is called first."""


def load_function(function: Function) -> Callable[..., Any]:
    """A record's function, imported where it is named."""
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


class Control(NamedTuple):
    """One kind of control."""

    words: str
    """What it is."""
    draws: str = ""
    """How many draws, with names of options in braces."""
    plain: str = ""
    """What it is, without a span of the built-in question; ``words`` when empty."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """How places are ranked and measured in two stages (:mod:`~safekey_interp.interventions.two_stages`).

    ``measure`` takes ``only``, the places that it measures.
    """

    places: tuple[str, ...]
    """Columns that tell places apart, in the order of ``only``; those that the table has."""
    n_places: str | Callable[..., Any]
    """Model and complete options to their number; 0 where there is one stage alone."""
    n_variants: str | Callable[..., Any]
    """Complete options to the variants of each place whose passes are exact: its own and its controls'."""
    estimate: Mapping[str, Any]
    """Options with which ``measure`` estimates."""
    exact: Mapping[str, Any]
    """Options with which it is exact."""
    without_controls: Mapping[str, Any]
    """Options with which it has no controls."""

    def place(self, columns: Collection[str]) -> list[str]:
        """Those of the columns that tell a table's places apart."""
        return [name for name in self.places if name in columns]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the summary that a reader chooses from, or that tells lines apart."""

    label: str
    """What the page's select box is called."""
    words: Mapping[Any, str] | Callable[[Any], str] = str
    """Its values in words; a mapping also says their order."""
    short: Mapping[Any, str] = field(default_factory=dict)
    """Shorter words, for an axis."""
    first: str = ""
    """The value that is chosen at first; empty: the first."""
    is_open: bool = False
    """Whether values without words are shown, too, behind the others."""
    plain: Mapping[Any, str] = field(default_factory=dict)
    """Words for spans without a word of the built-in question; as they were typed when empty."""

    def name(self, value: Any) -> str:
        """A value in words."""
        if isinstance(self.words, Mapping):
            return self.words.get(value, str(value))
        return self.words(value)


class Figure(NamedTuple):
    """One figure of the page, drawn where its places are told apart by its axes and the reader's choices."""

    name: str
    """Unique in the page."""
    title: str
    """Its heading."""
    kind: Literal["lines", "points", "map"] = "lines"
    """A line over ``axes[0]``; points side by side; a map of ``axes[0]`` by layer."""
    axes: tuple[str, ...] = ("layer",)
    """Columns of the summary."""
    choices: Collection[str] = ()
    """Columns of which the reader chooses a value, beside metric and subset; those that the summary has."""
    label: str = "place"
    """What the points are, below the axis."""
    has_control: bool = True
    """Whether a control stands at every place."""
    where: tuple[tuple[str, Any], ...] = ()
    """Columns and the values that its rows have there."""


class Prepared(NamedTuple):
    """What is measured, and what every piece of it needs of all traces."""

    items: list[Any]
    """Traces, or pairs of them, that are measured piece by piece."""
    options: Mapping[str, Any]
    """What every piece gets: the traces that controls are taken from."""
    left_out: dict[str, str]
    """Traces that are in no item, and why."""
    first: Sequence[Any] = ()
    """Items of a first round, whose table every piece needs."""


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One intervention.

    ``measure`` takes a model, traces, the options, and ``seed``, ``finder``, ``delimiters``, ``max_length`` and
    ``on_trace``. It returns one row per trace, place, control and draw: trace_id, group, label, the columns of places,
    control (``none`` for what is tested), draw, effect; ``attrs["left_out"]`` maps other traces to their reasons.
    ``summarise`` makes the summary from it, with
    :func:`~safekey_interp.interventions.effects.summarise_effects` (``form="effects"``), or one of scores by offset as
    :func:`~safekey_interp.measures.trajectory.summarise_trajectory` does (``form="scores"``).
    """

    name: str
    """Its command, and ``kind`` of ``run_intervention``."""
    help: str
    """What it does, in a sentence or two."""
    measure: Function
    """Model, traces and options to a tidy table."""
    summarise: Function
    """That table to means with intervals, beside the controls'."""
    options: tuple[Option, ...] = ()
    """Those that the command offers; the function may have others."""
    prepare: Function | None = None
    """Model, traces, options and ``finder``, ``delimiters``, ``max_length`` to :class:`Prepared`; None: the traces."""
    first_round: Function | None = None
    """As ``measure``, of :attr:`Prepared.first`; its table is then the argument ``others`` of ``measure``."""
    fits: str = ""
    """The option that takes directions or probes: without it directions are fitted by cross-fitting. Empty for none."""
    fit_depth: float | None = None
    """Directions are fitted at one layer, this far up, unless layers are given; None: at all layers."""
    form: Literal["effects", "scores", "shares"] = "effects"
    """Whether the summary has effects beside controls, scores by offset, or shares of prompts beside controls."""
    variants: Mapping[str, str] = field(default_factory=dict)
    """Options that are flags, and the intervention that takes this one's place where one is set."""
    is_judged: bool = False
    """Whether ``measure`` takes a ``judge`` of answers, which the run chooses for the model."""
    adapt: Function | None = None
    """Options and all traces to the options that the traces suggest, before anything is recorded."""
    stages: Stages | None = None
    """How many places are ranked before some are measured exactly; None: all are measured exactly."""
    cost: Function | None = None
    """Options and the number of traces to a sentence that is said before the first is measured."""

    grows_with: tuple[str, str] | None = None
    """An option whose values the passes grow with, and the command's option that says how many; None for neither."""
    cheaper: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Options that make it cheaper, as they are typed and by name, for a run that would take long."""

    title: str
    """The page's title, with ``{model}``."""
    changed: Callable[[Mapping[str, Any], Any], str]
    """Settings and effects to a sentence on what is changed."""
    plain_title: str = ""
    """The title without a word of the built-in question; ``title`` when empty."""
    effect: str = "The effect on {metric} is"
    """What the measured number is, with ``{line}``, ``{place}`` and ``{metric}``; the number follows."""
    plain_effect: str = ""
    """The same of any metric; ``effect`` when empty."""
    reading: str = ""
    """How the page's effects are read."""
    plain_reading: str = ""
    """The same without a word of the built-in question; ``reading`` when empty."""

    metrics: tuple[str, ...] = ()
    """Metrics that are reported, the first by default; none where there is one number alone."""
    value: str = "effect"
    """What a value is."""
    plain_value: str = ""
    """The same of any metric; ``value`` when empty."""
    unit: str = "nats per token"
    """Its unit."""
    lines: str = ""
    """The column whose values are reported one by one; empty for none."""
    reports: Literal["largest", "last"] = "largest"
    """Which place of a line is reported: that of the largest number, or the last layer."""
    place: Callable[[Any], str] | None = None
    """A summary's row to its place in words; None: its layers, and the head where there is one."""
    plain_place: Callable[[Any], str] | None = None
    """The same without a span of the built-in question; ``place`` when None."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """Columns that figures and lines use."""
    controls: Mapping[str, Control] = field(default_factory=dict)
    """Kinds of control, the default first."""
    shared_draws: bool = False
    """Whether one draw of the control is the same for every trace: p over the draws then decides, not an interval."""
    figures: tuple[Figure, ...] = (Figure("effect-layers", "By layer"),)
    """The page's figures of effects."""
    with_metric: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are others where a metric is asked for, of an intervention that measures something else without."""
    is_plain: bool = False
    """Whether spans and metrics are called as they were typed; :meth:`named` says so."""

    def is_built_in(self, settings: Mapping[str, Any]) -> bool:
        """Whether settings name no other spans and metrics than those that have words."""
        known = {option.name: option.choices for option in self.options if option.choices or option.is_span}
        known |= {"metric": ("aha", "key_sentence")}
        values = ((name, settings.get(name)) for name in known)
        listed = ((name, value if isinstance(value, list | tuple) else [value]) for name, value in values)
        return all(value is None or value in known[name] for name, several in listed for value in several)

    def named(self, settings: Mapping[str, Any]) -> Intervention:
        """The record as settings need it: with its words for spans, metrics and controls where these are the built-in
        ones alone, else with plain ones."""
        record = self.reading_out(settings)
        if self.is_built_in(settings):
            return record
        spans = {*SPAN_NAMES, *ALIASES}
        columns = {
            name: replace(column, words=column.plain or str, short={})
            if isinstance(column.words, Mapping) and spans.intersection(column.words)
            else column
            for name, column in record.columns.items()
        }
        controls = {
            kind: control._replace(words=control.plain or control.words) for kind, control in record.controls.items()
        }
        words = ("title", "effect", "reading", "value", "place")
        plain = {name: getattr(record, f"plain_{name}") or getattr(record, name) for name in words}
        return replace(record, columns=columns, controls=controls, is_plain=True, **plain)

    def reading_out(self, settings: Mapping[str, Any]) -> Intervention:
        """The record as it is where settings ask for a metric, or for none."""
        return self if settings.get("metric") is None else replace(self, **self.with_metric)

    def check(self, **values: Any) -> None:
        """Refuse options that are none of the choices, or too small; None passes.

        Raises:
            InputError: the first such.
        """
        for option in (*self.options, SEED):
            if values.get(option.name) is not None:
                option.check(values[option.name])
