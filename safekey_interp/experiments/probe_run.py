"""Run of ``probe``: from a file of traces to a run folder.

    read and check -> segment -> encode -> one forward pass each, in chunks -> tables -> findings -> page

Each trace is read, segmented and encoded once. Nothing is written before the data, the model and the folder are known
to be usable. A killed run resumes after its last whole chunk. Processes that a launcher starts take the same steps
together: each reads the data and measures its share of the chunks; the first alone holds the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.feature_maps import check_features
from safekey_interp.capture.streaming import BatchSize, forward_cost, threads_for, token_budget
from safekey_interp.data.class_labels import LabelBy, check_label_by
from safekey_interp.data.conditions import check_by
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.experiments.experiment_settings import ProbeSettings
from safekey_interp.experiments.probe_cost import probe_cost
from safekey_interp.experiments.probe_measure import chunk_size, measure, record_measuring
from safekey_interp.experiments.probe_stream import measure_whole_stream
from safekey_interp.experiments.probe_survey import request_of, survey
from safekey_interp.experiments.probe_tables import assemble
from safekey_interp.measures.attention_summary import QUANTITIES
from safekey_interp.measures.estimator_names import EstimatorName
from safekey_interp.models.chat_template import tokenizer_hash
from safekey_interp.models.sae_files import read_sae
from safekey_interp.models.sparse_autoencoder import SparseAutoencoder
from safekey_interp.progress import Progress
from safekey_interp.reporting.findings.probe_run_findings import find
from safekey_interp.runs.manifest import manifest_of
from safekey_interp.runs.run_folder import Run
from safekey_interp.runs.run_session import run_session
from safekey_interp.runs.storage import write_json
from safekey_interp.segmentation.finder_registry import WITHOUT_MEMORY

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


def run_probe(
    model: Model,
    traces: Any,
    *,
    out: str | Path,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    positions: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    backend: Backend = "hf",
    label_by: LabelBy = "label",
    estimator: EstimatorName = "logistic",
    sae: str | Path | SparseAutoencoder | None = None,
    by: str | None = "source",
    seed: int = 0,
    limit: int | None = None,
    n_examples: int = 40,
    n_random: int = 20,
    keep_states: bool = False,
    chunk: int | None = None,
    stream: bool = False,
    stream_sample: int | None = None,
    allow_unknown: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Find key sentences, measure what they attend to and how separable the states are, and write a run folder.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: what ``read_traces`` reads, or what it returned.
        out: the run folder; a run of the same settings and data in it is resumed, or returned when it is complete.
        queries: span expressions (:mod:`safekey_interp.data.span_expressions`) of the tokens that attend. Where
            neither these nor positions are named, the built-in question is measured: what the key sentence and the
            token before it attend to, and how separable the classes are before it; else what is named, and no more.
        keys: expressions of the tokens that are attended to; prompt, template and first_token when None.
        positions: expressions of the tokens whose states are probed; the queries when None.
        layers: layers to measure; all when None.
        finder: finder of U and K.
        delimiters: marks of the reasoning; the known families' when None.
        batch_size: traces a forward pass, or ``auto``.
        max_length: most tokens up to the end of K; longer traces are left out and named.
        backend: ``hf`` (fast) or ``bridge`` (TransformerLens).
        label_by: the column of the two classes that are told apart: ``label``, ``aha`` (each trace's own outcome),
            ``source`` or a name in ``meta``.
        estimator: ``logistic``, ``mass_mean`` or ``lda``.
        sae: a sparse autoencoder of the model (``read_sae``), or its file or folder: its latents at the positions are
            probed as the states are, and those that differ most are listed.
        by: the column that tells conditions apart: ``source``, or a name in ``meta``; None for nothing. Conditions of
            at least ten groups count, the most frequent first, at most six.
        seed: seed of every draw.
        limit: draw so many traces by ``seed``; for ``traces`` that are not read yet.
        n_examples: traces whose attention on every token is kept for the page.
        n_random: draws of each random key set.
        keep_states: leave the states in the folder's ``states``.
        chunk: traces between two points from which a killed run goes on, and that one process measures; by the
            number of traces when None.
        stream: read ``traces`` once, in constant memory, and keep tables of attention as shards
            (:mod:`safekey_interp.experiments.probe_stream`); what needs single traces is of a sample.
        stream_sample: traces of that sample, in whole groups; 2,000 when None.
        allow_unknown: accept traces of which more than 5 % of the tokens are unknown to the model's tokenizer.
        overwrite: delete a run that is there.
        command: what the user typed, for the record.
        progress: shows how far the run is; bars in a notebook, and nothing elsewhere, when None.

    Returns:
        The run; its page is drawn by ``report.write_report``.

    Raises:
        InputError: the data cannot be read, nothing in them can be measured, or no trace has a span that is named.
        ModelError: the model's attention cannot be read.
        RunError: the folder cannot be used, or no trace was left; then nothing stays in it.
    """
    features = _sae_of(model, sae)
    settings = ProbeSettings(
        queries=_listed(queries),
        keys=_listed(keys),
        positions=_listed(positions),
        finder=finder,
        delimiters=delimiters,
        batch_size=batch_size,
        max_length=max_length,
        backend=backend,
        label_by=label_by,
        estimator=estimator,
        sae=features and features.name,
        by=by,
        seed=seed,
        n_examples=n_examples,
        n_random=n_random,
        keep_states=keep_states,
        chunk=chunk,
        stream=stream,
        stream_sample=stream_sample,
    )
    spans = settings.spans
    options = spans.record() | {
        "layers": model.layer_numbers(layers),
        "finder": finder,
        "finder_identity": settings.identity,
        "delimiters": delimiters,
        "batch_size": batch_size,
        "max_length": max_length,
        "backend": backend,
        "label_by": label_by,
        "by": by,
        "examples": n_examples,
        "n_random": n_random,
        "states": keep_states,
    }
    # Of later versions: recorded where they are used, so that the record of other runs stays as it was.
    later = [("estimator", estimator, estimator != "logistic"), ("stream_sample", settings.sample_size, stream)]
    later.append(("sae", features and features.record(), features is not None))
    options |= {name: value for name, value, is_used in later if is_used}
    plan: dict[str, Any] = {
        "batch_size": batch_size,
        "max_tokens": token_budget(model),
        "forward_cost": forward_cost(model),
        "threads": threads_for(model),
        "quantities": list(QUANTITIES),
    }
    with run_session(out, overwrite=overwrite, progress=progress) as session:
        team, progress = session.team, session.progress
        progress.stage("reading", None)
        source, whole = read_traces(traces, limit=limit, seed=seed, stream=stream), None
        if stream:
            how: Any = {"session": session, "overwrite": overwrite, "allow_unknown": allow_unknown, "command": command}
            whole = measure_whole_stream(model, source, settings, options, plan, **how)
            session.lap("streaming")
            source = whole.sample
        else:
            check_by(source.check(), by)
            check_label_by(source, label_by)
        content = source.content
        plan["chunk"] = chunk or chunk_size(content.n)
        manifest = manifest_of(
            model.record(),
            tokenizer_hash(model.tokenizer),
            source.record() | (whole.data if whole else {}),
            options,
            plan=plan,
            seed=seed,
            command=command,
        )
        if whole:
            manifest["stream"] = whole.record
        if (run := session.finished(manifest)) is not None:
            return run
        progress.stage("finding key sentences", content.n)
        with team.after_first(finder not in WITHOUT_MEMORY):
            overview = survey(
                model,
                source,
                settings,
                spans=spans,
                label_by=label_by,
                by=by,
                n_examples=n_examples,
                seed=seed,
                allow_unknown=allow_unknown or stream,  # what was asked of the stream's first traces is not asked again
                on_trace=progress.advance,
            )
        if whole:
            overview = replace(overview, conditions=whole.conditions)
        request = request_of(model, overview, options, seed, features)
        session.lap("reading")
        done = min(overview.n, len(session.done_parts(manifest)) * plan["chunk"])
        left: Any = {"left": 1 - done / overview.n, "chunk": plan["chunk"], "estimator": estimator}
        left |= {"n_processes": team.world_size}
        cost = progress.starts(lambda: probe_cost(model, request, settings, overview, **left))
        session.lap("estimating")
        with session.writing(manifest) as writer:
            about: Any = {"writer": writer, "overview": overview, "team": team, "tell": progress, "cost": cost}
            parts = measure(model, source, request, settings, **about)
            session.lap("measuring")
            record_measuring(writer.manifest, parts)
            assemble(writer, parts, request=request, model=model, overview=overview, team=team, tell=progress)
            if whole:
                whole.write_tables(session.path, request, model.n_layers)
            session.lap("summarising")
            if team.is_first:
                write_json(session.path / "findings.json", find(Run(session.path, writer.manifest)))
        return session.result()


def _sae_of(model: Model, sae: str | Path | SparseAutoencoder | None) -> SparseAutoencoder | None:
    """The SAE that is asked for; errors as for ``read_sae``, or as it is of another model."""
    if sae is None:
        return None
    found = read_sae(sae) if isinstance(sae, str | Path) else sae
    check_features(model, found)
    return found


def _listed(expressions: Sequence[str] | None) -> Any:
    """Expressions as a tuple; what is no list stays, and is refused with the other settings."""
    return expressions if expressions is None or isinstance(expressions, str) else tuple(expressions)
