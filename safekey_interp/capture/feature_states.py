"""Storage of features of positions until they are probed: sparse, as most latents of a sparse autoencoder are 0.

One safetensors file a chunk of traces holds, for each position, the arrays of a sparse matrix (compressed rows) and
which traces have the position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from safekey_interp.capture.feature_maps import FeatureMap
from safekey_interp.capture.hidden_states import States
from safekey_interp.capture.places import Place
from safekey_interp.runs.storage import save_tensors

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from safekey_interp.capture.streaming import Entry

SITE = "sae"
"""What tables call the place of an SAE's latents; its layer is the one that it reads."""
_PARTS = ("data", "indices", "indptr", "shape", "present")


class FeatureStates(States):
    """Features of traces, averaged over each position, in files; they are probed as hidden states are."""

    def __init__(
        self,
        files: Sequence[Path],
        trace_ids: Sequence[str],
        features: FeatureMap,
        positions: Sequence[str],
        **about: Any,
    ) -> None:
        super().__init__(files, trace_ids, (Place(features.layer, SITE),), positions, **about)

    def matrix(self, layer_index: int, position: str) -> Float32[np.ndarray, "n active"]:
        """Features that are not 0 in every trace, one column each; a NaN row where a trace lacks the position.

        The others are constant: no probe reads them.
        """
        return self.active(position)[1]

    def active(self, position: str) -> tuple[Int[np.ndarray, " active"], Float32[np.ndarray, "n active"]]:
        """Numbers of the features that are not 0 in every trace (at least one), and their columns of :meth:`matrix`."""
        import scipy.sparse

        parts = [_read(file, position) for file in self.files]
        whole = scipy.sparse.csc_array(scipy.sparse.vstack([matrix for matrix, _ in parts]))
        numbers = np.flatnonzero(np.diff(whole.indptr))
        numbers = numbers if len(numbers) else np.zeros(1, int)
        dense = whole[:, numbers].toarray()
        dense[~np.concatenate([present for _, present in parts])] = np.nan
        return numbers, dense


def write_features(file: Path, entries: Iterable[Entry], positions: Sequence[str]) -> None:
    """Write the features of the measured entries, in order."""
    import scipy.sparse

    measured = [entry.measured.features for entry in entries if entry.measured is not None]
    of_traces = np.stack([features for features in measured if features is not None])
    tensors: dict[str, Any] = {}
    for number, position in enumerate(positions):
        rows = of_traces[:, number]
        present = np.asarray(~np.isnan(rows).all(axis=1))
        matrix = scipy.sparse.csr_array(np.where(present[:, None], rows, 0.0))
        arrays = (matrix.data, matrix.indices, matrix.indptr, np.array(matrix.shape), present)
        tensors |= {f"{name}/{position}": array for name, array in zip(_PARTS, arrays, strict=True)}
    save_tensors(file, tensors)


def _read(file: Path, position: str) -> tuple[csr_array, Bool[np.ndarray, " n"]]:
    import scipy.sparse
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        data, indices, indptr, shape, present = (tensors.get_tensor(f"{name}/{position}") for name in _PARTS)
    return scipy.sparse.csr_array((data, indices, indptr), shape=tuple(shape)), present
