"""Tables of a probe's run, from its chunks.

Chunks are read one after another, so that memory grows with the number of traces by a few numbers each and no more.
The tables depend on the chunks alone: not on where a run was killed, and not on an earlier attempt.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.feature_states import FeatureStates
from safekey_interp.capture.hidden_states import States
from safekey_interp.data.class_labels import OUTCOME, LabelBy
from safekey_interp.data.conditions import NO_CONDITIONS, subsets_of, value_of
from safekey_interp.errors import RunError
from safekey_interp.experiments.probe_chunks import (
    attended,
    feature_files,
    head_sums,
    join_tables,
    quantity_reader,
    state_files,
    store_states,
    words_read,
)
from safekey_interp.experiments.probe_examples import join_examples
from safekey_interp.experiments.probe_jobs import CLASS, Job, LatentProbes, StateProbes, column, do_jobs
from safekey_interp.experiments.probe_survey import Survey
from safekey_interp.measures.attention_summary import subset_masks, summarise_layers
from safekey_interp.progress import Progress
from safekey_interp.runs.memory_release import release_memory
from safekey_interp.runs.processes import Team
from safekey_interp.runs.run_writer import RunWriter
from safekey_interp.runs.storage import write_table

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_SAE = "sae"
_ABOUT_TRACES = [
    *("trace_id", "label", "group", "condition", "aha", "status", "left_out", "prompt", "understanding"),
    "key_sentence",
]


def assemble(
    writer: RunWriter,
    parts: list[Path],
    *,
    request: CaptureRequest,
    model: Model,
    overview: Survey,
    team: Team,
    tell: Progress,
) -> None:
    """Write every table of a run from its chunks.

    Args:
        writer: of the run folder.
        parts: the chunks' folders, in order.
        request: what was asked of each forward pass.
        model: that answered.
        overview: of the data.
        team: the processes that share the work; all of them call this.
        tell: is told the progress.

    Raises:
        RunError: no trace was measured; the run is then deleted.
    """
    label_by = writer.manifest["settings"]["label_by"]
    path, seed, layers = writer.path, request.seed, list(request.layers or range(model.n_layers))
    # Named like what a kill leaves behind, since it is worth nothing without the rest.
    aside = path / ".summaries.00000000.aside"
    traces = pd.concat([_about_traces(part, label_by) for part in parts])
    measured = traces.loc[traces["status"] == "measured"].reset_index(drop=True)
    if measured.empty:
        first = traces.iloc[0]
        team.gather()
        if team.is_first:
            writer.discard()
        raise RunError(f"no trace could be measured, nothing is kept; trace {first['trace_id']}: {first['left_out']}")
    if team.is_first:
        writer.manifest["conditions"] = overview.conditions.record()
        writer.manifest["finder_trust"] = overview.trust
        writer.remove_results()
        shutil.rmtree(aside, ignore_errors=True)
        (aside / _SAE).mkdir(parents=True)
    team.gather()
    attention = [
        Job(
            "attention",
            partial(_summarise_attention, path, parts, measured, overview, layers),
        ),
        Job("joined", partial(join_tables, parts, "attention.parquet", path / "attention.parquet")),
    ]
    jobs = attention if any((part / "attention.parquet").is_file() for part in parts) else []
    probes = latents = None
    if request.states:
        sites = request.sites(model.n_layers)
        states = States(state_files(parts), list(measured["trace_id"]), sites, request.positions)
        release_memory()
        estimator = writer.manifest["settings"].get("estimator", "logistic")
        about: dict[str, Any] = {"label_by": label_by, "estimator": estimator, "seed": seed}
        about |= {"texts": words_read(parts), "tell": tell}
        probes = StateProbes(states, measured, overview.conditions, folder=aside, **about)
        jobs = [*jobs, *probes.jobs()]
        if request.features is not None:
            features = FeatureStates(feature_files(parts), states.trace_ids, request.features, request.positions)
            latents = LatentProbes(features, measured, NO_CONDITIONS, folder=aside / _SAE, **about)
            jobs = [*jobs, *latents.jobs()]
    tell.stage("summarising", sum(job.steps for job in jobs) or None)
    do_jobs(jobs, team, tell)
    if not team.is_first:
        return
    join_tables(parts, "traces.parquet", path / "traces.parquet")
    join_examples(parts, path)
    if probes is None:
        why = f"needs two classes by {label_by}, got {overview.in_words}"
        left_out = [{"what": "separability", "why": why, "n": overview.classes.total()}]
    else:
        left_out = _join_probes(path, probes, latents)
        if writer.manifest["settings"]["states"]:
            store_states(states, path / "states")
    writer.manifest["separability_left_out"] = left_out
    shutil.rmtree(aside, ignore_errors=True)


def _about_traces(part: Path, label_by: LabelBy) -> pd.DataFrame:
    """What is known of a chunk's traces, with their classes."""
    apart = label_by not in ("label", OUTCOME)
    columns = [*_ABOUT_TRACES, *(["source", "meta"] if apart else [])]
    table = pd.read_parquet(part / "traces.parquet", columns=columns)
    if not apart:
        return table.assign(**{CLASS: table[label_by]})
    pairs = zip(column(table, "source"), table["meta"], strict=True)
    classes = [value_of(source, json.loads(meta), label_by) for source, meta in pairs]
    return table[_ABOUT_TRACES].assign(**{CLASS: pd.array(classes, dtype="string")})


def _join_probes(path: Path, probes: StateProbes, latents: LatentProbes | None) -> list[dict[str, Any]]:
    """Write the tables of separability and transfer, of states and of latents; what was left out of them."""
    tables = {name: probes.joined("separability", name) for name in ("separability", "coordinates")}
    tables["transfer"] = probes.joined("transfer", "transfer")
    if latents is not None:
        tables["sae_separability"] = latents.joined("separability", "separability")
        tables["sae_latents"] = latents.joined("separability", "latents")
    for name, table in tables.items():
        if not table.empty:
            write_table(path / f"{name}.parquet", table)
    # Where nothing can be separated, no condition can be either.
    nothing = tables["separability"].empty
    return [*probes.left_out("separability"), *([] if nothing else probes.left_out("transfer"))]


def _summarise_attention(
    path: Path,
    parts: list[Path],
    measured: pd.DataFrame,
    overview: Survey,
    layers: list[int],
) -> None:
    spans, conditions = overview.spans, overview.conditions
    assert spans.pairs is not None
    rows = measured.loc[measured["trace_id"].isin(list(attended(parts)))]
    labels = "label" if conditions.label_by == "label" else CLASS
    about = zip(*(column(rows, name) for name in (labels, "aha", "condition")), strict=True)
    masks = subset_masks(
        [subsets_of(label, aha if spans.is_recipe else None, condition, conditions) for label, aha, condition in about]
    )
    by_layer = summarise_layers(quantity_reader(parts), list(rows["group"]), masks, layers, spans.pairs)
    write_table(path / "attention_by_layer.parquet", by_layer)
    by_head = head_sums(parts).table(layers, spans.pairs)
    write_table(path / "attention_by_head.parquet", by_head.loc[by_head["subset"].isin(list(masks))])
