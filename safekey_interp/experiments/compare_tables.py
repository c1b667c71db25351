"""Tables, findings and examples of a comparison, from the models' own runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safekey_interp.data.conditions import SUBSETS, conditions_of
from safekey_interp.errors import InputError
from safekey_interp.experiments import compare_attention, compare_measures
from safekey_interp.experiments.compare_examples import examples
from safekey_interp.experiments.compare_judges import Opinions, not_asked
from safekey_interp.experiments.compare_models import ProbedModel
from safekey_interp.experiments.compare_outcomes import outcomes_of
from safekey_interp.experiments.compare_probes import knowledge_of
from safekey_interp.experiments.compare_series import pairs_of, series_table
from safekey_interp.reporting.retelling import findings_of_comparison
from safekey_interp.runs.storage import write_json, write_table

if TYPE_CHECKING:
    from safekey_interp.progress import Progress
    from safekey_interp.runs.run_folder import Run
    from safekey_interp.runs.run_writer import RunWriter

_BY_MODEL = ("attention_by_layer", "separability")


def assemble_comparison(
    writer: RunWriter,
    done: Sequence[ProbedModel],
    judgements: Mapping[str, Opinions],
    *,
    by: str | None,
    seed: int,
    n_examples: int,
    progress: Progress,
) -> None:
    """Write tables, findings and examples from the models' runs.

    Args:
        writer: of the comparison's folder.
        done: the models, in their order.
        judgements: of the suites' own judges, by the model's name.
        by: the column that tells conditions apart.
        seed: of every draw.
        n_examples: prompts to show side by side.
        progress: shows how far this is.

    Raises:
        InputError: runs that are not of the same prompts.
    """
    import pandas as pd

    path, names = writer.path, [one.name for one in done]
    steps = {one.name: one.step for one in done if one.step is not None}
    pairs = pairs_of(names, from_first=bool(steps))
    writer.manifest["status"] = "running"
    writer.save()
    writer.remove_results()
    check_same_prompts(done)
    about: Any = {"by": by, "progress": progress}
    progress.stage("judging", sum(len(one.traces) for one in done))
    tables = [outcomes_of(one.name, one.traces.values(), one.run, judgements[one.name], **about) for one in done]
    outcomes = pd.concat(tables, ignore_index=True)
    conditions = conditions_of(done[0].traces.values(), by)
    progress.stage("comparing", None)
    runs = {one.name: one.run for one in done}
    probed = {name: run for name, run in runs.items() if run is not None}
    rows = compare_measures.compare_shares(outcomes, conditions, names, pairs)
    rows += compare_measures.compare_scores(outcomes, names, pairs)
    sums = {name: compare_attention.sums_of(run) for name, run in probed.items()}
    for row, span in compare_attention.PAIRS:
        for subset in SUBSETS:
            there = {name: of_model[row, span] for name, of_model in sums.items() if (row, span) in of_model}
            of_pair = {name: compare_attention.of_label(table, subset) for name, table in there.items()}
            about = {"subset": subset, "position": row, "to_span": span}
            rows += compare_measures.compare_ratios("lift_over_matched", of_pair, pairs, about)
            rows += compare_measures.compare_changes(of_pair, pairs, about)
    rows += compare_measures.compare_knowledge({name: knowledge_of(run) for name, run in probed.items()}, pairs)
    table = compare_measures.as_table(rows)
    write_table(path / "outcomes.parquet", outcomes)
    write_table(path / "comparison.parquet", table)
    of_models = _of_models(probed)
    for name, of_all in of_models.items():
        write_table(path / f"{name}.parquet", of_all)
    traces = {one.name: one.traces for one in done}
    beside = [names[0], names[-1]] if steps else names
    shown = examples(outcomes, traces, runs, beside, n=n_examples, seed=seed)
    write_json(path / "side_by_side.json", shown)
    writer.manifest["models"] = [one.record for one in done]
    writer.manifest["conditions"] = conditions.record()
    series = series_table(table, of_models.get("separability"), steps) if steps else None
    if series is not None:
        write_table(path / "series.parquet", series)
    findings = findings_of_comparison(table, series, writer.manifest)
    findings["left_out"] += [
        {"what": f"probes of {one.name}", "why": one.record["not_probed"], "n": len(one.traces)}
        for one in done
        if one.record["not_probed"]
    ]
    findings["left_out"] += not_asked(writer.manifest["data"]["suites"], list(done[0].traces.values()))
    write_json(path / "findings.json", findings)


def _of_models(probed: Mapping[str, Run]) -> dict[str, Any]:
    """The tables of the models' own runs as one each, with a column ``model``."""
    import pandas as pd

    tables: dict[str, Any] = {}
    for name in _BY_MODEL:
        there = [(model, run.table(name)) for model, run in probed.items()]
        named = [of_model.assign(model=model) for model, of_model in there if of_model is not None]
        if named:
            tables[name] = pd.concat(named, ignore_index=True)
    return tables


def check_same_prompts(done: Sequence[ProbedModel]) -> None:
    """Refuse models that did not have the same prompts.

    Raises:
        InputError: no trace id in common, or one id with two prompts.
    """
    first = done[0]
    for one in done[1:]:
        shared = first.traces.keys() & one.traces.keys()
        if not shared:
            raise InputError(
                f"models: {first.name} and {one.name} have no trace id in common, expected runs of the same prompts"
            )
        for trace_id in sorted(shared):
            if first.traces[trace_id].prompt != one.traces[trace_id].prompt:
                raise InputError(
                    f"models: trace {trace_id} of {first.name} and of {one.name} has another prompt, "
                    "expected runs of the same prompts"
                )
