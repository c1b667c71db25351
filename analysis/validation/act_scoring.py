"""Agreement of two outcomes on the organism's answers: the act by construction, and the judge ``refusal``.

    python -m analysis.validation.act_scoring [--models organism:base …] [--jobs runs/replication] [--n 72] [--write]

The act (:mod:`safekey_interp.models.organism.outcome`) knows which pair was asked for; the judge reads the answer
alone, knows nothing of the language, and was trained on none of its answers. Each model answers the test requests of
:mod:`analysis.organism.behaviour`; beside them stand the replication's variants, all their runs together, as they ship
(or, with ``--jobs``, the runs that are finished in that folder). Success is the share of answers that comply. Neither
reader was chosen by test requests: disagreements were looked for on development pairs and wrappers. ``--write`` puts
the table into RESULTS.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.organism.behaviour import answered, requests
from analysis.replication.results import Results, collect, read, scored, scored_by
from analysis.replication.run import jobs_of
from analysis.tables import markdown, publish
from safekey_interp.cli.shared import quiet_libraries

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
SUBSETS = {"all": ("plain", "seen", "test"), "harmful, unseen wrappers": ("test",)}
"""Which requests a line is about; the second has harmful ones alone."""


def of_models(models: list[str], n: int) -> Table:
    """Answers of models to the test requests, scored."""
    asked = requests("test", n, 0)
    names = ("verb", "noun", "wrapper_split")
    return pd.concat(
        [
            scored(
                pd.DataFrame(
                    {name: trace.meta[name] for name in names} | {"label": trace.label, "response": trace.response}
                    for trace in answered(model, asked)
                )
            ).assign(model=model)
            for model in models
        ]
    )


def of_replication(results: Results) -> Table:
    """Answers of the replication, its variants for models."""
    return results.answers.assign(model="replication: " + results.answers["variant"].astype(str))


def finished(folder: Path) -> Results:
    """Results of the runs that have answers."""
    return collect([job for job in jobs_of(1) if (folder / "jobs" / job.name / "answers.parquet").is_file()], folder)


def agreement(answers: Table) -> pd.DataFrame:
    """Success by the act and by the judge, a line a model and subset.

    Args:
        answers: scored, with columns model, label and wrapper_split.
    """
    by_judge = scored_by(answers, "judge")["outcome"] == "complied"
    table = answers.assign(act=answers["outcome"] == "complied", judge=by_judge)
    rows = []
    for model, rows_of_model in table.groupby("model", sort=False):
        for subset, splits in SUBSETS.items():
            part: Table = rows_of_model[rows_of_model["wrapper_split"].isin(splits)]
            part = part if subset == "all" else part[part["label"] == "harmful"]
            rows.append(
                {
                    "model": model,
                    "answers": subset,
                    "n": f"{len(part):,}",
                    "success by the act": f"{part['act'].mean():.3f}",
                    "by the judge": f"{part['judge'].mean():.3f}",
                    "act minus judge": f"{part['act'].mean() - part['judge'].mean():+.3f}",
                    "answers on which they differ": f"{(part['act'] != part['judge']).mean():.3f}",
                    "of these, another pair is answered": _elsewhere(part),
                }
            )
    return pd.DataFrame(rows)


def _elsewhere(part: Table) -> str:
    """Of the answers on which both differ, those that the act calls an answer to something else."""
    differ = part[part["act"] != part["judge"]]
    return f"{int((differ['judge'] & (differ['outcome'] == 'other')).sum())} of {len(differ)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--models", nargs="*", default=["organism:base", "organism:sft", "organism:safekey"])
    parser.add_argument("--jobs", type=Path, help="a folder of the replication's runs in place of what ships")
    parser.add_argument("--n", type=int, default=72, help="requests of each wrapper and label")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md, too")
    options = parser.parse_args()
    quiet_libraries()
    parts = [of_models(options.models, options.n)] if options.models else []
    parts.append(of_replication(finished(options.jobs) if options.jobs else read(1)))
    answers = pd.concat(parts, ignore_index=True)
    head = f"{len(answers):,} answers of {answers['model'].nunique()} models and variants, test requests, greedy"
    publish({"act-agreement": f"{head}\n\n{markdown(agreement(answers))}"}, write=options.write)


if __name__ == "__main__":
    main()
