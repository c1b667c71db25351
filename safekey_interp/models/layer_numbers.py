"""Numbers of layers as a user gives them."""

from __future__ import annotations

from collections.abc import Sequence

from safekey_interp.errors import InputError


def layer_numbers(layers: Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    """The layers asked for, negative ones counted from the last.

    Returns:
        Their numbers from 0, ascending, each once; all when None.

    Raises:
        InputError: a layer that the model does not have.
    """
    if layers is None:
        return tuple(range(n_layers))
    if isinstance(layers, int | str):
        raise InputError(f"layers: got {layers!r}, expected a list such as [{layers}]")
    asked = sorted({layer + n_layers if layer < 0 else layer for layer in layers})
    if not asked or asked[0] < 0 or asked[-1] >= n_layers:
        raise InputError(f"layers: got {list(layers)}, expected some of 0 to {n_layers - 1}, or -1 for the last")
    return tuple(asked)
