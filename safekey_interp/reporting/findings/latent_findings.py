"""Findings on the latents of a sparse autoencoder, beside shuffled labels and the words alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from safekey_interp.measures.step_down import LEVEL
from safekey_interp.reporting.findings.finding import AUROC, Estimate, Finding, estimate
from safekey_interp.reporting.findings.phrases import Row, Table, capital, class_pair_of
from safekey_interp.reporting.labels import BUILT_IN_NAMES, Names
from safekey_interp.reporting.probe_rows import probe_rows

DIFFERENCE = ("difference", "difference_low", "difference_high")


def latents(effects: Table | None, separability: Table | None, names: Names = BUILT_IN_NAMES) -> list[Finding]:
    """How many latents differ at the token before K (else at the first position), which most, and what all tell.

    Args:
        effects: the run's ``sae_latents``.
        separability: the run's ``sae_separability``.
        names: words for positions.
    """
    if effects is None or effects.empty:
        return []
    rows = at_main(effects, names)
    first = rows.iloc[0]
    p = float(first["p_value_over_latents"])
    is_shown = bool(p <= LEVEL)  # NaN is never shown
    n_active, n_different = int(first["n_active"]), int(first["n_different"])
    place, pair = capital(names.place(first)), class_pair_of(effects)
    between = f"between {pair.positive} and {pair.negative} traces"
    number = estimate(first, *DIFFERENCE)
    one = f"latent {int(first['latent'])} of layer {int(first['layer'])}: {number.text('.3g')}, active in "
    active = f"{first['active_harmful']:.0%} of {pair.positive}", f"{first['active_benign']:.0%} of {pair.negative}"
    one += f"{active[0]} and {active[1]} traces"
    if is_shown:
        text = f"{place} {n_different:,} of {n_active:,} latents of the SAE differ {between}; most, {one}"
    else:
        text = f"{place} none of {n_active:,} latents of the SAE is shown to differ {between}; the largest, {one}"
    together = _together(separability, str(first["position"]))
    facts: dict[str, Any] = {"position": first["position"], "layer": int(first["layer"])}
    facts |= {"latent": int(first["latent"]), "n_active": n_active, "n_different": n_different}
    if together is not None:
        own, words = together
        text += f"; a probe of all of them reaches AUROC {own.text('.2f')}"
        text += f", the words alone {words.text('.2f')}" if words else ""
        facts |= {"auroc": own.listed(), "words": words and words.listed()}
    control = "none: too few prompts to shuffle labels"
    if np.isfinite(p):
        control = f"shuffled labels; p = {p:.2g} over {n_active:,} latents"
    about: dict[str, Any] = {"n": int(first["n"]), "is_shown": is_shown, "control": control, "facts": facts}
    return [Finding(question="knew", text=f"{text}.", **about, **number.fields())]


def at_main(table: Table, names: Names) -> Table:
    """The rows of a table at the position that was chosen beforehand; at the table's first where it has none there."""
    position = names.main if (table["position"] == names.main).any() else table["position"].iloc[0]
    return table.loc[table["position"] == position]


def _together(separability: Table | None, position: str) -> tuple[Estimate, Estimate | None] | None:
    """AUROC of a probe of all latents, and of the words alone; None where there is none."""
    if separability is None:
        return None
    here = separability.loc[(separability["position"] == position) & separability["auroc"].notna()]
    probe, words = probe_rows(here), here.loc[here["method"] == "text_tfidf"]
    if probe.empty:
        return None
    return _auroc(probe.iloc[0]), None if words.empty else _auroc(words.iloc[0])


def _auroc(row: Row) -> Estimate:
    return estimate(row, *AUROC)
