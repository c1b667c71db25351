"""Rows of measured claims of a made-up model."""

from __future__ import annotations

from analysis.paper.verdicts import Measured


def measured(claim: str, value: float, low: float, high: float, evidence: str = "", **more) -> Measured:
    about = {"model": "m", "n": 40, "n_groups": 20, "toy": False}
    return Measured(claim=claim, evidence=evidence, value=value, low=low, high=high, **(about | more))
