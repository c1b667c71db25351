"""Activation patching (Vig et al. 2020; Meng et al. 2022, arXiv 2202.05262) between two traces of one request.

It asks where in a run it lies that a request is refused, and another form of it is not: hidden states of the source (by
default the refused plain prompt) take the place of the target's (the jailbreak that was complied with), after one
layer, or of one of its components or heads, at one class of positions before K:

    effect = metric(target, patched) − metric(target)            share = effect / (metric(source) − metric(target))

The metrics are, by default, the log-probability of safe minus compliant key sentences, and that of the target's own K,
behind the target's U (:mod:`~safekey_interp.interventions.effect_metrics`); in the source, behind the source's U.
Positions are matched from the end (:mod:`~safekey_interp.interventions.activation_swaps`). Any two kinds of traces will
do in place of refused and complied ones: those of two values of a column (``label_by``).

The control puts states of another request's trace there, one of the target's outcome: what any foreign state does.
Beside each exact effect stands its first-order estimate (:mod:`~safekey_interp.interventions.attribution_patching`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from einops import rearrange

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.component_grid import component_grid
from safekey_interp.capture.places import Place
from safekey_interp.capture.streaming import BatchSize, StreamSettings, fixed_size
from safekey_interp.errors import TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import NOT_FINITE
from safekey_interp.interventions.activation_swaps import Swap, change_alike, match_positions, read_states, swapping
from safekey_interp.interventions.attribution_patching import attribute, compare_attribution
from safekey_interp.interventions.effect_metrics import Readout, Subject, readout_of
from safekey_interp.interventions.effects import (
    P_VALUES,
    TESTED,
    about_first,
    summarise_effects,
    tested_rows,
    with_units,
)
from safekey_interp.interventions.metric_registry import MetricLike
from safekey_interp.interventions.paired_patching import effect_columns, table_of_pairs
from safekey_interp.interventions.patching_record import INTERVENTION
from safekey_interp.interventions.trace_pairs import TracePair
from safekey_interp.interventions.two_stages import STAGE
from safekey_interp.interventions.variant_scores import score_variants

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

Method = Literal["both", "exact", "attribution"]
_MEASURES = {"effect": ("effect", None), "share": ("effect", "gap"), "attribution": ("attribution", None)}


def patch(
    model: Model,
    traces: Iterable[Trace | TracePair],
    *,
    source: str = "refused",
    label_by: str | None = None,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] = ("prompt_end", "template", "understanding", "decision"),
    components: Sequence[str] | None = None,
    method: Method = "both",
    n_random: int = 1,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    only: Collection[Sequence[Any]] | None = None,
    seed: int = 0, others: Sequence[Subject] | None = None, bank: KeySentences | None = None,
    finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    batch_size: BatchSize = "auto", backend: Backend = "hf", on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """What hidden states of a refused trace do in the run of a complied one of the same request, by layer and position.

    Args:
        model: and ``metric``, ``bank``, ``finder`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: of several prompts a request, told by their group, paired by
            :func:`~safekey_interp.interventions.trace_pairs.find_pairs`; or pairs.
        source: outcome of the traces that states come from; the others are patched. Of another column, the value.
        label_by: a column with two values, such as ``label``; the outcome, refused or complied, when None.
        layers: after which layers; each when None.
        positions: span expressions, such as ``prompt_end``, ``template``, ``understanding``, ``decision``; tokens
            behind what is read out are left as they are.
        components: what is put in, one at a time: ``resid_post`` (when None), ``resid_pre``, ``resid_mid``,
            ``attn_out``, ``mlp_out``, ``head`` (z of every head, one by one), ``head.3``, ``ln_final`` (behind the last
            layer, whatever ``layers`` says).
        method: ``exact`` (a forward pass a swap), ``attribution`` (its first-order estimate), or ``both``.
        n_random: other requests' traces, of the target's outcome, as controls of each pair.
        only: the places that are measured, each as layer, component (where ``components`` are given) and position; all
            when None.
        seed: of their choice.
        others: traces that they are chosen from; all targets when None.

    Returns:
        One row per pair, layer, component, position, donor and metric: trace_id, group, label (the target's),
        source_id, donor_id, layer, component (where asked for), position, n_positions (tokens swapped), control
        (``none``; ``other_request`` where the donor is one), draw, metric (difference, safe, go_ahead, key_sentence),
        unit (where a ``metric`` was asked for), target, source (the metric in the two runs), value, effect, gap =
        source − target, share = effect / gap (NaN without a gap), attribution. Nats a token, or that unit.
        ``attrs["attribution_correlation"]`` is the correlation of attribution and exact effect on the first metric with
        its ``n``.

    Raises:
        InputError: no pair can be measured, or a layer, position, component or method is unknown; a component that the
            model lacks in all layers.
    """
    readout = readout_of(model, metric, bank)
    positions = _unique(positions)
    INTERVENTION.check(positions=positions, method=method, n_random=n_random, seed=seed)
    places = component_grid(model, layers, ("resid_post",) if components is None else components).places
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    size = fixed_size(batch_size)
    chosen = None if only is None else frozenset(tuple(place) for place in only)
    run = _Run(model, readout, places, components is not None, tuple(positions), method, chosen, size, backend)
    table = table_of_pairs(
        model, traces, readout, settings, partial(_table, run), source=source, label_by=label_by, positions=positions,
        n_random=n_random, seed=seed, others=others, on_trace=on_trace,
    )  # fmt: skip
    if method == "both":
        tested = tested_rows(table)
        compared = compare_attribution(tested.loc[tested["metric"] == readout.names[0]])
        table.attrs["attribution_correlation"] = compared.iloc[0][["pearson", "low", "high", "n", "n_groups"]].to_dict()
    return table


def n_places(model: Model, options: Mapping[str, Any]) -> int:
    """Places of complete options, each a layer's component and a position; 0 where one method alone is asked for."""
    if options["method"] != "both":
        return 0
    grid = component_grid(model, options["layers"], options.get("components") or ("resid_post",))
    return len(grid.places) * len(_unique(options["positions"]))


def _unique(positions: str | Sequence[str]) -> Sequence[str]:
    return (positions,) if isinstance(positions, str) else positions


def summarise_patching(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effects of :func:`patch` with intervals, beside other requests' states.

    Args:
        table: from :func:`patch`.

    Returns:
        layer, component (where the table has it), position, metric, unit (likewise), measure (effect, in nats per token
        or that unit; share, of the means' difference; attribution, as effect) and the columns of
        :func:`~safekey_interp.interventions.effects.summarise_effects` without p. NaN where nothing is defined.
        Of a table of two stages, also ``n_places``, of the position, that were estimated.
    """
    by = ["layer", *(["component"] if "component" in table.columns else []), "position", "metric"]
    tables = []
    for measure, (value, over) in _MEASURES.items():
        if bool(table[value].notna().any()):
            part = summarise_effects(table, by, value=value, over=over)
            part.insert(len(by), "measure", measure)
            # Every trace has donors of its own, so that one draw is no common alternative to the sources.
            tables.append(part.drop(columns=P_VALUES))
    summary = pd.concat(tables, ignore_index=True)
    if STAGE in table.columns:
        estimates = summary.loc[(summary["measure"] == "attribution") & (summary["subset"] == "all")]
        n_of_line = estimates.drop_duplicates(by).groupby(["position", "metric"]).size().rename("n_places")
        summary = summary.join(n_of_line, on=["position", "metric"])
    return with_units(summary, table)


class _Run(NamedTuple):
    """What is the same for every pair."""

    model: Model
    readout: Readout
    places: tuple[Place, ...]
    names_components: bool
    positions: tuple[str, ...]
    method: Method
    only: frozenset[tuple[Any, ...]] | None
    batch_size: int | None
    backend: Backend

    def where(self) -> list[tuple[Place, str]]:
        """The places, each a layer's component and a position."""
        every = ((place, position) for place in self.places for position in self.positions)
        if self.only is None:
            return list(every)
        name = (lambda place: (place.site,)) if self.names_components else (lambda place: ())
        return [(place, at) for place, at in every if (place.layer, *name(place), at) in self.only]

    def metrics(self, subject: Subject, rows: Sequence[Continuation], swaps: Sequence[Swap | None]) -> np.ndarray:
        """(swap, metric) of a subject's rows, or others in their places."""
        options: dict[str, Any] = {"backend": self.backend, "batch_size": self.batch_size}
        scores = score_variants(self.model, rows, len(swaps), swapping(swaps), alike=change_alike(swaps), **options)
        return self.readout.values(scores.numpy(), subject.parts)


def _table(run: _Run, source: Subject, target: Subject, others: Sequence[Subject]) -> pd.DataFrame:
    """Rows of one pair. Raises TraceError where nothing can be swapped, or a number is not finite."""
    name = target.trace.trace_id
    [in_source] = run.metrics(source, run.readout.rows_for(run.model, source, target), [None])
    swaps: list[Swap] = []
    about: list[dict[str, Any]] = []
    for draw, donor in enumerate([source, *others], start=-1):
        where = run.where()
        places = list(dict.fromkeys(place for place, _ in where))
        states = read_states(run.model, donor.rows[0], places, backend=run.backend)
        matches = {position: match_positions(donor.rows, target.rows, position) for position in run.positions}
        for place, position in where:
            match = matches[position]
            if match.target:
                swaps.append(Swap(place, position, match.target, states[place][list(match.source)]))
                about.append(
                    {"donor_id": donor.trace.trace_id, "layer": place.layer}
                    | ({"component": place.site} if run.names_components else {})
                    | {"position": position, "n_positions": len(match.target)}
                    | {"control": TESTED if draw < 0 else "other_request", "draw": draw}
                )
    if not swaps:
        raise TraceError(name, f"has none of the positions {', '.join(run.positions)} in common with its source")
    exact = run.method != "attribution"
    names = run.readout.names
    metrics = run.metrics(target, target.rows, [None, *(swaps if exact else ())])
    value = metrics[1:] if exact else np.full((len(swaps), len(names)), np.nan)
    first_order = np.full_like(value, np.nan)
    if run.method != "exact":
        weights, options = run.readout.weights(target.parts), {"backend": run.backend, "batch_size": run.batch_size}
        first_order = attribute(run.model, target.rows, swaps, weights, **options)
    columns = effect_columns(names, metrics[0], in_source, value)
    columns["attribution"] = rearrange(first_order, "swap metric -> (swap metric)")
    changed = pd.DataFrame(about)
    table = changed.loc[changed.index.repeat(len(names))].reset_index(drop=True).assign(**columns)
    known = table[["target", "source", *(["value"] if exact else ["attribution"])]].to_numpy()
    if not np.isfinite(known).all():
        raise TraceError(name, NOT_FINITE)
    return run.readout.with_units(about_first(table, target.about | {"source_id": source.trace.trace_id}))
