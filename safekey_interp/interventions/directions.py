"""Directions in the residual stream that separate two classes, and their cosines.

    d = mean(positive states) − mean(negative states)

by layer, at one position: the last position before K (``decision``), U's last token (``understanding_end``), or any
other at which states are read (Arditi et al. 2024, arXiv 2406.11717, read the tokens behind the instruction). The two
linear layers of a trained safety head (SafeKey, Zhou et al. 2025, arXiv 2505.16186) are directions too: the gradient of
their logit by the state after the final norm.

Two independent random directions in d dimensions have a cosine with mean 0 and variance 1/d: cos² follows
Beta(1/2, (d − 1)/2), which gives the control's bounds and the p-value of a cosine. States of real models are not
isotropic, so that directions that have nothing to do with each other may well lie beyond these bounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import betaincc, betaincinv

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.capture_request import expressions
from safekey_interp.capture.hidden_states import States
from safekey_interp.capture.state_collection import collect_states
from safekey_interp.capture.streaming import BatchSize, StreamSettings
from safekey_interp.data.class_labels import OUTCOME, LabelBy, check_label_by
from safekey_interp.data.trace_list import as_traces
from safekey_interp.errors import InputError
from safekey_interp.measures.control_directions import N_DRAWS, Controls
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.layer_loop import AFTER_THE_FACT, class_names
from safekey_interp.models.safety_head import SafetyHead, load_safety_head

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


def fit_directions(
    model: Model,
    traces: Sequence[Trace],
    *,
    layers: Sequence[int] | None = None, positions: Sequence[str] = ("decision",), label_by: LabelBy = "label",
    n_controls: int = N_DRAWS, seed: int = 0, finder: str = "rules", delimiters: tuple[str, str] | None = None,
    batch_size: BatchSize = "auto", max_length: int | None = None, backend: Backend = "hf",
) -> list[Direction]:  # fmt: skip
    """Difference of the class means of the states after each layer.

    Steer other traces than these, which the directions know
    (:func:`~safekey_interp.interventions.cross_fitting.steer_held_out` does).

    Args:
        model: and ``finder`` … ``backend``: see :mod:`safekey_interp.interventions`.
        traces: of both classes.
        layers: layers to read; all when None.
        positions: where the states are read, one after another, each on the traces that have it: span expressions,
            averaged over their tokens.
        label_by: a column with two values: ``label``, ``aha`` (what each K decides), ``source`` or a name in ``meta``.
            Which value is positive: :mod:`safekey_interp.data.class_labels`.
        n_controls: control directions of each kind that every record brings with it
            (:mod:`safekey_interp.measures.control_directions`).
        seed: of these.

    Returns:
        One record a position and layer, of site ``resid_post``; its norm is the distance of the class means.

    Raises:
        InputError: no trace can be measured, a class is missing, no position, or one whose words define the classes.
    """
    settings = StreamSettings(
        finder=finder, delimiters=delimiters, batch_size=batch_size, max_length=max_length, backend=backend
    )
    wanted, known = expressions(positions, "positions"), list(as_traces(traces))
    if not wanted:
        raise InputError("positions: got none, expected a list of span expressions such as ['decision']")
    directions: list[Direction] = []
    for position in wanted:
        classes = read_classes(model, known, settings, layers=layers, position=position, label_by=label_by)
        directions += classes.directions(np.arange(len(classes.labels)), n_controls=n_controls, seed=seed)
    return directions


class Classes(NamedTuple):
    """States of traces with their classes, to fit directions on some of them."""

    states: States
    """After each layer, at one position."""
    traces: list[Trace]
    """One a row."""
    labels: list[str | None]
    """Class of each."""
    about: dict[str, Any]
    """What the records say beside layer and site."""

    def directions(
        self,
        rows: Int[np.ndarray, " n"],
        *,
        n_controls: int,
        seed: int,
        shuffled: Float[np.ndarray, "n draw"] | None = None,
    ) -> list[Direction]:
        """Difference of some rows' class means, a record a layer. Raises InputError where a class is missing."""
        labels = [self.labels[row] for row in rows.tolist()]
        groups = [self.traces[row].group for row in rows.tolist()]
        drawn = {"n_controls": n_controls, "seed": seed, "shuffled": shuffled}
        position = self.about["position"]
        return [
            Direction.fit(
                self.states.matrix(at, position)[rows],
                labels,
                groups,
                layer=site.layer,
                site=site.site,
                **drawn,
                **self.about,
            )
            for at, site in enumerate(self.states.layers)
            if site.site == "resid_post"
        ]


