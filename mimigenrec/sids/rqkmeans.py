"""RQ-KMeans: k-means on the vectors, then on what the first level left over, and so on.

Source: residual quantisation by k-means, Chen, Guan and Wang 2010 (Sensors 10, 11259); as semantic IDs in OneRec, Deng
et al. 2025, arXiv:2502.18965.
"""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from mimigenrec.sids.kmeans import Backend, kmeans, sample_rows
from mimigenrec.sids.quantiser import Codebooks, assign, check_sizes, nearest


def fit(
    vectors: np.ndarray,
    sizes: Sequence[int],
    seed: int,
    backend: Backend = "sklearn",
    iterations: int = 100,
    points_per_code: int = 256,
) -> tuple[Codebooks, np.ndarray]:
    """vectors (items, dim) float32 -> codebooks, codes (items, levels), the nearest entries.

    points_per_code  k-means sees at most this many random items per code of the largest level (256 is what faiss does)
    raises           UserError for more codes than items
    """
    check_sizes(sizes, len(vectors))
    levels = []
    left = vectors[sample_rows(len(vectors), points_per_code * max(sizes), seed)].astype(np.float32)  # a copy
    for level, size in enumerate(tqdm(sizes, desc="levels", disable=None)):
        levels.append(kmeans(left, size, seed + level, backend, iterations))
        left -= levels[-1][nearest(left, levels[-1])]
    codebooks = Codebooks("rqkmeans", levels, about={"backend": backend})
    return codebooks, assign(codebooks, vectors)
