"""Path patching (Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv 2304.05969).

Through which paths does a head or MLP act? In the target's run (a jailbreak that was complied with) the sender, at one
class of positions, has the activations that it has in the source's (the refused plain prompt), and one receiver alone
reads the stream that this gives: the query, key or value input of a head, or the logits. All other parts between the
two are as they were (:mod:`safekey_interp.capture.direct_paths`):

    effect = metric(target, path patched) − metric(target)        share = effect / (metric(source) − metric(target))

Pairs, positions, metrics and the control, another request's activations, are those of activation patching
(:mod:`~safekey_interp.interventions.activation_patching`).

What is changed in the stream lies at the matched positions, all of which come before whatever is read out, so that it
is the same in every row of a trace, whichever sentence stands in K's place. A query input that is changed there changes
the head there; a key or value input changes it at all later positions, in every row. A path to the logits changes
predictions at the matched positions alone: of a sentence, that of its first token, where ``decision`` is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.capture.streaming import BatchSize, StreamSettings, fixed_size, in_chunks
from safekey_interp.errors import TraceError
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.generation.likelihood import NOT_FINITE
from safekey_interp.interventions.activation_swaps import Change, change_alike, swapping
from safekey_interp.interventions.effect_metrics import Readout, Subject, readout_of
from safekey_interp.interventions.effects import P_VALUES, TESTED, about_first, summarise_effects, with_units
from safekey_interp.interventions.intervention_record import Prepared
from safekey_interp.interventions.metric_registry import MetricLike
from safekey_interp.interventions.paired_patching import effect_columns, prepare_pairs, table_of_pairs
from safekey_interp.interventions.path_changes import Path, changes_of, find_paths
from safekey_interp.interventions.path_record import INTERVENTION
from safekey_interp.interventions.trace_pairs import TracePair
from safekey_interp.interventions.variant_scores import score_variants

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


_AT_ONCE = 64
"""Changes that are held at once."""


def patch_paths(
    model: Model,
    traces: Iterable[Trace | TracePair],
    *,
    senders: Sequence[str] | None = None,
    receivers: Sequence[str] = ("logits",),
    positions: Sequence[str] = ("decision",),
    source: str = "refused",
    label_by: str | None = None,
    n_random: int = 1,
    metric: MetricLike | Sequence[MetricLike] | None = None,
    seed: int = 0, others: Sequence[Subject] | None = None, bank: KeySentences | None = None,
    finder: str = "rules", delimiters: tuple[str, str] | None = None, max_length: int | None = None,
    batch_size: BatchSize = "auto", on_trace: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:  # fmt: skip
    """What a refused trace's activations of one head or MLP do in a complied one's run through one path alone.

    Args:
        model: and ``metric``, ``bank``, ``finder`` … ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: of several prompts a request, told by their group, paired by
            :func:`~safekey_interp.interventions.trace_pairs.find_pairs`; or pairs.
        senders: heads (``3.head.1``) and MLPs (``3.mlp``); all of the model when None.
        receivers: inputs of heads (``5.head.2.q``, also ``k``, ``v``) and ``logits``. Those that do not read behind a
            sender have no path from it.
        positions: span expressions: where the sender's activations are the source's.
        source: and ``label_by``, ``n_random``, ``seed``, ``others``: as in
            :func:`~safekey_interp.interventions.activation_patching.patch`.

    Returns:
        One row per pair, path, position, donor and metric: trace_id, group, label (the target's), source_id, donor_id,
        sender, receiver, layer (the sender's), head (the sender's; -1 for an MLP), position, n_positions, control
        (``none``; ``other_request`` where the donor is one), draw, metric, unit (where a ``metric`` was asked for),
        target, source (the metric in the two runs), value, effect, gap = source − target, share = effect / gap (NaN
        without a gap). Nats a token, or that unit.

    Raises:
        InputError: no pair can be measured; an unknown sender, receiver or position; no path between any of them.
        ModelError: the model's attention cannot be reached.
    """
    readout = readout_of(model, metric, bank)
    positions = (positions,) if isinstance(positions, str) else positions
    INTERVENTION.check(positions=positions, n_random=n_random, seed=seed)
    paths = find_paths(model, senders, receivers)
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    run = _Run(model, readout, paths, tuple(positions), fixed_size(batch_size))
    return table_of_pairs(
        model, traces, readout, settings, partial(_table, run), source=source, label_by=label_by, positions=positions,
        n_random=n_random, seed=seed, others=others, on_trace=on_trace,
    )  # fmt: skip


def summarise_paths(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effects of :func:`patch_paths` with intervals, beside other requests' activations.

    Args:
        table: from :func:`patch_paths`.

    Returns:
        sender, receiver, layer, head, position, metric, unit (where the table has it), measure (effect; share, of the
        means' difference) and the columns of :func:`~safekey_interp.interventions.effects.summarise_effects` without p.
        NaN where nothing is defined.
    """
    by = ["sender", "receiver", "layer", "head", "position", "metric"]
    tables = []
    for measure, over in (("effect", None), ("share", "gap")):
        part = summarise_effects(table, by, over=over).drop(columns=P_VALUES)
        part.insert(len(by), "measure", measure)
        tables.append(part)
    return with_units(pd.concat(tables, ignore_index=True), table)


def prepare_paths(model: Model, traces: Sequence[Trace], options: Mapping[str, Any], **finding: Any) -> Prepared:
    """The pairs of a run, all their targets, from which controls are chosen, and every sender by its name.

    Raises:
        NothingMeasured: there is no pair.
    """
    prepared = prepare_pairs(model, traces, options, **finding)
    paths = find_paths(model, options["senders"], options["receivers"])
    senders = tuple(dict.fromkeys(str(path.sender) for path in paths))
    return prepared._replace(options={**prepared.options, "senders": senders})


def paths_cost(options: Mapping[str, Any], n: int) -> str:
    """What a run costs, in words.

    Args:
        options: of :func:`patch_paths`, with the senders by name.
        n: pairs.
    """
    of_receivers = [np.inf if text == "logits" else int(text.partition(".")[0]) for text in options["receivers"]]
    of_senders = [int(text.partition(".")[0]) for text in options["senders"]]
    n_paths = sum(sender < receiver for sender in of_senders for receiver in of_receivers)
    n_positions, n_donors = len(options["positions"]), 1 + options["n_random"]
    each = n_paths * n_positions * n_donors
    return (
        f"{n_paths:,} paths x {n_positions} positions x {n_donors} donors = at most {each:,} changed forward passes of "
        f"what is read out a pair, {n * each:,} for {n:,} pairs."
    )


class _Run(NamedTuple):
    """What is the same for every pair."""

    model: Model
    readout: Readout
    paths: tuple[Path, ...]
    positions: tuple[str, ...]
    batch_size: int | None

    def metrics(self, subject: Subject, rows: Sequence[Continuation], changes: Sequence[Change]) -> np.ndarray:
        """(change, metric) of a subject's rows, or others in their places."""
        options: Any = {"alike": change_alike(changes), "batch_size": self.batch_size}
        scores = score_variants(self.model, rows, len(changes), swapping(changes), **options)
        return self.readout.values(scores.numpy(), subject.parts)


def _table(run: _Run, source: Subject, target: Subject, others: Sequence[Subject]) -> pd.DataFrame:
    """Rows of one pair. Raises TraceError where nothing can be patched, or a number is not finite."""
    name = target.trace.trace_id
    [in_source] = run.metrics(source, run.readout.rows_for(run.model, source, target), [None])
    [clean] = run.metrics(target, target.rows, [None])
    about, values = [], []
    for draw, donor in enumerate([source, *others], start=-1):
        for changes in in_chunks(changes_of(run.model, run.paths, run.positions, donor.rows, target.rows), _AT_ONCE):
            values.append(run.metrics(target, target.rows, [change for *_, change in changes]))
            for path, position, n, _ in changes:
                sender = path.sender
                about.append(
                    {
                        "donor_id": donor.trace.trace_id,
                        "sender": str(sender),
                        "receiver": str(path.receiver),
                        "layer": sender.layer,
                        "head": -1 if sender.head is None else sender.head,
                        "position": position,
                        "n_positions": n,
                        "control": TESTED if draw < 0 else "other_request",
                        "draw": draw,
                    }
                )
    if not about:
        raise TraceError(name, f"has none of the positions {', '.join(run.positions)} in common with its source")
    numbers = effect_columns(run.readout.names, clean, in_source, np.concatenate(values))
    places = pd.DataFrame(about)
    table = places.loc[places.index.repeat(len(run.readout.names))].reset_index(drop=True).assign(**numbers)
    if not np.isfinite(table[["target", "source", "value"]].to_numpy()).all():
        raise TraceError(name, NOT_FINITE)
    return run.readout.with_units(about_first(table, target.about | {"source_id": source.trace.trace_id}))