def read_classes(
    model: Model,
    traces: Sequence[Trace],
    settings: StreamSettings,
    *,
    layers: Sequence[int] | None = None,
    position: str,
    label_by: LabelBy,
) -> Classes:
    """States of traces at one position, after each layer.

    Args:
        model: the model.
        traces: of both classes.
        settings: how they are segmented, encoded and batched.
        layers: layers to read; all when None.
        position: where the states are read.
        label_by: the column that the classes are by.

    Raises:
        InputError: as for :func:`fit_directions`.
    """
    traces = list(as_traces(traces))
    check_label_by(traces, label_by)  # before the forward passes
    if label_by == OUTCOME and position in AFTER_THE_FACT:
        raise InputError(f"position {position}: its words define the outcome; expected a position before it")
    states, kept, segmentations = collect_states(model, traces, settings, layers=layers, positions=[position])
    about = {"position": position, "model": model.name, "label_by": label_by}
    return Classes(states, kept, class_names(kept, segmentations, label_by), about)


def directions_of_head(
    head: SafetyHead | str | Path, *, layer: int | None = None, model: str = ""
) -> tuple[Direction, Direction]:
    """The weights of a trained safety head: what its two paths read, above 0 for harmful.

    Args:
        head: the head, or the ``model`` folder of a training run, which says the layer too.
        layer: the layer that it reads; None for the states after the final norm.
        model: name of the model, for the record.

    Returns:
        Of the path over U (position ``understanding``) and of the path over the context (``context``); the norms are
        logits per unit of state. Of a head after the final norm, ``layer`` is -1 and ``site`` ``ln_final``.

    Raises:
        RunError: no head lies in the folder.
        InputError: a path has no weights other than 0.
    """
    if not isinstance(head, SafetyHead):
        trained = load_safety_head(head)
        head, layer, model = trained.head, trained.layer, model or str(head)
    site = {"layer": -1, "site": "ln_final"} if layer is None else {"layer": layer, "site": "resid_post"}

    def direction(path: Any, position: str) -> Direction:
        vector = path.weight.detach().double().cpu().numpy()[0]
        norm = float(np.linalg.norm(vector))
        if not norm > 0:
            raise InputError(f"safety head: its path over {position} has no weights other than 0")
        return Direction(vector=vector / norm, norm=norm, position=position, model=model, method="safety_head", **site)

    return direction(head.understanding, "understanding"), direction(head.context, "context")


def compare_directions(directions: Mapping[str, Sequence[Direction]] | Sequence[Direction]) -> pd.DataFrame:
    """Cosine of each pair of directions, between layers and between models.

    Args:
        directions: records; or, by a name that tells them apart (a model), lists of records.

    Returns:
        One row a pair: name_a, layer_a, site_a, position_a, name_b, layer_b, site_b, position_b, cosine, d_model,
        random_low, random_high (95 % of cosines of random directions), p_value (two-sided, against such).
        ``attrs["left_out"]`` lists pairs of different widths.
    """
    named = directions if isinstance(directions, Mapping) else {"": directions}
    pairs = itertools.combinations([(name, each) for name, several in named.items() for each in several], 2)
    rows, left_out = [], {}
    for (name_a, a), (name_b, b) in pairs:
        if a.d_model != b.d_model:
            left_out[f"{name_a or a.model} and {name_b or b.model}"] = f"widths {a.d_model} and {b.d_model} differ"
            continue
        bound = float(np.sqrt(betaincinv(0.5, (a.d_model - 1) / 2, 0.95)))
        cosine = a.cosine(b)
        rows.append(
            {f"{column}_a": value for column, value in _place(name_a, a).items()}
            | {f"{column}_b": value for column, value in _place(name_b, b).items()}
            | {"cosine": cosine, "d_model": a.d_model, "random_low": -bound, "random_high": bound}
            | {"p_value": float(betaincc(0.5, (a.d_model - 1) / 2, cosine**2))}
        )
    table = pd.DataFrame(rows)
    table.attrs["left_out"] = left_out
    return table


def direction_components(directions: Direction | Sequence[Direction]) -> pd.DataFrame:
    """How close each direction lies to the first principal components of the states that it was fitted on.

    Args:
        directions: records, from :func:`fit_directions`.

    Returns:
        One row per direction and component: direction (its number), layer, site, position, component (from 1), cosine
        (its absolute value, in [0, 1]), share (of the states' variance, in [0, 1]). No row for a direction that was not
        fitted on states.
    """
    records = [directions] if isinstance(directions, Direction) else list(directions)
    rows = [
        {"direction": number} | {n: getattr(record, n) for n in ("layer", "site", "position")} | about
        for number, record in enumerate(records)
        if record.controls is not None
        for about in _components(record, record.controls)
    ]
    columns = ["direction", "layer", "site", "position", "component", "cosine", "share"]
    return pd.DataFrame(rows, columns=columns)


def _components(record: Direction, controls: Controls) -> list[dict[str, float]]:
    pairs = zip(controls.cosines(record.vector).tolist(), controls.shares.tolist(), strict=True)
    return [{"component": at, "cosine": cosine, "share": share} for at, (cosine, share) in enumerate(pairs, start=1)]


def _place(name: str, direction: Direction) -> dict[str, Any]:
    return {"name": name or direction.model} | {n: getattr(direction, n) for n in ("layer", "site", "position")}
