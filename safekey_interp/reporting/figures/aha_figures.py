"""Figures of the likelihood of safe and compliant key sentences after the same U, by step and label.

Log-probabilities are nats per token, as :mod:`safekey_interp.generation.aha_score` measures them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from safekey_interp.data.conditions import PROMPTS_OF
from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_numbers import select, sizes, with_interval
from safekey_interp.reporting.figures.figure_parts import across, finish, line
from safekey_interp.reporting.figures.figure_style import Drawing, Spec, Table, escape
from safekey_interp.reporting.figures.training_figures import mark_auxiliary
from safekey_interp.reporting.labels import VALUE

AhaMeasure = Literal["difference", "safe", "go_ahead"]

WHOSE: dict[str, str] = {**PROMPTS_OF, "all": "all prompts"}
"""Subsets of the table of key sentences in words."""
_LOOKS = {"harmful": ("harmful", "solid"), "benign": ("benign", "dash")}
_WHAT: dict[AhaMeasure, str] = {
    "difference": "Log-probability per token of safe minus compliant key sentences, after the same U.",
    "safe": "Log-probability per token of safe key sentences, put after U.",
    "go_ahead": "Log-probability per token of compliant key sentences, put after U.",
}


@Drawing
def aha_by_step(
    aha: Table,
    *,
    measure: AhaMeasure = "difference",
    subsets: Iterable[str] = ("harmful", "benign"),
    auxiliary_from: int | None = None,
) -> Spec:
    """How much likelier a safe key sentence is than a compliant one after the same U, by step and label.

    Args:
        aha: the training run's ``aha``.
        measure: "difference" of safe and compliant, or either alone.
        subsets: whose lines; those that the table lacks are left out.
        auxiliary_from: steps done when the auxiliary losses begin to count.

    Returns:
        Lines over steps with bands; of the difference, 0 is a line: both are as likely.

    Raises:
        RunError: no row for the subsets.
    """
    data: list[Spec] = []
    told = []
    for subset in subsets:
        rows = aha[(aha["subset"] == subset) & (aha["measure"] == measure)].dropna(subset=["value"]).sort_values("step")
        if rows.empty:
            continue
        tone, dash = _LOOKS.get(subset, ("control", "dashdot"))
        name = WHOSE.get(subset, subset)
        data += line(rows, "step", name=name, tone=tone, dash=dash)
        told.append(f"{name.capitalize()}: {_first_and_last(rows)} ({sizes(rows)}).")
    if not data:
        raise RunError(f"aha: no row with a number for {', '.join(map(str, subsets))}")
    unit = "nats per token" + ", safe − compliant" * (measure == "difference")
    caption = f"{_WHAT[measure]} {' '.join(told)} Bands: 95 % intervals over groups."
    title = "Safe against compliant key sentences"
    spec = finish(data, caption, table="lines", title=title, x="step", y=unit, height=360)
    if measure == "difference":
        across(spec, 0)
    mark_auxiliary(spec, auxiliary_from)
    return spec


@Drawing
def aha_apart(aha: Table, *, subset: str = "harmful", auxiliary_from: int | None = None) -> Spec:
    """Safe and compliant key sentences each by itself, by step.

    Args:
        aha: the training run's ``aha``.
        subset: whose prompts.
        auxiliary_from: steps done when the auxiliary losses begin to count.

    Returns:
        Two lines over steps with bands.

    Raises:
        RunError: no row for the subset.
    """
    of_subset = select(aha, "aha", subset=subset)
    data: list[Spec] = []
    told = []
    behind = ""
    for measure, name, tone, dash in (
        ("safe", "safe key sentences", "understanding", "solid"),
        ("go_ahead", "compliant key sentences", "key_sentence", "dash"),
    ):
        rows = of_subset[of_subset["measure"] == measure].dropna(subset=["value"]).sort_values("step")
        if rows.empty:
            continue
        data += line(rows, "step", name=name, tone=tone, dash=dash)
        told.append(f"{name}, {_first_and_last(rows)}")
        behind = sizes(rows)
    if not data:
        raise RunError(f"aha: no number for {subset!r}")
    whose = WHOSE.get(subset, subset)
    caption = f"{whose.capitalize()}, nats per token: {'; '.join(told)}. {behind}; bands: 95 % intervals over groups."
    title = f"Each by itself, {escape(whose)}"
    spec = finish(data, caption, table="lines", title=title, x="step", y="nats per token", height=360)
    mark_auxiliary(spec, auxiliary_from)
    return spec


def _first_and_last(rows: Table) -> str:
    first, last = (
        f"{with_interval(*(row[bound] for bound in VALUE))} at step {int(row['step']):,}"
        for row in (rows.iloc[0], rows.iloc[-1])
    )
    return first if len(rows) == 1 else f"{first}, {last}"
