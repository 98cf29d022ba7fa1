"""OPQ: a rotation, then k-means on each part of the dimensions. The levels are parts, not refinements of each other.

Source: Ge, He, Ke and Sun 2013, "Optimized Product Quantization", the non-parametric solution: in turns, k-means with
the rotation held, and the rotation that brings vectors nearest to their quantised selves (orthogonal Procrustes).
"""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from mimigenrec.errors import UserError
from mimigenrec.sids.kmeans import Backend, kmeans, sample_rows
from mimigenrec.sids.quantiser import Codebooks, assign, check_sizes, nearest


def fit(
    vectors: np.ndarray,
    sizes: Sequence[int],
    seed: int,
    backend: Backend = "sklearn",
    iterations: int = 100,
    points_per_code: int = 256,
    rounds: int = 20,
) -> tuple[Codebooks, np.ndarray]:
    """vectors (items, dim) float32 -> codebooks, codes (items, parts), the nearest entries.

    rounds  turns of codes, centres and rotation, between k-means at the start and k-means at the end
    raises  UserError for more codes than items or more parts than dimensions
    """
    check_sizes(sizes, len(vectors))
    if len(sizes) > vectors.shape[1]:
        raise UserError(f"opq cuts {vectors.shape[1]} dimensions into {len(sizes)} parts; give fewer --sizes")
    sample = vectors[sample_rows(len(vectors), points_per_code * max(sizes), seed)].astype(np.float32)
    mean = vectors.mean(0, dtype=np.float64).astype(np.float32)
    sample -= mean
    parts = np.array_split(np.arange(vectors.shape[1]), len(sizes))
    rotation = _shared_out(sample, len(sizes))

    def fitted(rotated: np.ndarray) -> list[np.ndarray]:
        return [
            kmeans(rotated[:, part], size, seed + level, backend, iterations)
            for level, (part, size) in enumerate(zip(parts, sizes, strict=True))
        ]

    entries = fitted(sample @ rotation)
    for _ in tqdm(range(rounds), desc="rotations", disable=None):
        rotated = sample @ rotation
        quantised = np.empty_like(rotated)
        for part, book in zip(parts, entries, strict=True):
            codes = nearest(rotated[:, part], book)
            used, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
            sums = np.zeros((len(used), len(part)))
            np.add.at(sums, place, rotated[:, part])
            book[used] = sums / counts[:, None]
            quantised[:, part] = book[codes]
        left, _, right = np.linalg.svd(sample.T @ quantised)
        rotation = (left @ right).astype(np.float32)
    levels = []
    for part, book in zip(parts, fitted(sample @ rotation), strict=True):
        levels.append(np.zeros((len(book), vectors.shape[1]), np.float32))
        levels[-1][:, part] = book
    codebooks = Codebooks("opq", levels, {"mean": mean, "rotation": rotation}, {"backend": backend})
    return codebooks, assign(codebooks, vectors)


def _shared_out(centred: np.ndarray, parts: int) -> np.ndarray:
    """(n, dim) -> (dim, dim) rotation onto the principal axes, dealt out: each part gets strong and weak ones."""
    axes = np.linalg.svd(centred.T @ centred)[0]
    dealt = np.concatenate([np.arange(first, len(axes), parts) for first in range(parts)])
    return axes[:, dealt].astype(np.float32)
