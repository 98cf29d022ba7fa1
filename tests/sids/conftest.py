"""Vectors whose structure is known, and a small catalogue in files."""

import json

import numpy as np
import pytest


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


def items_file(path, texts):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({item: {"title": text} for item, text in texts.items()}))
    return path


NOUNS = ["hammer", "saw", "glove", "lamp", "pump", "valve"]
KINDS = ["red steel", "blue rubber", "long wooden", "small brass"]


@pytest.fixture
def shop(tmp_path):
    """C.item.json with 24 items, "0" .. "23"; the last two have one text."""
    texts = {str(i): f"{KINDS[i % 4]} {NOUNS[i // 4]} model {i}" for i in range(23)}
    return items_file(tmp_path / "C.item.json", texts | {"23": texts["22"]})
