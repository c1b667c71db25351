"""Directional ablation and steering vectors in the residual stream.

    ablate:  x ← x − (x · d) d                    add:  x ← x + scale · norm · d

``ablate`` applies wherever the stream is written (after the embedding, and after attention and MLP of every layer), so
that nothing in the model reads the direction (Arditi et al. 2024, arXiv 2406.11717), or after the given layers alone;
``add`` applies after the direction's own layer, in units of the direction's norm: 1 is the whole way from one class
mean to the other. Both at all positions, or at the given ones.

What changes is, by default, the log-probability of safe and compliant key sentences and of the trace's own K behind its
own U (:mod:`~safekey_interp.interventions.effect_metrics`), or any other metric. The controls are the same with other
directions of equal norm: fitted to shuffled labels, drawn from the states' covariance, or isotropic
(:mod:`safekey_interp.measures.control_directions`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.capture_request import expressions
from safekey_interp.capture.streaming import BatchSize, StreamSettings, fixed_size, on_threads, threads_for
from safekey_interp.generation.generation_edits import Mode
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import NOT_FINITE
from safekey_interp.interventions.effect_metrics import Readout, Subject, find_subjects, readout_of
from safekey_interp.interventions.effects import about_first, summarise_effects, tested_rows, with_units
from safekey_interp.interventions.metric_registry import MetricLike
from safekey_interp.interventions.steering_record import INTERVENTION
from safekey_interp.interventions.steering_variants import Variant, estimated_metrics, exact_metrics, variants_of
from safekey_interp.interventions.two_stages import STAGE, with_p_of_estimates
from safekey_interp.measures.control_directions import (
    DEFAULT_CONTROLS,
    N_COMPONENTS,
    ControlKind,
    check_controls,
)
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.trace_tables import concatenate_tables

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

JOINT = ("mode", "scale", "metric")
"""Effects that are alike enough for the largest of them to be looked for."""
COMPONENTS = tuple(f"pc{number}_{what}" for what in ("cosine", "share") for number in range(1, N_COMPONENTS + 1))
"""Columns that say how close a direction is to the states' first principal components."""


