"""What does attention say of claims 3a and 3b? The paper's measure in several readings, and the change by training.

3a, for each trained model on its own answers: K's mass on X minus its mass on U, last layer, mean over heads, by trace;
raw (the paper's measure), without the first token, without first token and template, over the uniform baseline, as the
reference's released script reads it, and for the token before K. 3b: over training runs, and for the last two models
reading the same tokens (the earlier one's answers); the change is split into numerator and denominator.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.paper import runs_evidence
from analysis.paper.models import Bench
from analysis.paper.responses import mean_of
from analysis.paper.sheets import Table
from analysis.paper.verdicts import Measured, unmeasured
from safekey_interp.errors import InputError
from safekey_interp.measures.attention import measure_attention
from safekey_interp.measures.attention_change import split_lift_change
from safekey_interp.measures.published_attention import paper_masses
from safekey_interp.runs.run_folder import Run

READINGS = {
    "mass": "mass",
    "mass without first token": "mass_rest",
    "mass without first token and template": "mass_text",
}
"""Evidence of claim 3a, and its column of :func:`safekey_interp.measures.published_attention.paper_masses`."""
CHANGES = {
    "pair": ("decision", "lift"),
    "mass alone": ("decision", "mass"),
    "K's own tokens": ("key_sentence", "lift"),
}
"""Evidence of claim 3b on one pair of models: whose attention on U, and which part of the change."""
_SPANS = ["prompt", "understanding"]


def claims(bench: Bench) -> list[Measured]:
    """Claims 3a and 3b, every evidence that these models and their answers give."""
    readings = [one for name in bench.others if name in bench.probes for one in _readings(bench, name)]
    return [*readings, *_shift(bench)]


def _readings(bench: Bench, name: str) -> list[Measured]:
    run = bench.probes[name]
    table: Table = run.attention
    masses = paper_masses(table)
    found = [_minus(bench, name, evidence, masses, column) for evidence, column in READINGS.items()]
    masses = masses.assign(over_even=masses["mass"] - masses["uniform_mass"])
    found.append(_minus(bench, name, "over the uniform baseline", masses, "over_even"))
    try:
        released = paper_masses(measure_attention(bench.model(name), bench.answers(name), style="released"))
        found.append(_minus(bench, name, "released script", released, "mass"))
    except InputError as error:
        found.append(unmeasured("3a", name, str(error), toy=bench.is_toy(name), evidence="released script"))
    last = table[(table["from_span"] == "decision") & (table["layer"] == table["layer"].max())]
    deciding = last.groupby(["trace_id", "to_span"], observed=True)["mass"].mean().reset_index()
    return [*found, _minus(bench, name, "token before K", deciding, "mass")]


def _minus(bench: Bench, name: str, evidence: str, masses: Any, column: str) -> Measured:
    """Mass on X minus mass on U, by trace."""
    toy = bench.is_toy(name)
    rows = masses[masses["to_span"].isin(_SPANS)]
    both = rows.assign(to_span=rows["to_span"].astype(str)).pivot_table(
        index="trace_id", columns="to_span", values=column, observed=True
    )
    if not set(_SPANS) <= set(both.columns) or (both := both.dropna()).empty:
        return unmeasured("3a", name, "no attention on X and on U", toy=toy, evidence=evidence)
    found = mean_of(both["prompt"] - both["understanding"], list(_groups(bench.probes[name], both.index)))
    means = f"on X {both['prompt'].mean():.3f}, on U {both['understanding'].mean():.3f}"
    return Measured(claim="3a", evidence=evidence, model=name, control_value=means, toy=toy, **found)


def _groups(run: Run, trace_ids: Any) -> pd.Series:
    traces: Table = run.traces
    return traces.set_index("trace_id")["group"].reindex([str(one) for one in trace_ids])


def _shift(bench: Bench) -> list[Measured]:
    """3b: over training runs where the toy is among the models, and for the pair on the same tokens."""
    over_runs = [runs_evidence.mechanism("3b")] if any(map(bench.is_toy, bench.names)) else []
    pair = bench.pair
    if pair is None or pair[0] not in bench.probes:
        why = (
            "one model: nothing to compare it with" if pair is None else f"{pair[0]} has no answers with a key sentence"
        )
        name = bench.names[-1]
        return [*over_runs, unmeasured("3b", name, why, toy=bench.is_toy(name), evidence="pair")]
    run = bench.probes[pair[0]]
    first: Table = run.attention
    second = measure_attention(bench.model(pair[1]), bench.answers(pair[0]))
    shared = sorted(set(first["trace_id"].astype(str)) & set(second["trace_id"].astype(str)))
    tables: list[Any] = [table[table["trace_id"].astype(str).isin(shared)] for table in (first, second)]
    change = split_lift_change(*tables, groups=_groups(run, shared).to_dict())
    on_u = change[change["to_span"] == "understanding"].set_index(["from_span", "part"])
    return [*over_runs, *(_change(bench, evidence, on_u, *at) for evidence, at in CHANGES.items())]


def _change(bench: Bench, evidence: str, on_u: Any, reader: str, part: str) -> Measured:
    assert bench.pair is not None
    first, second = bench.pair
    toy = any(map(bench.is_toy, bench.pair))
    words = f"{second} minus {first}"
    if (reader, part) not in on_u.index:
        return unmeasured("3b", words, "no such attention", toy=toy, evidence=evidence)
    row = on_u.loc[(reader, part)]
    split = (
        f"{name} {on_u.loc[(reader, of), 'log_change']:+.3f} [{on_u.loc[(reader, of), 'low']:+.3f}, "
        f"{on_u.loc[(reader, of), 'high']:+.3f}]"
        for name, of in (("numerator", "mass"), ("denominator", "matched"))
    )
    return Measured(
        claim="3b",
        evidence=evidence,
        model=words,
        value=float(row["log_change"]),
        low=float(row["low"]),
        high=float(row["high"]),
        n=int(row["n"]),
        n_groups=int(row["n_groups"]),
        family=second,
        control_value=f"{first} {row['first']:.3f}, {second} {row['second']:.3f}",
        note=f"both read what {first} wrote" + (f"; {', '.join(split)}" if part == "lift" else ""),
        toy=toy,
    )
