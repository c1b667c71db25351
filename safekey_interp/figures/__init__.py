"""What do the tables of a run look like? Each figure is one function: tidy table in, plotly Figure out.

Each says in words what it shows (``figure.layout.meta["caption"]``), with its n, and draws its controls beside the
measured numbers. Colours and words come from :mod:`safekey_interp.figures.drawing`.
"""

from safekey_interp.figures.aha import aha_apart, aha_by_step
from safekey_interp.figures.attention import lift_heatmap, mass_by_layer, mass_heatmap
from safekey_interp.figures.comparison import (
    auroc_by_model,
    auroc_layers_by_model,
    lift_by_model,
    lift_layers_by_model,
    score_by_benchmark,
    share_by_model,
)
from safekey_interp.figures.effects import effect_by_layer, effect_by_place, effect_map
from safekey_interp.figures.estimates import estimates_as_bars, estimates_as_lines
from safekey_interp.figures.grid import grid
from safekey_interp.figures.kinds import lift_by_kind
from safekey_interp.figures.looks import lift_before_after, lift_by_step, lift_over_steps
from safekey_interp.figures.probe_looks import auroc_before_after, auroc_by_step
from safekey_interp.figures.scores import score_by_offset
from safekey_interp.figures.separability import auroc_by_layer, lda_scatter, separability_map
from safekey_interp.figures.tokens import attention_on_tokens
from safekey_interp.figures.training import loss_by_step, optimizer_by_step
from safekey_interp.figures.transfer import transfer_by_layer, transfer_map

__all__ = [
    "aha_apart",
    "aha_by_step",
    "attention_on_tokens",
    "auroc_before_after",
    "auroc_by_layer",
    "auroc_by_model",
    "auroc_by_step",
    "auroc_layers_by_model",
    "effect_by_layer",
    "effect_by_place",
    "effect_map",
    "estimates_as_bars",
    "estimates_as_lines",
    "grid",
    "lda_scatter",
    "lift_before_after",
    "lift_by_kind",
    "lift_by_model",
    "lift_by_step",
    "lift_heatmap",
    "lift_layers_by_model",
    "lift_over_steps",
    "loss_by_step",
    "mass_by_layer",
    "mass_heatmap",
    "optimizer_by_step",
    "score_by_benchmark",
    "score_by_offset",
    "separability_map",
    "share_by_model",
    "transfer_by_layer",
    "transfer_map",
]
