"""Colour differences for normal and dichromatic vision, and contrast of text."""

from __future__ import annotations

import numpy as np

# Linear RGB to linear RGB as seen with a missing cone, severity 1 (Machado, Oliveira and Fernandes 2009, table 1).
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Linear RGB to LMS and LMS to Lab of OKLab (Ottosson 2020).
TO_LMS = [
    [0.41222147, 0.53633254, 0.05144599],
    [0.21190350, 0.68069955, 0.10739696],
    [0.08830246, 0.28171884, 0.62997870],
]
TO_LAB = [
    [0.21045426, 0.79361779, -0.00407205],
    [1.97799850, -2.42859221, 0.45059371],
    [0.02590404, 0.78277177, -0.80867577],
]


def linear(color: str) -> np.ndarray:
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(color: str, vision: str = "normal") -> np.ndarray:
    """OKLab times 100 of a colour (#rrggbb) as an eye sees it."""
    rgb = np.clip(np.array(VISION[vision]) @ linear(color), 0, 1)
    return 100 * np.array(TO_LAB) @ np.cbrt(np.array(TO_LMS) @ rgb)


def apart(one: str, other: str, vision: str) -> float:
    """Distance of two colours as an eye sees them."""
    return float(np.linalg.norm(lab(one, vision) - lab(other, vision)))
