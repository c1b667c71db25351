"""Figures of separability during training: by layer and step, beside its controls.

Each snapshot fits the probe anew, on the states of the same held-out traces in the same folds by group. The words alone
are the same at every snapshot: training changes the states, not the texts.
"""

from __future__ import annotations

import numpy as np

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.attention_snapshot_figures import before_and_after, ends_of, on_layers_and_steps
from safekey_interp.reporting.figures.figure_numbers import counts, named, number, sizes
from safekey_interp.reporting.figures.figure_parts import LayerAxis, across, finish, heatmap, probe_controls
from safekey_interp.reporting.figures.figure_style import AUROC_SCALE, PALETTE, Drawing, Spec, Table, escape
from safekey_interp.reporting.figures.separability_figures import labelled, late
from safekey_interp.reporting.findings.finding import AUROC, AUROC_OVER_LAYERS
from safekey_interp.reporting.labels import POSITIONS, position_name
from safekey_interp.reporting.probe_rows import probe_rows, probe_words

WORDS, SHUFFLED, CONTROLS = "words", "shuffled", "controls"
"""The rows of the map of probes that are no layers, and their common name."""
_DEEP = 40
_NO_LAYERS = {SHUFFLED: "what shuffled labels reach", WORDS: "the words alone"}


@Drawing
def auroc_by_step(
    separability: Table, *, position: str = "decision", label_by: str | None = None, auxiliary_from: int | None = None
) -> Spec:
    """Layer by step: how well a probe tells the classes apart; the two lowest rows are the words and shuffled labels.

    Args:
        separability: the training run's ``separability``.
        position: which states.
        label_by: whose labels; None: the first in the table.
        auxiliary_from: steps done when the auxiliary losses begin to count.

    Returns:
        A heat map from chance, 0.5, to 1; the highest row is the final norm. Of shuffled labels, the upper end of the
        layer where it lies highest.

    Raises:
        RunError: no row for the selection.
    """
    rows = labelled(separability, label_by, position=position)
    probe = _probe(rows, position)
    axis = LayerAxis(probe)
    cells = probe.assign(place=axis.of(probe)).set_index(["place", "step"])["auroc"].unstack("step")
    norm = axis.values[-1] if (probe["site"] == "ln_final").any() else None
    names = {place: "norm" if place == norm else str(place) for place in cells.index}
    steps = list(cells.columns)
    words = rows[rows["method"] == "text_tfidf"].drop_duplicates("step").set_index("step")["auroc"].reindex(steps)
    null = probe.groupby("step")["null_auroc_high"].max().reindex(steps)
    controls = {name: line for name, line in ((SHUFFLED, null), (WORDS, words)) if line.notna().any()}
    trace = heatmap(
        [int(step) for step in steps],
        [*controls, *names.values()],
        [[number(value, 3) for value in row] for row in (*controls.values(), *cells.to_numpy(float))],
        (0.5, 1),
        AUROC_SCALE,
        hover="step %{x}, layer %{y}<br>%{z:.3f}",
        bar="AUROC",
        ygap=1 if len(names) <= 16 else 0,
    )
    told = " and ".join(_NO_LAYERS[name] for name in controls)
    lowest = f" Below the line, from the bottom: {told}." if told else ""
    caption = (
        f"AUROC of the {escape(probe_words(probe).name)} at the position “{position_name(position)}”.{lowest} "
        f"{sizes(probe)}.{late(probe)}"
    )
    title = f"Separability, {named(POSITIONS, position)}, by layer"
    spec = on_layers_and_steps(trace, caption, title=title, unit="AUROC", auxiliary_from=auxiliary_from)
    if controls:
        # Rows of a deep model are lower than a line of text: its controls then share one name.
        is_deep = len(names) > _DEEP
        texts = {CONTROLS: CONTROLS} if is_deep else dict.fromkeys(controls)
        every = -(-len(names) // 15)
        near = np.inf if norm is None else norm - 0.6 * every
        shown = [name for place, name in names.items() if name == "norm" or (place % every == 0 and place < near)]
        spec["layout"]["yaxis"] |= {
            "tickvals": [*list(controls)[: len(texts)], *shown],
            "ticktext": [*texts, *shown],
        }
        across(spec, len(controls) - 0.5, color=PALETTE["ink"].light, width=2)
    return spec


@Drawing
def auroc_before_after(separability: Table, *, position: str = "decision", label_by: str | None = None) -> Spec:
    """Separability by layer at the first and at the last snapshot, beside shuffled labels (band) and the words alone.

    Args:
        separability: the training run's ``separability``.
        position: which states.
        label_by: whose labels; None: the first in the table.

    Returns:
        Lines over layers; the last place is the final norm. The controls are those of the last snapshot.

    Raises:
        RunError: no row for the selection.
    """
    rows = labelled(separability, label_by, position=position)
    probe = _probe(rows, position)
    axis = LayerAxis(probe)
    words = ends_of(rows).last
    data, remarks = probe_controls(ends_of(probe).last, words[words["method"] == "text_tfidf"], axis)
    lines, best = before_and_after(probe.assign(x=axis.of).sort_values("x"), "x", AUROC, AUROC_OVER_LAYERS)
    data += lines
    caption = (
        f"AUROC of the {escape(probe_words(probe).name)} at the position “{position_name(position)}”. {best} "
        f"{' '.join(remarks)} {sizes(probe, '')}, {counts(probe['n_folds'])} folds by group.{late(probe)}"
    )
    title = f"Separability before and after, {named(POSITIONS, position)}"
    spec = finish(data, caption, table="lines", title=title, x="layer", y="AUROC", height=400)
    axis.name_ticks(spec)
    spec["layout"]["yaxis"] |= {"range": [0.3, 1.02]}
    return spec


def _probe(rows: Table, position: str) -> Table:
    probe = probe_rows(rows)
    if probe.empty:
        raise RunError(f"separability: no probe at position {position!r}, only words")
    return probe
