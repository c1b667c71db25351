"""Silhouette and principal components are scikit-learn's, and undefined where nothing varies."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from safekey_interp.measures.layer_scores import principal_components, silhouette


@pytest.mark.parametrize(("n", "d"), [(30, 60), (60, 10)])
def test_silhouette_and_components_are_scikit_learns(n, d):
    rng = np.random.default_rng(0)
    positive = rng.random(n) < 0.4
    rows = rng.normal(size=(n, d)) * np.linspace(5, 1, d) + positive[:, None]
    rows -= rows.mean(0)
    assert silhouette(rows, positive) == pytest.approx(silhouette_score(rows, positive), abs=1e-9)
    expected = PCA(2, svd_solver="full").fit_transform(rows)
    found = principal_components(rows)
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-8)
    assert (found[np.abs(found).argmax(0), [0, 1]] > 0).all()
    assert np.array_equal(found, principal_components(rows)), "repeats to the bit"


def test_undefined_geometry_is_nan():
    rows = np.random.default_rng(0).normal(size=(6, 4))
    assert np.isnan(silhouette(rows, np.array([True] * 6)))
    assert np.isnan(silhouette(rows, np.array([True] * 5 + [False])))
    assert np.isnan(silhouette(np.zeros((6, 4)), np.array([True, False] * 3)))
    assert np.isnan(principal_components(np.zeros((6, 4)))).all()
    assert np.isnan(principal_components(rows[:, :2])).all()
