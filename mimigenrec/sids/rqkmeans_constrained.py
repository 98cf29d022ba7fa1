"""RQ-KMeans with clusters of equal size at every level, over all items of the level.

Lloyd rounds in which the items are shared out evenly (sids/balanced.py) start from ordinary k-means centres. Each
level is even over the whole catalogue; within one level-1 code the level-2 codes need not be. New items go to the
nearest entries, so `assign` gives training items the codes of `fit` only where evenness did not push them elsewhere.
Source: balanced residual k-means of OneRec, Deng et al. 2025, arXiv:2502.18965, algorithm 1; the even sharing is ours.
"""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from mimigenrec.sids.balanced import balanced_codes
from mimigenrec.sids.kmeans import Backend, kmeans, sample_rows
from mimigenrec.sids.quantiser import Codebooks, check_sizes, squared_distances


def fit(
    vectors: np.ndarray,
    sizes: Sequence[int],
    seed: int,
    backend: Backend = "sklearn",
    iterations: int = 100,
    points_per_code: int = 256,
    rounds: int = 10,
) -> tuple[Codebooks, np.ndarray]:
    """vectors (items, dim) float32 -> codebooks, codes (items, levels), each code of a level used equally often (+-1).

    iterations, points_per_code  of the k-means at the start          rounds  of even sharing and new centres
    Needs memory for (items, largest size) float32 beside the vectors. Raises UserError for more codes than items.
    """
    check_sizes(sizes, len(vectors))
    left = np.array(vectors, dtype=np.float32)
    levels, codes = [], np.empty((len(left), len(sizes)), np.int32)
    with tqdm(total=len(sizes) * rounds, desc="rounds", disable=None) as bar:
        for level, size in enumerate(sizes):
            sample = left[sample_rows(len(left), points_per_code * size, seed + level)]
            centres, prices = kmeans(sample, size, seed + level, backend, iterations), None
            for _ in range(rounds):
                codes[:, level], prices = balanced_codes(squared_distances(left, centres), prices)
                centres = means(left, codes[:, level], size)
                bar.update()
            levels.append(centres)
            left -= centres[codes[:, level]]
    return Codebooks("rqkmeans_constrained", levels, about={"backend": backend}), codes


def means(vectors: np.ndarray, codes: np.ndarray, size: int) -> np.ndarray:
    """(n, d), codes (n,) with every code used -> (size, d) float32."""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(size))
    counts = np.bincount(codes, minlength=size)[:, None]
    return (np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64) / counts).astype(np.float32)