def steer(
    model: Model,
    traces: Iterable[Trace],
    directions: Direction | Sequence[Direction],
    *,
    mode: Mode = "ablate",
    scales: float | Sequence[float] = 1.0,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    controls: Sequence[ControlKind] = DEFAULT_CONTROLS,
    n_random: int = 20,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    only: Collection[Sequence[int]] | None = None, estimate: bool = False,
    seed: int = 0, bank: KeySentences | None = None,
    finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    batch_size: BatchSize = "auto", backend: Backend = "hf", on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """What each direction does to each trace's decision, beside control directions of its norm.

    Args:
        model: and ``metric``, ``bank``, ``finder`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: with U and K, or what else ``metric`` reads; not those that the directions were fitted on.
        directions: records of the model's width.
        mode: ``ablate`` or ``add``.
        scales: of ``add``, in units of each direction's norm; negative towards the other class.
        layers: after which layers; when None, of ``ablate`` everywhere, of ``add`` the direction's own.
        positions: where in the sequence, span expressions; everywhere, the sentence itself included, when None.
        controls: kinds of control: ``shuffled_labels`` and ``covariance``, which a direction brings with it from the
            states that it was fitted on, or ``isotropic``.
        n_random: control directions of each kind a direction, of its norm; fewer of shuffled labels where the requests
            that it was fitted on allow no more.
        only: the directions that are measured, each as a sequence of its number alone; all when None.
        estimate: first-order estimates (:mod:`~safekey_interp.interventions.direction_estimates`) in the place of the
            exact effects: one forward and backward pass a trace, whatever the number of directions.
        seed: of the isotropic ones.

    Returns:
        One row per trace, direction, scale, draw and metric: trace_id, group, label, direction (its number), layer,
        site, position, method (the record's), mode, scale (NaN for ``ablate``), control (``none`` or a kind of
        control), draw (-1 for the direction itself), metric (difference, safe, go_ahead, key_sentence), unit (where a
        ``metric`` was asked for), baseline, value, effect = value − baseline (nats per token, or that unit), pc1_cosine
        to pc3_cosine (|cosine| of the direction itself with the first principal components of the states that it was
        fitted on) and pc1_share to pc3_share (of the states' variance; NaN where it was not fitted on states).

    Raises:
        InputError: no trace can be measured, a direction, layer, position or mode does not fit, or a direction brings
            no control directions of a kind.
    """
    kinds = check_controls(controls, n_random)
    INTERVENTION.check(mode=mode, seed=seed)
    readout = readout_of(model, metric, bank)
    records = [directions] if isinstance(directions, Direction) else list(directions)
    numbers = [float("nan")] if mode == "ablate" else np.atleast_1d(np.asarray(scales, np.float64)).tolist()
    wanted = expressions(positions or (), "positions")
    changes: dict[str, Any] = {"scales": numbers, "layers": model.layer_numbers(layers)}
    chosen = range(len(records)) if only is None else sorted(number for (number,) in only)
    drawn: dict[str, Any] = {"kinds": kinds, "n_random": n_random, "seed": seed}
    variants = variants_of(model, records, mode, chosen, **changes, **drawn)
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    subjects, left_out = find_subjects(model, traces, readout, settings, spans=wanted)
    size = fixed_size(batch_size)
    metrics_of = estimated_metrics if estimate else exact_metrics
    columns = _columns(variants, records, mode)
    tables = []
    with torch.inference_mode(), evaluating(model.hf), on_threads(threads_for(model)):
        for subject in subjects:
            about = (model, variants, subject, readout)
            metrics = metrics_of(*about, mode=mode, positions=positions, backend=backend, batch_size=size)
            on_trace(1)
            if not np.isfinite(metrics).all():
                left_out[subject.trace.trace_id] = NOT_FINITE
                continue
            tables.append(_table(subject, columns, readout, metrics))
    return concatenate_tables(tables, left_out, "no trace can be measured")


def summarise_steering(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effects of :func:`steer` with intervals, beside the control directions'.

    Args:
        table: from :func:`steer` or :func:`~safekey_interp.interventions.cross_fitting.steer_held_out`.

    Returns:
        direction, layer, site, position, mode, scale, metric, the columns of
        :func:`~safekey_interp.interventions.effects.summarise_effects`, and pc1_cosine to pc3_share (means over
        traces). NaN where nothing is defined. A control direction is the same for every trace, so that the interval of
        ``excess`` leaves out how control directions differ: whether an effect is more than theirs is said by
        ``p_value`` of a direction chosen beforehand, and by ``p_value_over_all`` of the best of all directions (of the
        same scale and metric). Of a table of two stages, also ``stage`` (``estimate`` or ``exact``) and ``n_places``
        (of the first stage); p over all is then that of the estimates
        (:func:`~safekey_interp.interventions.two_stages.with_p_of_estimates`).
    """
    staged = [name for name in (STAGE,) if name in table.columns]
    by = ["direction", "layer", "site", "position", "mode", "scale", "metric", *staged]
    summary = summarise_effects(table, by, kinds=get_args(ControlKind), joint=(*JOINT, *staged))
    if staged:
        summary = with_p_of_estimates(summary, by).assign(n_places=table["direction"].nunique())
    components: Any = tested_rows(table).groupby("direction")[list(COMPONENTS)].mean()
    return with_units(summary.merge(components, on="direction", how="left"), table)


def _columns(variants: Sequence[Variant], directions: Sequence[Direction], mode: Mode) -> pd.DataFrame:
    """What tells the variants but the baseline apart, a row each."""
    rows = []
    for variant in variants[1:]:
        direction = directions[variant.direction]
        record = {name: getattr(direction, name) for name in ("layer", "site", "position", "method")}
        about = {"mode": mode, "scale": variant.scale, "control": variant.control, "draw": variant.draw}
        rows.append({"direction": variant.direction} | record | about | component_columns(direction))
    return pd.DataFrame(rows)


def component_columns(direction: Direction) -> dict[str, float]:
    """|cosine| with each principal component, and its share of the variance; NaN where unknown."""
    components = dict.fromkeys(COMPONENTS, np.nan)
    if direction.controls is not None:
        pairs = zip(direction.controls.cosines(direction.vector), direction.controls.shares, strict=True)
        for number, (cosine, share) in enumerate(pairs, start=1):
            components |= {f"pc{number}_cosine": float(cosine), f"pc{number}_share": float(share)}
    return components


def _table(
    subject: Subject, columns: pd.DataFrame, readout: Readout, metrics: Float[np.ndarray, "variant metric"]
) -> pd.DataFrame:
    n_metrics = len(readout.names)
    table = columns.loc[columns.index.repeat(n_metrics)].reset_index(drop=True)
    table = about_first(table, subject.about)
    baseline = np.tile(metrics[0], len(columns))
    value = rearrange(metrics[1:], "variant metric -> (variant metric)")
    names = list(readout.names) * len(columns)
    return readout.with_units(table.assign(metric=names, baseline=baseline, value=value, effect=value - baseline))
