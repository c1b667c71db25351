"""Is what the key sentence looks at what it acts on? U and X replaced in attention, or hidden from it.

On harmful prompts where K is an aha moment: what K and the token before it see of U (or X) is replaced by keys and
values of another request's, benign or harmful, or hidden (:mod:`safekey_interp.interventions.attention_knockout`); the
change of safe key sentences minus go-aheads, in nats a token. Another harmful request is the control: the replacement
alone, without a change of label. Attention says where a row looks, this what comes of it. Benign prompts in the other
direction, hidden parts of U (dose) and random keys outside both spans stand in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.asking import mean_of
from analysis.bench import Bench, spread
from analysis.composing import Composition, Drawn, toy_in_words
from analysis.saving import Sheet
from analysis.verdicts import Measured, unmeasured
from safekey_interp import figures
from safekey_interp.errors import InputError
from safekey_interp.figures.grid import Panel
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.donors import find_donors
from safekey_interp.stats import FEW
from safekey_interp.trace import Trace

NAME = "fig_causes"
QUERIES = "decision+key_sentence"
SPANS = {"understanding": "U", "prompt": "X"}
CASES = {"aha": "harmful, K is an aha", "benign": "benign"}
KINDS = {
    "none": "{} hidden",
    "resample_same_label": "{} of another harmful request",
    "resample_other_label": "{} of a benign request",
}
"""What is drawn by layer, of harmful prompts, from bottom to top."""
MOST, N_RANDOM, N_DOSE, N_DONORS = 32, 8, 4, 4


def draw(bench: Bench) -> tuple[Sheet | None, list[Measured]]:
    """The figure, None where no model has an aha moment, and what it says of claim 3c."""
    by_layer, together = {}, {}
    for name in bench.names:
        cases = _cases(bench, name)
        if "aha" not in cases:
            continue
        model = bench.model(name)
        donors = find_donors(model, [trace for traces in cases.values() for trace in traces])
        for case, traces in cases.items():
            options: dict[str, Any] = {"n_random": N_RANDOM, "n_dose": N_DOSE, "n_donors": N_DONORS}
            options |= {"seed": bench.seed, "others": donors}
            try:
                together[name, case] = knockout(model, traces, QUERIES, "understanding", **options)
                if case == "aha":
                    options |= {"by": "layer", "controls": list(KINDS)[1:]}
                    by_layer[name] = knockout(model, traces, QUERIES, tuple(SPANS), **options)
            except InputError:  # no trace of the case can be cut
                continue
    measured = [one for name in bench.names for one in _claims(bench, name, together.get((name, "aha")))]
    shown = [name for name in bench.names if name in by_layer]
    if not shown:
        return None, measured
    figure = Composition()
    for span, short in SPANS.items():
        words = f"{short} replaced or hidden, by layer"
        figure.add(
            [_panel(name, by_layer[name], span) for name in shown],
            said=f"{CASES['aha']}: change of safe minus go-ahead when K and the token before it see the keys and "
            f"values of another request’s {short}, or none of it, by layer.",
            heading=f"{words[0].upper()}{words[1:]}",
            height=200,
        )
    sizes = ", ".join(f"{name} {by_layer[name]['trace_id'].nunique()}" for name in shown)
    caption = (
        f"{figure.words()} Other requests: the {N_DONORS} best matched in length of each label. n with an aha: {sizes}"
        f"{toy_in_words(bench)}. Bands: 95 % over prompts."
    )
    sheet = figure.sheet(
        name=NAME,
        title="What comes of what the key sentence looks at",
        caption=caption,
        seed=bench.seed,
        table=_in_words(together),
        table_caption="All layers at once: change of safe minus go-ahead (nats a token), 95 % over prompts",
        source=bench.source(),
    )
    return sheet, measured


def _cases(bench: Bench, name: str) -> dict[str, list[Trace]]:
    if name not in bench.probes:
        return {}
    rows = bench.outcomes(name)
    wanted = {
        "aha": set(rows[(rows["label"] == "harmful").fillna(False) & (rows["aha"] == "safe").fillna(False)].index),
        "benign": set(rows[(rows["label"] == "benign").fillna(False) & (rows["aha"] != "safe").fillna(False)].index),
    }
    answers = bench.answers(name)
    chosen = {case: spread([t for t in answers if t.trace_id in ids], MOST) for case, ids in wanted.items()}
    return {case: traces for case, traces in chosen.items() if len(traces) >= FEW}


def by_trace(table: Any, by: Sequence[str] = ()) -> pd.DataFrame:
    """Effects on safe minus go-ahead by trace (and ``by``), a column a kind of control: means over donors and draws."""
    mine = table[(table["metric"] == "difference") & (table["control"] != "dose")]
    return mine.pivot_table(index=[*by, "trace_id", "group"], columns="control", values="effect", dropna=False)


def _panel(name: str, table: Any, span: str) -> Drawn:
    short = SPANS[span]
    wide = by_trace(table[table["to_span"] == span], ["layer"])
    rows = []
    for layer, part in wide.groupby(level="layer"):
        for kind, words in KINDS.items():
            values = part[kind].dropna() if kind in part else part.iloc[:0, 0]
            if len(values):
                found = mean_of(values, list(values.index.get_level_values("group")))
                rows.append({"x": int(layer), "series": words.format(short)} | found)  # type: ignore[arg-type]
    drawn = pd.DataFrame(rows)
    order = [words.format(short) for words in KINDS.values()]
    drawn = drawn.sort_values("series", key=lambda names: names.map(order.index), kind="stable")
    spec = figures.estimates_as_lines.spec(
        drawn, title=name, x="layer", y="nats a token", caption=f"{short} replaced by layer, {name}", across_at=0.0
    )
    return Panel(title=name, spec=spec), drawn.assign(model=name)


def _claims(bench: Bench, name: str, table: Any | None) -> list[Measured]:
    about: dict[str, Any] = {"claim": "3c", "model": name, "toy": bench.is_toy(name)}
    if table is None:
        return [unmeasured(why="too few traces whose K is an aha", evidence="resampled U", **about)]
    wide = by_trace(table).reindex(columns=["none", "outside_spans", "resample_same_label", "resample_other_label"])
    found = []
    for evidence, of, control, why in (
        ("resampled U", "resample_other_label", "resample_same_label", "no other request of each label to take U from"),
        ("hidden U", "none", "outside_spans", "fewer keys outside X and U than U has"),
    ):
        both = wide[[of, control]].dropna()
        if both.empty:
            found.append(unmeasured(why=why, evidence=evidence, **about))
            continue
        apart = mean_of(both[of] - both[control], list(both.index.get_level_values("group")))
        words = {"resampled U": ("benign U", "other harmful U"), "hidden U": ("U hidden", "keys outside")}[evidence]
        means = ", ".join(f"{word} {both[kind].mean():+.2f}" for word, kind in zip(words, (of, control), strict=True))
        note = f"all layers at once; U hidden by share: {_dose_in_words(table)}"
        found.append(Measured(evidence=evidence, control_value=means, note=note, **about, **apart))
    return found


def _dose_in_words(table: Any) -> str:
    mine = table[(table["metric"] == "difference") & table["control"].isin(["none", "dose"])]
    means = mine.groupby("dose")["effect"].mean().dropna()
    return ", ".join(f"{dose:g} {value:+.2f}" for dose, value in means.items())


def _in_words(together: dict[tuple[str, str], Any]) -> pd.DataFrame:
    rows = []
    for (name, case), table in together.items():
        wide = by_trace(table)
        row: dict[str, Any] = {"model": name, "traces": CASES[case]}
        for kind, words in (
            ("none", "U hidden"),
            ("resample_other_label", "U of the other label"),
            ("resample_same_label", "U of the same label"),
            ("outside_spans", "random keys outside X and U"),
        ):
            values = wide[kind].dropna() if kind in wide else wide.iloc[:0, 0]
            if values.empty:
                row[words] = "n/a"
                continue
            one = mean_of(values, list(values.index.get_level_values("group")))
            sure = f" [{one['low']:+.2f}, {one['high']:+.2f}]" if np.isfinite(one["low"]) else ""
            row[words] = f"{one['value']:+.2f}{sure}"
        rows.append(row | {"U hidden by share": _dose_in_words(table), "n": str(table["trace_id"].nunique())})
    return pd.DataFrame(rows)
