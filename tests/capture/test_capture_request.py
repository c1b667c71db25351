"""What may be asked, and which sites a request returns."""

from __future__ import annotations

import pytest

from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.places import Place
from safekey_interp.errors import InputError


def test_all_layers_end_in_the_final_norm() -> None:
    sites = CaptureRequest().sites(3)
    assert sites == (*(Place(layer, "resid_post") for layer in range(3)), Place(3, "ln_final"))


def test_the_final_norm_comes_with_the_last_layer() -> None:
    assert CaptureRequest(layers=(2,)).sites(3) == (Place(2, "resid_post"), Place(3, "ln_final"))
    assert CaptureRequest(layers=(0, 1)).sites(3) == (Place(0, "resid_post"), Place(1, "resid_post"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_random": 0}, "n_random: got 0, expected at least 1"), ({"seed": -1}, "seed: got -1, expected 0 or more")],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CaptureRequest(**options)
