"""Names of the built-in estimators of probes, in a module that loads no library, for settings and commands."""

from __future__ import annotations

from typing import Literal

EstimatorName = Literal["logistic", "mass_mean", "lda"]
"""Estimators of :mod:`safekey_interp.measures.estimators` that have a name."""
