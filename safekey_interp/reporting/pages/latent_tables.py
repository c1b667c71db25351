"""Tables of the latents of a sparse autoencoder on the page of a probe run."""

from __future__ import annotations

from typing import Any

import numpy as np

from safekey_interp.reporting.figures.figure_numbers import with_interval
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.finding import AUROC
from safekey_interp.reporting.findings.latent_findings import DIFFERENCE, at_main
from safekey_interp.reporting.findings.phrases import class_pair_of
from safekey_interp.reporting.labels import BUILT_IN_NAMES, Names
from safekey_interp.reporting.probe_rows import probe_rows

_SHOWN = 10
"""Latents that the page lists; the table has more."""


def latent_tables(
    effects: Table | None, of_latents: Table | None, of_states: Table | None, names: Names = BUILT_IN_NAMES
) -> dict[str, Any] | None:
    """Rows of both tables: probes of all latents by position, and the latents that differ most before K.

    Args:
        effects: the run's ``sae_latents``.
        of_latents: its ``sae_separability``.
        of_states: its ``separability``.
        names: words for positions.

    Returns:
        ``probes``, ``latents``, the ``place`` that they are at, and the names of the ``classes``; None without latents.
    """
    if effects is None or effects.empty:
        return None
    rows = []
    for position, part in effects.groupby("position", sort=False, observed=True):
        first = part.iloc[0]
        layer = int(first["layer"])
        numbers = [_auroc(of_latents, position), _auroc(of_states, position, layer), _auroc(of_latents, position, -1)]
        counts = [f"{int(first['n_active']):,}", f"{int(first['n_different']):,}"]
        rows.append([names.position(position), *numbers, *counts])
    main = at_main(effects, names)
    latents = [
        [
            str(int(row["latent"])),
            with_interval(*(float(row[name]) for name in DIFFERENCE)),
            f"{row['active_harmful']:.0%}",
            f"{row['active_benign']:.0%}",
            f"{row['p_value_over_latents']:.2g}" if np.isfinite(row["p_value_over_latents"]) else "n/a",
        ]
        for _, row in main.head(_SHOWN).iterrows()
    ]
    about = {"place": names.place(main.iloc[0]), "layer": int(main["layer"].iloc[0])}
    return about | {"probes": rows, "latents": latents, "classes": class_pair_of(effects)}


def _auroc(table: Table | None, position: object, layer: int | None = None) -> str:
    """AUROC of the probe at a layer (of the words alone for -1) with its interval."""
    if table is None:
        return "n/a"
    here = table.loc[(table["position"] == position) & table["auroc"].notna()]
    if layer == -1:
        here = here.loc[here["method"] == "text_tfidf"]
    else:
        here = probe_rows(here if layer is None else here.loc[(here["layer"] == layer) & (here["site"] != "ln_final")])
    return with_interval(*(float(here[name].iloc[0]) for name in AUROC)) if len(here) else "n/a"
