"""Vectors whose structure is known, and the catalogue of tests/vectors."""

import numpy as np
import pytest

from tests.vectors.conftest import shop  # noqa: F401


def tree_of_gaussians(branches=(4, 3), per_leaf=20, noise=0.05, dim=16, seed=0):
    """(items, dim) float32, (items, levels) truth: level-1 centres far apart, the same level-2 offsets below each."""
    rng = np.random.default_rng(seed)
    scales = [10.0 / 4**level for level in range(len(branches))]
    axes = np.linalg.qr(rng.normal(size=(dim, dim)))[0]  # orthogonal offsets: no two paths end near each other
    starts = np.cumsum([0, *branches])
    offsets = [scale * axes[start : start + n] for scale, start, n in zip(scales, starts, branches, strict=False)]
    truth = np.stack(np.meshgrid(*map(np.arange, branches), indexing="ij"), -1).reshape(-1, len(branches))
    truth = np.repeat(truth, per_leaf, axis=0)
    truth = truth[rng.permutation(len(truth))]
    vectors = sum(offset[truth[:, level]] for level, offset in enumerate(offsets))
    return (vectors + noise * rng.normal(size=vectors.shape)).astype(np.float32), truth


@pytest.fixture(scope="session")
def mixture():
    return tree_of_gaussians()
