"""Stand-ins of small packages do what these do, for every pattern that the package has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import einops
import lazy_loader
import numpy as np
import pytest
import torch

import safekey_interp.capture
from analysis.cost import stand_ins

SOURCES = Path(safekey_interp.__file__).parent
CALL = re.compile(r'\b(rearrange|reduce|repeat)\([^"\n]*"([^"{]*->[^"{]*)"')
PATTERNS = sorted({found for file in SOURCES.rglob("*.py") for found in CALL.findall(file.read_text())})
PRODUCTS = sorted(
    {p for file in SOURCES.rglob("*.py") for p in re.findall(r'"([a-z_ ,]+, [a-z_ ]+->[a-z_ ]+)"', file.read_text())}
)
SIZES = (2, 3, 4, 5)


def shape_and_sizes(pattern: str) -> tuple[list[int], dict[str, int]]:
    """A shape that fits the left side, and sizes for what the right side or parentheses need."""
    left, right = pattern.split("->")
    every = dict.fromkeys(name for name in re.findall(r"[a-z_]\w*", pattern))
    size = {name: SIZES[number % len(SIZES)] for number, name in enumerate(every)}
    shape = [
        int(np.prod([size[name] for name in re.findall(r"[a-z_]\w*", group)]))
        for group in re.findall(r"\([^)]*\)|\w+", left)
    ]
    inside = [name for group in re.findall(r"\(([^)]*)\)", left) for name in group.split()[1:]]
    new = [name for name in re.findall(r"[a-z_]\w*", right) if name not in re.findall(r"[a-z_]\w*", left)]
    return shape, {name: size[name] for name in (*inside, *new)}


def test_patterns_were_found() -> None:
    assert len(PATTERNS) > 20
    assert len(PRODUCTS) > 5


@pytest.mark.parametrize("array", [torch.randn, np.random.default_rng(0).standard_normal])
@pytest.mark.parametrize(("function", "pattern"), PATTERNS)
def test_axes_are_moved_as_einops_moves_them(function: str, pattern: str, array: Any) -> None:
    shape, sizes = shape_and_sizes(pattern)
    value = array(shape)
    ways = ("sum", "mean", "max") if function == "reduce" else (None,)
    for way in ways:
        how = () if way is None else (way,)
        ours = getattr(stand_ins, function)(value, pattern, *how, **sizes)
        np.testing.assert_allclose(
            np.asarray(ours), np.asarray(getattr(einops, function)(value, pattern, *how, **sizes))
        )


@pytest.mark.parametrize("pattern", PRODUCTS)
def test_products_are_those_of_einops(pattern: str) -> None:
    names = dict.fromkeys(re.findall(r"\w+", pattern))
    size = {name: SIZES[number % len(SIZES)] for number, name in enumerate(names)}
    values = [
        torch.randn([size[name] for name in term.split()]) for term in pattern.split("->", maxsplit=1)[0].split(",")
    ]
    torch.testing.assert_close(stand_ins.einsum(*values, pattern), einops.einsum(*values, pattern))


def test_a_stub_file_gives_the_same_names() -> None:
    package, file = "safekey_interp.capture", safekey_interp.capture.__file__
    get, _, names = stand_ins.attach_stub(package, file)
    _, _, expected = lazy_loader.attach_stub(package, file)
    assert sorted(names) == sorted(expected)
    assert get("capture") is safekey_interp.capture.capture
    with pytest.raises(AttributeError, match="nothing"):
        get("nothing")


def test_nothing_is_put_in_the_place_of_what_is_installed() -> None:
    assert stand_ins.install() == []
