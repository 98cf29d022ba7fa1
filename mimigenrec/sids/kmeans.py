"""k-means by scikit-learn or faiss, on one thread: one seed and backend give one result on any number of cores."""

from typing import Literal

import numpy as np

from mimigenrec.errors import MissingPackage
from mimigenrec.extras import INSTALL_SIDS

Backend = Literal["sklearn", "faiss"]


def kmeans(vectors: np.ndarray, size: int, seed: int, backend: Backend, iterations: int) -> np.ndarray:
    """vectors (n, d) float32, n >= size -> (size, d) float32 centres. iterations: Lloyd rounds, at most."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingPackage(f"k-means needs threadpoolctl and scikit-learn or faiss; {INSTALL_SIDS}") from error
    with threadpool_limits(limits=1):  # several threads add up in another order each time
        run = _sklearn if backend == "sklearn" else _faiss
        return run(vectors, size, seed, iterations)


def _sklearn(vectors: np.ndarray, size: int, seed: int, iterations: int) -> np.ndarray:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingPackage(f"backend sklearn needs scikit-learn; {INSTALL_SIDS}") from error
    model = KMeans(size, init="k-means++", n_init=1, max_iter=iterations, random_state=seed)
    return model.fit(vectors).cluster_centers_.astype(np.float32)


def _faiss(vectors: np.ndarray, size: int, seed: int, iterations: int) -> np.ndarray:
    try:
        import faiss
    except ImportError as error:
        raise MissingPackage(f"backend faiss needs faiss-cpu; {INSTALL_SIDS}") from error
    all_of_them = {"min_points_per_centroid": 1, "max_points_per_centroid": len(vectors)}
    model = faiss.Kmeans(vectors.shape[1], size, niter=iterations, seed=seed, **all_of_them)
    model.train(np.ascontiguousarray(vectors))
    return model.centroids.copy()


def sample_rows(items: int, wanted: int, seed: int) -> np.ndarray:
    """`wanted` distinct row numbers in ascending order; all of them where there are no more."""
    if wanted >= items:
        return np.arange(items)
    return np.sort(np.random.default_rng(seed).choice(items, wanted, replace=False))
