"""What do the tables of a run look like? Each figure is one function: tidy table in, plotly Figure out.

Each says in words what it shows (``figure.layout.meta["caption"]``), with its n, and draws its controls beside the
measured numbers. Colours and words come from :mod:`safekey_interp.figures.drawing`.
"""

from safekey_interp.figures.attention import lift_heatmap, mass_by_layer
from safekey_interp.figures.separability import auroc_by_layer, lda_scatter, separability_map

__all__ = ["auroc_by_layer", "lda_scatter", "lift_heatmap", "mass_by_layer", "separability_map"]
